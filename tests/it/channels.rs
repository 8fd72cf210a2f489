//! Channels: two ends that find each other, and what either is told when the other is gone.

use std::thread;
use std::time::Duration;

use mitogen::error::{Cause, ErrorKind};
use mitogen::{CallContext, Channel, ChannelEnd, Context, Error, Program, Result, Router, Select};
use mitogen::{Sender, stock};

use crate::support::*;

mitogen::test_agent!(program());

const LIMIT: Duration = Duration::from_secs(20);

fn program() -> Program {
    Program::new()
        .function(square)
        .function(relay)
        .function(child_of)
        .function(fail)
        .function(panics)
        .function(hold)
        .function(open_late)
        .function(make)
        .function(drop_it)
        .function(flood)
}

/// Answers each number by its square.
fn square(numbers: Channel<u64, u32>) -> Result<()> {
    for number in &numbers {
        numbers.send(u64::from(number?).pow(2))?;
    }
    Ok(())
}

/// Gives the end on.
fn relay(other: Context, end: ChannelEnd<u64, u32>) -> Result<()> {
    other.call_no_reply(square, end)
}

fn child_of(cx: &CallContext) -> Result<Context> {
    cx.router().in_process()
}

fn fail(numbers: Channel<u64, u32>) -> Result<(), String> {
    numbers.send(1).map_err(|error| error.to_string())?;
    Err("enough".to_owned())
}

fn panics(_: Channel<u64, u32>) {
    panic!("over");
}

fn hold(cx: &CallContext, numbers: Channel<u64, u32>) -> Result<()> {
    numbers.send(0)?;
    cx.router().broker().join();
    Ok(())
}

/// Opens its end when it is told to; returns what it hears and what becomes of what it says.
fn open_late(
    cx: &CallContext,
    end: ChannelEnd<u64, u32>,
    out: Sender<Sender<()>>,
) -> Result<String> {
    let told = cx.router().receiver();
    out.send(told.to_sender())?;
    told.get_timeout(LIMIT)?;
    let numbers = end.open()?;
    let heard = numbers.get_timeout(LIMIT).map_err(|error| cause(&error));
    Ok(format!("{heard:?} {:?}", numbers.send(1).map_err(|error| cause(&error))))
}

/// Makes a channel from there to here.
fn make(cx: &CallContext, out: Sender<String>) -> ChannelEnd<u32, u64> {
    let (mine, theirs) = Channel::<u64, u32>::pair(cx.router());
    thread::spawn(move || {
        let end = square(mine);
        drop(out.send(format!("{end:?}")));
    });
    theirs
}

fn drop_it(end: ChannelEnd<u64, u32>) {
    drop(end);
}

/// Sends and gets as much as it can, at once.
fn flood(numbers: Channel<u64, u32>, count: u64) -> Result<u64> {
    thread::scope(|scope| {
        let sending = scope.spawn(|| (0..count).try_for_each(|i| numbers.send(i)));
        let sum = (0..count).map(|_| numbers.get().map(u64::from)).sum();
        sending.join().unwrap().and(sum)
    })
}

fn cause(error: &Error) -> Option<Cause> {
    let ErrorKind::Closed(death) = error.kind() else { return None };
    Some(death.cause)
}

fn tree<const N: usize>() -> (Router, [Context; N]) {
    let router = mitogen_test_program().router().unwrap();
    let contexts = std::array::from_fn(|_| router.in_process().unwrap());
    (router, contexts)
}

type Squares = Channel<u32, u64>;

#[test]
fn both_ends_send_and_get_through_hops_and_the_end_of_one_is_that_of_the_other() {
    leaves_nothing(&[], || {
        let router = mitogen_test_program().router().unwrap();
        for address in ["local", "local/local"] {
            let far = router.connect(&address.parse().unwrap()).unwrap();
            let (squares, theirs) = Squares::pair(&router);
            let call = far.call_async(square, theirs);
            for i in 0..100 {
                squares.send(i).unwrap();
            }
            let got: Vec<u64> = (0..100).map(|_| squares.get_timeout(LIMIT).unwrap()).collect();
            assert_eq!(got, (0..100).map(|i| i * i).collect::<Vec<_>>());
            assert!(squares.is_empty() && squares.try_get().unwrap().is_none());
            drop(squares);
            call.get_timeout(LIMIT).unwrap();
        }
    });
}

