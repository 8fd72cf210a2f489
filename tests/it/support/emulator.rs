//! A machine of another CPU: a shell of this one in a user namespace of its own, where the kernel
//! gives aarch64 programs to qemu, and `uname` says so.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::script;

/// The head of an aarch64 executable, as binfmt_misc compares it, and who runs it. The flag `F`
/// opens qemu now, so that it need not be found later.
const RULE: &str = concat!(
    r":mgn-aarch64:M:",
    r":\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00",
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff",
    ":/usr/bin/qemu-aarch64-static:F",
);

/// Clients that pose as ssh. What they start ends with its connection, and the namespace with it.
pub struct Aarch64 {
    folder: TempDir,
}

impl Aarch64 {
    pub fn new() -> Aarch64 {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::fs::create_dir(folder.path().join("binfmt")).unwrap();
        script(&bin, "uname", "case $1 in -m) echo aarch64;; *) echo Linux aarch64;; esac");
        Aarch64 { folder }
    }

    /// A client that leads to the other machine.
    pub fn client(&self) -> String {
        let inner = format!(
            "mount -t binfmt_misc none {0}/binfmt && printf %s '{RULE}' >{0}/binfmt/register && \
             PATH={0}/bin:$PATH exec sh -c \"$1\"",
            self.folder.path().display()
        );
        let inner = script(self.folder.path(), "enter", &inner);
        let text = format!("for last do :; done\nexec unshare -Urm {inner} \"$last\"");
        script(self.folder.path(), "client", &text)
    }

    /// A client that leads from the other machine to one of this CPU: to the same kernel's shell.
    pub fn client_back(&self) -> String {
        let path = std::env::var("PATH").unwrap();
        let text = format!("for last do :; done\nPATH='{path}' exec sh -c \"$last\"");
        script(self.folder.path(), "back", &text)
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Whether such a machine can be had here.
pub fn is_possible() -> bool {
    let other = Aarch64::new();
    let mut command = Command::new(other.client());
    command
        .arg("exec 2>/dev/null;uname -m")
        .output()
        .is_ok_and(|output| output.status.success() && output.stdout == b"aarch64\n")
}

/// What `make` builds of `tests/two_cpus`: a folder with an image for each CPU.
pub fn two_cpus() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/two_cpus");
    super::image::make(&["target/two_cpus/linux-x86_64", "target/two_cpus/linux-aarch64"]);
    folder
}
