//! A master in a process of its own, with a child that is honest and called all the time: what a
//! hostile one does to them is measured from outside of both.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{env, fs};

use mitogen::error::{Death, ErrorKind};
use mitogen::{Context, Level, Program, Result, Router, Sender, flush_log, log_to, stock};

use super::hostile::HOSTILE;
use super::{beside_others, own_descriptors, own_threads, processes, stock_image, told, until};

/// Says that this process is to be the master.
const MASTER: &str = "MITOGEN_TEST_MASTER";
/// What an honest call may take while others attack, on a machine that has much else to do.
const CALL_MAX: Duration = Duration::from_secs(3);
/// What a master may grow by, whatever a child does.
pub const GROWTH_MAX: u64 = 8 << 20;

/// Asks a hostile agent for its attack; the numbers are what it must know.
pub fn go(_with: Vec<u32>) -> u32 {
    0
}

/// The same, with a Sender.
pub fn go_with(_with: Vec<u32>, _out: Sender<u32>) -> u32 {
    0
}

/// Asks it for a reference.
pub fn give_context(cx: &mitogen::CallContext, _with: Vec<u32>) -> Result<Context> {
    cx.router().in_process()
}

/// Asks it for a reference.
pub fn give_sender(cx: &mitogen::CallContext, _with: Vec<u32>) -> Sender<u32> {
    cx.router().receiver().to_sender()
}

/// The same, for what a command prints.
pub fn give_output(cx: &mitogen::CallContext, _with: Vec<u32>) -> Sender<stock::Output> {
    cx.router().receiver().to_sender()
}

/// What was logged: how often, and about which numbers at last.
type Log = Arc<Mutex<BTreeMap<String, (u64, String)>>>;

/// The master, and who watches it.
pub struct Scene {
    pub router: Router,
    /// A child of its own that nothing is wrong with.
    pub honest: Context,
    log: Log,
    calls: Option<JoinHandle<(u32, Duration)>>,
    over: Arc<AtomicBool>,
}

/// Plays a test in a process that has nothing else to do, and checks what is left of it there.
#[track_caller]
pub fn scene(play: impl FnOnce(&Scene)) {
    scene_of(|program| program, play);
}

/// The same of a program of which something else is changed.
#[track_caller]
pub fn scene_of(change: fn(Program) -> Program, play: impl FnOnce(&Scene)) {
    if env::var_os(MASTER).is_none() {
        return in_a_process_of_its_own();
    }
    let (descriptors, threads) = (own_descriptors(), passing_threads());
    let mut scene = Scene::begin(change);
    play(&scene);
    scene.end();
    drop(scene);
    let left = || {
        let new = own_descriptors().into_iter().filter(|one| !descriptors.contains(one));
        let new = new.filter(|one| !one.ends_with("anon_inode:[eventfd]"));
        let children = processes().into_iter().filter(|one| one.parent == std::process::id());
        let left: Vec<_> = new.chain(children.map(|one| one.command)).collect();
        (!left.is_empty() || threads != passing_threads()).then_some((left, own_threads()))
    };
    until(Duration::from_secs(1), || left().is_none().then_some(()));
    assert_eq!(left(), None);
}

/// The threads of this process but the one of the log, which stays.
fn passing_threads() -> Vec<String> {
    own_threads().into_iter().filter(|name| name != "mitogen-log").collect()
}

#[track_caller]
fn in_a_process_of_its_own() {
    let _beside = beside_others();
    let name = thread::current().name().expect("tests have names").to_owned();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", &name, "--nocapture", "--test-threads=1"]).env(MASTER, "1");
    // Its bytes would count.
    command.env("RUST_BACKTRACE", "0");
    let output = command.output().unwrap();
    assert!(output.status.success() && output.status.signal().is_none(), "{}", told(&output));
    println!("{}", String::from_utf8_lossy(&output.stdout));
}