#[test]
fn both_directions_flow_at_once() {
    let _company = beside_others();
    let (router, [a]) = tree();
    const COUNT: u64 = 50_000;
    let (numbers, theirs) = Squares::pair(&router);
    let call = a.call_async(flood, (theirs, COUNT));
    thread::scope(|scope| {
        scope.spawn(|| (0..COUNT as u32).for_each(|i| numbers.send(i).unwrap()));
        let sum: u64 = (0..COUNT).map(|_| numbers.get_timeout(LIMIT).unwrap()).sum();
        assert_eq!(sum, COUNT * (COUNT - 1) / 2);
    });
    assert_eq!(call.get_timeout(LIMIT).unwrap(), COUNT * (COUNT - 1) / 2);
    assert!((&numbers).next().is_none(), "it was dropped there");
}

#[test]
fn an_end_that_is_given_on_works_where_it_ends_up() {
    let _company = beside_others();
    let (router, [a]) = tree();
    let below = a.call(child_of, ()).unwrap();
    for _ in 0..20 {
        let (squares, theirs) = Squares::pair(&router);
        a.call_no_reply(relay, (&below, theirs)).unwrap();
        squares.send(5).unwrap();
        assert_eq!(squares.get_timeout(LIMIT).unwrap(), 25);
    }
}

#[test]
fn an_end_comes_back_in_a_result() {
    let _company = beside_others();
    let (router, [a]) = tree();
    let said = router.receiver();
    let squares = a.call(make, said.to_sender()).unwrap().open().unwrap();
    squares.send(4).unwrap();
    assert_eq!(squares.get_timeout(LIMIT).unwrap(), 16);
    drop(squares);
    assert_eq!(said.get_timeout(LIMIT).unwrap(), "Ok(())");
}

/// Why nothing can be sent; what is on its way to who has just gone is not known to be lost.
#[track_caller]
fn refused(squares: &Squares) -> Error {
    until(LIMIT, || squares.send(1).err()).unwrap()
}

/// What this end is told: by `get`, by `send`, and by `send` once more.
#[track_caller]
fn told(squares: &Squares) -> [Option<Cause>; 3] {
    let got = squares.get_timeout(LIMIT).unwrap_err();
    let sent = [refused(squares), refused(squares)];
    [cause(&got), cause(&sent[0]), cause(&sent[1])]
}

#[test]
fn a_function_that_fails_or_panics_ends_both_directions_and_says_why() {
    let _company = beside_others();
    let (router, [a]) = tree();
    let (squares, theirs) = Squares::pair(&router);
    let call = a.call_async(fail, theirs);
    assert_eq!(squares.get_timeout(LIMIT).unwrap(), 1);
    call.get_timeout(LIMIT).unwrap_err();
    let error = squares.get_timeout(LIMIT).unwrap_err();
    let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    assert_eq!((death.cause, &*death.tail), (Cause::Failed, "enough"));
    assert_eq!(cause(&refused(&squares)), Some(Cause::ReceiverClosed));
    assert!((&squares).next().is_none());

    let (squares, theirs) = Squares::pair(&router);
    a.call(panics, theirs).unwrap_err();
    assert_eq!(told(&squares)[0], Some(Cause::Failed));
}

#[test]
fn an_end_that_never_gets_there_ends_every_wait_with_the_reason() {
    let _company = beside_others();
    let other_program = Program::new().router().unwrap();
    let (router, [a, b]) = tree();

    let (squares, theirs) = Squares::pair(&router);
    drop(theirs);
    assert_eq!(told(&squares), [Some(Cause::SenderClosed); 3]);

    let (squares, theirs) = Squares::pair(&router);
    a.call(drop_it, theirs).unwrap();
    assert_eq!(told(&squares), [Some(Cause::SenderClosed); 3]);

    // One that may not be called.
    let (squares, theirs) = Squares::pair(&router);
    a.call(relay, (&b, theirs)).unwrap();
    assert_eq!(told(&squares), [Some(Cause::Refused); 3]);

    // One of another tree.
    let (squares, theirs) = Squares::pair(&other_program);
    assert!(matches!(a.call(drop_it, theirs).unwrap_err().kind(), ErrorKind::Usage(_)));
    assert_eq!(told(&squares), [Some(Cause::SenderClosed); 3]);

    // One that ends before it has begun.
    let gates = router.receiver();
    let (squares, theirs) = Squares::pair(&router);
    b.call_no_reply(open_late, (theirs, gates.to_sender())).unwrap();
    let _gate: Sender<()> = gates.get_timeout(LIMIT).unwrap();
    thread::scope(|scope| {
        let sends: Vec<_> = (0..4).map(|_| scope.spawn(|| squares.send(1).unwrap_err())).collect();
        thread::sleep(Duration::from_millis(5));
        router.disconnect(&b).unwrap();
        for send in sends {
            let error = send.join().unwrap();
            let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
            assert_eq!(death.context, Some(b.context_id()), "{error}");
        }
    });
    let error = squares.get_timeout(LIMIT).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Closed(death) if death.context.is_some()), "{error}");
}

