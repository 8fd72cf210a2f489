//! Connections with a heartbeat: an end that vanished without a word is noticed by the other, and
//! one that is alive is let live, whatever it does.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mitogen::error::{Cause, ConnectError, ConnectFailure, Death, ErrorKind};
use mitogen::{Context, Error, Program, Receiver, Result, Router, Sender, stock};

use crate::support::*;

mitogen::test_agent!(program());

fn program() -> Program {
    Program::new().function(nap).function(send).function(take)
}

fn nap(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

const PIECE: usize = 10_000;

/// Sends for a while, and tells how many pieces.
fn send(ms: u64, out: Sender<Vec<u8>>) -> Result<u64> {
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_millis(ms) {
        out.send(vec![7; PIECE])?;
        count += 1;
    }
    Ok(count)
}

/// Takes an argument that is bulk.
fn take(bytes: Vec<u8>) -> usize {
    bytes.len()
}

const SECOND: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(200);
/// No end is noticed sooner: three intervals but for the turn of two loops.
const SOONEST: Duration = Duration::from_millis(550);
/// Four intervals, and what a busy machine takes.
const LATEST: Duration = Duration::from_millis(1500);

fn router() -> Router {
    Program::new().image(stock_image()).router().unwrap()
}

fn pid(context: &Context) -> u32 {
    context.call(stock::identify, ()).unwrap().pid
}

#[track_caller]
fn death(error: &Error) -> &Death {
    let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    death
}

/// Whether a process runs, or is stopped; a zombie does not.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ") && !stat.contains(") X ")
}

/// Fails unless this process ends about when silence is noticed.
#[track_caller]
fn ends_by_itself(pid: u32, begun: Instant) {
    let gone = until(2 * LATEST, || (!is_alive(pid)).then_some(()));
    assert!(gone.is_some(), "process {pid} lives");
    assert!(SOONEST <= begun.elapsed() && begun.elapsed() < LATEST, "{:?}", begun.elapsed());
}

#[test]
fn a_stopped_child_is_given_up_where_there_is_a_heartbeat_and_else_awaited() {
    leaves_nothing(&[], || {
        let router = router();
        let hasty = router.local().heartbeat(INTERVAL).connect().unwrap();
        let below = router.local().via(&hasty).connect().unwrap();
        let patient = router.local().connect().unwrap();
        let (stopped, waiting) = (pid(&hasty), pid(&patient));
        for pid in [stopped, waiting] {
            signal(pid, "STOP");
        }
        let begun = Instant::now();
        let calls = [&hasty, &below].map(|context| context.call_async(stock::ping, ()));
        let awaited = patient.call_async(stock::ping, ());
        for call in calls {
            let error = call.get_timeout(LATEST).unwrap_err();
            let death = death(&error);
            assert_eq!(death.cause, Cause::Silent, "{error}");
            assert_eq!(death.context, Some(hasty.context_id()), "{error}");
            assert_eq!(death.seen_by, Some(router.context_id()), "{error}");
            assert!(SOONEST <= begun.elapsed(), "{:?}", begun.elapsed());
        }
        assert!(until(SECOND, || (!is_alive(stopped)).then_some(())).is_some());
        assert_eq!(router.children().len(), 1);
        signal(waiting, "CONT");
        awaited.get_timeout(SECOND).unwrap();
    });
}

