//! The images that a context may start children from, and how each gets to run.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{ConnectFailure, Error, Result};
use crate::module::elf::{self, Elf};
use crate::module::target;
use crate::sys::errno::{self, Errno};
use crate::sys::spawn::{Program, Spawn, spawn};
use crate::sys::{fd, memfd};

/// The first bytes of gzip's output.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Bytes of an executable's head that hold its headers.
const HEAD_BYTES: usize = 4096;

/// An agent's executable for one OS and CPU.
#[derive(Clone)]
pub struct Image {
    /// `<os>-<cpu>`.
    target: String,
    bytes: Bytes,
    /// Whether it needs the libraries of the machine that it was built on.
    dynamic: bool,
}

#[derive(Clone)]
enum Bytes {
    Static(&'static [u8]),
    Shared(Arc<[u8]>),
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Bytes::Static(bytes) => bytes,
            Bytes::Shared(bytes) => bytes,
        }
    }
}

/// Whether a process may start copies of its own executable.
#[derive(Clone, Debug, Default)]
pub enum Own {
    /// It may not: nobody has said that its `main` can be an agent's.
    #[default]
    Unknown,
    /// It entered `Program::run`, or it is an agent.
    Entered,
    /// It is a test binary: these arguments lead a copy to the agent, and this variable tells it.
    Test(Vec<CString>),
}

/// All images that a context can start children from.
#[derive(Default)]
pub struct Images {
    given: Vec<Image>,
    own: Own,
    /// The own executable, once it was read, for targets without and with gzip; compressed for the
    /// latter, where a local gzip could.
    read: Mutex<[Option<Parcel>; 2]>,
}

/// An image, ready to be sent.
#[derive(Clone)]
pub struct Parcel {
    /// What is sent.
    pub bytes: Arc<[u8]>,
    /// Whether that is gzip's output.
    pub gzipped: bool,
}

/// An image, ready to be executed here.
pub struct Launch {
    /// The open file.
    pub file: OwnedFd,
    /// Arguments that lead it to the agent, in place of the agent word: a test binary's.
    pub test_args: Option<Vec<CString>>,
}

impl Image {
    /// An executable of this library, read from a file; for the OS of this process.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind) if it cannot be read or is no executable.
    pub fn file(path: impl AsRef<Path>) -> Result<Image> {
        let path = path.as_ref();
        let unusable = |why: &str| {
            Error::usage(["the image ", &path.to_string_lossy(), " cannot be used: ", why].concat())
        };
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| unusable("a NUL"))?;
        let bytes = fd::open_read(&name)
            .and_then(|file| fd::read_to_end(file.as_fd(), usize::MAX))
            .map_err(|Errno(errno)| unusable(&crate::error::strerror(errno)))?;
        let elf = elf::parse(&bytes).ok_or_else(|| unusable("it is no executable"))?;
        let target = [std::env::consts::OS, "-", elf.cpu].concat();
        Ok(Image { target, bytes: Bytes::Shared(bytes.into()), dynamic: elf.dynamic })
    }

    /// A static executable that this program carries, for `<os>-<cpu>`; compressed by gzip or not.
    /// Give both, and none has to be unpacked where it is needed plain: for `local` contexts, and
    /// for targets without gzip.
    pub fn embedded(target: &str, bytes: &'static [u8]) -> Image {
        Image { target: target.to_owned(), bytes: Bytes::Static(bytes), dynamic: false }
    }
}

impl Images {
    /// These images, and the own executable as far as `own` lets it.
    pub fn new(given: Vec<Image>, own: Own) -> Images {
        Images { given, own, read: Mutex::default() }
    }

    /// What to send to a target of this name. `same_root` tells that it has this machine's files.
    ///
    /// # Errors
    /// Why there is no image.
    pub fn parcel(
        &self,
        target: &str,
        gzip: bool,
        same_root: bool,
    ) -> Result<Parcel, ConnectFailure> {
        if let Some(image) = self.given(target, gzip) {
            if image.dynamic && !same_root {
                return Err(dynamic());
            }
            return image.parcel(gzip);
        }
        if !self.given.is_empty() || target != target::own() {
            return Err(self.none_for(target));
        }
        match &self.own {
            Own::Unknown => Err(no_own()),
            Own::Test(_) => Err(ConnectFailure::ImageUnusable(
                "a test's own executable serves only `local`; give an image, as in \
                 program.image(Image::file(env!(\"CARGO_BIN_EXE_name\"))?)"
                    .to_owned(),
            )),
            Own::Entered => self.own_parcel(gzip, same_root),
        }
    }

