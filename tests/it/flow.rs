//! Flow control among real processes: who sends fast to who reads slowly fills neither, nor what is
//! between them, and holds up nobody else.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{env, fs};

use mitogen::error::{Cause, ErrorKind};
use mitogen::{CallContext, Context, Error, Program, Result, Router, Sender};

use crate::support::*;

mitogen::test_agent!(program());

/// Tells a test that it runs in a process of its own, whose memory is its own doing.
const AGAIN: &str = "MITOGEN_FLOW_AGAIN";
const SECOND: Duration = Duration::from_secs(1);
const MIB: usize = 1 << 20;
/// How long a slow reader is watched.
const WATCHED: Duration = Duration::from_secs(10);

fn program() -> Program {
    Program::new()
        .function(pid)
        .function(pour)
        .function(blob)
        .function(length)
        .function(send_sizes)
        .function(inside)
        .function(occupy)
        .function(call_back)
        .function(call_many)
        .function(fill)
}

fn pid() -> u32 {
    std::process::id()
}

/// Sends blocks until nobody wants them.
fn pour(block_bytes: usize, out: Sender<Vec<u8>>) -> Result<()> {
    let block = vec![1; block_bytes];
    (0..(1 << 30) / block_bytes).try_for_each(|_| out.send(&block))
}

fn blob(bytes: usize) -> Vec<u8> {
    vec![7; bytes]
}

fn length(bytes: &[u8]) -> usize {
    bytes.len()
}

/// Sends values of these sizes, until one fails.
fn send_sizes(sizes: Vec<usize>, out: Sender<Vec<u8>>) -> Result<()> {
    sizes.into_iter().try_for_each(|bytes| out.send(blob(bytes)))
}

/// A context inside of the one that it is called in.
fn inside(cx: &CallContext) -> Result<Context> {
    cx.router().in_process()
}

/// Runs a test of this file in a process of its own, where [`AGAIN`] is set, by `prefix`.
#[track_caller]
fn in_own_process(prefix: &[&str], test: &str) {
    leaves_nothing(&[], || {
        let mut own = Command::new("env");
        own.args(prefix).arg(env::current_exe().unwrap());
        own.args(["--exact", &format!("flow::{test}"), "--nocapture"]).env(AGAIN, "1");
        own.env("RUST_BACKTRACE", "0");
        let output = own.output().unwrap();
        assert!(output.status.success(), "{}", told(&output));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
    });
}

fn is_again() -> bool {
    env::var_os(AGAIN).is_some()
}

fn router() -> Router {
    mitogen_test_program().router().unwrap()
}

/// Contexts each below the one before, the first below this one.
fn chain(router: &Router, count: usize) -> Vec<Context> {
    let mut all: Vec<Context> = Vec::new();
    for _ in 0..count {
        let next = match all.last() {
            Some(last) => router.local().via(last).connect(),
            None => router.local().connect(),
        };
        all.push(next.unwrap());
    }
    all
}

/// Watches how much memory processes have written to, at most.
struct Watch {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(u32, u64, u64)>>,
}

