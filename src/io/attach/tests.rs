//! Streams of a program's own, on real descriptors.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::*;
use crate::io::blocking::tty_create_child;
use crate::sys::{fd, pipe};

const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(LIMIT)).unwrap();
    theirs.set_write_timeout(Some(LIMIT)).unwrap();
    (ours, theirs)
}

/// Attaches it, and gives what is told.
fn attach(broker: &Broker, fd: impl Into<OwnedFd>) -> (Attached, Receiver<StreamEvent>) {
    let (tell, told) = channel();
    // A test that is over has heard enough.
    let attached = broker.attach(fd, move |_, event| _ = tell.send(event)).unwrap();
    (attached, told)
}

/// All input, and why it ended.
#[track_caller]
fn all(told: &Receiver<StreamEvent>) -> (Vec<u8>, Cause) {
    let mut bytes = Vec::new();
    loop {
        match told.recv_timeout(LIMIT).unwrap() {
            StreamEvent::Input(more) => bytes.extend(more),
            StreamEvent::Writable => (),
            StreamEvent::Closed(death) => {
                assert!(told.recv_timeout(LIMIT).is_err(), "nothing comes behind the end");
                return (bytes, death.cause);
            }
        }
    }
}

#[track_caller]
fn assert_closed<T>(result: Result<T>, cause: Cause) {
    let error = result.map(drop).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Closed(death) if death.cause == cause), "{error}");
}

#[test]
fn what_arrives_is_told_in_order_and_then_that_the_other_end_is_closed() {
    let broker = Broker::new().unwrap();
    let (ours, mut theirs) = pair();
    let (attached, told) = attach(&broker, ours);
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
    theirs.write_all(&bytes).unwrap();
    drop(theirs);
    assert!(all(&told) == (bytes, Cause::Disconnected));
    assert_closed(attached.send(b"x"), Cause::Disconnected);
    assert_closed(attached.try_send(b"x"), Cause::Disconnected);
    attached.close();
}

#[test]
fn what_is_sent_is_written_whole_before_it_is_closed() {
    let broker = Broker::new().unwrap();
    let (ours, mut theirs) = pair();
    let (attached, told) = attach(&broker, ours);
    let bytes: Vec<u8> = (0..1_000_000u32).map(|n| (n / 7) as u8).collect();
    let expected = bytes.clone();
    let sender = std::thread::spawn(move || {
        attached.send(&bytes).unwrap();
        attached.close();
        attached.close();
        attached
    });
    std::thread::sleep(PAUSE);
    assert!(!sender.is_finished() && told.try_recv().is_err(), "nobody has read it");
    let mut got = Vec::new();
    theirs.read_to_end(&mut got).unwrap();
    assert!(got == expected);
    assert_eq!(all(&told), (vec![], Cause::ReceiverClosed));
    assert_closed(sender.join().unwrap().send(b"x"), Cause::ReceiverClosed);
}

#[test]
fn what_waits_to_be_written_gets_to_who_sends_no_more() {
    let broker = Broker::new().unwrap();
    let (ours, mut theirs) = pair();
    let (attached, told) = attach(&broker, ours);
    let count = attached.try_send(&[7; 260_000]).unwrap();
    assert!(count == 260_000 && 0 < attached.core.outbox.queued());
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    std::thread::sleep(PAUSE);
    assert!(told.try_recv().is_err(), "it was closed with bytes to be written");
    assert_closed(attached.send(b"x"), Cause::Disconnected);
    let mut got = Vec::new();
    theirs.read_to_end(&mut got).unwrap();
    assert_eq!(got.len(), count);
    assert_eq!(all(&told), (vec![], Cause::Disconnected));
    let (ours, theirs) = pair();
    let (attached, told) = attach(&broker, ours);
    attached.try_send(&[7; 400_000]).unwrap();
    attached.close();
    drop(theirs);
    assert_eq!(all(&told), (vec![], Cause::ReceiverClosed), "nobody will read it");
}

#[test]
fn who_is_refused_room_is_told_when_there_is_some() {
    let broker = Broker::new().unwrap();
    let (ours, mut theirs) = pair();
    let (attached, told) = attach(&broker, ours);
    let block = vec![7; 100_000];
    for _ in 0..3 {
        let mut sent = 0;
        loop {
            let count = attached.try_send(&block).unwrap();
            sent += count;
            if count < block.len() {
                break;
            }
            assert!(sent < 4_000_000, "it is without bound");
        }
        assert_eq!(attached.try_send(&block).unwrap(), 0);
        assert!(told.recv_timeout(PAUSE).is_err());
        theirs.read_exact(&mut vec![0; sent]).unwrap();
        assert_eq!(told.recv_timeout(LIMIT).unwrap(), StreamEvent::Writable);
        assert!(told.recv_timeout(PAUSE).is_err(), "once is enough");
    }
}

