//! What is printed in contexts that leave their tree, and in copies of a process.

use std::fs;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use mitogen::error::ErrorKind;
use mitogen::{CallContext, ContextId, ForkPromise, Level, Program, Result, log_to};

use crate::support::*;

mitogen::test_agent!(program());

const LIMIT: Duration = Duration::from_secs(20);
const LINES: usize = 3000;
/// What a context prints that has left: more than any pipe holds.
const ALONE_BYTES: usize = 4 << 20;

fn program() -> Program {
    let program = Program::new().function(leave).function(say).function(print).function(end);
    program.function(fork_and_say).function(fork_within).allow_fork(promise())
}

/// Detaches this context, then prints much and logs much, and tells a file how it fares.
fn leave(cx: &CallContext, folder: &Path) -> Result<()> {
    println!("before");
    print!("the beginning of a line");
    cx.detach()?;
    let line = "x".repeat(1000);
    for _ in 0..ALONE_BYTES / line.len() {
        println!("{line}");
        eprintln!("{line}");
        mitogen::info!("{line}");
    }
    let open = census(std::process::id()).descriptors;
    let open: Vec<String> =
        open.into_iter().map(|(number, what)| format!("{number} {what}")).collect();
    fs::write(folder.join("facts"), open.join("\n")).unwrap();
    fs::rename(folder.join("facts"), folder.join("left")).unwrap();
    Ok(())
}

fn say(text: &str) {
    println!("{text}");
    mitogen::info!("{text}");
}

fn print(name: &str, lines: usize) {
    (0..lines).for_each(|line| println!("{name} {line}"));
}

fn end() {
    print!("last words");
    std::process::exit(0);
}

/// Copies this process between two lines; the copy says something, too.
fn fork_and_say(cx: &CallContext) -> Result<u32> {
    println!("before");
    let copy = cx.router().fork(promise()).connect()?;
    copy.call(say, "in between")?;
    println!("after");
    Ok(copy.context_id().0)
}

/// Copies this process within a line.
fn fork_within(cx: &CallContext) -> Result<u32> {
    print!("one ");
    let copy = cx.router().fork(promise()).connect()?;
    copy.call(say, "another")?;
    println!("line");
    Ok(copy.context_id().0)
}

#[allow(unsafe_code)]
fn promise() -> ForkPromise {
    // SAFETY: what copies run here allocates, which the system sees to, and calls the library.
    unsafe { ForkPromise::new() }
}

/// Whose line it is, by number and name, its target and text.
type Line = (Option<ContextId>, String, String, String);

fn listen() -> Receiver<Line> {
    let (tell, told) = mpsc::channel();
    let sink = move |record: &mitogen::Record<'_>| {
        if record.target != "mitogen" {
            let [name, target, text] = [record.name, record.target, record.text].map(str::to_owned);
            // A test that has seen enough has gone.
            let _ = tell.send((record.context, name, target, text));
        }
    };
    log_to(Level::Info, Box::new(sink));
    told
}

/// What has come by the end of the tree.
fn texts(lines: &Receiver<Line>, of: ContextId) -> Vec<String> {
    let all = lines.try_iter().filter(|line| line.0 == Some(of));
    all.map(|(.., text)| text).collect()
}

#[test]
fn what_a_context_prints_that_has_left_goes_nowhere_and_holds_up_nobody() {
    let name = "stdio_ends::what_a_context_prints_that_has_left_goes_nowhere_and_holds_up_nobody";
    in_process_of_test(name, || {
        let lines = listen();
        let folder = tempfile::tempdir().unwrap();
        let (router, hops) = three_hops(mitogen_test_program());
        let error = hops[2].call(leave, folder.path()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Closed(_)), "{error}");
        let left = folder.path().join("left");
        let open = until(LIMIT, || fs::read_to_string(&left).ok()).expect("it hangs");
        for number in 0..3 {
            assert!(open.lines().any(|line| line == format!("{number} /dev/null")), "{open}");
        }
        assert!(!open.contains("pipe:"), "it reads what it prints: {open}");
        router.shutdown();
        assert_eq!(texts(&lines, hops[2].context_id()), ["before", "the beginning of a line"]);
    });
}

#[test]
fn a_copy_prints_as_itself_and_nothing_of_its_originals_again() {
    let name = "stdio_ends::a_copy_prints_as_itself_and_nothing_of_its_originals_again";
    in_process_of_test(name, || {
        let lines = listen();
        let router = mitogen_test_program().router().unwrap();
        let child = router.local().threads(2).connect().unwrap();
        let printing = child.call_async(print, ("original", LINES));
        let copies: Vec<_> = (0..5).map(|_| child.call(fork_and_say, ()).unwrap()).collect();
        printing.get().unwrap();
        let within = ContextId(child.call(fork_within, ()).unwrap());
        let own = router.fork(promise()).connect().unwrap();
        own.call(print, ("own", LINES)).unwrap();
        child.call(say, "goes on").unwrap();
        assert!(own.call(end, ()).is_err());
        router.shutdown();
        let all: Vec<Line> = lines.try_iter().collect();
        let of = |id: ContextId| all.iter().filter(move |line| line.0 == Some(id));
        let printed =
            |name: &str| (0..LINES).map(|line| format!("{name} {line}")).collect::<Vec<_>>();
        for copy in copies {
            let lines: Vec<_> = of(ContextId(copy)).collect();
            assert!(lines.iter().all(|line| line.3 == "in between"), "{lines:?}");
            assert!(lines.iter().all(|line| line.1 == format!("{}/fork", child.name())));
            let [first, second] = &lines[..] else { panic!("{lines:?}") };
            assert_eq!((&*first.2, second.2.ends_with("stdio_ends")), ("stdout", true));
        }
        let (lines, rest): (Vec<_>, Vec<_>) =
            of(child.context_id()).partition(|line| line.3.starts_with("original"));
        assert!(lines.iter().map(|line| &line.3).eq(&printed("original")));
        assert!(lines.iter().all(|line| line.1 == child.name()));
        let rest: Vec<_> = rest.iter().map(|line| &*line.3).collect();
        let expected = [["before", "after"]; 5].concat();
        assert_eq!(rest, [&expected[..], &["one line"], &["goes on"; 2]].concat());
        assert!(of(within).map(|line| &line.3).eq(&["another"; 2]));
        let lines: Vec<_> = of(own.context_id()).map(|line| &line.3).collect();
        let (last, lines) = lines.split_last().unwrap();
        assert_eq!(*last, "last words");
        assert!(lines.iter().copied().eq(&printed("own")));
        assert_eq!(all.len(), 5 * 4 + 2 * LINES + 3 + 2 + 1);
    });
}

#[test]
fn the_last_words_of_a_context_are_its_own() {
    in_process_of_test("stdio_ends::the_last_words_of_a_context_are_its_own", || {
        let lines = listen();
        let (_router, hops) = three_hops(mitogen_test_program());
        hops[1].call(say, "of one below").unwrap();
        // Its line has passed by the link that is to end.
        let arrived = || lines.try_iter().find(|line| line.3 == "of one below");
        assert!(until(LIMIT, arrived).is_some());
        let error = hops[0].call(end, ()).unwrap_err();
        let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
        assert!(!death.tail.contains("of one below"), "{:?}", death.tail);
        assert!(death.tail.contains("last words"), "{:?}", death.tail);
    });
}
