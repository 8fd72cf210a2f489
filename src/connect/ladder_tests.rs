//! The ladder on hostile targets: real shells in sandboxes, brought up by the real handshake.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::connect::handshake::{Action, Handshake, Origin};
use crate::connect::options::{Base, Common, recipe};
use crate::connect::recipe::{Recipe, Start};
use crate::connect::ssh;
use crate::connect::stage::{first_script, hex};
use crate::connect::stage_tests::{SHELLS, TITLE, Target, gzip, have, image, text};
use crate::error::{ConnectError, ConnectFailure, Exit};
use crate::sys::{fd, pipe};

const NO_MEMFD: &str = "echo 2 >/proc/sys/vm/memfd_noexec";
const NO_SHM: &str = "mount -t tmpfs -o noexec none /dev/shm";
const NO_TMP: &str = "for d in /tmp /var/tmp;do mount -t tmpfs -o noexec none $d;done;cd /tmp";
/// The shells whose commands are programs of their own.
const WITHOUT_PROC: [&str; 5] = ["dash", "bash", "mksh", "ksh93", "zsh --emulate sh"];
const NO_PROC: &str = "while umount -l /proc 2>/dev/null;do :;done";

/// A connection attempt to a shell that `prepare` has made a hostile place for.
struct Attempt {
    target: Target,
    recipe: Recipe,
    image: Vec<u8>,
    plain: bool,
}

impl Attempt {
    fn new() -> Attempt {
        let target = Target::new();
        let mut method = (ssh::ENTRY.make)();
        method.set("hostname", "web").unwrap();
        let base = Base {
            parent: None,
            title: TITLE,
            nonce: target.nonce,
            answer_nonce: target.nonce,
            asks: false,
        };
        let mut recipe = recipe(&*method, &Common::default(), &base).unwrap();
        recipe.start = Start::Shell { argv: Vec::new(), nonce: target.nonce };
        Attempt { target, recipe, image: image(), plain: false }
    }

    fn command(&self, shell: &str, prepare: &[&str]) -> Command {
        let script = String::from_utf8(first_script(self.target.nonce)).unwrap();
        let prepare = format!("{}\nexec {shell} -c \"$0\"", prepare.join("\n"));
        let boxed = ["unshare", "-m", "--pid", "--fork", "--kill-child", "--mount-proc"];
        let words = [&boxed[..], &["sh", "-ec", &prepare, &script]].concat();
        let mut command = self.target.command(&words);
        command.env("PATH", std::env::var("PATH").unwrap());
        command
    }

    /// What the agent says behind its mark, or why there is none.
    fn run(&self, shell: &str, prepare: &[&str]) -> Result<String, ConnectError> {
        let mut child = self.command(shell, prepare).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        self.talk(&mut child, stdin)
    }

    fn talk(&self, child: &mut Child, mut stdin: impl Write) -> Result<String, ConnectError> {
        let mut handshake = Handshake::new(Arc::new(self.recipe.clone()));
        handshake.started();
        let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let mut bytes = [0; 4096];
        loop {
            let count = stdout.read(&mut bytes).unwrap();
            if count == 0 {
                let mut said = Vec::new();
                stderr.read_to_end(&mut said).unwrap();
                handshake.input(Origin::Terminal, &said);
                handshake.pushed();
                let status = child.wait().unwrap();
                let exit = status.code().map(Exit::Code).or(status.signal().map(Exit::Signal));
                return Err(*handshake.closed(exit));
            }
            for action in handshake.input(Origin::Stdout, &bytes[..count]) {
                match action {
                    Action::Send(line) => stdin.write_all(&line).unwrap(),
                    Action::WantImage(target) => {
                        let gzipped = target.gzip && !self.plain;
                        let sent = if gzipped { gzip(&self.image) } else { self.image.clone() };
                        let line = handshake.image(sent.len() as u64, gzipped);
                        // A shell that has gone is heard of by its output.
                        let _ = stdin.write_all(&[line, sent].concat());
                    }
                    Action::Up => {
                        drop(stdin);
                        let mut rest = handshake.rest();
                        stdout.read_to_end(&mut rest).unwrap();
                        child.wait().unwrap();
                        return Ok(text(&rest));
                    }
                    Action::Failed(failure) => {
                        drop(stdin);
                        child.wait().unwrap();
                        return Err(*handshake.failed(failure, None));
                    }
                    Action::Type(_) | Action::Settle | Action::Ask(_) => panic!("a question"),
                }
            }
        }
    }

    /// Comes up in every shell, and leaves nothing.
    #[track_caller]
    fn comes_up(prepare: &[&str]) {
        Attempt::comes_up_in(&SHELLS, prepare);
    }