/// KiB that a process has of its own.
fn own_kib(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

impl Watch {
    fn of(pids: Vec<u32>) -> Watch {
        let over = Arc::new(AtomicBool::new(false));
        let own = over.clone();
        let mut all: Vec<_> = pids.into_iter().map(|pid| (pid, own_kib(pid), 0)).collect();
        let thread = thread::spawn(move || {
            while !own.load(Ordering::Relaxed) {
                for (pid, _, most) in &mut all {
                    *most = own_kib(*pid).max(*most);
                }
                thread::sleep(Duration::from_millis(2));
            }
            all
        });
        Watch { over, thread }
    }

    /// Fails unless each has grown by this much at most.
    #[track_caller]
    fn grew_within(self, bytes_max: usize) {
        self.over.store(true, Ordering::Relaxed);
        for (pid, before, most) in self.thread.join().unwrap() {
            let grown = most.saturating_sub(before);
            eprintln!("{pid} grew by {grown} KiB from {before}");
            assert!(grown <= bytes_max as u64 >> 10, "{pid} grew by {grown} KiB");
        }
    }
}

/// The median time of a small call, and the longest.
fn latency(context: &Context, time: Duration) -> (Duration, Duration) {
    let (mut all, end) = (Vec::new(), Instant::now() + time);
    while Instant::now() < end {
        let begun = Instant::now();
        context.call(pid, ()).unwrap();
        all.push(begun.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
    all.sort();
    (all[all.len() / 2], all[all.len() - 1])
}

fn cause(error: &Error) -> Option<Cause> {
    match error.kind() {
        ErrorKind::Closed(death) => Some(death.cause),
        _ => None,
    }
}

/// What a slow reader takes of a stream through two hops, in blocks of this size.
fn is_read_slowly(block_bytes: usize) {
    let router = router();
    let hops = chain(&router, 3);
    let other = router.local().via(&hops[0]).connect().unwrap();
    let mut pids: Vec<u32> = hops.iter().map(|hop| hop.call(pid, ()).unwrap()).collect();
    pids.push(std::process::id());
    let (idle, _) = latency(&other, SECOND / 2);
    let blocks = router.receiver::<Vec<u8>>();
    // What is used once stays.
    hops[2].call_no_reply(send_sizes, (vec![block_bytes; 8], blocks.to_sender())).unwrap();
    (0..8).for_each(|_| assert_eq!(blocks.get().unwrap().len(), block_bytes));
    let watch = Watch::of(pids);
    let out = blocks.to_sender();
    let poured = hops[2].call_async(pour, (block_bytes, out));
    let begun = Instant::now();
    let busy = thread::scope(|scope| {
        let busy = scope.spawn(|| latency(&other, WATCHED));
        let mut taken = 0;
        while begun.elapsed() < WATCHED {
            taken += blocks.get_timeout(SECOND).unwrap().len();
            let due = begun + SECOND.mul_f64(taken as f64 / MIB as f64);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        busy.join().unwrap()
    });
    eprintln!("a small call took {idle:?} before, then {busy:?} at most");
    assert!(busy.0 < 10 * idle + Duration::from_millis(20), "{idle:?}, {busy:?}");
    watch.grew_within(4 * MIB);
    drop(blocks);
    poured.get_timeout(10 * SECOND).unwrap_err();
}

/// Fills a stream that nobody reads, and says how often it could send.
fn fill(out: Sender<Vec<u8>>, ready: Sender<u32>) -> Result<()> {
    let value = blob(1000);
    let sent = (0..).take_while(|_| out.try_send(&value).unwrap()).count();
    let begun = Instant::now();
    let late = out.send_timeout(&value, SECOND / 10).unwrap_err();
    assert!(matches!(late.kind(), ErrorKind::Timeout) && SECOND / 10 <= begun.elapsed(), "{late}");
    // Not even the first part of a large one.
    assert!(!out.try_send(blob(100_000))?);
    ready.send(sent as u32)?;
    // Somebody reads by now.
    out.send_timeout(blob(2000), 10 * SECOND)?;
    out.send_timeout(blob(100_000), 10 * SECOND)?;
    out.fail(format_args!("{sent} and two"));
    Ok(())
}

#[test]
fn who_finds_no_room_is_told_and_has_sent_nothing() {
    let _company = beside_others();
    let router = router();
    for context in [router.in_process().unwrap(), chain(&router, 2).remove(1)] {
        let (values, ready) = (router.receiver::<Vec<u8>>(), router.receiver::<u32>());
        let call = context.call_async(fill, (values.to_sender(), ready.to_sender()));
        let sent = ready.get_timeout(10 * SECOND).unwrap() as usize;
        // Each counts for its 1,002 bytes and 64 more, in a window of 65,792.
        assert_eq!(sent, 65_792 / 1066);
        for _ in 0..sent {
            assert_eq!(values.get_timeout(SECOND).unwrap().len(), 1000);
        }
        assert_eq!(values.get_timeout(10 * SECOND).unwrap().len(), 2000);
        assert_eq!(values.get_timeout(10 * SECOND).unwrap().len(), 100_000);
        let error = values.get_timeout(10 * SECOND).unwrap_err();
        let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
        assert_eq!((death.cause, &*death.tail), (Cause::Failed, &*format!("{sent} and two")));
        call.get_timeout(10 * SECOND).unwrap();
        // Here nothing is in the way; a Receiver that is closed is one for these, too.
        let numbers = router.receiver::<u32>();
        assert!(numbers.to_sender().try_send(5).unwrap());
        assert_eq!(numbers.get().unwrap(), 5);
    }
    let closed = router.receiver::<u32>().to_sender();
    assert_eq!(cause(&closed.try_send(1).unwrap_err()), Some(Cause::ReceiverClosed));
    let late = closed.send_timeout(1, SECOND).unwrap_err();
    assert_eq!(cause(&late), Some(Cause::ReceiverClosed));
}

/// Says that it has begun, and runs until it is told to end.
fn occupy(ready: Sender<Sender<()>>, cx: &CallContext) -> Result<()> {
    let over = cx.router().receiver::<()>();
    ready.send(over.to_sender())?;
    drop(ready);
    over.get()
}

#[test]
fn who_calls_a_context_that_is_busy_sleeps_when_4_mib_of_calls_are_unanswered() {
    const BYTES: usize = 16_000;
    let _company = beside_others();
    let router = router();
    let contexts = chain(&router, 2);
    let [idle, busy] = &contexts[..] else { unreachable!() };
    let ready = router.receiver::<Sender<()>>();
    let occupied = busy.call_async(occupy, ready.to_sender());
    let over = ready.get_timeout(10 * SECOND).unwrap();
    let made = AtomicUsize::new(0);
    thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let value = blob(BYTES);
            let one = |_| {
                made.fetch_add(1, Ordering::Relaxed);
                busy.call_async(length, &value[..])
            };
            (0..1000).map(one).collect::<Vec<_>>()
        });
        let is_asleep = || {
            let before = made.load(Ordering::Relaxed);
            thread::sleep(SECOND / 2);
            (before == made.load(Ordering::Relaxed)).then_some(before)
        };
        let unanswered = until(10 * SECOND, is_asleep).unwrap() - 1;
        assert_eq!(unanswered, (4 << 20) / (BYTES + 10));
        // Who has a limit is told in time.
        let begun = Instant::now();
        let hasty = busy.within(SECOND / 5);
        let late = hasty.call(length, &blob(BYTES)[..]).unwrap_err();
        assert!(matches!(late.kind(), ErrorKind::Timeout), "{late}");
        let late = hasty.call_no_reply(length, &blob(BYTES)[..]).unwrap_err();
        assert!(matches!(late.kind(), ErrorKind::Timeout) && begun.elapsed() < SECOND, "{late}");
        // Others are called, and others call it, as before.
        assert_eq!(idle.call(length, &[1; 9][..]).unwrap(), 9);
        let small = busy.call_async(length, &[1; 9][..]);
        over.send(()).unwrap();
        for call in caller.join().unwrap() {
            assert_eq!(call.get_timeout(10 * SECOND).unwrap(), BYTES);
        }
        assert_eq!(small.get_timeout(SECOND).unwrap(), 9);
    });
    occupied.get_timeout(SECOND).unwrap();
}

