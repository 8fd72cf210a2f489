//! What the command tells of a tree that hangs, when a signal asks for it.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::support::*;

const LIMIT: Duration = Duration::from_secs(20);

/// The command, under a shell's hand, and what it has said so far.
struct Running {
    child: Child,
    said: [Arc<Mutex<String>>; 2],
    readers: Vec<JoinHandle<()>>,
}

/// What comes out of one of its outputs.
fn gather(mut from: impl Read + Send + 'static) -> (Arc<Mutex<String>>, JoinHandle<()>) {
    let said = Arc::new(Mutex::new(String::new()));
    let into = said.clone();
    let reader = thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            into.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    });
    (said, reader)
}

impl Running {
    /// Starts it behind `first`, a line of the shell.
    fn start(first: &str, args: &[&str]) -> Running {
        let line = format!("ulimit -c 0; {first} exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &line, env!("CARGO_BIN_EXE_mitogen")]).args(args);
        command.env_remove("MITOGEN_LOG_LEVEL").stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, first) = gather(child.stdout.take().unwrap());
        let (stderr, second) = gather(child.stderr.take().unwrap());
        Running { child, said: [stdout, stderr], readers: vec![first, second] }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn stdout(&self) -> String {
        self.said[0].lock().unwrap().clone()
    }

    fn stderr(&self) -> String {
        self.said[1].lock().unwrap().clone()
    }

    /// Waits until it has told what the tree does so many times, the last time with these words.
    #[track_caller]
    fn tells(&self, times: usize, words: &[&str]) {
        let found = || {
            let said = self.stderr();
            let dumps: Vec<&str> = said.split("mitogen: the tree now").skip(1).collect();
            let last = dumps.get(times - 1).filter(|_| dumps.len() == times)?;
            words.iter().all(|word| last.contains(word)).then_some(())
        };
        let is_told = until(LIMIT, found).is_some();
        assert!(is_told, "{times} {words:?}: {}", self.stderr());
    }

    /// Waits for its end; what it printed to either output.
    fn end(mut self) -> (ExitStatus, String, String) {
        let status = self.child.wait().unwrap();
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        (status, self.stdout(), self.stderr())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Where a test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A time that no other test sleeps for, in seconds.
fn time() -> String {
    format!("1000.{}{}", std::process::id(), unique().bytes().map(u32::from).sum::<u32>())
}

/// The process that has this word as its last argument.
fn process(word: &str) -> Process {
    let ends = format!(" {word} ");
    let find = || processes().into_iter().find(|process| process.command == format!("sleep{ends}"));
    until(LIMIT, find).unwrap()
}

#[test]
fn a_hang_is_told_with_function_context_and_age_as_often_as_one_asks() {
    leaves_nothing(&[], || {
        let time = time();
        let run = Running::start("", &["run", "local", "local/local", "--", "sleep", &time]);
        let sleeps = || {
            let all = processes().into_iter().filter(|it| it.command == format!("sleep {time} "));
            Some(all.collect::<Vec<_>>()).filter(|all| all.len() == 2)
        };
        let sleeps = until(LIMIT, sleeps).unwrap();
        let words = ["stock::command::run for ", "1 (local), pid ", "2 (local/local), pid "];
        for times in 1..=3 {
            signal(run.pid(), "USR1");
            run.tells(times, &words);
        }
        assert!(!run.stderr().contains("does not answer"), "{}", run.stderr());
        sleeps.iter().for_each(|sleep| signal(sleep.pid, "TERM"));
        let (status, stdout, _) = run.end();
        assert_eq!((status.code(), &*stdout), (Some(1), ""));
    });
}

#[test]
fn a_context_that_is_stopped_is_told_to_be_silent() {
    leaves_nothing(&[], || {
        let time = time();
        let run = Running::start("", &["run", "--json", "local", "--", "sleep", &time]);
        let sleep = process(&time);
        signal(sleep.parent, "STOP");
        signal(run.pid(), "USR1");
        run.tells(1, &["1 (local)", "no answer"]);
        signal(sleep.parent, "CONT");
        signal(sleep.pid, "TERM");
        let (status, stdout, _) = run.end();
        assert_eq!(status.code(), Some(143));
        assert!(stdout.starts_with("{\"address\":\"local\",\"exit\":143,"), "{stdout}");
    });
}

#[test]
fn what_still_connects_is_told() {
    leaves_nothing(&[], || {
        for (command, rest) in [("run", &["--", "true"][..]), ("tree", &[])] {
            // One of its own: the client before may be about to end.
            let (folder, time) = (tempfile::tempdir().unwrap(), time());
            let client = script(folder.path(), "client", &format!("exec sleep {time}"));
            let address = format!("ssh:web?ssh_path={client}");
            let run = Running::start("", &[&[command, &*address], rest].concat());
            let client = process(&time);
            signal(run.pid(), "USR1");
            run.tells(1, &["ssh:web", &client.pid.to_string()]);
            signal(run.pid(), "TERM");
            assert_eq!(run.end().0.signal(), Some(15));
        }
    });
}

#[test]
fn a_second_quit_in_a_row_ends_it_as_one_always_did() {
    leaves_nothing(&[], || {
        let time = time();
        let run = Running::start("", &["run", "local", "--", "sleep", &time]);
        process(&time);
        signal(run.pid(), "QUIT");
        run.tells(1, &["again within 5 s: ends", "stock::command::run"]);
        signal(run.pid(), "QUIT");
        assert_eq!(run.end().0.signal(), Some(3));
    });
}

#[test]
fn what_is_started_has_the_defaults_of_these_signals() {
    leaves_nothing(&[], || {
        let time = time();
        let run = Running::start("", &["run", "local", "--", "sleep", &time]);
        let sleep = process(&time);
        let signals = bit(10) | bit(3);
        assert_eq!(census(run.pid()).caught & signals, signals);
        for pid in [sleep.pid, sleep.parent] {
            let found = census(pid);
            assert_eq!((found.caught | found.ignored | found.blocked) & signals, 0, "{found:?}");
        }
        signal(run.pid(), "TERM");
        assert_eq!(run.end().0.signal(), Some(15));
    });
}

#[test]
fn a_signal_that_whoever_started_it_ignores_stays_ignored() {
    leaves_nothing(&[], || {
        let time = time();
        let run = Running::start("trap '' USR1;", &["run", "local", "--", "sleep", &time]);
        let sleep = process(&time);
        signal(run.pid(), "USR1");
        assert_eq!(census(run.pid()).ignored & bit(10), bit(10));
        signal(sleep.pid, "TERM");
        let (status, _, stderr) = run.end();
        assert_eq!((status.code(), &*stderr), (Some(143), ""));
    });
}
