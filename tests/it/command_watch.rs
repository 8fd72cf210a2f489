//! `mitogen tree --watch`, on a terminal of tmux and without one.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::*;

const MITOGEN: &str = env!("CARGO_BIN_EXE_mitogen");
const LIMIT: Duration = Duration::from_secs(20);
/// Leads nowhere, at once, without ssh.
const NOWHERE: &str = "ssh:nowhere?ssh_path=/nonexistent/client";

/// The command that watches.
fn watching() -> Option<Process> {
    let is_it = |process: &Process| process.command.starts_with(&format!("{MITOGEN} tree --watch"));
    processes().into_iter().find(is_it)
}

/// The agent that this process has started.
fn agent_of(parent: u32) -> u32 {
    let is_it = |process: &Process| process.parent == parent && process.is_ours();
    let find = || processes().into_iter().find(is_it);
    until(LIMIT, find).unwrap().pid
}

/// A terminal that shows the tree of these addresses, and how it was before.
fn watch(columns: usize, lines: usize, addresses: &str) -> (Tmux, String) {
    watch_every("0.3", columns, lines, addresses)
}

fn watch_every(interval: &str, columns: usize, lines: usize, addresses: &str) -> (Tmux, String) {
    let tmux = Tmux::new(columns, lines);
    tmux.line("echo what was before");
    let mode = tmux.mode();
    tmux.line(&format!("{MITOGEN} tree --watch --interval {interval} {addresses}"));
    (tmux, mode)
}

/// Fails unless the shell has its terminal again as it was, and the command this status.
#[track_caller]
fn assert_given_back(tmux: &Tmux, mode: &str, status: u32) {
    let gone = || watching().is_none().then_some(());
    assert!(until(LIMIT, gone).is_some(), "{}", tmux.screen());
    tmux.line("echo status $?");
    let screen = tmux.shows(&["what was before", &format!("status {status}\n")]);
    assert!(!screen.contains("q ends"), "{screen}");
    assert_eq!(tmux.is("#{alternate_on} #{cursor_flag} #{wrap_flag}"), "0 1 1");
    assert_eq!(tmux.mode(), mode);
}

#[test]
fn a_tree_is_shown_and_what_dies_stays_as_a_row_with_its_cause() {
    leaves_nothing(&[Need::Tmux], || {
        let (tmux, mode) = watch(120, 20, &format!("local local/local '{NOWHERE}'"));
        let screen = tmux
            .shows(&["mitogen: 2 up, 1 failed; every 0.3 s; q ends", "while starting the process"]);
        assert_eq!(tmux.is("#{alternate_on} #{cursor_flag}"), "1 0");
        let rows: Vec<&str> = screen.lines().skip(1).collect();
        assert!(rows[0].starts_with("ID  NAME "), "{screen}");
        assert!(rows[1].starts_with(" 0  master "), "{screen}");
        assert!(rows[2].starts_with(" 1    local "), "{screen}");
        // Its number is what was left when its turn came.
        assert!(rows[3][2..].starts_with("      local/local "), "{screen}");
        assert!(rows[4].starts_with(&format!(" -    {NOWHERE}  -  ")), "{screen}");
        // Whose they are, and that they answer.
        tmux.shows(&["@", " us "]);
        let first = agent_of(watching().unwrap().pid);
        signal(agent_of(first), "KILL");
        let screen = tmux.shows(&["1 up, 1 gone, 1 failed", "local/local"]);
        let row = screen.lines().find(|row| row.contains("local/local")).unwrap();
        assert!(row.contains(" gone ") && row.contains("killed by signal 9"), "{screen}");
        tmux.key("q");
        assert_given_back(&tmux, &mode, 255);
        tmux.shows(&["mitogen: ssh:nowhere", "is not installed"]);
    });
}

#[test]
fn one_that_is_stopped_does_not_answer_until_it_goes_on() {
    leaves_nothing(&[Need::Tmux], || {
        let (tmux, mode) = watch(120, 20, "local");
        tmux.shows(&["mitogen: 1 up", " us "]);
        let agent = agent_of(watching().unwrap().pid);
        signal(agent, "STOP");
        tmux.shows(&["mitogen: 1 silent", "does not answer"]);
        signal(agent, "CONT");
        tmux.shows(&["mitogen: 1 up"]);
        tmux.key("q");
        assert_given_back(&tmux, &mode, 0);
    });
}