#[test]
fn the_death_of_the_other_context_ends_both_directions() {
    leaves_nothing(&[], || {
        let router = mitogen_test_program().router().unwrap();
        let far = router.connect(&"local/local".parse().unwrap()).unwrap();
        let (squares, theirs) = Squares::pair(&router);
        far.call_no_reply(hold, theirs).unwrap();
        assert_eq!(squares.get_timeout(LIMIT).unwrap(), 0);
        squares.send(1).unwrap();
        router.disconnect(&far).unwrap();
        let error = squares.get_timeout(LIMIT).unwrap_err();
        let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
        assert_eq!(death.context, Some(far.context_id()));
        assert!(cause(&refused(&squares)).is_some());
        assert!(squares.into_iter().next().is_none());
    });
}

#[test]
fn an_end_that_opens_after_the_other_was_closed_hears_of_that() {
    let _company = beside_others();
    let (router, [a]) = tree();
    for is_dropped in [false, true] {
        let gates = router.receiver();
        let (squares, theirs) = Squares::pair(&router);
        let call = a.call_async(open_late, (theirs, gates.to_sender()));
        let open: Sender<()> = gates.get_timeout(LIMIT).unwrap();
        thread::scope(|scope| {
            let send = scope.spawn(|| squares.send(1).unwrap_err());
            thread::sleep(Duration::from_millis(5));
            squares.close();
            assert_eq!(cause(&send.join().unwrap()), Some(Cause::ReceiverClosed));
        });
        assert!(squares.send(1).is_err() && squares.get().is_err());
        let squares = (!is_dropped).then_some(squares);
        open.send(()).unwrap();
        let heard = call.get_timeout(LIMIT).unwrap();
        assert!(heard.starts_with("Err(Some(SenderClosed)) Err(Some("), "{heard}");
        drop(squares);
    }
}

#[test]
fn what_was_sent_before_the_close_arrives_before_the_end() {
    let _company = beside_others();
    let (router, [a]) = tree();
    for _ in 0..50 {
        let (squares, theirs) = Squares::pair(&router);
        let call = a.call_async(square, theirs);
        (0..10).for_each(|i| squares.send(i).unwrap());
        squares.close();
        // It fails if an answer finds nobody, but has got each number by then.
        let end = call.get_timeout(LIMIT);
        assert!(end.is_ok() || matches!(end.unwrap_err().kind(), ErrorKind::Call(_)));
    }
}

#[test]
fn threads_that_send_first_all_at_once_find_the_other_end() {
    let _company = beside_others();
    let (router, [a]) = tree();
    for _ in 0..30 {
        let (squares, theirs) = Squares::pair(&router);
        thread::scope(|scope| {
            let sends: Vec<_> = (0..6).map(|_| scope.spawn(|| squares.send(3))).collect();
            a.call_no_reply(square, theirs).unwrap();
            sends.into_iter().for_each(|send| send.join().unwrap().unwrap());
        });
        assert!((0..6).all(|_| squares.get_timeout(LIMIT).unwrap() == 9));
    }
}

#[test]
fn an_end_is_sent_once() {
    let _company = beside_others();
    let (router, [a]) = tree();
    let (squares, theirs) = Squares::pair(&router);
    a.call_no_reply(square, &theirs).unwrap();
    let error = a.call(square, &theirs).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Usage(_)), "{error}");
    assert!(theirs.open().is_err());
    squares.send(2).unwrap();
    assert_eq!(squares.get_timeout(LIMIT).unwrap(), 4);
    drop(squares);
    a.call(stock::ping, ()).unwrap();
}

#[test]
fn a_channel_is_a_source() {
    let _company = beside_others();
    let (router, contexts) = tree::<3>();
    let channels = contexts.map(|context| {
        let (squares, theirs) = Squares::pair(&router);
        context.call_no_reply(square, theirs).unwrap();
        squares
    });
    let select: Select<'_, _> = channels.iter().enumerate().collect();
    channels.iter().zip(1..).for_each(|(channel, i)| channel.send(i).unwrap());
    let mut squares: Vec<(usize, u64)> = (0..3)
        .map(|_| select.next_timeout(LIMIT).unwrap().unwrap())
        .map(|(i, square)| (i, square.unwrap()))
        .collect();
    squares.sort_unstable();
    assert_eq!(squares, [(0, 1), (1, 4), (2, 9)]);
    channels.iter().for_each(Channel::close);
    assert!(select.next_timeout(LIMIT).unwrap().is_none());
}