    #[track_caller]
    fn comes_up_in(shells: &[&str], prepare: &[&str]) {
        for shell in shells.iter().filter(|shell| have(shell)) {
            for plain in [false, true] {
                let attempt = Attempt { plain, ..Attempt::new() };
                let arrived = attempt.run(shell, prepare);
                let says = arrived.unwrap_or_else(|error| panic!("{shell}: {error}"));
                let nonce = String::from_utf8(hex(attempt.target.nonce).to_vec()).unwrap();
                let head = format!("mitogen-agent-{nonce}|{TITLE}||\u{7f}ELF");
                assert!(says.starts_with(&head), "{shell}: {says}");
                attempt.target.assert_clean();
            }
        }
    }

    /// Fails in every shell with this list of places, and leaves nothing.
    #[track_caller]
    fn finds_nowhere(prepare: &[&str], expected: &[(&str, &str)]) {
        for shell in SHELLS.into_iter().filter(|shell| have(shell)) {
            let attempt = Attempt::new();
            let error = attempt.run(shell, prepare).unwrap_err();
            let ConnectFailure::NoDirectory(tried) = &error.failure else { panic!("{error}") };
            let tried: Vec<&str> = tried.split_terminator(';').map(str::trim).collect();
            assert_eq!(tried.len(), expected.len(), "{shell}: {tried:?}");
            for (tried, (place, why)) in tried.iter().zip(expected) {
                let (at, reason) = tried.rsplit_once(": ").unwrap();
                assert!(at.ends_with(place), "{shell}: {tried} is not {place}");
                let why = why.to_lowercase();
                assert!(reason.to_lowercase().contains(&why), "{shell}: {tried}, not {why}");
            }
            attempt.target.assert_clean();
        }
    }
}

#[test]
fn docker_s_shm_that_executes_nothing_leads_to_memory() {
    Attempt::comes_up(&[NO_SHM, NO_TMP, "HOME=/nowhere"]);
}

#[test]
fn without_memory_a_directory_behind_it_is_taken() {
    Attempt::comes_up(&[NO_SHM, NO_MEMFD]);
}

#[test]
fn a_root_that_cannot_be_written_leads_to_memory() {
    let read_only = "for d in /dev/shm /tmp /var/tmp;do mount -t tmpfs -o ro none $d;done;cd /tmp";
    // ksh93 has no command substitution without a directory for its temporary files.
    let shells = ["dash", "bash", "busybox ash", "mksh", "zsh --emulate sh"];
    Attempt::comes_up_in(&shells, &[read_only, "unset HOME"]);
}

#[test]
fn where_nothing_can_be_executed_every_rung_is_named() {
    let denied = "permission denied";
    let expected = [
        ("/dev/shm", denied),
        ("memfd_create", denied),
        ("/var/tmp", denied),
        ("/tmp", denied),
        (".cache", "No such file"),
        ("/home", denied),
        (".", denied),
    ];
    let home = "mkdir /tmp/home;HOME=/tmp/home";
    Attempt::finds_nowhere(&[NO_SHM, NO_MEMFD, NO_TMP, home], &expected);
}

#[test]
fn without_a_home_or_an_interpreter_the_list_says_so() {
    let denied = "permission denied";
    let expected = [
        ("/dev/shm", denied),
        ("memfd_create", "no perl or python3"),
        ("/var/tmp", denied),
        ("/tmp", denied),
        (".", denied),
    ];
    let tmp = "for d in /tmp /var/tmp;do mount -t tmpfs none $d;done;cd /tmp";
    let path = "mkdir /tmp/bin;for c in mkdir chmod rm cat head gzip uname sh bash dash busybox \
                mksh ksh93 zsh mount;do p=$(command -v $c)&&ln -s $p /tmp/bin/;done;PATH=/tmp/bin";
    let noexec = "for d in /tmp /var/tmp;do mount -o remount,noexec $d;done";
    Attempt::finds_nowhere(&[NO_SHM, tmp, path, noexec, "unset HOME"], &expected);
}

#[test]
fn a_full_disk_leads_to_the_next_one() {
    let full = "mount -t tmpfs -o size=64k none /dev/shm";
    Attempt::comes_up(&[full, NO_TMP, "unset HOME"]);
    Attempt::comes_up(&[full, NO_MEMFD]);
}

