//! What the containers of tests have as their root: busybox, two users, an init that reaps.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{processes, run, until};

/// A user of every container beside root, with a home; `uid:gid`, and the groups it is also in.
pub const WORKER: &str = "worker";
pub const WORKER_UID: u32 = 1234;
pub const WORKER_GID: u32 = 1235;
pub const WORKER_GROUPS: [u32; 2] = [77, 78];

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
                      worker:x:1234:1235:Wanda Worker:/home/worker:/bin/ash\n\
                      homeless:x:1236:1236::/nowhere:/bin/sh\n";
const GROUP: &str = "root:x:0:root\nworker:x:1235:\nextra:x:77:root,worker\nmore:x:78:worker\n\
                     other:x:79:root\n";

/// What a container runs: busybox's init, which starts nothing and reaps what it adopts.
pub const INIT: &str = "/bin/init";

/// Fills an empty folder. Owners are those of the container, `shift` added.
pub fn make_rootfs(folder: &Path, shift: u32) {
    for name in ["bin", "dev/shm", "etc", "home/worker", "proc", "root", "sys", "tmp", "var"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    write("etc/passwd", PASSWD);
    write("etc/group", GROUP);
    write("etc/inittab", "::sysinit:/bin/true\n");
    fs::copy("/usr/bin/busybox", folder.join("bin/busybox")).unwrap();
    for name in run(Command::new("/usr/bin/busybox").arg("--list")).lines() {
        if name != "busybox" {
            symlink("busybox", folder.join("bin").join(name)).unwrap();
        }
    }
    fs::set_permissions(folder.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    if shift != 0 {
        let owner = format!("{shift}:{shift}");
        run(Command::new("chown").args(["-R", "-h", &owner]).arg(folder));
    }
    let home = folder.join("home/worker");
    chown(home, Some(shift + WORKER_UID), Some(shift + WORKER_GID)).unwrap();
}

/// Waits for the last processes that name this container or daemon, and removes the groups of
/// processes that it had, wherever they lay.
pub fn clean_up(name: &str) {
    let is_left = || processes().iter().any(|process| process.command.contains(name));
    until(Duration::from_secs(5), || (!is_left()).then_some(()));
    let find = "find /sys/fs/cgroup -depth -type d -path \"*/$0*\" -exec rmdir {} + 2>/dev/null";
    let _ = Command::new("sh").args(["-c", find, name]).status();
}
