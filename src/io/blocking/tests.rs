//! Blocking reads and writes, and children, on real descriptors.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::*;
use crate::error::Exit;
use crate::sys::testing;
use crate::sys::{pipe, pty, signal};

const LIMIT: Duration = Duration::from_secs(10);

fn soon() -> Option<Instant> {
    Some(Instant::now() + LIMIT)
}

fn at_once() -> Option<Instant> {
    Some(Instant::now() + Duration::from_millis(20))
}

/// All that comes until the end.
#[track_caller]
fn all(fd: BorrowedFd<'_>) -> String {
    let bytes = iter_read(&[fd], soon()).flat_map(|chunk| chunk.unwrap().bytes).collect();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_call_is_made_again_after_a_signal_and_a_closed_end_of_any_kind_is_none() {
    let outcomes = [io::ErrorKind::Interrupted, io::ErrorKind::Interrupted];
    let mut outcomes = outcomes.map(|kind| Err(kind.into())).into_iter().chain([Ok(7)]);
    assert_eq!(io_op(|| outcomes.next().unwrap()).unwrap(), Some(7));
    for errno in [Errno::IO, Errno::CONNRESET, Errno::PIPE] {
        let closed = || Err::<(), _>(io::Error::from_raw_os_error(errno.0));
        assert_eq!(io_op(closed).unwrap(), None);
    }
    let other = io_op(|| Err::<(), _>(io::Error::from_raw_os_error(Errno::ACCES.0)));
    assert_eq!(other.unwrap_err().raw_os_error(), Some(Errno::ACCES.0));
    let (read, write) = pipe::pipe().unwrap();
    drop(read);
    let mut write = std::fs::File::from(write);
    assert_eq!(io_op(|| write.write(b"x")).unwrap(), None);
    let pair = pty::open_pty().unwrap();
    drop(pair.follower);
    let mut leader = std::fs::File::from(pair.leader);
    testing::soon(|| io_op(|| leader.read(&mut [0; 4])).is_ok_and(|got| got.is_none()));
}

#[test]
fn chunks_of_several_descriptors_come_until_all_have_ended() {
    let (a, b, tty) =
        (pipe::pipe().unwrap(), pipe::socketpair().unwrap(), pty::open_pty().unwrap());
    pty::make_raw(tty.follower.as_fd());
    let fds = [a.0.as_fd(), b.0.as_fd(), tty.leader.as_fd()];
    let mut reads = iter_read(&fds, soon());
    for (from, fd) in [a.1, b.1, tty.follower].into_iter().enumerate().rev() {
        let bytes = format!("from {from}").into_bytes();
        write_all(fd.as_fd(), &bytes, None).unwrap();
        assert_eq!(reads.next().unwrap().unwrap(), Chunk { from, bytes });
    }
    assert!(reads.next().is_none() && reads.next().is_none());
    assert_eq!(reads.tail(), "from 2from 1from 0");
    let ErrorKind::Closed(death) = reads.ended().into_kind() else { panic!() };
    assert_eq!((death.cause, &*death.tail), (Cause::Disconnected, "from 2from 1from 0"));
}

#[test]
fn one_that_has_much_to_say_does_not_starve_another() {
    let (a, b) = (pipe::pipe().unwrap(), pipe::pipe().unwrap());
    write_all(a.1.as_fd(), &[b'a'; 60_000], None).unwrap();
    write_all(b.1.as_fd(), b"b", None).unwrap();
    let reads = iter_read(&[a.0.as_fd(), b.0.as_fd()], soon());
    let first: Vec<_> = reads.take(2).map(|chunk| chunk.unwrap()).collect();
    assert_eq!((first[0].from, first[0].bytes.len(), first[1].from), (0, CHUNK_BYTES, 1));
}

#[test]
fn a_read_ends_once_at_the_deadline_and_the_tail_has_the_last_that_came() {
    let (read, write) = pipe::pipe().unwrap();
    write_all(write.as_fd(), &[b'x'; 3 * TAIL_BYTES], None).unwrap();
    write_all(write.as_fd(), b"the last", None).unwrap();
    let mut reads = iter_read(&[read.as_fd()], at_once());
    assert!(reads.next().unwrap().is_ok());
    let error = reads.find_map(Result::err).unwrap();
    assert!(matches!(error.kind(), ErrorKind::Timeout), "{error}");
    assert!(reads.next().is_none());
    assert!(reads.tail().ends_with("the last") && reads.tail().len() == TAIL_BYTES);
}

#[test]
fn more_descriptors_than_a_wait_takes_are_refused_and_none_is_the_end() {
    let (read, _write) = pipe::pipe().unwrap();
    let mut reads = iter_read(&[read.as_fd(); SLEEP_FDS_MAX + 1], soon());
    assert!(matches!(reads.next().unwrap().unwrap_err().kind(), ErrorKind::Usage(_)));
    assert!(reads.next().is_none());
    assert!(iter_read(&[], None).next().is_none());
}

#[test]
fn a_descriptor_that_cannot_be_read_says_so() {
    let folder: OwnedFd = std::fs::File::open("/").unwrap().into();
    let mut reads = iter_read(&[folder.as_fd()], soon());
    assert!(matches!(reads.next().unwrap().unwrap_err().kind(), ErrorKind::System { .. }));
    assert!(reads.next().is_none());
}

#[test]
fn all_is_written_to_whoever_reads_slowly_in_any_mode() {
    let pairs = [pipe::socketpair().unwrap(), pipe::pipe().unwrap()];
    for ((read, write), is_nonblocking) in pairs.into_iter().zip([true, false]) {
        crate::sys::fd::set_nonblocking(write.as_fd(), is_nonblocking).unwrap();
        let bytes: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        let expected = bytes.clone();
        let writer = std::thread::spawn(move || write_all(write.as_fd(), &bytes, soon()));
        let got: Vec<u8> =
            iter_read(&[read.as_fd()], soon()).flat_map(|chunk| chunk.unwrap().bytes).collect();
        writer.join().unwrap().unwrap();
        assert!(got == expected);
    }
}

#[test]
fn a_write_that_nobody_takes_ends_at_the_deadline_and_a_closed_end_at_once() {
    for (read, write) in [pipe::socketpair().unwrap(), pipe::pipe().unwrap()] {
        let block = vec![0; 4_000_000];
        let error = write_all(write.as_fd(), &block, at_once()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Timeout), "{error}");
        drop(read);
        let error = write_all(write.as_fd(), &block, soon()).unwrap_err();
        let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
        assert_eq!(death.cause, Cause::Disconnected);
    }
    write_all(crate::sys::fd::open_null().unwrap().as_fd(), b"", at_once()).unwrap();
}