#[test]
fn it_is_of_one_connection_alone_also_in_addresses_and_behind_others() {
    leaves_nothing(&[], || {
        let router = router();
        let text = "local/local?heartbeat=0.2&heartbeat_count=2/local";
        let address = |count: usize| {
            let hops: Vec<&str> = text.split('/').take(count).collect();
            router.connect(&hops.join("/").parse().unwrap()).unwrap()
        };
        let contexts = [1, 2, 3].map(address);
        // The last is stopped, which nobody notices; then the one with the heartbeat.
        signal(pid(&contexts[2]), "STOP");
        let call = contexts[2].call_async(stock::ping, ());
        std::thread::sleep(LATEST);
        contexts[1].call(stock::ping, ()).unwrap();
        signal(pid(&contexts[1]), "STOP");
        let error = call.get_timeout(LATEST).unwrap_err();
        let death = death(&error);
        assert_eq!((death.cause, death.context), (Cause::Silent, Some(contexts[1].context_id())));
        assert_eq!(death.seen_by, Some(contexts[0].context_id()));
        contexts[0].call(stock::ping, ()).unwrap();
    });
}

const MASTER: &str = "MITOGEN_TEST_HEARTBEAT_MASTER";

/// Not a test: a master that tells its children's processes, with a heartbeat and without, and
/// waits.
#[test]
fn master() {
    if std::env::var_os(MASTER).is_none() {
        return;
    }
    let router = router();
    let hasty = router.local().heartbeat(INTERVAL).connect().unwrap();
    let below = router.local().via(&hasty).connect().unwrap();
    let patient = router.local().connect().unwrap();
    println!("\npids {} {} {}", pid(&hasty), pid(&below), pid(&patient));
    patient.router().broker().join();
}

#[test]
fn a_child_of_a_stopped_parent_ends_by_itself_if_there_is_a_heartbeat() {
    leaves_nothing(&[], || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "heartbeat::master", "--nocapture", "--test-threads=1"]);
        let mut master = command.env(MASTER, "").stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(master.stdout.as_mut().unwrap()).lines();
        let pids = lines.find_map(|line| Some(line.unwrap().strip_prefix("pids ")?.to_owned()));
        let pids: Vec<u32> = pids.unwrap().split(' ').map(|pid| pid.parse().unwrap()).collect();
        signal(master.id(), "STOP");
        let begun = Instant::now();
        ends_by_itself(pids[0], begun);
        assert!(until(SECOND, || (!is_alive(pids[1])).then_some(())).is_some());
        assert!(is_alive(pids[2]));
        master.kill().unwrap();
        master.wait().unwrap();
    });
}

/// A tool whose bytes pass through processes of a session of its own, which can be stopped: then
/// nothing passes any more, and nobody is told.
struct Line {
    folder: tempfile::TempDir,
    tool: String,
}

impl Line {
    fn new() -> Line {
        let folder = tempfile::tempdir().unwrap();
        let text = "cd \"${0%/*}\"\nmkfifo in out\nexec 3<&0 4>&1\n\
            setsid sh -c 'echo $$ >pid.up; exec cat <&3 >in' 4>&- &\n\
            setsid sh -c 'echo $$ >pid.down; exec cat <out >&4' 3<&- &\n\
            exec 3<&- 4>&-\n\
            setsid sh -c \"$1\" <in >out &\nexec sleep 1000 >/dev/null </dev/null";
        let tool = script(folder.path(), "line", text);
        Line { folder, tool }
    }

    fn connect(&self, router: &Router) -> Context {
        router.command([&self.tool]).heartbeat(INTERVAL).connect().unwrap()
    }

    fn signal(&self, name: &str) {
        for end in ["up", "down"] {
            let pid = fs::read_to_string(self.folder.path().join(format!("pid.{end}"))).unwrap();
            signal(pid.trim().parse().unwrap(), name);
        }
    }
}

#[test]
fn both_ends_of_a_line_on_which_nothing_passes_any_more_give_it_up() {
    leaves_nothing(&[], || {
        let (router, line) = (router(), Line::new());
        let context = line.connect(&router);
        let far = pid(&context);
        let call = context.call_async(stock::ping, ());
        call.get_timeout(SECOND).unwrap();
        line.signal("STOP");
        let begun = Instant::now();
        let error = context.call_async(stock::ping, ()).get_timeout(LATEST).unwrap_err();
        assert_eq!(death(&error).cause, Cause::Silent, "{error}");
        assert!(SOONEST <= begun.elapsed(), "{:?}", begun.elapsed());
        ends_by_itself(far, begun);
        line.signal("CONT");
    });
}