impl Scene {
    fn begin(change: fn(Program) -> Program) -> Scene {
        let log = Log::default();
        let sink = log.clone();
        log_to(
            Level::Debug,
            Box::new(move |record| {
                // What is printed has only a source.
                let name = if record.what.is_empty() { record.target } else { record.what };
                let mut log = sink.lock().unwrap();
                let entry = log.entry(name.to_owned()).or_default();
                (entry.0, entry.1) = (entry.0 + 1, record.to_string().chars().take(300).collect());
            }),
        );
        let program = Program::new().function(go).function(go_with);
        let program = program.function(give_context).function(give_sender).function(give_output);
        let program = change(program.image(stock_image()));
        let router = program.router().unwrap();
        let honest = router.local().connect().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let calls = thread::spawn({
            let (honest, over) = (honest.clone(), over.clone());
            move || call_until(&honest, &over)
        });
        Scene { router, honest, log, calls: Some(calls), over }
    }

    /// A context that plays this attack.
    #[track_caller]
    pub fn hostile(&self, attack: &str) -> Context {
        self.router.command(command_of(attack)).connect().unwrap()
    }

    /// The same, as a child of another.
    #[track_caller]
    pub fn hostile_via(&self, via: &Context, attack: &str) -> Context {
        self.router.command(command_of(attack)).via(via).connect().unwrap()
    }

    /// How often this was logged.
    pub fn logged(&self, what: &str) -> u64 {
        flush_log(Duration::from_secs(10));
        self.log.lock().unwrap().get(what).map_or(0, |(count, _)| *count)
    }

    /// Fails unless this was logged.
    #[track_caller]
    pub fn assert_logged(&self, what: &str) {
        assert!(0 < self.logged(what), "{what:?} is not among {:?}", self.log.lock().unwrap());
    }

    /// Fails unless this many bytes at most are added to what this process uses meanwhile.
    #[track_caller]
    pub fn grows_within<T>(&self, bytes_max: u64, play: impl FnOnce() -> T) -> T {
        // Pages of the program that are touched for the first time are no growth.
        let _ = fs::write("/proc/self/clear_refs", "5");
        let before = memory("VmRSS:");
        let result = play();
        let grown = memory("VmHWM:").saturating_sub(before);
        println!("{:?} grew by {} KiB", thread::current().name(), grown >> 10);
        assert!(grown <= bytes_max, "grew by {} KiB", grown >> 10);
        result
    }

    /// All that is honest is well; what was measured is told.
    fn end(&mut self) {
        self.honest.call(stock::ping, ()).unwrap();
        self.over.store(true, Ordering::Relaxed);
        let (count, longest) = self.calls.take().unwrap().join().expect("an honest call failed");
        let name = thread::current().name().unwrap_or_default().to_owned();
        println!("{name}: {count} honest calls, the longest {longest:?}");
        println!("{:#?}", self.log.lock().unwrap());
        assert!(longest < CALL_MAX, "an honest call took {longest:?}");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.router.shutdown();
    }
}

/// Calls an honest child again and again.
fn call_until(honest: &Context, over: &AtomicBool) -> (u32, Duration) {
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        if let Err(error) = honest.call(stock::ping, ()) {
            // The end of a failed test.
            assert!(over.load(Ordering::Relaxed), "{error}");
            break;
        }
        (count, longest) = (count + 1, longest.max(begun.elapsed()));
        thread::sleep(Duration::from_millis(1));
    }
    (count, longest)
}

/// What leads to a context that plays this attack.
fn command_of(attack: &str) -> Vec<String> {
    let program = env::current_exe().unwrap().display().to_string();
    let hostile = format!("{HOSTILE}={attack}");
    let words = ["env", "-u", MASTER, &hostile, &program, "--exact", "hostile::agent"];
    let words = words.into_iter().chain(["--nocapture", "--test-threads=1"]);
    words.map(str::to_owned).collect()
}

/// A line of `/proc/self/status`, in bytes.
fn memory(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

/// Why a context is gone; panics if it is not.
#[track_caller]
pub fn death<T>(outcome: Result<T>) -> Death {
    let error = outcome.map(drop).expect_err("it is there");
    let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    death.clone()
}
