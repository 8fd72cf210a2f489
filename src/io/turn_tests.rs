//! The loop on real descriptors: what protocols may do to themselves and to each other, the order
//! of timers, and the end.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::broker::Broker;
use super::counters::Count;
use super::latch::Latch;
use super::outbox::Outbox;
use super::promise::promise;
use super::side::Side;
use super::turn::{Key, Protocol, Tenant, Turn};
use crate::error::{Cause, Death, Result};
use crate::limits::SHUTDOWN_GRACE;
use crate::sys::pipe::{pipe, socketpair};
use crate::wire::codec::Malformed;
use crate::wire::header::Lane;

const LIMIT: Duration = Duration::from_secs(10);
const TENANT: Tenant = Tenant(7);

/// What happened to a protocol.
#[derive(Debug, PartialEq)]
enum Event {
    Input(&'static str, Vec<u8>),
    Closed(&'static str, Cause),
}

type Log = Arc<Latch<Event>>;
type OnInput = Box<dyn FnMut(&mut Turn, Key) -> Result<(), Malformed> + Send>;

/// Notes what happens to it, and does something on input.
struct Noted {
    name: &'static str,
    log: Log,
    on_input: OnInput,
}

impl Protocol for Noted {
    fn input(&mut self, turn: &mut Turn, key: Key, bytes: &[u8]) -> Result<(), Malformed> {
        self.log.put(Event::Input(self.name, bytes.to_vec())).unwrap();
        (self.on_input)(turn, key)
    }

    fn closed(&mut self, _: &mut Turn, why: &Death) {
        self.log.put(Event::Closed(self.name, why.cause)).unwrap();
    }
}

struct Loop {
    broker: Broker,
    log: Log,
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.broker.shutdown();
        self.broker.join();
    }
}

fn a_loop() -> Loop {
    Loop { broker: Broker::start().unwrap(), log: Arc::default() }
}

fn idle() -> OnInput {
    Box::new(|_, _| Ok(()))
}

fn close_itself() -> OnInput {
    Box::new(|turn, key| {
        turn.close(key, &Death::of(Cause::Exited));
        Ok(())
    })
}

impl Loop {
    fn noted(&self, name: &'static str, on_input: OnInput) -> Box<Noted> {
        Box::new(Noted { name, log: self.log.clone(), on_input })
    }

    /// A stream of that protocol, and its other end.
    fn stream(&self, name: &'static str, on_input: OnInput) -> (Key, UnixStream) {
        let (ours, theirs) = socketpair().unwrap();
        let protocol = self.noted(name, on_input);
        let key = self.broker.defer_sync(move |turn| {
            let side = Side::new(ours);
            let outbox = Arc::new(Outbox::new(side.clone()));
            turn.attach(TENANT, side, Some(outbox), protocol)
        });
        (key.unwrap().unwrap(), UnixStream::from(theirs))
    }

    #[track_caller]
    fn next(&self) -> Event {
        self.log.get_timeout(LIMIT).unwrap()
    }