#[test]
fn a_slow_callback_slows_who_writes_and_not_the_loop() {
    let broker = Broker::new().unwrap();
    let (ours, mut theirs) = pair();
    let (go, gate) = channel::<()>();
    let (tell, told) = channel();
    let attached = broker.attach(ours, move |_, event| {
        assert!(gate.recv().is_err(), "it is held until there is no gate");
        tell.send(event).unwrap();
    });
    let attached = attached.unwrap();
    theirs.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut written = 0;
    while let Ok(count) = theirs.write(&[7; 10_000]) {
        written += count;
        assert!(written < 4_000_000, "it is read without bound");
    }
    crate::sys::testing::soon(|| attached.core.state.lock().is_paused);
    broker.defer_sync(|_| ()).unwrap();
    drop(theirs);
    drop(go);
    let (bytes, cause) = all(&told);
    assert_eq!((bytes.len(), cause), (written, Cause::Disconnected));
}

#[test]
fn two_pipes_are_one_stream() {
    let broker = Broker::new().unwrap();
    let ((receive, mut theirs), (read, transmit)) = match (pipe::pipe(), pipe::pipe()) {
        (Ok((receive, write)), Ok(other)) => ((receive, std::fs::File::from(write)), other),
        _ => panic!(),
    };
    let echo = broker.attach_pair(receive, transmit, |stream, event| {
        if let StreamEvent::Input(bytes) = event {
            stream.send(&bytes).unwrap();
        }
    });
    echo.unwrap();
    let bytes = vec![7; 300_000];
    let expected = bytes.clone();
    let writer = std::thread::spawn(move || theirs.write_all(&bytes));
    let mut got = Vec::new();
    std::fs::File::from(read).read_to_end(&mut got).unwrap();
    assert!(got == expected);
    writer.join().unwrap().unwrap();
}

#[test]
fn a_terminal_is_a_stream_until_it_is_hung_up() {
    let broker = Broker::new().unwrap();
    let child = tty_create_child(["sh", "-c", "read -r x; echo $x"]).unwrap();
    let (attached, told) = attach(&broker, child.tty().unwrap().try_clone().unwrap());
    attached.send(b"hello\n").unwrap();
    assert_eq!(all(&told), (b"hello\n".to_vec(), Cause::Disconnected));
}

#[test]
fn a_panic_ends_that_callback_alone() {
    let broker = Broker::new().unwrap();
    let (ours, mut theirs) = pair();
    let (tell, told) = channel();
    let attached = broker.attach(ours, move |_, event| {
        assert_ne!(event, StreamEvent::Input(b"panic".to_vec()), "on purpose");
        tell.send(event).unwrap();
    });
    attached.unwrap();
    theirs.write_all(b"panic").unwrap();
    broker.defer_sync(|_| ()).unwrap();
    std::thread::sleep(PAUSE);
    theirs.write_all(b"next").unwrap();
    drop(theirs);
    assert_eq!(all(&told), (b"next".to_vec(), Cause::Disconnected));
}

#[test]
fn the_end_of_the_broker_is_told_and_closes_it() {
    for fails in [false, true] {
        let broker = Broker::start().unwrap();
        let (ours, mut theirs) = pair();
        let (attached, told) = attach(&broker, ours);
        attached.try_send(&[7; 1_000_000]).unwrap();
        match fails {
            true => broker.defer(|_| panic!("on purpose")).unwrap(),
            false => broker.shutdown(),
        }
        let cause = if fails { Cause::BrokerFailed } else { Cause::Shutdown };
        let begun = Instant::now();
        assert_eq!(all(&told), (vec![], cause));
        broker.join();
        assert!(begun.elapsed() < Duration::from_secs(2), "it has put off the end");
        assert_closed(attached.send(b"x"), cause);
        assert_closed(attached.try_send(b"x"), cause);
        attached.close();
        theirs.read_to_end(&mut Vec::new()).unwrap();
        assert_closed(broker.attach(theirs, |_, _| panic!()), cause);
    }
}

#[test]
fn what_cannot_be_waited_for_is_refused() {
    let broker = Broker::new().unwrap();
    let file = tempfile::tempfile().unwrap();
    let error = broker.attach(file, |_, _| panic!("it is called")).err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::System { .. }), "{error}");
    let null = fd::open_null().unwrap();
    assert!(broker.attach(null, |_, _| ()).is_err());
}

#[test]
fn nothing_is_kept_of_one_that_is_closed() {
    let broker = Broker::new().unwrap();
    let (ours, theirs) = pair();
    let (attached, told) = attach(&broker, ours);
    let core = Arc::downgrade(&attached.core);
    while attached.try_send(&[7; 100_000]).unwrap() == 100_000 {}
    broker.defer_sync(|_| ()).unwrap();
    assert!(attached.core.state.lock().room.is_some());
    drop((attached, theirs));
    all(&told);
    broker.run_sync(|| ()).unwrap();
    crate::sys::testing::soon(|| core.strong_count() == 0);
}
