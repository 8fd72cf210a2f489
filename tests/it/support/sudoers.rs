//! Rules of sudo for a test, checked before they are installed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{run, unique};

/// A file in `/etc/sudoers.d`, gone when this is dropped.
pub struct Sudoers(PathBuf);

impl Sudoers {
    /// Installs these lines, as `alice ALL=(root) NOPASSWD: ALL`.
    #[track_caller]
    pub fn install(lines: &str) -> Sudoers {
        // sudo does not read the draft, whose name holds a dot: a wrong rule would lock all out.
        let path = Path::new("/etc/sudoers.d").join(format!("mgn-{}", unique()));
        let draft = path.with_extension("draft");
        fs::write(&draft, format!("{lines}\n")).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o440)).unwrap();
        let removed_on_failure = Sudoers(draft.clone());
        run(Command::new("/usr/sbin/visudo").arg("-cqf").arg(&draft));
        fs::rename(&draft, &path).unwrap();
        std::mem::forget(removed_on_failure);
        Sudoers(path)
    }
}

impl Drop for Sudoers {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
