//! An agent whose parent is gone, at whatever step of its start, is gone within a second, and has
//! not spent that second computing. The steps are a real parent's, said again by hand.

use std::io::{BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mitogen::Program;

use crate::support::*;

const SECOND: Duration = Duration::from_secs(1);
const PROCESSOR_TIME_MAX: Duration = Duration::from_millis(50);

/// How far a parent comes.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// It has started the child, and no more.
    Started,
    /// It has heard this.
    Heard(&'static str),
    /// It has said this part of the line, of the image, and of the first frame; each is as many
    /// hundredths.
    Said(usize, usize, usize),
    /// All that, and the agent listens to it.
    Up,
}

const BY_SHELL: &[Step] = &[
    Step::Started,
    Step::Heard("MGN0-"),
    Step::Said(50, 0, 0),
    Step::Said(100, 0, 0),
    Step::Said(100, 50, 0),
    Step::Said(100, 99, 0),
    Step::Said(100, 100, 0),
    Step::Heard("MGN1-"),
    Step::Said(100, 100, 50),
    Step::Said(100, 100, 100),
    Step::Up,
];
const DIRECTLY: &[Step] = &[
    Step::Started,
    Step::Heard("MGN1-"),
    Step::Said(0, 0, 1),
    Step::Said(0, 0, 50),
    Step::Said(0, 0, 99),
    Step::Said(0, 0, 100),
    Step::Up,
];

/// How a parent's end of the stream closes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    Killed,
    Closed,
}

fn program() -> Program {
    Program::new().image(stock_image())
}

/// The start of so many hundredths of it, rounded so that only all is all.
fn part(bytes: &[u8], hundredths: usize) -> &[u8] {
    match hundredths {
        0 => &[],
        100 => bytes,
        _ => &bytes[..(bytes.len() * hundredths / 100).clamp(1, bytes.len() - 1)],
    }
}

/// Brings a child up as far as `step`.
fn bring_up(recording: &Recording, direct: bool, step: Step, stream: &UnixStream) {
    let (mut say, mut ears) = (stream, BufReader::new(stream));
    let (line, image, frame) = match step {
        Step::Started => return,
        Step::Heard("MGN0-") => return hear(&mut ears, "MGN0-"),
        Step::Heard(_) => (100, 100, 0),
        Step::Said(line, image, frame) => (line, image, frame),
        Step::Up => (100, 100, 100),
    };
    if !direct {
        hear(&mut ears, "MGN0-");
        say.write_all(part(&recording.line, line)).unwrap();
        say.write_all(part(&recording.image, image)).unwrap();
    }
    if matches!(step, Step::Heard(_)) || 0 < frame {
        hear(&mut ears, "MGN1-");
    }
    say.write_all(part(&recording.frame, frame)).unwrap();
}

const PARENT: &str = "MITOGEN_TEST_PARENT";

/// Not a test: holds the stream that it was given as its standard input until it is killed.
#[test]
fn parent() {
    if std::env::var_os(PARENT).is_some() {
        loop {
            thread::park();
        }
    }
}

/// A parent that a test can kill: it holds the only other end of a stream.
fn holder(stream: UnixStream) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "startup_deaths::parent", "--test-threads=1"]).env(PARENT, "1");
    command.stdin(OwnedFd::from(stream)).stdout(Stdio::null()).spawn().unwrap()
}

/// Processor time of a group's members.
fn spent(group: u32) -> Duration {
    group_members(group).into_iter().filter_map(processor_time).sum()
}

#[track_caller]
fn assert_ends(recording: &Recording, direct: bool, step: Step, loss: Loss) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = if direct { recording.agent() } else { recording.shell() };
    let output = OwnedFd::from(theirs.try_clone().unwrap());
    command.stdin(OwnedFd::from(theirs)).stdout(output).stderr(Stdio::null()).process_group(0);
    let mut child = command.spawn().unwrap();
    drop(command);
    let group = child.id();
    bring_up(recording, direct, step, &ours);
    if let Step::Up = step {
        until(SECOND, || (census(group).threads.len() == 2).then_some(()));
    }
    let before = spent(group);
    match loss {
        Loss::Closed => drop(ours),
        Loss::Killed => {
            let mut parent = holder(ours);
            parent.kill().unwrap();
            parent.wait().unwrap();
        }
    }
    let (lost, mut after) = (Instant::now(), before);
    let gone = until(SECOND, || {
        after = after.max(spent(group));
        group_members(group).is_empty().then_some(())
    });
    let left = group_members(group);
    left.iter().for_each(|pid| signal(*pid, "KILL"));
    child.wait().unwrap();
    assert!(gone.is_some(), "{step:?} {loss:?}: {left:?} {:?}", lost.elapsed());
    let spent = after.saturating_sub(before);
    assert!(spent < PROCESSOR_TIME_MAX, "{step:?} {loss:?}: {spent:?}");
}

#[track_caller]
fn assert_ends_at_each_step(direct: bool, steps: &[Step]) {
    leaves_nothing(&[], || {
        let recording = Recording::make(&program().router().unwrap());
        for step in steps {
            for loss in [Loss::Killed, Loss::Closed] {
                assert_ends(&recording, direct, *step, loss);
                assert_eq!(files_of_ours(), [""; 0].map(std::path::PathBuf::from), "{step:?}");
            }
        }
    });
}

#[test]
fn an_agent_that_a_shell_becomes_ends_with_its_parent_at_each_step() {
    assert_ends_at_each_step(false, BY_SHELL);
}

#[test]
fn an_agent_that_is_executed_ends_with_its_parent_at_each_step() {
    assert_ends_at_each_step(true, DIRECTLY);
}