#[test]
fn a_line_that_only_halts_for_a_moment_goes_on() {
    leaves_nothing(&[], || {
        let (router, line) = (router(), Line::new());
        let context = line.connect(&router);
        for _ in 0..4 {
            line.signal("STOP");
            let call = context.call_async(stock::ping, ());
            std::thread::sleep(INTERVAL);
            line.signal("CONT");
            call.get_timeout(SECOND).unwrap();
        }
    });
}

/// Voluntary context switches of all threads of a process.
fn switches(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of_task = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    };
    tasks.filter_map(of_task).sum()
}

#[test]
fn an_idle_pair_stays_up_and_wakes_for_its_heartbeat_alone() {
    leaves_nothing(&[], || {
        let router = router();
        let hasty = router.local().heartbeat(SECOND / 10).heartbeat_count(4).connect().unwrap();
        let calm = router.local().connect().unwrap();
        let pids = [&hasty, &calm].map(pid);
        std::thread::sleep(SECOND / 5);
        let before = pids.map(switches);
        std::thread::sleep(3 * SECOND);
        let after = pids.map(switches);
        // One for each beat, and one for each that comes.
        let [of_hasty, of_calm] = [after[0] - before[0], after[1] - before[1]];
        assert_eq!(of_calm, 0);
        assert!((25..=80).contains(&of_hasty), "{of_hasty}");
        hasty.call(stock::ping, ()).unwrap();
    });
}

#[test]
fn a_pair_under_load_and_one_that_computes_stay_up() {
    leaves_nothing(&[], || {
        let router = mitogen_test_program().router().unwrap();
        let connect = || router.local().heartbeat(SECOND / 10).heartbeat_count(8).connect();
        let [busy, loaded] = [(), ()].map(|()| connect().unwrap());
        let napping = busy.call_async(nap, 3000);
        let pieces: Receiver<Vec<u8>> = router.receiver();
        let sending = loaded.call_async(send, (2000, pieces.to_sender()));
        std::thread::scope(|scope| {
            // Down, while as much comes up.
            scope.spawn(|| {
                let begun = Instant::now();
                while begun.elapsed() < 2 * SECOND {
                    let bytes = vec![1; 1_000_000];
                    drop(loaded.call_async(take, &bytes));
                }
            });
            let mut count = 0;
            for piece in pieces {
                assert_eq!(piece.unwrap().len(), PIECE);
                count += 1;
            }
            assert_eq!(sending.get().unwrap(), count);
            assert!(100 < count, "{count}");
        });
        assert_eq!(loaded.call(take, vec![1; 10]).unwrap(), 10);
        napping.get().unwrap();
    });
}

#[test]
fn what_a_heartbeat_may_be_is_told() {
    let _company = beside_others();
    let router = router();
    let local = || router.local();
    for (connect, allowed) in [
        (local().heartbeat(Duration::from_millis(99)), "100ms"),
        (local().heartbeat(Duration::ZERO), "100ms"),
        (local().heartbeat(Duration::from_secs(100_000)), "86400s"),
        (local().heartbeat_count(0), "1 to 1000"),
        (local().heartbeat(SECOND).heartbeat_count(1001), "1 to 1000"),
    ] {
        let error = connect.connect().unwrap_err();
        let ErrorKind::Connect(ConnectError { failure, .. }) = error.kind() else {
            panic!("{error}")
        };
        let ConnectFailure::BadOption(why) = failure else { panic!("{error}") };
        assert!(why.contains(allowed), "{why}");
    }
    for text in ["local?heartbeat=0.01", "local?heartbeat=-1", "local?heartbeat_count=0"] {
        assert!(text.parse::<mitogen::Address>().is_err(), "{text}");
    }
}
