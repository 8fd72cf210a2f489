//! Counters and times, which each process that was asked to keep them writes to a file at its end.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{env, fs, process, thread};

use mitogen::{Program, Router};

use crate::support::*;

mitogen::test_agent!(program());

const LIMIT: Duration = Duration::from_secs(20);
/// Says that this process is to be a master.
const MASTER: &str = "MITOGEN_TEST_PROFILING_MASTER";
const CALLS: u64 = 20;

fn program() -> Program {
    Program::new().function(pid)
}

fn pid() -> u32 {
    process::id()
}

fn router() -> Router {
    mitogen_test_program().router().unwrap()
}

/// What the file of a process has; the rows by all of their numbers but the first value.
#[derive(Debug)]
struct Stats {
    values: BTreeMap<String, u64>,
    name: String,
    /// By handle: how many, the sum, the longest.
    handlers: BTreeMap<u64, [u64; 3]>,
    slowest_us: Vec<u64>,
}

#[track_caller]
fn stats(folder: &Path, pid: u32) -> Stats {
    let path = folder.join(format!("mitogen.stats.{pid}.log"));
    let text = until(LIMIT, || fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n')));
    let text = text.unwrap_or_else(|| panic!("there is no {path:?}"));
    let (values, name, handlers) = (BTreeMap::new(), String::new(), BTreeMap::new());
    let mut stats = Stats { values, name, handlers, slowest_us: Vec::new() };
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap_or_else(|_| panic!("{line}"));
        match words[0] {
            "name" => stats.name = words[1].to_owned(),
            "handler" => _ = stats.handlers.insert(number(1), [number(3), number(5), number(7)]),
            "slowest" => stats.slowest_us.push(number(5)),
            word => _ = stats.values.insert(word.to_owned(), number(1)),
        }
    }
    stats
}

impl Stats {
    #[track_caller]
    fn assert_whole(&self) {
        for name in ["uptime_us", "turns", "wakeups", "reads", "read_bytes", "writes"] {
            assert!(0 < self.values[name], "{name}: {self:?}");
        }
        for name in ["written_bytes", "frames_received", "frames_sent", "messages_delivered"] {
            assert!(0 < self.values[name], "{name}: {self:?}");
        }
        let delivered: u64 = self.handlers.values().map(|times| times[0]).sum();
        // The one that ends it is not over.
        let counted = self.values["messages_delivered"];
        assert!(delivered <= counted && counted <= delivered + 1, "{self:?}");
        assert!(self.handlers.values().all(|[count, sum, longest]| 0 < *count && longest <= sum));
        assert!(self.slowest_us.is_sorted_by(|a, b| a >= b) && self.slowest_us.len() <= 8);
        let longest = self.handlers.values().map(|times| times[2]).max();
        assert_eq!(longest, self.slowest_us.first().copied(), "{self:?}");
    }
}

#[test]
fn each_context_that_ends_as_it_was_asked_to_leaves_its_counters() {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let router = router();
        let child = router.local().profiling(folder.path().to_str().unwrap()).connect().unwrap();
        let below = router.local().via(&child).connect().unwrap();
        let beside = router.local().connect().unwrap();
        let pids = [&child, &below].map(|context| context.call(pid, ()).unwrap());
        (1..CALLS).for_each(|_| _ = below.call(pid, ()).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        child.shutdown().unwrap();
        beside.shutdown().unwrap();
        let [near, far] = pids.map(|pid| stats(folder.path(), pid));
        near.assert_whole();
        far.assert_whole();
        assert_eq!(far.name, format!("{}/local", near.name));
        assert!(near.name.starts_with("local?profiling="), "{near:?}");
        // Calls; the connect; what was passed on, there and back.
        assert_eq!((near.handlers[&1][0], far.handlers[&1][0]), (1, CALLS));
        assert_eq!((near.handlers[&6][0], far.values["frames_forwarded"]), (1, 0));
        assert!(2 * CALLS <= near.values["frames_forwarded"], "{near:?}");
        assert!(near.values["streams_high"] > far.values["streams_high"], "{near:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    });
}

#[test]
fn a_context_that_is_cut_off_leaves_them_too() {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let router = router();
        let child = router.local().connect().unwrap();
        let folder_text = folder.path().to_str().unwrap();
        let below = router.local().via(&child).profiling(folder_text).connect().unwrap();
        let pid = below.call(pid, ()).unwrap();
        router.disconnect(&below).unwrap();
        stats(folder.path(), pid).assert_whole();
    });
}

#[test]
fn a_folder_that_is_not_there_keeps_no_context_from_its_end() {
    leaves_nothing(&[], || {
        let router = router();
        let child = router.local().profiling("/nowhere/at/all").connect().unwrap();
        child.call(pid, ()).unwrap();
        child.shutdown().unwrap();
    });
}

#[test]
fn the_environment_has_a_whole_tree_leave_its_counters() {
    if let Some(folder) = env::var_os(MASTER) {
        let router = router();
        let child = router.local().connect().unwrap();
        let below = child.call(pid, ()).unwrap();
        router.shutdown();
        return fs::write(Path::new(&folder).join("pids"), below.to_string()).unwrap();
    }
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let name = thread::current().name().unwrap().to_owned();
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", &*name, "--nocapture", "--test-threads=1"]);
        command.env(MASTER, folder.path()).env("MITOGEN_PROFILING", folder.path());
        let mut master = command.spawn().unwrap();
        assert!(master.wait().unwrap().success());
        let below = fs::read_to_string(folder.path().join("pids")).unwrap();
        let (own, child) =
            (stats(folder.path(), master.id()), stats(folder.path(), below.parse().unwrap()));
        own.assert_whole();
        child.assert_whole();
        assert_eq!((&*own.name, own.values["context"]), ("master", 0));
        assert!(0 < own.handlers[&256][0], "{own:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    });
}

#[test]
fn a_program_says_where_and_is_told_what_is_no_folder() {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let program = mitogen_test_program().profiling(folder.path().to_str().unwrap());
        let router = program.router().unwrap();
        let child = router.local().connect().unwrap();
        let below = child.call(pid, ()).unwrap();
        router.shutdown();
        stats(folder.path(), process::id()).assert_whole();
        stats(folder.path(), below).assert_whole();
        let error = mitogen_test_program().profiling("here").router().err().unwrap();
        assert!(error.to_string().contains("no absolute path"), "{error}");
    });
}