#[test]
fn a_child_talks_by_a_socket_and_has_no_terminal() {
    let mut child =
        create_child(["sh", "-c", "cat; (: </dev/tty) 2>/dev/null || echo none; exit 3"]).unwrap();
    assert!(child.tty().is_none() && child.try_wait().unwrap().is_none());
    child.socket().unwrap().write_all(b"hello\n").unwrap();
    child.end_input().unwrap();
    assert_eq!(all(child.as_fd()), "hello\nnone\n");
    assert_eq!(child.wait(soon()).unwrap(), Exit::Code(3));
    assert_eq!(child.try_wait().unwrap(), Some(Exit::Code(3)));
    assert!(matches!(child.kill(15).unwrap_err().kind(), ErrorKind::System { .. }));
}

#[test]
fn a_child_on_a_terminal_has_it_for_everything_and_as_its_controlling_one() {
    let script =
        "test -t 0 && test -t 1 && test -t 2 && echo yes >/dev/tty; read -r x; echo $x >&2";
    let child = tty_create_child(["sh", "-c", script]).unwrap();
    assert!(child.socket().is_none() && child.tty().is_some());
    assert!(matches!(child.end_input().unwrap_err().kind(), ErrorKind::Usage(_)));
    write_all(child.as_fd(), b"in\n", soon()).unwrap();
    assert_eq!(all(child.as_fd()), "yes\nin\n", "raw, and without echo");
}

#[test]
fn a_hybrid_talks_by_a_socket_and_asks_on_its_terminal() {
    let script = "test -t 0 || cat; echo ask >/dev/tty; read -r x </dev/tty; echo $x; echo e >&2";
    let child = hybrid_tty_create_child(["sh", "-c", script]).unwrap();
    write_all(child.as_fd(), b"bulk\n", soon()).unwrap();
    child.end_input().unwrap();
    let tty = child.tty().unwrap().as_fd();
    write_all(tty, b"secret\n", soon()).unwrap();
    assert_eq!(all(child.as_fd()), "bulk\nsecret\n");
    assert_eq!(all(tty), "ask\ne\n");
}

#[test]
fn a_wait_for_a_child_ends_at_the_deadline_and_by_how_it_ends() {
    let mut child = create_child(["sleep", "1000"]).unwrap();
    let error = child.wait(at_once()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout), "{error}");
    child.kill(signal::TERM).unwrap();
    assert_eq!(child.wait(soon()).unwrap(), Exit::Signal(signal::TERM));
}

#[test]
fn a_child_that_is_dropped_ends_with_its_group_and_is_reaped() {
    let child = create_child(["sh", "-c", "sleep 1000 & echo $!; wait"]).unwrap();
    let line = iter_read(&[child.as_fd()], soon()).next().unwrap().unwrap().bytes;
    let sleeper = String::from_utf8(line).unwrap().trim().to_owned();
    let stat = |id: &str| std::fs::read_to_string(format!("/proc/{id}/stat"));
    let id = child.id().to_string();
    assert!(stat(&sleeper).is_ok() && stat(&id).is_ok());
    drop(child);
    assert!(stat(&id).is_err(), "it is left, or a zombie");
    let is_gone = || stat(&sleeper).map_or(true, |stat| stat.contains(") Z "));
    testing::soon(is_gone);
}

#[test]
fn what_cannot_be_started_says_so_and_leaves_nothing() {
    for argv in [vec![], vec!["a\0b"]] {
        let error = create_child(argv).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Usage(_)), "{error}");
    }
    let argv = ["/nowhere/at/all"];
    for tried in [create_child(argv), tty_create_child(argv), hybrid_tty_create_child(argv)] {
        let error = tried.unwrap_err();
        assert!(error.to_string().contains("executing"), "{error}");
        let ErrorKind::System { errno, .. } = error.kind() else { panic!("{error}") };
        assert_eq!(*errno, Errno::NOENT.0);
    }
}

#[test]
fn what_a_child_talks_by_is_ours_alone() {
    let (first, second) = (create_child(["cat"]).unwrap(), create_child(["cat"]).unwrap());
    // Those that exec closes are there for a moment after it.
    let folder = format!("/proc/{}/fd", second.id());
    testing::soon(|| std::fs::read_dir(&folder).unwrap().count() == 3);
    first.end_input().unwrap();
    assert_eq!(all(first.as_fd()), "");
    let _: &UnixStream = second.socket().unwrap();
}