    fn input(name: &'static str, bytes: &[u8]) -> Event {
        Event::Input(name, bytes.to_vec())
    }
}

#[test]
fn a_protocol_closes_itself_inside_a_call() {
    let a_loop = a_loop();
    let close = |turn: &mut Turn, key| {
        turn.close(key, &Death::of(Cause::Cancelled));
        turn.close(key, &Death::of(Cause::Failed));
        Ok(())
    };
    let (_, mut end) = a_loop.stream("a", Box::new(close));
    end.write_all(b"x").unwrap();
    assert_eq!(a_loop.next(), Loop::input("a", b"x"));
    assert_eq!(a_loop.next(), Event::Closed("a", Cause::Cancelled));
    assert_eq!(end.read(&mut [0]).unwrap(), 0);
}

#[test]
fn an_error_of_a_protocol_closes_its_stream_alone() {
    let a_loop = a_loop();
    let (_, mut end) = a_loop.stream("a", Box::new(|_, _| Err(Malformed("no"))));
    let (_, mut other) = a_loop.stream("b", idle());
    end.write_all(b"x").unwrap();
    assert_eq!(a_loop.next(), Loop::input("a", b"x"));
    assert_eq!(a_loop.next(), Event::Closed("a", Cause::Protocol));
    other.write_all(b"y").unwrap();
    assert_eq!(a_loop.next(), Loop::input("b", b"y"));
}

#[test]
fn a_protocol_that_panics_ends_the_loop_and_is_told_of_it_as_all_are() {
    let a_loop = a_loop();
    let (_, mut end) = a_loop.stream("a", Box::new(|_, _| panic!("on purpose")));
    let (_, _other) = a_loop.stream("b", idle());
    end.write_all(b"x").unwrap();
    assert_eq!(a_loop.next(), Loop::input("a", b"x"));
    assert_eq!(a_loop.next(), Event::Closed("b", Cause::BrokerFailed));
    assert_eq!(a_loop.next(), Event::Closed("a", Cause::BrokerFailed));
    assert!(a_loop.broker.join_timeout(LIMIT));
    assert!(end.read(&mut [0]).is_ok_and(|count| count == 0), "it is closed");
}

#[test]
fn a_protocol_replaces_itself_inside_a_call() {
    let a_loop = a_loop();
    let mut second = Some(a_loop.noted("second", idle()));
    let replace = move |turn: &mut Turn, key| {
        turn.replace(key, second.take().unwrap());
        Ok(())
    };
    let (_, mut end) = a_loop.stream("first", Box::new(replace));
    for (bytes, name) in [(b"1", "first"), (b"2", "second"), (b"3", "second")] {
        end.write_all(bytes).unwrap();
        assert_eq!(a_loop.next(), Loop::input(name, bytes));
    }
    drop(end);
    assert_eq!(a_loop.next(), Event::Closed("second", Cause::Disconnected));
}

#[test]
fn a_protocol_that_replaced_itself_lets_the_next_read_at_once() {
    let a_loop = a_loop();
    let mut second = Some(a_loop.noted("second", idle()));
    let (mut end, ours) = UnixStream::pair().unwrap();
    let mut own_end = end.try_clone().unwrap();
    let replace = move |turn: &mut Turn, key| {
        own_end.write_all(b"later").unwrap();
        // Nothing is read for who is being called.
        turn.drain(key);
        turn.replace(key, second.take().unwrap());
        turn.drain(key);
        Ok(())
    };
    let first = a_loop.noted("first", Box::new(replace));
    let side = Side::new(ours.into());
    a_loop.broker.defer_sync(move |turn| turn.attach(TENANT, side, None, first)).unwrap().unwrap();
    end.write_all(b"now").unwrap();
    assert_eq!(a_loop.next(), Loop::input("first", b"now"));
    assert_eq!(a_loop.next(), Loop::input("second", b"later"));
    end.write_all(b"more").unwrap();
    assert_eq!(a_loop.next(), Loop::input("second", b"more"));
}

#[test]
fn a_protocol_closes_anothers_stream() {
    let a_loop = a_loop();
    let (key, mut victim) = a_loop.stream("victim", idle());
    let close = move |turn: &mut Turn, _| {
        turn.close(key, &Death::of(Cause::Exited));
        Ok(())
    };
    let (_, mut end) = a_loop.stream("killer", Box::new(close));
    victim.write_all(b"unread?").unwrap();
    assert_eq!(a_loop.next(), Loop::input("victim", b"unread?"));
    end.write_all(b"x").unwrap();
    assert_eq!(a_loop.next(), Loop::input("killer", b"x"));
    assert_eq!(a_loop.next(), Event::Closed("victim", Cause::Exited));
    // Closing what is closed is nothing.
    end.write_all(b"y").unwrap();
    assert_eq!(a_loop.next(), Loop::input("killer", b"y"));
}

#[test]
fn what_arrived_is_read_before_the_end() {
    let a_loop = a_loop();
    let (_, mut end) = a_loop.stream("a", idle());
    end.write_all(b"last words").unwrap();
    drop(end);
    assert_eq!(a_loop.next(), Loop::input("a", b"last words"));
    assert_eq!(a_loop.next(), Event::Closed("a", Cause::Disconnected));
}

#[test]
fn a_lone_hang_up_ends_a_stream() {
    let a_loop = a_loop();
    let (read, write) = pipe().unwrap();
    let protocol = a_loop.noted("pipe", idle());
    let key = a_loop.broker.defer_sync(|turn| turn.attach(TENANT, Side::new(read), None, protocol));
    key.unwrap().unwrap();
    drop(write);
    assert_eq!(a_loop.next(), Event::Closed("pipe", Cause::Disconnected));
}

#[test]
fn a_watched_descriptor_is_told_ready_and_never_read() {
    let a_loop = a_loop();
    let (ours, theirs) = socketpair().unwrap();
    let ours = Side::new(ours);
    let kept = ours.clone();
    let once = |turn: &mut Turn, key| {
        turn.close(key, &Death::of(Cause::Exited));
        Ok(())
    };
    let protocol = a_loop.noted("watched", Box::new(once));
    a_loop.broker.defer_sync(move |turn| turn.watch(TENANT, ours, protocol)).unwrap().unwrap();
    UnixStream::from(theirs).write_all(b"x").unwrap();
    assert_eq!(a_loop.next(), Loop::input("watched", b""));
    assert_eq!(a_loop.next(), Event::Closed("watched", Cause::Exited));
    let mut buffer = [0; 10];
    assert_eq!(kept.read(&mut buffer), super::side::Read::Bytes(1));
}

#[test]
fn what_cannot_be_watched_is_an_error_and_no_stream() {
    let a_loop = a_loop();
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let protocol = a_loop.noted("file", idle());
    let attached = a_loop
        .broker
        .defer_sync(|turn| turn.attach(TENANT, Side::new(file.into()), None, protocol));
    assert!(attached.unwrap().is_err());
    let (_, mut end) = a_loop.stream("a", idle());
    end.write_all(b"x").unwrap();
    assert_eq!(a_loop.next(), Loop::input("a", b"x"));
}

#[test]
fn timers_run_in_order_and_what_is_cancelled_does_not() {
    let a_loop = a_loop();
    let log: Arc<Latch<u32>> = Arc::default();
    let tell = log.clone();
    a_loop
        .broker
        .defer_sync(move |turn| {
            let start = Instant::now();
            let mut set = |after_ms, number: u32| {
                let tell = tell.clone();
                let at = start + Duration::from_millis(after_ms);
                turn.timer(at, Box::new(move |_| tell.put(number).unwrap()))
            };
            let cancelled = (set(15, 3), set(25, 5), set(15, 4), set(0, 1), set(5, 2)).0;
            turn.cancel(cancelled);
            turn.cancel(cancelled);
        })
        .unwrap();
    let order: Vec<u32> = (0..4).map(|_| log.get_timeout(LIMIT).unwrap()).collect();
    assert_eq!(order, [1, 2, 4, 5]);
}

#[test]
fn the_end_closes_every_stream_and_waits_for_watched_ones_as_long_as_the_grace() {
    let a_loop = a_loop();
    let (_, end) = a_loop.stream("a", idle());
    let (ours, _theirs) = socketpair().unwrap();
    let protocol = a_loop.noted("watched", idle());
    a_loop
        .broker
        .defer_sync(|turn| turn.watch(TENANT, Side::new(ours), protocol))
        .unwrap()
        .unwrap();
    let began = Instant::now();
    a_loop.broker.shutdown();
    assert_eq!(a_loop.next(), Event::Closed("a", Cause::Shutdown));
    assert!(began.elapsed() < SHUTDOWN_GRACE);
    a_loop.broker.join();
    assert_eq!(a_loop.next(), Event::Closed("watched", Cause::Shutdown));
    assert!(SHUTDOWN_GRACE <= began.elapsed());
    drop(end);
}

#[test]
fn no_stream_is_added_once_the_loop_ends() {
    let a_loop = a_loop();
    let (ours, _theirs) = socketpair().unwrap();
    let protocol = a_loop.noted("late", idle());
    let began = Instant::now();
    let attached = a_loop.broker.defer_sync(move |turn| {
        turn.stop();
        turn.attach(TENANT, Side::new(ours), None, protocol).is_ok()
    });
    assert!(!attached.unwrap());
    a_loop.broker.join();
    assert!(began.elapsed() < SHUTDOWN_GRACE);
}

#[test]
fn a_tenant_ends_alone_when_what_it_watched_has_ended() {
    let a_loop = a_loop();
    let (_, mut end) = a_loop.stream("kept", idle());
    let (ours, _theirs) = socketpair().unwrap();
    let (watched, ended) = socketpair().unwrap();
    let (stream, process) = (a_loop.noted("a", idle()), a_loop.noted("watched", close_itself()));
    let (promise, gone) = promise();
    let other = Tenant(8);
    let tell = a_loop.log.clone();
    let leave = move |turn: &mut Turn| {
        turn.attach(other, Side::new(ours), None, stream).unwrap();
        turn.watch(other, Side::new(watched), process).unwrap();
        let note = move |_: &mut Turn, why: &Death| {
            tell.put(Event::Closed("its end", why.cause)).unwrap();
        };
        turn.at_end(other, Box::new(note));
        turn.leave(other, promise);
    };
    a_loop.broker.defer_sync(leave).unwrap();
    assert_eq!(a_loop.next(), Event::Closed("its end", Cause::Shutdown));
    assert_eq!(a_loop.next(), Event::Closed("a", Cause::Shutdown));
    assert!(gone.wait(Some(Instant::now() + Duration::from_millis(10))).is_err());
    drop(ended);
    gone.wait(Some(Instant::now() + LIMIT)).unwrap();
    assert_eq!(a_loop.next(), Loop::input("watched", b""));
    assert_eq!(a_loop.next(), Event::Closed("watched", Cause::Exited));
    end.write_all(b"x").unwrap();
    assert_eq!(a_loop.next(), Loop::input("kept", b"x"));
}

#[test]
fn a_tenant_waits_for_what_it_watches_as_long_as_the_grace() {
    let a_loop = a_loop();
    let (watched, _theirs) = socketpair().unwrap();
    let process = a_loop.noted("watched", idle());
    let (promise, gone) = promise();
    let began = Instant::now();
    let leave = move |turn: &mut Turn| {
        turn.watch(Tenant(8), Side::new(watched), process).unwrap();
        turn.leave(Tenant(8), promise);
    };
    a_loop.broker.defer_sync(leave).unwrap();
    gone.wait(None).unwrap();
    assert!(SHUTDOWN_GRACE <= began.elapsed() && began.elapsed() < SHUTDOWN_GRACE + LIMIT / 10);
    assert_eq!(a_loop.next(), Event::Closed("watched", Cause::Shutdown));
}

#[test]
fn turns_that_are_lent_are_no_wakeups_and_naps_are() {
    let (_broker, mut turn) = Broker::by_hand();
    let of = |turn: &Turn| {
        let all = turn.counts();
        [Count::Turns, Count::TurnsLent, Count::Wakeups].map(|count| all[count as usize])
    };
    turn.serve_lent();
    turn.serve_lent();
    assert_eq!(of(&turn), [2, 2, 0]);
    turn.note_naps(3);
    assert_eq!(of(&turn), [2, 2, 3]);
}

#[test]
fn what_a_loop_does_is_counted_and_what_a_closed_stream_did_is_kept() {
    let a_loop = a_loop();
    let (key, mut theirs) = a_loop.stream("one", idle());
    let (_other, _their_other) = a_loop.stream("other", idle());
    theirs.write_all(b"12345").unwrap();
    assert_eq!(a_loop.next(), Loop::input("one", b"12345"));
    let push = |turn: &mut Turn| turn.outboxes().next().unwrap().push(b"abc", Lane::Quick);
    a_loop.broker.defer_sync(push).unwrap();
    theirs.read_exact(&mut [0; 3]).unwrap();
    let of =
        |count: Count| a_loop.broker.defer_sync(move |turn| turn.counts()[count as usize]).unwrap();
    let read = [Count::Reads, Count::ReadBytes, Count::Writes, Count::WrittenBytes];
    assert_eq!(read.map(of), [1, 5, 1, 3]);
    assert_eq!([Count::StreamsHigh, Count::TasksHigh].map(of), [2, 1]);
    let before = of(Count::Timers);
    let set = |turn: &mut Turn| _ = turn.timer(Instant::now(), Box::new(|_| ()));
    a_loop.broker.defer_sync(set).unwrap();
    assert_eq!(of(Count::Timers), before + 1);
    let (tasks, wakeups) = (of(Count::Tasks), of(Count::Wakeups));
    assert_eq!(of(Count::Tasks), tasks + 2);
    assert!(wakeups <= of(Count::Turns), "{wakeups}");
    a_loop.broker.defer_sync(move |turn| turn.close(key, &Death::of(Cause::Exited))).unwrap();
    assert_eq!(read.map(of), [1, 5, 1, 3]);
}