    /// What to execute here, without a shell.
    ///
    /// # Errors
    /// Why there is no image, or why this system refuses to make it a file.
    pub fn launch(&self) -> Result<Launch, ConnectFailure> {
        let here = target::own();
        if let Some(image) = self.given(&here, false) {
            return image.launch();
        }
        let test_args = match &self.own {
            Own::Unknown if self.given.is_empty() => return Err(no_own()),
            Own::Unknown => return Err(self.none_for(&here)),
            Own::Entered => None,
            Own::Test(args) => Some(args.clone()),
        };
        let file = fd::open_self_exe().map_err(unreadable)?;
        Ok(Launch { file, test_args })
    }

    /// The image for a target; of two the one that is compressed as wanted.
    fn given(&self, target: &str, gzipped: bool) -> Option<&Image> {
        let mut all = self.given.iter().filter(|image| image.target == target);
        let first = all.next();
        let other = || all.find(|image| image.is_gzipped() == gzipped);
        first.filter(|image| image.is_gzipped() == gzipped).or_else(other).or(first)
    }

    fn none_for(&self, target: &str) -> ConnectFailure {
        let mut available = String::new();
        for (i, image) in self.given.iter().enumerate() {
            if self.given[..i].iter().any(|earlier| earlier.target == image.target) {
                continue;
            }
            if !available.is_empty() {
                available.push(' ');
            }
            available.push_str(&image.target);
        }
        if self.given.is_empty() && matches!(self.own, Own::Entered) {
            available = target::own();
        }
        ConnectFailure::NoImage { target: target.to_owned(), available }
    }

    /// Compresses the own executable by the local gzip, if it will be sent. That takes a while, so
    /// it is done by whoever asks for a connection, and never by the broker.
    pub fn prepare(&self, same_root: bool) {
        if !self.given.is_empty() || !matches!(self.own, Own::Entered) {
            return;
        }
        let mut read = self.read();
        if read[1].is_none() {
            let Ok(file) = own_file(same_root) else { return };
            let packed = by_local_gzip(&[c"gzip".into(), c"-1".into()], &file);
            read[1] = packed.map(|bytes| Parcel { bytes: bytes.into(), gzipped: true });
        }
    }

    fn own_parcel(&self, gzip: bool, same_root: bool) -> Result<Parcel, ConnectFailure> {
        let file = own_file(same_root)?;
        let mut read = self.read();
        if let (true, Some(parcel)) = (gzip, &read[1]) {
            return Ok(parcel.clone());
        }
        if let Some(parcel) = &read[0] {
            return Ok(parcel.clone());
        }
        let bytes = fd::read_to_end(file.as_fd(), usize::MAX).map_err(unreadable)?;
        let parcel = Parcel { bytes: bytes.into(), gzipped: false };
        read[0] = Some(parcel.clone());
        Ok(parcel)
    }

    fn read(&self) -> MutexGuard<'_, [Option<Parcel>; 2]> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The own executable, if it may go to a target.
fn own_file(same_root: bool) -> Result<OwnedFd, ConnectFailure> {
    let file = fd::open_self_exe().map_err(unreadable)?;
    let mut head = [0; HEAD_BYTES];
    let count = fd::pread(file.as_fd(), &mut head, 0).map_err(unreadable)?;
    let elf = elf::parse(&head[..count]);
    if elf.is_none_or(|Elf { dynamic, .. }| dynamic) && !same_root {
        return Err(dynamic());
    }
    Ok(file)
}

impl Image {
    fn is_gzipped(&self) -> bool {
        self.bytes.as_ref().starts_with(&GZIP)
    }

    fn parcel(&self, gzip: bool) -> Result<Parcel, ConnectFailure> {
        let gzipped = self.is_gzipped();
        if gzipped && !gzip {
            let bytes = self.plain()?;
            return Ok(Parcel { bytes: bytes.into(), gzipped: false });
        }
        let bytes = match &self.bytes {
            Bytes::Static(bytes) => Arc::from(*bytes),
            Bytes::Shared(bytes) => bytes.clone(),
        };
        Ok(Parcel { bytes, gzipped })
    }

    fn launch(&self) -> Result<Launch, ConnectFailure> {
        let file = memfd::memfd(c"mitogen-agent").map_err(unreadable)?;
        let plain;
        let bytes = match self.is_gzipped() {
            true => {
                plain = self.plain()?;
                &plain
            }
            false => self.bytes.as_ref(),
        };
        fd::write_all(file.as_fd(), bytes).map_err(unreadable)?;
        Ok(Launch { file, test_args: None })
    }