#[test]
fn the_end_of_who_is_called_wakes_who_sleeps_before_a_call() {
    let _company = beside_others();
    let router = router();
    let busy = router.local().connect().unwrap();
    let ready = router.receiver::<Sender<()>>();
    busy.call_no_reply(occupy, ready.to_sender()).unwrap();
    ready.get_timeout(10 * SECOND).unwrap();
    thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let value = blob(16_000);
            (0..).find_map(|_| busy.call_no_reply(length, &value[..]).err()).unwrap()
        });
        thread::sleep(SECOND / 2);
        assert!(!caller.is_finished());
        router.disconnect(&busy).unwrap();
        let error = caller.join().unwrap();
        assert!(cause(&error).is_some(), "{error}");
    });
}

/// Calls its caller back, and waits for that.
fn call_back(caller: Context, _value: Vec<u8>) -> Result<usize> {
    caller.call(length, &[0; 7][..])
}

/// Makes more calls than have room, each of which calls back, and waits for none.
fn call_many(to: Context, own: Context) -> Result<()> {
    let value = blob(16_000);
    (0..300).try_for_each(|_| to.call_no_reply(call_back, (&own, &value)))
}

#[test]
fn who_is_called_back_by_those_it_calls_does_not_wait_for_ever() {
    let _company = beside_others();
    let router = router();
    let (a, b) = (router.local().connect().unwrap(), router.local().connect().unwrap());
    a.grant(&b).unwrap();
    b.grant(&a).unwrap();
    a.call_async(call_many, (&b, &a)).get_timeout(20 * SECOND).unwrap();
    // All of them were run.
    assert_eq!(b.call_async(length, &[1; 5][..]).get_timeout(20 * SECOND).unwrap(), 5);
}

#[test]
fn a_slow_reader_at_the_end_of_two_hops_fills_nobody_and_holds_up_nobody() {
    let test = "a_slow_reader_at_the_end_of_two_hops_fills_nobody_and_holds_up_nobody";
    match is_again() {
        true => is_read_slowly(64 << 10),
        false => in_own_process(&[], test),
    }
}

#[test]
fn one_value_of_64_mib_through_four_hops_is_no_hops() {
    if !is_again() {
        return in_own_process(&[], "one_value_of_64_mib_through_four_hops_is_no_hops");
    }
    let router = router();
    let all = chain(&router, 5);
    let (last, hops) = all.split_last().unwrap();
    // What is used once stays.
    assert_eq!(last.call(length, &last.call(blob, MIB).unwrap()[..]).unwrap(), MIB);
    let watch = Watch::of(hops.iter().map(|hop| hop.call(pid, ()).unwrap()).collect());
    let value = last.call(blob, 64 * MIB).unwrap();
    assert_eq!(last.call(length, &value[..]).unwrap(), 64 * MIB);
    watch.grew_within(MIB);
}

