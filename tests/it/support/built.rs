//! What `make` builds, for tests that reach targets with other files than this machine's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::image::make;
use super::run;

/// The command as it ships: static, with the images inside. Built if it is missing or old.
pub fn static_command() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut make = Command::new("make");
        // The outer make's flags and the outer cargo's path are not ours.
        make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env_remove("CARGO");
        run(make.current_dir(root).args(["-s", "target/dist/mitogen"]));
        root.join("target/dist/mitogen")
    })
}

/// The program of `tests/leaver`, static: it may go anywhere. Built if it is missing or old.
pub fn leaver() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        make(&["target/leaver"]);
        Path::new(env!("CARGO_MANIFEST_DIR")).join("target/leaver")
    })
}
