//! Real processes that end in all ways.

use super::*;
use crate::sys::errno::Errno;
use crate::sys::{signal, testing};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

fn sh(line: &str) -> Child {
    Command::new("sh").args(["-c", line]).spawn().unwrap()
}

fn watch(broker: &Broker, child: Child) -> Receiver<io::Result<ExitStatus>> {
    let (tell, told) = channel();
    broker.watch_process(child, move |status| tell.send(status).unwrap());
    told
}

fn ends_are_told(broker: &Broker) {
    let exited = watch(broker, sh("exit 3"));
    let killed = watch(broker, sh("kill -9 $$"));
    let late = watch(broker, sh("sleep 0.1; exit 4"));
    broker.watch_process(sh("exit 0"), |_| panic!("on purpose"));
    let reads = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let reads = watch(broker, reads);
    assert_eq!(late.recv_timeout(LIMIT).unwrap().unwrap().code(), Some(4));
    assert_eq!(exited.recv_timeout(LIMIT).unwrap().unwrap().code(), Some(3));
    assert_eq!(killed.recv_timeout(LIMIT).unwrap().unwrap().signal(), Some(9));
    assert!(reads.recv_timeout(LIMIT).unwrap().unwrap().success());
}

#[test]
fn the_end_of_each_is_told_and_other_children_are_left_alone() {
    let broker = Broker::start().unwrap();
    let mut other = sh("exit 5");
    ends_are_told(&broker);
    assert_eq!(other.wait().unwrap().code(), Some(5));
    broker.shutdown();
    broker.join();
}

#[test]
fn a_broker_that_ends_says_so_at_once_and_ends_no_process() {
    for fails in [false, true] {
        let broker = Broker::start().unwrap();
        let child = sh("exec sleep 1000");
        let pid = child.id();
        let told = watch(&broker, child);
        broker.defer_sync(|_| ()).unwrap();
        match fails {
            false => broker.shutdown(),
            true => broker.defer(|_| panic!("on purpose")).unwrap(),
        }
        assert!(broker.join_timeout(Duration::from_secs(2)), "it does not wait for the process");
        let error = told.recv_timeout(LIMIT).unwrap().unwrap_err().to_string();
        assert_eq!(error.contains("on purpose"), fails, "{error}");
        let late = watch(&broker, sh("exit 0")).recv_timeout(LIMIT).unwrap();
        assert_eq!(late.unwrap_err().to_string(), error);
        let ended = Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        assert!(ended.success(), "it lives");
    }
}

#[test]
fn what_comes_as_the_broker_ends_is_told_on_the_thread_for_callbacks() {
    let broker = Broker::start().unwrap();
    let (tell, told) = channel();
    let (own, child) = (broker.clone(), sh("exit 0"));
    let watch = move |turn: &mut Turn| {
        turn.stop();
        let here = own.clone();
        let tell = move |status: io::Result<ExitStatus>| {
            tell.send((here.is_current(), status.is_err())).unwrap();
        };
        own.watch_process(child, tell);
    };
    broker.defer(watch).unwrap();
    assert_eq!(told.recv_timeout(LIMIT).unwrap(), (false, true));
}

#[test]
fn a_kernel_without_pidfds_does() {
    if testing::is_again() {
        testing::forget_new_calls();
        let broker = Broker::start().unwrap();
        ends_are_told(&broker);
        signal::exit_now(42);
    }
    testing::ends_well(concat!(module_path!(), "::a_kernel_without_pidfds_does"));
}

#[test]
fn a_program_that_ignores_its_childrens_end_learns_of_it_but_not_how() {
    if testing::is_again() {
        signal::ignore_children();
        let broker = Broker::start().unwrap();
        for line in ["exit 3", "sleep 0.1"] {
            let error = watch(&broker, sh(line)).recv_timeout(LIMIT).unwrap().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::CHILD.0));
        }
        signal::exit_now(42);
    }
    testing::ends_well(concat!(
        module_path!(),
        "::a_program_that_ignores_its_childrens_end_learns_of_it_but_not_how"
    ));
}
