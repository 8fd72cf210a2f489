//! The command on this machine: what it prints and how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use serde_json::{Value, json};

use crate::support::*;

/// Leads nowhere, at once, without ssh.
const NOWHERE: &str = "ssh:nowhere?ssh_path=/nonexistent/client";
const NOT_INSTALLED: &str =
    "while starting the process: /nonexistent/client is not installed, or not in PATH";

fn mitogen(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mitogen"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove("MITOGEN_LOG_LEVEL");
    command
}

fn output(args: &[&str]) -> Output {
    let _company = beside_others();
    mitogen(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn assert_status(args: &[&str], expected: i32) {
    let output = output(args);
    assert_eq!(output.status.code(), Some(expected), "{args:?}: {}", told(&output));
}

#[test]
fn one_address_has_the_commands_own_status() {
    assert_status(&["run", "local", "--", "true"], 0);
    assert_status(&["run", "local", "--", "false"], 1);
    assert_status(&["run", "local/local", "--", "sh", "-c", "exit 200"], 200);
    assert_status(&["run", "local", "--", "sh", "-c", "kill -9 $$"], 128 + 9);
    assert_status(&["run", "local", "--", "/nonexistent/command"], 127);
    assert_status(&["run", "local", "--", "/etc/passwd"], 126);
}

#[test]
fn several_addresses_end_with_0_or_1() {
    assert_status(&["run", "local", "local/local", "--", "true"], 0);
    assert_status(&["run", "local", "local/local", "--", "sh", "-c", "exit 3"], 1);
    assert_status(&["run", "local", "local/local", "--", "/nonexistent/command"], 1);
}

#[test]
fn an_address_that_is_not_reached_comes_before_all_else() {
    assert_status(&["run", NOWHERE, "--", "true"], 255);
    assert_status(&["run", "--timeout", "1", NOWHERE, "local", "--", "sleep", "30"], 255);
    let output = output(&["run", "local", NOWHERE, "--", "echo", "here"]);
    assert_eq!(output.status.code(), Some(255));
    assert_eq!(text(&output.stdout), "local: here\n");
    let expected = format!("mitogen: {NOWHERE}: {NOT_INSTALLED}");
    assert!(text(&output.stderr).starts_with(&expected), "{}", told(&output));
}

#[test]
fn a_context_that_is_lost_counts_as_not_reached() {
    let line = "kill -9 $PPID; sleep 30";
    let output = output(&["run", "local", "--", "sh", "-c", line]);
    assert_eq!(output.status.code(), Some(255), "{}", told(&output));
    assert!(text(&output.stderr).contains("killed by signal 9"), "{}", told(&output));
}

#[test]
fn the_timeout_covers_the_command_and_the_connection() {
    let mark = format!("124.{}", std::process::id());
    let (_folder, silent) = client(&format!("exec sleep {mark}"));
    for addresses in [&["local"][..], &[&silent], &["local", &silent]] {
        let begun = Instant::now();
        let args = [&["run", "--timeout=0.3"], addresses, &["--", "sleep", &mark]].concat();
        let output = output(&args);
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(output.status.code(), Some(124), "{}", told(&output));
        let lines = addresses.iter().map(|a| format!("mitogen: {a}: not done within 0.3 s\n"));
        assert_eq!(text(&output.stderr), lines.collect::<String>());
        assert_gone(&mark);
    }
}

/// Fails unless within a second no process has this word among its arguments.
#[track_caller]
fn assert_gone(mark: &str) {
    let gone = || !processes().iter().any(|process| process.command.contains(mark));
    assert!(until(Duration::from_secs(1), || gone().then_some(())).is_some(), "{mark}");
}

/// An address whose ssh is this script.
fn client(script: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("client");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let address = format!("ssh:web?ssh_path={}", path.display());
    (folder, address)
}

#[test]
fn control_c_ends_what_is_still_connecting() {
    let _company = beside_others();
    let mark = format!("130.{}", std::process::id());
    let (_folder, silent) = client(&format!("exec sleep {mark}"));
    let mut child = mitogen(&["run", &silent, "--", "true"]).spawn().unwrap();
    let begun = || processes().iter().any(|process| process.command.contains(&mark));
    until(Duration::from_secs(10), || begun().then_some(())).unwrap();
    signal(child.id(), "INT");
    assert_eq!(child.wait().unwrap().signal(), Some(2));
    assert_gone(&mark);
}

#[test]
fn several_outputs_are_told_apart_by_line_and_by_stream() {
    let line = "echo a; echo b >&2; printf c; printf d >&2";
    let output = output(&["run", "local", "local/local", "--", "sh", "-c", line]);
    let sorted = |bytes: &[u8]| {
        let text = text(bytes);
        let mut lines: Vec<String> = text.split_inclusive('\n').map(String::from).collect();
        lines.sort();
        lines.concat()
    };
    assert_eq!(sorted(&output.stdout), "local/local: a\nlocal/local: c\nlocal: a\nlocal: c\n");
    assert_eq!(sorted(&output.stderr), "local/local: b\nlocal/local: d\nlocal: b\nlocal: d\n");
}

#[test]
fn lines_keep_their_order_and_are_not_torn() {
    let line = "i=0; while [ $i -lt 2000 ]; do printf a; printf \"b$i\\n\"; i=$((i+1)); done";
    let output = output(&["run", "local", "local/local", "--", "sh", "-c", line]);
    let stdout = text(&output.stdout);
    for address in ["local", "local/local"] {
        let prefix = format!("{address}: ");
        let lines: Vec<&str> = stdout.lines().filter_map(|l| l.strip_prefix(&prefix)).collect();
        assert!(lines.iter().copied().eq((0..2000).map(|i| format!("ab{i}"))), "{stdout}");
    }
    assert_eq!(stdout.lines().count(), 4000);
}

#[test]
fn a_line_without_end_is_broken() {
    let output = output(&["run", "local", "local", "--", "head", "-c", "1500000", "/dev/zero"]);
    assert_eq!(output.stdout.iter().filter(|byte| **byte == 0).count(), 3_000_000);
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 4);
}

#[test]
fn an_address_given_twice_runs_twice() {
    let output = output(&["run", "local", "local", "--", "echo", "here"]);
    assert_eq!(text(&output.stdout), "local: here\nlocal: here\n");
}

#[test]
fn the_bytes_of_one_address_pass_unchanged() {
    let mut bytes = Vec::with_capacity(4 << 20);
    let mut state = 1_u64;
    while bytes.len() < 4 << 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        bytes.extend_from_slice(&state.to_be_bytes()[..3]);
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    let path = file.path().to_str().unwrap();
    let line = "cat \"$0\" & cat \"$0\" >&2; wait";
    let output = output(&["run", "local/local", "--", "sh", "-c", line, path]);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout == bytes && output.stderr == bytes);
}