#[test]
fn what_did_not_fit_is_removed_without_proc_too() {
    for shell in WITHOUT_PROC.into_iter().filter(|shell| have(shell)) {
        let mut attempt = Attempt::new();
        attempt.recipe.memfd = false;
        let error = attempt.run(shell, &[NO_PROC, "ulimit -c 0;ulimit -f 40"]).unwrap_err();
        let ConnectFailure::NoDirectory(tried) = &error.failure else { panic!("{shell}: {error}") };
        assert!(tried.contains("/dev/shm: no room;"), "{shell}: {tried}");
        assert!(tried.contains(" .: no room;"), "{shell}: {tried}");
        attempt.target.assert_clean();
    }
}

#[test]
fn where_all_is_full_every_rung_is_named() {
    let prepare = "for d in /dev/shm /tmp /var/tmp;do mount -t tmpfs -o size=64k none $d;done;\
                   cd /tmp";
    let full = "no room";
    let expected = [
        ("/dev/shm", full),
        ("memfd_create", "permission denied"),
        ("/var/tmp", full),
        ("/tmp", full),
        (".", full),
    ];
    Attempt::finds_nowhere(&[prepare, NO_MEMFD, "unset HOME"], &expected);
}

#[test]
fn an_image_of_zeros_is_damaged_and_not_started() {
    for shell in SHELLS.into_iter().filter(|shell| have(shell)) {
        for plain in [false, true] {
            let attempt = Attempt { plain, image: vec![0; 50_000], ..Attempt::new() };
            let error = attempt.run(shell, &["true"]).unwrap_err();
            assert_eq!(error.failure, ConnectFailure::ImageDamaged, "{shell}");
            attempt.target.assert_clean();
        }
    }
}

#[test]
fn an_image_of_another_cpu_is_told_and_leaves_nothing() {
    for proc in ["true", NO_PROC] {
        for shell in ["dash", "bash", "mksh", "ksh93", "zsh --emulate sh"] {
            let mut image = image();
            image[18..20].copy_from_slice(&[0xff, 0x7f]);
            let attempt = Attempt { image, ..Attempt::new() };
            let chosen = attempt.target.directory("chosen");
            let directory = Some(chosen.as_os_str().as_encoded_bytes().to_vec());
            let recipe = Recipe { directory, ..attempt.recipe.clone() };
            let attempt = Attempt { recipe, ..attempt };
            let error = attempt.run(shell, &[proc]).unwrap_err();
            assert_eq!(error.failure, ConnectFailure::ImageDoesNotRun, "{shell}: {error}");
            assert_eq!(fs::read_dir(&chosen).unwrap().count(), 0, "{shell}");
        }
    }
}

#[test]
fn without_proc_the_agent_is_told_what_to_remove() {
    for shell in WITHOUT_PROC.into_iter().filter(|shell| have(shell)) {
        let attempt = Attempt::new();
        let chosen = attempt.target.directory("chosen");
        let directory = Some(chosen.as_os_str().as_encoded_bytes().to_vec());
        let recipe = Recipe { directory, ..attempt.recipe.clone() };
        let attempt = Attempt { recipe, ..attempt };
        let says = attempt.run(shell, &[NO_PROC]).unwrap_or_else(|e| panic!("{shell}: {e}"));
        let told = says.split('|').nth(2).unwrap();
        assert_eq!(Path::new(told).parent(), Some(&*chosen), "{shell}: {says}");
        // This agent leaves it to the shell.
        assert_eq!(fs::read_dir(&chosen).unwrap().count(), 0, "{shell}");
    }
}

#[test]
fn a_small_pipe_that_does_not_block_is_made_to() {
    for shell in SHELLS.into_iter().filter(|shell| have(shell)) {
        let attempt = Attempt::new();
        let (theirs, ours) = pipe::small_pipe().unwrap();
        fd::set_nonblocking(theirs.as_fd(), true).unwrap();
        let mut command = attempt.command(shell, &["true"]);
        let mut child = command.stdin(theirs).spawn().unwrap();
        drop(command);
        let says = attempt
            .talk(&mut child, fs::File::from(ours))
            .unwrap_or_else(|e| panic!("{shell}: {e}"));
        assert!(says.starts_with("mitogen-agent-"), "{shell}: {says}");
        attempt.target.assert_clean();
    }
}

#[test]
fn a_shell_whose_input_does_not_block_says_so_at_once() {
    let attempt = Attempt::new();
    let (ours, theirs) = pipe::socketpair().unwrap();
    fd::set_nonblocking(theirs.as_fd(), true).unwrap();
    let mut command = attempt.command("dash", &["true"]);
    let mut child = command.stdin(theirs).spawn().unwrap();
    let begun = Instant::now();
    let error = attempt.talk(&mut child, fs::File::from(ours)).unwrap_err();
    assert_eq!(error.failure, ConnectFailure::InputEnded, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2));
}