    /// The image uncompressed, by the local gzip.
    fn plain(&self) -> Result<Vec<u8>, ConnectFailure> {
        let packed = memfd::memfd(c"mitogen-image").map_err(unreadable)?;
        fd::write_all(packed.as_fd(), self.bytes.as_ref()).map_err(unreadable)?;
        fd::rewind(packed.as_fd()).map_err(unreadable)?;
        by_local_gzip(&[c"gzip".into(), c"-dc".into()], &packed).ok_or_else(|| {
            ConnectFailure::ImageUnusable(
                "the image is compressed and there is no gzip here".into(),
            )
        })
    }
}

/// What a local gzip makes of a file; `None` if there is no gzip, or it fails.
fn by_local_gzip(argv: &[CString], input: &OwnedFd) -> Option<Vec<u8>> {
    let output = memfd::memfd(c"mitogen-image").ok()?;
    let null = fd::open_null().ok()?;
    let stdio = [input.as_fd(), output.as_fd(), null.as_fd()];
    let mut process = spawn(&Spawn::new(Program::Search(c"gzip"), argv, stdio)).ok()?;
    if process.wait() != Ok(crate::error::Exit::Code(0)) {
        return None;
    }
    fd::rewind(output.as_fd()).ok()?;
    fd::read_to_end(output.as_fd(), usize::MAX).ok()
}

fn unreadable(Errno(errno): errno::Errno) -> ConnectFailure {
    ConnectFailure::Spawn(errno)
}

fn no_own() -> ConnectFailure {
    ConnectFailure::ImageUnusable(
        "there is no image to start an agent from: enter main by Program::run, or in a test give \
         an image with program.image(Image::file(env!(\"CARGO_BIN_EXE_name\"))?) or write \
         mitogen::test_agent!(program())"
            .to_owned(),
    )
}

fn dynamic() -> ConnectFailure {
    ConnectFailure::ImageUnusable(
        "a dynamic executable does not run on other machines; build a static one: \
         RUSTFLAGS=-Ctarget-feature=+crt-static cargo build --release --target \
         x86_64-unknown-linux-gnu, or for the musl target"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is sent of these images.
    #[track_caller]
    fn assert_sent(given: &[&'static [u8]], gzip: bool, expected: &[u8]) {
        let given = given.iter().map(|bytes| Image::embedded("linux-x86_64", bytes)).collect();
        let images = Images::new(given, Own::Entered);
        let Ok(Parcel { bytes, gzipped }) = images.parcel("linux-x86_64", gzip, false) else {
            panic!("no parcel")
        };
        assert_eq!((&*bytes, gzipped), (expected, expected.starts_with(&GZIP)));
    }

    #[test]
    fn of_two_images_the_one_is_sent_that_serves_best() {
        let (plain, packed) = (&b"plain"[..], &b"\x1f\x8bpacked"[..]);
        for both in [[plain, packed], [packed, plain]] {
            assert_sent(&both, true, packed);
            assert_sent(&both, false, plain);
        }
        assert_sent(&[plain], true, plain);
    }

    #[test]
    fn what_is_missing_names_each_target_once() {
        let image = |target| Image::embedded(target, b"");
        let given = vec![image("linux-arm"), image("linux-x86"), image("linux-arm")];
        let Err(error) = Images::new(given, Own::Entered).parcel("linux-s390x", true, true) else {
            panic!("a parcel")
        };
        assert!(error.to_string().contains("there are: linux-arm linux-x86;"), "{error}");
    }

    const OTHER: &str = "plan9-vax";

    /// What `gzip` makes of it.
    fn packed(bytes: &[u8]) -> &'static [u8] {
        let file = memfd::memfd(c"test").unwrap();
        fd::write_all(file.as_fd(), bytes).unwrap();
        fd::rewind(file.as_fd()).unwrap();
        by_local_gzip(&[c"gzip".into(), c"-c".into()], &file).unwrap().leak()
    }

    fn own_image() -> Image {
        Image::file("/proc/self/exe").unwrap()
    }

    fn all_owns() -> [Own; 3] {
        [Own::Unknown, Own::Entered, Own::Test(vec![c"--exact".into()])]
    }

    /// What is sent to targets with and without gzip, as what it is before it is compressed.
    #[track_caller]
    fn sends(images: &Images, target: &str, same_root: bool, expected: &[u8]) {
        for gzip in [true, false, true] {
            let parcel = images.parcel(target, gzip, same_root).map_err(|e| format!("{e:?}"));
            let parcel = parcel.unwrap();
            assert!(gzip || !parcel.gzipped);
            let image =
                Image { target: String::new(), bytes: Bytes::Shared(parcel.bytes), dynamic: false };
            assert_eq!(image.is_gzipped(), parcel.gzipped);
            let plain =
                if parcel.gzipped { image.plain().unwrap() } else { image.bytes.as_ref().to_vec() };
            assert!(plain == expected);
        }
    }

    #[track_caller]
    fn is_unusable(images: &Images, target: &str, same_root: bool, says: &str) {
        for gzip in [true, false] {
            match images.parcel(target, gzip, same_root).map(drop) {
                Err(ConnectFailure::ImageUnusable(why)) => assert!(why.contains(says), "{why}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[track_caller]
    fn is_none(images: &Images, target: &str, there: &str) {
        for (gzip, same_root) in [(true, true), (true, false), (false, true), (false, false)] {
            let failure = images.parcel(target, gzip, same_root).map(drop).unwrap_err();
            let (target, available) = (target.to_owned(), there.to_owned());
            assert_eq!(failure, ConnectFailure::NoImage { target, available });
        }
    }

    #[test]
    fn a_given_image_goes_to_its_target_whatever_this_program_is() {
        for own in all_owns() {
            let given = vec![
                Image::embedded(OTHER, b"plain"),
                Image::embedded("linux-pdp11", packed(b"compressed")),
            ];
            let images = Images::new(given, own);
            for same_root in [true, false] {
                sends(&images, OTHER, same_root, b"plain");
                sends(&images, "linux-pdp11", same_root, b"compressed");
            }
            is_none(&images, "linux-m68k", "plan9-vax linux-pdp11");
        }
    }

    #[test]
    fn given_images_stand_in_for_the_own_executable_entirely() {
        for own in all_owns() {
            let images = Images::new(vec![Image::embedded(OTHER, b"x")], own);
            is_none(&images, &target::own(), OTHER);
        }
    }

    #[test]
    fn a_dynamic_image_goes_only_where_the_files_are_the_same() {
        let image = own_image();
        let (dynamic, bytes) = (image.dynamic, image.bytes.as_ref().to_vec());
        assert_eq!(dynamic, !cfg!(target_feature = "crt-static"));
        for images in
            [Images::new(vec![image], Own::Unknown), Images::new(Vec::new(), Own::Entered)]
        {
            sends(&images, &target::own(), true, &bytes);
            match dynamic {
                true => is_unusable(&images, &target::own(), false, "crt-static"),
                false => sends(&images, &target::own(), false, &bytes),
            }
        }
    }

    #[test]
    fn without_an_image_the_way_to_one_is_told() {
        for same_root in [true, false] {
            let unknown = Images::new(Vec::new(), Own::Unknown);
            is_unusable(&unknown, &target::own(), same_root, "Program::run");
            let test = Images::new(Vec::new(), Own::Test(Vec::new()));
            is_unusable(&test, &target::own(), same_root, "CARGO_BIN_EXE");
        }
        for (own, there) in all_owns().into_iter().zip(["", &target::own(), ""]) {
            is_none(&Images::new(Vec::new(), own), OTHER, there);
        }
        let unknown = Images::new(Vec::new(), Own::Unknown).launch().map(drop);
        assert!(matches!(unknown, Err(ConnectFailure::ImageUnusable(_))), "{unknown:?}");
    }

    #[test]
    fn what_is_launched_here_is_the_given_image_or_the_own_executable() {
        let target = target::own();
        for bytes in [b"plain".as_slice(), packed(b"plain")] {
            let images = Images::new(vec![Image::embedded(&target, bytes)], Own::Entered);
            let launch = images.launch().map_err(|e| format!("{e:?}")).unwrap();
            fd::rewind(launch.file.as_fd()).unwrap();
            assert_eq!(fd::read_to_end(launch.file.as_fd(), 100).unwrap(), b"plain");
            assert!(launch.test_args.is_none());
        }
        let args = vec![c"--exact".to_owned()];
        let own = Images::new(Vec::new(), Own::Test(args.clone()));
        let launch = own.launch().map_err(|e| format!("{e:?}")).unwrap();
        assert_eq!(launch.test_args, Some(args));
    }

    #[test]
    fn a_file_that_is_no_executable_is_refused_by_name() {
        for path in ["/etc/passwd", "/no/such/file", "/"] {
            let error = Image::file(path).map(drop).unwrap_err();
            assert!(error.to_string().contains(path), "{error}");
        }
    }
}