#[test]
fn the_command_has_nothing_to_read_and_its_arguments_as_given() {
    let _company = beside_others();
    let mut child = mitogen(&["run", "local", "--", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let held_open = child.stdin.take();
    assert!(child.wait().unwrap().success());
    drop(held_open);
    let args = ["run", "local", "--", "printf", "%s|", "--json", "a  b", "", "--", "$HOME"];
    let output = mitogen(&args).output().unwrap();
    assert_eq!(text(&output.stdout), "--json|a  b||--|$HOME|");
}

/// Starts the command and returns it with a reader of what it prints.
fn spawn(args: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = mitogen(args).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    (child, stdout)
}

#[test]
fn output_comes_as_it_is_printed() {
    let _company = beside_others();
    for addresses in [&["local"][..], &["local", "local/local"]] {
        let line = "printf 'first\\n'; sleep 30";
        let args = [&["run"], addresses, &["--", "sh", "-c", line]].concat();
        let (mut child, mut stdout) = spawn(&args);
        let mut first = String::new();
        stdout.read_line(&mut first).unwrap();
        assert!(first.ends_with("first\n"));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_reader_that_leaves_ends_everything_quietly() {
    let _company = beside_others();
    for form in [&["run", "local"][..], &["run", "local", "local"], &["run", "--json", "local"]] {
        let (mut child, mut stdout) = spawn(&[form, &["--", "yes"]].concat());
        stdout.read_line(&mut String::new()).unwrap();
        drop(stdout);
        assert_eq!(child.wait().unwrap().code(), Some(141));
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "");
    }
}

#[test]
fn what_is_not_read_does_not_grow_in_memory() {
    let _company = beside_others();
    let (mut child, mut stdout) = spawn(&["run", "local", "--", "cat", "/dev/zero"]);
    let mut block = vec![0; 64 << 20];
    stdout.read_exact(&mut block).unwrap();
    // Longer than a queue without bound would need to grow by ten times what is allowed.
    thread::sleep(Duration::from_millis(300));
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(peak_kib < 24 << 10, "{peak_kib} KiB");
}

/// One object a line.
fn objects(bytes: &[u8]) -> Vec<Value> {
    text(bytes).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The events of `run --json`.
fn events(args: &[&str]) -> (Vec<Value>, Option<i32>) {
    let output = output(&[&["run", "--json"], args].concat());
    assert_eq!(text(&output.stderr), "");
    (objects(&output.stdout), output.status.code())
}

/// Takes the time out of an event; fails if there is none.
#[track_caller]
fn without_time(mut event: Value) -> Value {
    assert!(event.as_object_mut().unwrap().remove("elapsed_ms").unwrap().is_u64());
    event
}

#[test]
fn json_tells_each_event_on_a_line() {
    let line = "printf 'a\"\\\\\\t\\033\\303'; sleep 0.1; printf '\\251\\n'; sleep 0.1; \
                echo b >&2; exit 3";
    let (events, status) = events(&["local", "--", "sh", "-c", line]);
    assert_eq!(status, Some(3));
    let said: String = events.iter().filter_map(|event| event["stdout"].as_str()).collect();
    assert_eq!(said, "a\"\\\t\u{1b}é\n");
    let [.., error, end] = &events[..] else { panic!("{events:?}") };
    assert_eq!(*error, json!({"address": "local", "stderr": "b\n"}));
    assert_eq!(without_time(end.clone()), json!({"address": "local", "exit": 3}));
}

#[test]
fn json_marks_bytes_that_are_no_text_and_tells_signals_and_errors() {
    let line = "printf '\\377a\\303'; kill -9 $$";
    let (found, status) = events(&["local", "--", "sh", "-c", line]);
    assert_eq!(status, Some(137));
    assert_eq!(found[0], json!({"address": "local", "stdout_base64": "/2E="}));
    assert_eq!(found[1], json!({"address": "local", "stdout_base64": "ww=="}));
    let end = without_time(found[2].clone());
    assert_eq!(end, json!({"address": "local", "exit": 137, "signal": 9}));

    let (found, status) = events(&[NOWHERE, "--", "true"]);
    assert_eq!((status, &found[0]["address"]), (Some(255), &json!(NOWHERE)));
    assert!(found[0]["error"].as_str().unwrap().starts_with(NOT_INSTALLED), "{found:?}");
    let (found, status) = events(&["--timeout", "0.3", "local", "--", "sleep", "30"]);
    assert_eq!(status, Some(124));
    assert_eq!(found, [json!({"address": "local", "error": "not done within 0.3 s"})]);
}

#[track_caller]
fn assert_refused(args: &[&str], expected: &str) {
    let output = output(args);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {}", told(&output));
    assert_eq!(text(&output.stdout), "");
    assert!(text(&output.stderr).contains(expected), "{args:?}: {}", told(&output));
}

#[test]
fn a_command_line_that_makes_no_sense_is_refused() {
    assert_refused(&[], "it is `run` or `tree`");
    assert_refused(&["walk"], "unknown: `walk`");
    assert_refused(&["run"], "no address");
    assert_refused(&["run", "local"], "no `--`");
    assert_refused(&["run", "local", "--"], "no command");
    assert_refused(&["run", "--", "id"], "no address");
    assert_refused(&["run", "--jsno", "local", "--", "id"], "unknown option: `--jsno`");
    assert_refused(&["run", "--timeout", "soon", "local", "--", "id"], "not `soon`");
    assert_refused(&["run", "--timeout=-1", "local", "--", "id"], "not `-1`");
    assert_refused(&["tree"], "no address");
    assert_refused(&["tree", "local", "--", "id"], "takes no command");
    assert_refused(&["tree", "--timeout", "1", "local"], "unknown option");
}

#[test]
fn bad_addresses_say_where_they_are_bad() {
    let expected = "byte 6: unknown: `sduo`; methods are: ";
    assert_refused(&["run", "local/sduo:root", "ssh", "--", "id"], expected);
    assert_refused(&["run", "local/sduo:root", "ssh", "--", "id"], "ssh needs a target");
    assert_refused(&["tree", "local/sduo"], "    local/sduo\n          ^\n");
}

#[test]
fn help_is_there_wherever_one_asks() {
    for args in [&["--help"][..], &["-h"], &["help"], &["run", "--help"], &["tree", "local", "-h"]]
    {
        let output = output(args);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("ADDRESS..."), "{args:?}");
        assert!(text(&output.stdout).lines().all(|line| line.chars().count() <= 100));
    }
    assert!(text(&output(&["--version"]).stdout).starts_with("mitogen 0"));
}

#[test]
fn what_a_target_says_loses_its_escapes_and_passwords_are_not_shown() {
    let (_folder, rude) = client("printf '\\033[2Jboo\\n' >&2; exit 255");
    let rude = format!("{rude}&password=hush");
    let said = output(&["run", &rude, "--", "true"]).stderr;
    assert!(text(&said).contains("[2Jboo") && !said.contains(&0x1b), "{}", text(&said));
    assert!(!text(&said).contains("hush") && text(&said).contains("password=***"));
    let raw = output(&["run", "local", "--", "printf", "\\033[1m"]);
    assert_eq!(raw.stdout, b"\x1b[1m");
}

#[test]
fn the_log_is_silent_unless_asked_for() {
    let _company = beside_others();
    let log = |level: &str| {
        let mut command = mitogen(&["run", "local", "local/local", "--", "true"]);
        text(&command.env("MITOGEN_LOG_LEVEL", level).output().unwrap().stderr)
    };
    let quiet = output(&["run", "local", "local/local", "--", "true"]);
    assert_eq!((text(&quiet.stdout), text(&quiet.stderr)), (String::new(), String::new()));
    ["", "none", "error", "WARN"].into_iter().for_each(|level| assert_eq!(log(level), ""));
    let info = log("info");
    assert!(info.contains("Z INFO master: a context is up: 1 "), "{info}");
    // Of a context itself.
    assert!(info.contains("Z INFO local: a context is up: "), "{info}");
    assert!(log("loud").contains("MITOGEN_LOG_LEVEL is error, warn"));
}

#[test]
fn what_was_logged_is_seen_when_the_time_runs_out() {
    let _company = beside_others();
    let mut command = mitogen(&["run", "--timeout=0.5", "local", "--", "sleep", "30"]);
    let output = command.env("MITOGEN_LOG_LEVEL", "debug").output().unwrap();
    assert_eq!(output.status.code(), Some(124));
    assert!(text(&output.stderr).contains("INFO master: a context is up: 1 "), "{}", told(&output));
}

#[test]
fn a_tree_shows_every_context_once() {
    let output = output(&["tree", "--json", "local", "local/local", NOWHERE]);
    assert_eq!(output.status.code(), Some(255));
    assert!(text(&output.stderr).starts_with(&format!("mitogen: {NOWHERE}: ")));
    let nodes = objects(&output.stdout);
    let names: Vec<&str> = nodes.iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["master", "local", "local/local"]);
    assert_eq!((&nodes[0]["id"], &nodes[0]["parent"]), (&json!(0), &Value::Null));
    assert!(nodes[0]["pushed_bytes"].is_null());
    for (depth, pair) in nodes.windows(2).enumerate() {
        assert_eq!(pair[1]["parent"], pair[0]["id"]);
        assert_eq!(pair[1]["depth"], depth + 1);
        assert_eq!(pair[1]["host"], pair[0]["host"]);
        for name in ["pid", "pushed_bytes", "connect_us", "round_trip_us"] {
            assert!(pair[1][name].as_u64().is_some_and(|number| 0 < number), "{name}");
        }
    }
}

#[test]
fn a_tree_is_indented() {
    let output = output(&["tree", "local/local", "local"]);
    let text = text(&output.stdout);
    let names: Vec<&str> = text.lines().map(|line| &line[4..4 + 15]).collect();
    assert_eq!(names, ["NAME           ", "master         ", "  local        ", "    local/local"]);
}