/// Lets a process run for a tenth of the time, as long as this lives: so is a line that is slow.
struct Slow(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Slow {
    fn down(pid: u32) -> Slow {
        let over = Arc::new(AtomicBool::new(false));
        let own = over.clone();
        let thread = thread::spawn(move || {
            while !own.load(Ordering::Relaxed) {
                signal(pid, "STOP");
                thread::sleep(Duration::from_millis(45));
                signal(pid, "CONT");
                thread::sleep(Duration::from_millis(5));
            }
        });
        Slow(over, Some(thread))
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.take().unwrap().join().unwrap();
    }
}

#[test]
fn a_hundred_large_answers_through_a_slow_hop_are_not_the_hops() {
    const COUNT: usize = 100;
    if !is_again() {
        let test = "a_hundred_large_answers_through_a_slow_hop_are_not_the_hops";
        return in_own_process(&[], test);
    }
    let router = router();
    let hops = chain(&router, 2);
    let [slow, hop] = &hops[..] else { unreachable!() };
    let other = router.local().via(hop).connect().unwrap();
    let below: Vec<Context> = (0..4).map(|_| router.local().via(hop).connect().unwrap()).collect();
    let all: Vec<Context> = (0..COUNT).map(|i| below[i % 4].call(inside, ()).unwrap()).collect();
    let pids = [slow, hop].map(|context| context.call(pid, ()).unwrap());
    let (idle, _) = latency(&other, SECOND / 2);
    let watch = Watch::of(pids.into());
    let slowed = Slow::down(pids[0]);
    let calls: Vec<_> = all.iter().map(|one| one.call_async(blob, 16 * MIB)).collect();
    let (busy, longest) = latency(&other, 5 * SECOND);
    eprintln!("a small call took {idle:?} before, then {busy:?}, and {longest:?} at most");
    drop(slowed);
    for call in calls {
        assert_eq!(call.get_timeout(60 * SECOND).unwrap().len(), 16 * MIB);
    }
    watch.grew_within(4 * MIB);
}

/// The most bytes of a `Vec<u8>` that arrive, and what becomes of one byte more.
#[track_caller]
fn limit_of<T>(bytes_max: usize, send: impl Fn(usize) -> Result<T>) -> Error {
    let fits = (bytes_max - 40..=bytes_max).rev().find(|bytes| send(*bytes).is_ok());
    let fits = fits.expect("it should arrive");
    assert!(bytes_max - 40 < fits, "{fits}");
    send(fits + 1).err().unwrap()
}

#[test]
fn the_largest_message_arrives_and_of_one_byte_more_both_sides_learn_why() {
    const LIMIT: usize = MIB;
    let _company = beside_others();
    let router = mitogen_test_program().message_bytes_max(LIMIT as u64).router().unwrap();
    for context in [chain(&router, 1).remove(0), chain(&router, 3).remove(2)] {
        let too_large = |error: &Error| match error.kind() {
            ErrorKind::TooLarge { bytes, bytes_max } => (*bytes, *bytes_max),
            other => panic!("{other:?}"),
        };
        let (one_more, limit) = (LIMIT as u64 + 1, LIMIT as u64);
        // An argument: whoever calls learns it, and nothing is sent.
        let error = limit_of(LIMIT, |bytes| context.call(length, &vec![0; bytes][..]));
        assert_eq!(too_large(&error), (one_more, limit));
        // An answer: its context says it.
        let error = limit_of(LIMIT, |bytes| context.call(blob, bytes));
        assert_eq!(cause(&error), Some(Cause::TooLarge), "{error}");
        // What is sent: to a function's Sender it is an error, and its Receiver gets that.
        let error = limit_of(LIMIT, |bytes| {
            let blobs = router.receiver::<Vec<u8>>();
            let sent = context.call(send_sizes, (vec![10, bytes], blobs.to_sender()));
            let got: Vec<Result<Vec<u8>>> = blobs.into_iter().collect();
            assert_eq!(got[0].as_ref().unwrap().len(), 10);
            match (sent, got.into_iter().nth(1)) {
                (Ok(()), Some(Ok(blob))) => {
                    assert_eq!(blob.len(), bytes);
                    Ok(())
                }
                (Err(sent), Some(Err(got))) => {
                    assert!(sent.to_string().contains("too large"), "{sent}");
                    Err(got)
                }
                (sent, got) => panic!("{sent:?}, {got:?}"),
            }
        });
        assert!(error.to_string().contains(&one_more.to_string()), "{error}");
        assert_eq!(cause(&error), Some(Cause::Failed));
        // It is none the worse.
        assert_eq!(context.call(length, &[0; 10][..]).unwrap(), 10);
    }
}
