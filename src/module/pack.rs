//! Makes of an image what a target needs: small, and compressed where that can be undone there.
//! The work is the local gzip's; the stock agent does not carry this.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::error::{ConnectFailure, Exit};
use crate::module::content::{Content, Parcel};
use crate::module::images::unreadable;
use crate::module::minimize::minimized;
use crate::module::{elf, target};
use crate::sys::errno::Errno;
use crate::sys::spawn::{Program, Spawn, spawn};
use crate::sys::{fd, memfd};

/// The first bytes of gzip's output.
pub const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Makes of an image for `target`, which is gzip's output if `gzipped`, what is plain unless
/// `gzip`. What is plain is minimized first; without a local gzip it stays plain.
///
/// # Errors
/// Why it cannot be made plain, that it is no executable for the target, or what the system
/// refuses.
pub fn make(
    image: &Content,
    target: &str,
    gzipped: bool,
    gzip: bool,
) -> Result<Parcel, ConnectFailure> {
    match gzipped {
        true => match by_local_gzip(c"-dc", image) {
            Ok(plain) => {
                check(&plain, target)?;
                Ok(match gzip {
                    true => Parcel { content: image.clone(), gzipped },
                    false => parcel(minimized(plain), false),
                })
            }
            // Then nobody here can look into it.
            Err(Errno::NOENT) if gzip => Ok(Parcel { content: image.clone(), gzipped }),
            Err(Errno::NOENT) => Err(ConnectFailure::ImageUnusable(
                "the image is compressed and there is no gzip here".to_owned(),
            )),
            Err(errno) => Err(unreadable(errno)),
        },
        false => {
            let plain = image.to_vec().map_err(unreadable)?;
            check(&plain, target)?;
            let small = parcel(minimized(plain), false);
            let packed = if gzip { by_local_gzip(c"-1c", &small.content).ok() } else { None };
            Ok(packed.map_or(small, |packed| parcel(packed, true)))
        }
    }
}

/// Fails unless a plain image is an executable of the target's CPU: some shells would run anything
/// else as a script.
///
/// # Errors
/// `ImageUnusable`, which says what it is.
pub fn check(plain: &[u8], target: &str) -> Result<(), ConnectFailure> {
    let known = target::canonical(target).is_some() && !target.starts_with("macos-");
    let why = match elf::parse(plain) {
        _ if !known => return Ok(()),
        Some(elf) if target.ends_with(&["-", elf.cpu].concat()) => return Ok(()),
        Some(elf) => ["is for ", elf.cpu].concat(),
        None => "is no executable".to_owned(),
    };
    Err(ConnectFailure::ImageUnusable(["the image for ", target, " ", &why].concat()))
}

fn parcel(bytes: Vec<u8>, gzipped: bool) -> Parcel {
    Parcel { content: Content::Heap(Arc::new(bytes)), gzipped }
}

/// What a local gzip makes of it; NOENT if there is none, IO if it fails.
fn by_local_gzip(option: &CStr, image: &Content) -> Result<Vec<u8>, Errno> {
    let input = image.to_file()?;
    fd::rewind(input.as_fd())?;
    let output = memfd::memfd(c"mitogen-image")?;
    let null = fd::open_null()?;
    let argv = [c"gzip".to_owned(), option.to_owned()];
    let stdio = [input.as_fd(), output.as_fd(), null.as_fd()];
    let gzip = Spawn::new(Program::Search(c"gzip"), &argv, stdio);
    let process = spawn(&Spawn { die_with_parent: true, ..gzip });
    let exit = process.map_err(|error| error.errno)?.wait();
    if exit != Ok(Exit::Code(0)) {
        return Err(Errno::IO);
    }
    all_of(&output)
}

fn all_of(file: &OwnedFd) -> Result<Vec<u8>, Errno> {
    fd::rewind(file.as_fd())?;
    fd::read_to_end(file.as_fd(), usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A target of which nobody knows what its executables look like.
    const NAME: &str = "plan9-vax";

    fn content(parcel: &Parcel) -> Vec<u8> {
        parcel.content.to_vec().unwrap()
    }

    #[test]
    fn an_image_is_packed_and_unpacked_as_wanted() {
        let plain = Content::Heap(Arc::new(b"agent".repeat(1000)));
        let packed = make(&plain, NAME, false, true).unwrap();
        assert!(packed.gzipped && content(&packed).starts_with(&GZIP));
        assert!(packed.content.len() < 1000);
        let again = make(&packed.content, NAME, true, false).unwrap();
        assert!(!again.gzipped);
        assert_eq!(content(&again), plain.to_vec().unwrap());
        for (image, gzipped) in [(&plain, false), (&packed.content, true)] {
            let same = make(image, NAME, gzipped, gzipped).unwrap();
            assert_eq!((content(&same), same.gzipped), (image.to_vec().unwrap(), gzipped));
        }
    }

    #[test]
    fn what_is_no_executable_for_its_target_is_refused_in_every_form() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let own = Content::Heap(Arc::new(own));
        let zeros = Content::Static(&[0; 5000]);
        let other = if target::own() == "linux-arm" { "linux-x86" } else { "linux-arm" };
        for (image, target, says) in [
            (&own, other, "is for "),
            (&zeros, other, "is no executable"),
            (&zeros, "freebsd-x86_64", "is no executable"),
        ] {
            let packed = make(image, NAME, false, true).unwrap().content;
            for (image, gzipped) in [(image, false), (&packed, true)] {
                for gzip in [false, true] {
                    let failure = make(image, target, gzipped, gzip).map(drop).unwrap_err();
                    assert!(failure.to_string().contains(says), "{failure}");
                }
            }
        }
    }

    #[test]
    fn what_gzip_did_not_make_cannot_be_unpacked() {
        let failure = make(&Content::Static(b"\x1f\x8bnonsense"), NAME, true, false).map(drop);
        assert_eq!(failure, Err(unreadable(Errno::IO)));
    }
}
