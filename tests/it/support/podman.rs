//! Podman and Buildah with a storage of a test's own, which shares nothing with the machine's.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::rootfs::{INIT, clean_up, make_rootfs};
use super::{run, script, unique};

/// The storage; its containers and files are gone when this is dropped.
pub struct Podman {
    folder: TempDir,
}

/// Machines of tests refuse the limits that are usual; no network is wanted.
const CONFIG: &str = r#"[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
netns = "none"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
"#;

impl Podman {
    /// A storage with the image `mitogen-test`: see `rootfs.rs`.
    #[track_caller]
    pub fn new() -> Podman {
        let folder = tempfile::Builder::new().prefix("podman-of-test-").tempdir().unwrap();
        let path = folder.path();
        fs::create_dir(path.join("rootfs")).unwrap();
        make_rootfs(&path.join("rootfs"), 0);
        fs::write(path.join("config"), CONFIG).unwrap();
        let here = path.display();
        let env = format!("export CONTAINERS_CONF={here}/config BUILDAH_ISOLATION=chroot");
        let storage = format!("--root {here}/root --runroot {here}/run --storage-driver vfs");
        let text = format!("{env}\nexec podman {storage} --tmpdir {here}/tmp \"$@\"");
        script(path, "podman", &text);
        script(path, "buildah", &format!("{env}\nexec buildah {storage} \"$@\""));
        let pack = "tar -C \"$1/rootfs\" -c . | \"$1/podman\" import - mitogen-test";
        run(Command::new("sh").args(["-ec", pack, "sh"]).arg(path));
        Podman { folder }
    }

    /// A tool (`podman`, `buildah`) that uses this storage.
    pub fn tool(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// What a tool says, which must end with 0.
    #[track_caller]
    pub fn ask(&self, tool: &str, words: &[&str]) -> String {
        run(Command::new(self.tool(tool)).args(words)).trim().to_owned()
    }

    /// A container that runs until this is dropped.
    #[track_caller]
    pub fn container(&self) -> String {
        let name = format!("c{}", unique().replace(|c: char| !c.is_ascii_alphanumeric(), ""));
        self.ask("podman", &["run", "-d", "--name", &name, "localhost/mitogen-test", INIT]);
        name
    }

    /// The containers that there are, stopped ones included.
    pub fn containers(&self) -> Vec<String> {
        let names = self.ask("podman", &["ps", "-a", "--format", "{{.Names}}"]);
        names.lines().map(str::to_owned).collect()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = Command::new(self.tool("buildah")).args(["rm", "-a"]).output();
        let _ = Command::new(self.tool("podman")).args(["rm", "-fa", "-t", "0"]).output();
        clean_up(&self.folder.path().file_name().unwrap().to_string_lossy());
    }
}