#[test]
fn what_does_not_fit_is_cut_and_can_be_scrolled() {
    leaves_nothing(&[Need::Tmux], || {
        let addresses: Vec<String> =
            (100..106).map(|n| format!("'local?connect_timeout={n}'")).collect();
        // Nothing but keys and sizes has it draw again.
        let (tmux, _) = watch_every("1000", 120, 20, &addresses.join(" "));
        tmux.shows(&["mitogen: 6 up", "=100", "=105"]);
        tmux.resize(40, 5);
        let cut = |screen: &str| {
            assert!(screen.lines().count() <= 5, "{screen}");
            assert!(screen.lines().skip(1).all(|line| line.chars().count() <= 40), "{screen}");
            assert!(
                screen.lines().nth(1).unwrap().trim_start().starts_with("ID  NAME"),
                "{screen}"
            );
        };
        let top = tmux.shows(&["rows 1 to 3", "0  master", "=100", "=101"]);
        cut(&top);
        assert!(!top.contains("=102"), "{top}");
        ["j", "Down"].into_iter().for_each(|key| tmux.key(key));
        let down = tmux.shows(&["rows 3 to 5", "=101", "=102", "=103"]);
        cut(&down);
        assert!(!down.contains("master"), "{down}");
        tmux.key("NPage");
        tmux.shows(&["=103", "=104", "=105"]);
        ["PPage", "k", "Up"].into_iter().for_each(|key| tmux.key(key));
        tmux.shows(&["0  master", "=100", "=101"]);
        tmux.resize(120, 20);
        tmux.shows(&["mitogen: 6 up", "=100", "=105"]);
        tmux.resize(20, 1);
        tmux.shows(&["mitogen: 6 up; ever"]);
        tmux.key("q");
    });
}

#[test]
fn whatever_ends_it_the_terminal_is_as_before() {
    leaves_nothing(&[Need::Tmux], || {
        let ends = [("C-c", 130), ("INT", 130), ("TERM", 143), ("HUP", 129), ("QUIT", 131)];
        for (end, status) in ends {
            let (tmux, mode) = watch(100, 30, "local");
            tmux.shows(&["mitogen: 1 up"]);
            match end {
                "C-c" => tmux.key(end),
                "QUIT" => {
                    signal(watching().unwrap().pid, end);
                    let is_told = || tmux.behind().contains("again within 5 s").then_some(());
                    assert!(until(LIMIT, is_told).is_some(), "{}", tmux.behind());
                    signal(watching().unwrap().pid, end);
                }
                end => signal(watching().unwrap().pid, end),
            }
            assert_given_back(&tmux, &mode, status);
        }
        // The terminal goes, with all of it.
        let (tmux, _) = watch(100, 30, "local");
        tmux.shows(&["mitogen: 1 up"]);
        drop(tmux);
        assert!(until(LIMIT, || watching().is_none().then_some(())).is_some());
    });
}

/// Has it draw again and again until the terminal takes no more.
fn fill(pid: u32) {
    let written = || {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
        let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
        line.unwrap().parse::<u64>().unwrap()
    };
    let mut before = 0;
    // To hear a signal writes a byte; to draw, hundreds.
    let draws = |before| until(Duration::from_secs(1), || (before + 100 < written()).then_some(()));
    while draws(before).is_some() {
        before = written();
        signal(pid, "CONT");
    }
}

#[test]
fn a_terminal_that_takes_nothing_keeps_it_from_no_end() {
    leaves_nothing(&[], || {
        for (signals, status) in [(&["INT"][..], 130), (&["TERM"], 143), (&["QUIT", "QUIT"], 131)] {
            // Many rows, so that it is full soon.
            let rows = (10..30).map(|n| format!(" 'ssh:host{n}?ssh_path=/nonexistent/client'"));
            let rows = rows.collect::<String>();
            let line = format!("ulimit -c 0; exec {MITOGEN} tree --watch local{rows}");
            let mut script = Command::new("script");
            script.args(["-qec", &line, "/dev/null"]).env_remove("MITOGEN_LOG_LEVEL");
            script.env("TERM", "xterm").stdin(Stdio::piped()).stdout(Stdio::piped());
            // Nobody reads what it shows.
            let script = script.spawn().unwrap();
            let pid = until(LIMIT, watching).unwrap().pid;
            agent_of(pid);
            fill(pid);
            for name in signals {
                signal(pid, name);
                // The next is not to be one with it.
                let status = || std::fs::read_to_string(format!("/proc/{pid}/status"));
                let is_heard =
                    || status().map_or(true, |it| it.contains("ShdPnd:\t0000000000000000"));
                assert!(until(LIMIT, || is_heard().then_some(())).is_some());
            }
            let gone = || watching().is_none().then_some(());
            assert!(until(LIMIT, gone).is_some(), "{signals:?}");
            let output = script.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(status));
        }
    });
}

#[test]
fn who_stops_it_has_the_terminal_meanwhile() {
    leaves_nothing(&[Need::Tmux], || {
        let (tmux, mode) = watch(100, 30, "local");
        tmux.shows(&["mitogen: 1 up"]);
        tmux.key("C-z");
        tmux.shows(&["what was before", "Stopped"]);
        assert_eq!(tmux.mode(), mode);
        assert_eq!(tmux.is("#{alternate_on} #{cursor_flag} #{wrap_flag}"), "0 1 1");
        tmux.line("fg");
        tmux.shows(&["mitogen: 1 up", "ID  NAME"]);
        assert_eq!(tmux.is("#{alternate_on} #{cursor_flag}"), "1 0");
        tmux.key("q");
        assert_given_back(&tmux, &mode, 0);
    });
}

