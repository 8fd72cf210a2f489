//! An image: an agent's executable for one kind of target, as a program gives it.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::limits::IMAGE_BYTES_MAX;
use crate::module::content::Content;
use crate::module::minimize::minimized;
use crate::module::pack::GZIP;
use crate::module::{elf, target};
use crate::sys::errno::Errno;
use crate::sys::fd;

/// An agent's executable for one OS and CPU. A program that was given images has contexts started
/// from these alone, each from the one that its target's `uname` asks for; how deep in the tree a
/// context is does not matter.
///
/// ```no_run
/// # use mitogen::{Image, Program, Result};
/// # fn main() -> Result<()> {
/// // What `make agents` has built; this program itself where it runs.
/// let images = Image::directory("target/agents")?;
/// Program::new().images(images).image(Image::own()).run(|router| {
///     let board = router.ssh("arm-board").connect()?;
/// #   let _ = board; Ok(())
/// })
/// # }
/// ```
#[derive(Clone)]
pub struct Image {
    /// `<os>-<cpu>`, by our names where we know it.
    pub(super) target: String,
    pub(super) content: Content,
    /// Whether it needs the libraries of the machine that it was built on.
    pub(super) dynamic: bool,
    is_own: bool,
}

impl Image {
    /// An executable of this library, read from a file and [minimized](crate::minimize_image); for
    /// the OS of this process.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind) if it cannot be read or is no executable.
    pub fn file(path: impl AsRef<Path>) -> Result<Image> {
        let path = path.as_ref();
        let bytes = read(path)?;
        let elf = elf::parse(&bytes).ok_or_else(|| unusable(path, "it is no executable"))?;
        let target = [std::env::consts::OS, "-", elf.cpu].concat();
        Ok(Image::of(target, Content::Heap(Arc::new(minimized(bytes))), elf.dynamic))
    }

    /// All images of a directory: its files named `<os>-<cpu>`, as `make agents` names them, and
    /// `<os>-<cpu>.gz` for what gzip made of them. Other files are passed over.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind) if it cannot be read, has no image, or one
    /// that is not what it is named.
    pub fn directory(path: impl AsRef<Path>) -> Result<Vec<Image>> {
        let path = path.as_ref();
        let failed = |error: std::io::Error| unusable(path, &error.to_string());
        let mut images = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_string_lossy();
            let (stem, gzipped) = match name.strip_suffix(".gz") {
                Some(stem) => (stem, true),
                None => (&*name, false),
            };
            if let Some(target) = target::canonical(stem) {
                images.push(Image::named(&path.join(&*name), target, gzipped)?);
            }
        }
        if images.is_empty() {
            return Err(unusable(path, "no file in it is named as an image is, <os>-<cpu>"));
        }
        Ok(images)
    }

    /// A static executable that this program carries, for `<os>-<cpu>`; compressed by gzip or not.
    /// Give both, and none has to be unpacked where it is needed plain: for `local` contexts, and
    /// for targets without gzip.
    pub fn embedded(target: &str, bytes: &'static [u8]) -> Image {
        let target = target::canonical(target).unwrap_or_else(|| target.to_owned());
        Image::of(target, Content::Static(bytes), false)
    }

    /// This program's own executable, for targets of its own kind. It is the only image unless
    /// others are given; then give it too, if it shall be one.
    pub fn own() -> Image {
        let image = Image::of(target::own(), Content::Static(b""), false);
        Image { is_own: true, ..image }
    }

    /// The file of this name, which says what it is.
    fn named(path: &Path, target: String, gzipped: bool) -> Result<Image> {
        let bytes = read(path)?;
        match (gzipped, bytes.starts_with(&GZIP)) {
            (true, false) => return Err(unusable(path, "gzip did not make it")),
            (false, true) => return Err(unusable(path, "gzip made it")),
            _ => (),
        }
        let elf = elf::parse(&bytes);
        if let Some(elf) = elf.filter(|elf| !target.ends_with(&["-", elf.cpu].concat())) {
            return Err(unusable(path, &["it is for ", elf.cpu].concat()));
        }
        if elf.is_none() && !gzipped && !target.starts_with("macos-") {
            return Err(unusable(path, "it is no executable"));
        }
        let dynamic = elf.is_some_and(|elf| elf.dynamic);
        Ok(Image::of(target, Content::Heap(Arc::new(minimized(bytes))), dynamic))
    }

    fn of(target: String, content: Content, dynamic: bool) -> Image {
        Image { target, content, dynamic, is_own: false }
    }

    pub(super) fn is_own(&self) -> bool {
        self.is_own
    }

    pub(super) fn is_gzipped(&self) -> bool {
        match &self.content {
            Content::Static(bytes) => bytes.starts_with(&GZIP),
            Content::Heap(bytes) => bytes.starts_with(&GZIP),
            Content::File(..) => false,
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| unusable(path, "a NUL"))?;
    fd::open_read(&name)
        .and_then(|file| fd::read_to_end(file.as_fd(), IMAGE_BYTES_MAX as usize))
        .map_err(|Errno(errno)| unusable(path, &crate::error::strerror(errno)))
}

fn unusable(path: &Path, why: &str) -> Error {
    Error::usage(["the image ", &path.to_string_lossy(), " cannot be used: ", why].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_executable_is_refused_by_name() {
        for path in ["/etc/passwd", "/no/such/file", "/"] {
            let error = Image::file(path).map(drop).unwrap_err();
            assert!(error.to_string().contains(path), "{error}");
        }
    }

    /// A folder with these files.
    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    /// The head of an executable for this machine's number.
    fn elf(machine: u8) -> Vec<u8> {
        let mut head = vec![0; 64];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        head[18] = machine;
        head
    }

    #[test]
    fn a_directory_gives_what_is_named_as_an_image_is() {
        let folder = folder(&[
            ("linux-aarch64", &elf(183)),
            ("linux-amd64", &elf(62)),
            ("linux-x86_64.gz", b"\x1f\x8b..."),
            ("macos-arm64", b"\xcf\xfa\xed\xfe"),
            ("README", b"text"),
            ("linux-x86_64.new", b"text"),
            ("linux-vax", b"text"),
        ]);
        let images = Image::directory(folder.path()).unwrap();
        let mut found: Vec<_> = images.iter().map(|i| (&*i.target, i.is_gzipped())).collect();
        found.sort_unstable();
        let expected = [
            ("linux-aarch64", false),
            ("linux-x86_64", false),
            ("linux-x86_64", true),
            ("macos-aarch64", false),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_directory_with_something_else_under_the_name_of_an_image_is_refused() {
        let (arm, gzip) = (elf(183), [GZIP, GZIP].concat());
        for (name, bytes, says) in [
            ("linux-x86_64", &arm[..], "it is for aarch64"),
            ("linux-x86_64", b"text", "no executable"),
            ("linux-x86_64", &gzip, "gzip made it"),
            ("linux-aarch64.gz", &arm, "gzip did not make it"),
            ("README", b"text", "named as an image"),
        ] {
            let folder = folder(&[(name, bytes)]);
            let error = Image::directory(folder.path()).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            assert!(error.contains(folder.path().to_str().unwrap()), "{error}");
        }
        let error = Image::directory("/no/such").map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("/no/such"), "{error}");
    }

    #[test]
    fn other_names_of_a_target_are_understood() {
        assert_eq!(Image::embedded("linux-arm64", b"").target, "linux-aarch64");
        assert_eq!(Image::embedded("plan9-vax", b"").target, "plan9-vax");
    }
}
