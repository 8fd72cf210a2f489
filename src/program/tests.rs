//! A whole tree on a kernel that lacks what newer ones have.

use std::fs;
use std::time::{Duration, Instant};

use crate::error::{ErrorKind, Exit};
use crate::sys::{signal, testing};
use crate::{Program, stock};

crate::test_agent!(Program::new());

const SECOND: Duration = Duration::from_secs(1);

fn shell(line: &str) -> stock::Command {
    stock::Command { argv: ["sh", "-c", line].map(Into::into).to_vec() }
}

/// The children of this process, zombies included.
fn children() -> Vec<String> {
    let (own, mut found) = (format!(" {} ", std::process::id()), Vec::new());
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if stat.rsplit_once(')').is_some_and(|(_, rest)| rest[2..].starts_with(&own)) {
            found.push(stat);
        }
    }
    found
}

fn a_tree_works() {
    let router = mitogen_test_program().router().unwrap();
    let child = router.local().connect().unwrap();
    let grandchild = router.local().via(&child).connect().unwrap();
    for context in [&child, &grandchild] {
        let output = router.receiver();
        let begun = Instant::now();
        let run = context.call(stock::run, (shell("sleep 5 & exit 7"), output.to_sender()));
        assert_eq!(run.unwrap(), stock::Ended::Exited(7));
        assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
    }
    let pid = child.call(stock::identify, ()).unwrap().pid;
    let output = router.receiver::<stock::Output>();
    let killed = Instant::now();
    let call = child.call_async(stock::run, (shell(&format!("kill -9 {pid}")), output.to_sender()));
    let error = call.get().unwrap_err();
    let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    assert_eq!(death.exit, Some(Exit::Signal(9)), "{error}");
    assert!(killed.elapsed() < SECOND, "{:?}", killed.elapsed());

    let busy: Vec<_> = (0..4).map(|_| router.local().start().wait().unwrap()).collect();
    busy[0].shutdown().unwrap();
    assert_eq!(children().len(), 3, "{:?}", children());
    let stopping = Instant::now();
    router.shutdown();
    assert!(stopping.elapsed() < SECOND, "{:?}", stopping.elapsed());
    assert_eq!(children(), [""; 0]);
}

#[test]
fn a_kernel_without_pidfds_does() {
    if testing::is_again() {
        testing::forget_new_calls();
        a_tree_works();
        signal::exit_now(42);
    }
    testing::ends_well(concat!(module_path!(), "::a_kernel_without_pidfds_does"));
}

#[test]
fn a_program_that_ignores_its_childrens_end_still_learns_of_it() {
    if testing::is_again() {
        signal::ignore_children();
        let router = mitogen_test_program().router().unwrap();
        let child = router.local().connect().unwrap();
        child.call(stock::ping, ()).unwrap();
        let begun = Instant::now();
        child.shutdown().unwrap();
        router.local().connect().unwrap();
        router.shutdown();
        assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
        assert_eq!(children(), [""; 0]);
        signal::exit_now(42);
    }
    testing::ends_well(concat!(
        module_path!(),
        "::a_program_that_ignores_its_childrens_end_still_learns_of_it"
    ));
}
