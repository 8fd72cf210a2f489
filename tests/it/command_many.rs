//! The command with many addresses, and what it shows of that on a terminal (`script` makes one).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::*;

const MITOGEN: &str = env!("CARGO_BIN_EXE_mitogen");

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What `mitogen` with these arguments, quoted for a shell, shows on a terminal of this kind.
fn on_terminal(term: &str, args: &str) -> Output {
    let line = format!("{MITOGEN} {args}");
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env("TERM", term).env_remove("MITOGEN_LOG_LEVEL");
    script.stdin(Stdio::null()).output().unwrap()
}

/// The lines that are on the terminal in the end.
fn screen(bytes: &[u8]) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut column = 0;
    let text = text(bytes).replace("\x1b[K", "\x00");
    for c in text.chars() {
        let line = lines.last_mut().unwrap();
        match c {
            '\r' => column = 0,
            '\n' => lines.push(String::new()),
            '\0' => line.truncate(column),
            c => {
                line.truncate(column);
                line.push(c);
                column += 1;
            }
        }
    }
    lines
}

/// One address that fails, and one that is there after a second.
struct Addresses {
    _folder: tempfile::TempDir,
    slow: String,
    broken: String,
}

impl Addresses {
    fn new() -> Addresses {
        let folder = tempfile::tempdir().unwrap();
        let shell = "for last do :; done; sleep 1; exec sh -c \"$last\"";
        let slow = format!("sudo:slow?sudo_path={}", script(folder.path(), "slow", shell));
        let broken = format!("ssh:broken?ssh_path={}", script(folder.path(), "broken", "exit 9"));
        Addresses { _folder: folder, slow, broken }
    }
}

#[test]
fn a_terminal_shows_how_far_connecting_has_come_and_keeps_none_of_it() {
    let _company = beside_others();
    let Addresses { slow, broken, .. } = &Addresses::new();
    for command in ["run", "tree"] {
        let args = match command {
            "run" => {
                format!("run local local/local '{broken}' '{slow}' -- sh -c 'sleep 0.6; echo here'")
            }
            _ => format!("tree local local/local '{broken}' '{slow}'"),
        };
        let output = on_terminal("xterm", &args);
        assert_eq!(output.status.code(), Some(255), "{}", told(&output));
        let shown = text(&output.stdout);
        assert!(shown.contains("\r\x1b[Kconnecting 2/4, 1 failed"), "{shown:?}");
        assert!(!shown.contains("connecting 4/4"), "{shown:?}");
        let screen = screen(&output.stdout);
        assert!(!screen.iter().any(|line| line.contains("connecting")), "{screen:#?}");
        assert!(screen.iter().any(|line| line.starts_with("mitogen: ssh:broken")), "{screen:#?}");
        if command == "run" {
            let said: Vec<&String> =
                screen.iter().filter(|line| line.ends_with(": here")).collect();
            assert_eq!(said.len(), 3, "{screen:#?}");
            assert_eq!(*said[2], format!("{slow}: here"));
        } else {
            assert!(screen.iter().any(|line| line.contains("sudo:slow")), "{screen:#?}");
        }
    }
}

#[test]
fn nothing_is_shown_where_it_would_be_in_the_way() {
    let _company = beside_others();
    let Addresses { slow, .. } = &Addresses::new();
    let run = |more: &str| format!("run {more} local '{slow}' -- true");
    let told_by = [
        on_terminal("dumb", &run("")),
        on_terminal("", &run("")),
        on_terminal("xterm", &run("--json")),
        on_terminal("xterm", &format!("{} 2>/dev/null", run(""))),
        // What is there before anybody could read of it.
        on_terminal("xterm", "run local local/local -- true"),
    ];
    for output in told_by {
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        let shown = text(&output.stdout);
        assert!(!shown.contains("connecting") && !shown.contains('\x1b'), "{shown:?}");
    }
}

/// Addresses of so many different contexts.
fn different(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("local?connect_timeout={}", 100 + n)).collect()
}

#[test]
fn hundreds_of_addresses_are_connected_with_few_descriptors_to_begin_with() {
    let _company = beside_others();
    let addresses = different(400).join(" ");
    let line = format!("ulimit -S -n 64; exec {MITOGEN} run {addresses} -- sh -c 'ulimit -S -n'");
    let output = Command::new("sh").args(["-c", &line]).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    let lines = text(&output.stdout);
    assert_eq!(lines.lines().count(), 400);
    // The command raised its own limit, and nobody else's.
    assert!(lines.lines().all(|line| line.ends_with(": 64")), "{lines}");
}

#[test]
fn twenty_descriptors_are_enough_for_one_child() {
    let _company = beside_others();
    let run = |addresses: &[String]| {
        let addresses = addresses.join(" ");
        let line = format!("ulimit -n 20; exec {MITOGEN} run {addresses} -- echo here");
        Command::new("sh").args(["-c", &line]).stdin(Stdio::null()).output().unwrap()
    };
    let output = run(&different(1));
    assert_eq!(text(&output.stdout), "here\n", "{}", told(&output));
    let begun = Instant::now();
    let output = run(&different(30));
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(output.status.code(), Some(255), "{}", told(&output));
    let (up, lost) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(up.lines().count() + lost.lines().count(), 30, "{}", told(&output));
    assert!(lost.lines().all(|line| line.contains("Too many open files")), "{lost}");
}

#[test]
fn few_processes_are_enough_for_one_child_or_it_is_told_why_not() {
    let _company = beside_others();
    if !requires(&[Need::Root]) {
        return;
    }
    // A user of its own, with an executable that it may reach.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.path().join("mitogen");
    fs::copy(MITOGEN, &copy).unwrap();
    let run = |limit: u32| {
        let mut limited = Command::new("prlimit");
        limited.arg(format!("--nproc={limit}")).arg(&copy);
        limited.args(["run", "local", "--", "echo", "here"]);
        limited.stdin(Stdio::null()).current_dir("/").uid(1_234_567).gid(1_234_567);
        limited.output().unwrap()
    };
    let mut worked = 0;
    for limit in 1..=10 {
        let begun = Instant::now();
        let output = run(limit);
        assert!(begun.elapsed() < Duration::from_secs(10), "{limit}");
        if output.status.success() {
            assert_eq!(text(&output.stdout), "here\n");
            worked += 1;
        } else {
            let said = text(&output.stderr);
            let whys = ["Resource temporarily unavailable", "no room for a thread"];
            assert!(whys.iter().any(|why| said.contains(why)), "{limit}: {said}");
        }
    }
    assert!((1..10).contains(&worked), "{worked}");
}
