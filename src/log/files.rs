//! Files that a process leaves for who wants to know what it did: made so that nobody can have them
//! lead elsewhere, and filled without the formatting machinery.

use std::os::fd::{AsFd, OwnedFd};

use crate::sys::errno::Errno;
use crate::sys::text::{Decimal, fields, harmless};
use crate::sys::{file, fork, host};

/// Makes `<folder><name><process>.log`, or one of that name with `.1` to `.9` behind it if there is
/// one; and its path. It is its owner's alone, and nothing that is there is followed or changed.
#[inline(never)] // from several places: smaller code
pub fn create(folder: &str, name: &str) -> Result<(OwnedFd, Vec<u8>), Errno> {
    let digits = Decimal::new(host::pid() as u64);
    let mut ends = fields(ENDS, b' ');
    loop {
        let Some(end) = ends.next() else { return Err(Errno::EXIST) };
        let path = [folder.as_bytes(), name.as_bytes(), digits.bytes(), b".log", end].concat();
        let made = file::create(&path);
        if let Err(Errno::EXIST) = made {
            continue;
        }
        let made = made?;
        // A copy of this process has a file of its own.
        fork::mark(made.as_fd());
        return Ok((made, path));
    }
}

/// What stands behind the names of files, until one is free: a process seldom leaves more than one,
/// and numbers of processes come again.
const ENDS: &[u8] = b" .1 .2 .3 .4 .5 .6 .7 .8 .9";

/// Appends a number's digits.
pub fn put_number(line: &mut Vec<u8>, number: u64) {
    line.extend_from_slice(Decimal::new(number).bytes());
}

/// Appends text on one line, with `?` for each character that a terminal would obey.
#[inline(never)] // from several places: smaller code
pub fn put_text(line: &mut Vec<u8>, text: &str) {
    let text = harmless(text.as_bytes());
    line.extend(text.bytes().map(|byte| if byte < b' ' { b'?' } else { byte }));
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_is_made_anew_beside_whatever_has_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("precious");
        fs::write(&target, "kept").unwrap();
        let path = |end: &str| folder.path().join(format!("test.{}.log{end}", host::pid()));
        fs::write(path(""), "older").unwrap();
        symlink(&target, path(".1")).unwrap();
        symlink(folder.path().join("nowhere"), path(".2")).unwrap();
        fs::create_dir(path(".3")).unwrap();
        let (_, made) = create(folder.path().to_str().unwrap(), "/test.").unwrap();
        assert_eq!(String::from_utf8(made).unwrap(), path(".4").to_str().unwrap());
        assert_eq!(fs::metadata(path(".4")).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_to_string(&target).unwrap(), "kept");
        assert_eq!(fs::read_to_string(path("")).unwrap(), "older");
        assert!(!folder.path().join("nowhere").exists());
        for count in 5..=9 {
            create(folder.path().to_str().unwrap(), "/test.").unwrap();
            assert!(path(&format!(".{count}")).exists());
        }
        assert_eq!(create(folder.path().to_str().unwrap(), "/test.").unwrap_err(), Errno::EXIST);
    }

    #[test]
    fn where_there_is_no_folder_there_is_no_file() {
        let missing = create("/nowhere/at/all", "/test.").unwrap_err();
        assert_eq!(missing, Errno::NOENT);
        assert_eq!(create("/dev/null", "/test.").unwrap_err(), Errno::NOTDIR);
        assert_eq!(create("/tmp/a\0b", "/test.").unwrap_err(), Errno::INVAL);
    }

    #[test]
    fn text_stays_on_its_line_and_a_terminal_obeys_none_of_it() {
        let mut line = Vec::new();
        put_text(&mut line, "déjà\tvu\n\x1b[31m\u{9b}\u{202e}x");
        assert_eq!(String::from_utf8(line).unwrap(), "déjà?vu??[31m??x");
    }
}
