//! What a test needs of the machine. In CI (`CI=true`) what is missing is a failure; elsewhere the
//! test is left out, aloud.

use std::io::Write;
use std::path::Path;
use std::{env, fs, io};

/// One thing that a machine may lack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Need {
    Root,
    Sshd,
    Sudo,
    Doas,
    Docker,
    Lxc,
    Podman,
    NetworkNamespaces,
    Shells,
    /// Spanish and Japanese, and tools that speak them.
    Locales,
    /// A kernel that gives aarch64 programs to qemu, in a namespace of one's own.
    Aarch64,
    /// A terminal whose screen can be read.
    Tmux,
}

/// What users may have as their shell.
const SHELLS: [&str; 9] =
    ["bash", "bsd-csh", "busybox", "dash", "fish", "ksh93", "mksh", "tcsh", "zsh"];

/// The locales of [`Need::Locales`], as folders.
const LOCALES: [&str; 2] = ["es_ES.utf8", "ja_JP.utf8"];

/// Whether all of it is here: `if !requires(&[Need::Root]) { return; }`.
#[track_caller]
pub fn requires(needs: &[Need]) -> bool {
    let missing: Vec<Need> = needs.iter().copied().filter(|need| !is_met(*need)).collect();
    let may_run = decide(&missing, env::var("CI").is_ok_and(|value| value == "true"));
    if !may_run {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("a test");
        // Not by eprintln: the test runner would keep that to itself.
        let _ = writeln!(io::stderr(), "\nLEFT OUT: {name} needs {missing:?}");
    }
    may_run
}

#[track_caller]
fn decide(missing: &[Need], in_ci: bool) -> bool {
    assert!(missing.is_empty() || !in_ci, "CI lacks {missing:?}: `make setup` installs it");
    missing.is_empty()
}

fn is_met(need: Need) -> bool {
    match need {
        Need::Root => is_root(),
        Need::Sshd => Path::new("/usr/sbin/sshd").exists() && in_path("ssh"),
        Need::Sudo => in_path("sudo") && in_path("visudo"),
        Need::Doas => in_path("doas"),
        Need::Docker => ["dockerd", "docker", "iptables", "busybox"].into_iter().all(in_path),
        Need::Lxc => ["lxc-start", "lxc-attach", "busybox"].into_iter().all(in_path),
        Need::Podman => ["podman", "buildah", "runc", "busybox"].into_iter().all(in_path),
        Need::NetworkNamespaces => is_root() && in_path("ip"),
        Need::Locales => LOCALES.iter().all(|name| {
            let spoken = Path::new("/usr/share/locale").join(&name[..2]);
            Path::new("/usr/lib/locale").join(name).exists()
                && spoken.join("LC_MESSAGES/Linux-PAM.mo").exists()
        }),
        Need::Shells => SHELLS.iter().all(|name| in_path(name)),
        Need::Tmux => in_path("tmux"),
        Need::Aarch64 => in_path("qemu-aarch64-static") && super::emulator::is_possible(),
    }
}

fn is_root() -> bool {
    // Real, effective, saved and file system id.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status
        .lines()
        .any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
}

fn in_path(name: &str) -> bool {
    let path = env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':').any(|folder| Path::new(folder).join(name).exists())
}

#[test]
fn what_is_missing_is_left_out_here_and_fails_in_ci() {
    assert!(decide(&[], true));
    assert!(!decide(&[Need::Doas], false));
    assert!(std::panic::catch_unwind(|| decide(&[Need::Doas], true)).is_err());
}
