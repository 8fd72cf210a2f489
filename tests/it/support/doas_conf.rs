//! Rules of doas for a test. There is one file of them, so no other test runs meanwhile.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::run;

const PATH: &str = "/etc/doas.conf";

/// What `/etc/doas.conf` says until this is dropped; needs [`alone`](super::alone).
pub struct DoasConf(Option<Vec<u8>>);

impl DoasConf {
    /// Installs these lines, as `permit nopass alice as nobody`.
    #[track_caller]
    pub fn install(lines: &str) -> DoasConf {
        let before = DoasConf(fs::read(PATH).ok());
        fs::write(PATH, format!("{lines}\n")).unwrap();
        fs::set_permissions(PATH, fs::Permissions::from_mode(0o400)).unwrap();
        run(Command::new("doas").args(["-C", PATH]));
        before
    }
}

impl Drop for DoasConf {
    fn drop(&mut self) {
        let _ = match self.0.take() {
            Some(lines) => fs::write(PATH, lines),
            None => fs::remove_file(PATH),
        };
    }
}