#[test]
fn what_the_tree_does_is_told_beside_the_view() {
    leaves_nothing(&[Need::Tmux], || {
        let (tmux, mode) = watch(100, 40, "local");
        tmux.shows(&["mitogen: 1 up"]);
        signal(watching().unwrap().pid, "USR1");
        let found = || tmux.behind().contains("mitogen: the tree now:").then_some(());
        assert!(until(LIMIT, found).is_some(), "{}", tmux.behind());
        tmux.shows(&["mitogen: 1 up", "ID  NAME"]);
        tmux.key("q");
        assert_given_back(&tmux, &mode, 0);
        tmux.shows(&["mitogen: the tree now:", "1 (local), pid "]);
    });
}

/// It watches, and prints to a pipe.
fn piped(args: &[&str]) -> (std::process::Child, BufReader<std::process::ChildStdout>) {
    let mut command = Command::new(MITOGEN);
    command.args(["tree", "--watch", "--interval=0.2"]).args(args).stdin(Stdio::null());
    command.env_remove("MITOGEN_LOG_LEVEL").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    (child, stdout)
}

#[test]
fn without_a_terminal_each_change_is_a_table_and_the_last_end_is_the_end() {
    leaves_nothing(&[], || {
        let (child, stdout) = piped(&["local", "local/local"]);
        let (mut all, mut killed) = (String::new(), false);
        for line in stdout.lines() {
            let line = line.unwrap();
            all += &(line.clone() + "\n");
            let row: Vec<&str> = line.split_whitespace().collect();
            if !killed && row.get(1) == Some(&"local/local") && row.contains(&"up") {
                signal(agent_of(child.id()), "KILL");
                killed = true;
            }
        }
        assert!(!all.contains('\x1b'), "{all}");
        let tables: Vec<&str> = all.split("\n\n").collect();
        assert!(tables.len() < 10 && tables.iter().all(|it| it.starts_with("ID  NAME")), "{all}");
        let last = tables.last().unwrap();
        assert_eq!(last.matches(" gone ").count(), 2, "{all}");
        assert!(last.contains("killed by signal 9"), "{all}");
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(255));
    });
}

#[test]
fn json_tells_each_change_on_a_line() {
    leaves_nothing(&[], || {
        let (child, stdout) = piped(&["--json", "local", NOWHERE]);
        let mut told: Vec<Value> = Vec::new();
        for line in stdout.lines() {
            let object: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let is_known = object["at"].as_str().unwrap().contains('@');
            if object["name"] == "local" && object["state"] == "up" && is_known {
                signal(agent_of(child.id()), "KILL");
            }
            told.push(object);
        }
        let states = |name: &str| -> Vec<&str> {
            let of = told.iter().filter(|it| it["name"] == name);
            let mut states: Vec<&str> = of.map(|it| it["state"].as_str().unwrap()).collect();
            states.dedup();
            states
        };
        assert_eq!(states("local"), ["connecting", "up", "gone"], "{told:?}");
        assert_eq!(states(NOWHERE), ["connecting", "failed"], "{told:?}");
        assert!(told.len() < 20, "{told:?}");
        assert!(told.last().unwrap()["why"].as_str().unwrap().contains("signal 9"));
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(255));
    });
}

#[test]
fn a_reader_that_leaves_ends_it_though_nothing_changes() {
    leaves_nothing(&[], || {
        let (mut child, mut stdout) = piped(&["local"]);
        let mut line = String::new();
        while !line.contains(" up ") || line.contains("master") {
            line.clear();
            assert_ne!(stdout.read_line(&mut line).unwrap(), 0);
        }
        drop(stdout);
        let ended = until(LIMIT, || child.try_wait().unwrap());
        assert_eq!(ended.unwrap().code(), Some(141));
    });
}

#[test]
fn a_terminal_that_can_do_nothing_shows_tables() {
    leaves_nothing(&[], || {
        for first in ["TERM=dumb", "TERM=xterm MITOGEN_LOG_LEVEL=error"] {
            let line = format!("{first} {MITOGEN} tree --watch '{NOWHERE}'");
            let mut script = Command::new("script");
            script.args(["-qec", &line, "/dev/null"]).env_remove("MITOGEN_LOG_LEVEL");
            let output = script.stdin(Stdio::null()).output().unwrap();
            let shown = String::from_utf8(output.stdout.clone()).unwrap();
            assert_eq!(output.status.code(), Some(255), "{}", told(&output));
            assert!(shown.contains("ID  NAME") && !shown.contains('\x1b'), "{shown:?}");
        }
    });
}
