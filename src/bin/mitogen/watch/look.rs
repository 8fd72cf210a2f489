//! Looks at the tree again and again, on a thread of its own, and says what it saw. Each look costs
//! each context one message and its answer.

use std::io;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use mitogen::Router;
use mitogen::inspect::{Entry, Snapshot, Stream};

use super::model::{Answer, Running, Totals};

/// How long a context may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// The thread waits, and gathers.
const STACK_BYTES: usize = 512 << 10;

/// What was seen of one context.
pub struct Seen {
    /// Its id.
    pub id: u32,
    /// Who started it.
    pub parent: Option<u32>,
    /// Its name, as far as it is known.
    pub name: String,
    /// What it told; none if it did not.
    pub answer: Option<Answer>,
}

/// Has `tell` called with what was seen, every interval, as long as it returns true; but not before
/// `taken` says that what it got last was taken, since there is to be no heap of them.
///
/// # Errors
/// There is no room for a thread.
pub fn every(
    interval: Duration,
    router: &Router,
    mut tell: impl FnMut(Vec<Seen>) -> bool + Send + 'static,
    taken: Receiver<()>,
) -> io::Result<()> {
    let router = router.clone();
    let look = move || {
        loop {
            let begun = Instant::now();
            let tree = router.inspect_tree(ANSWER_TIMEOUT);
            if !tell(tree.entries.into_iter().map(seen).collect()) || taken.recv().is_err() {
                return;
            }
            thread::sleep(interval.saturating_sub(begun.elapsed()));
        }
    };
    let thread = thread::Builder::new().stack_size(STACK_BYTES).name("look".to_owned());
    thread.spawn(look).map(drop)
}

fn seen(entry: Entry) -> Seen {
    let Entry { context_id, parent_id, name, round_trip, outcome, .. } = entry;
    // This process needs no network.
    let round_trip = round_trip.filter(|_| parent_id.is_some());
    let answer = outcome.ok().map(|snapshot| answer(snapshot, round_trip));
    Seen { id: context_id.0, parent: parent_id.map(|id| id.0), name, answer }
}

fn answer(snapshot: Snapshot, round_trip: Option<Duration>) -> Answer {
    let at = Instant::now();
    let Snapshot { counters, streams, running, .. } = snapshot;
    let running = running.first.into_iter().map(|call| {
        let since = at.checked_sub(Duration::from_millis(call.age_ms)).unwrap_or(at);
        Running { function: call.function.to_string(), since }
    });
    let totals = Totals {
        at_us: counters.uptime_us,
        bytes_in: counters.read_bytes,
        bytes_out: counters.written_bytes,
        messages: counters.frames_received,
    };
    Answer { round_trip, totals, queued_bytes: queued(&streams.first), running: running.collect() }
}

/// Bytes that wait in all of them; a stranger may say what it likes.
fn queued(streams: &[Stream]) -> u64 {
    streams.iter().fold(0, |sum, stream| sum.saturating_add(stream.queued_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mitogen::Program;
    use mitogen::inspect::End;
    use std::sync::mpsc::channel;

    #[test]
    fn the_next_look_is_made_when_the_last_was_taken() {
        let router = Program::new().router().unwrap();
        let ((tell, told), (take, taken)) = (channel(), channel());
        every(Duration::from_millis(1), &router, move |seen| tell.send(seen).is_ok(), taken)
            .unwrap();
        for _ in 0..3 {
            assert_eq!(told.recv().unwrap().len(), 1);
            assert!(told.recv_timeout(Duration::from_millis(100)).is_err());
            take.send(()).unwrap();
        }
        told.recv().unwrap();
        drop(take);
        assert!(told.recv().is_err(), "nobody takes any more");
    }

    #[test]
    fn what_a_stranger_claims_to_have_queued_has_a_sum() {
        let (held_senders, is_read, is_blocked) = (0, true, false);
        let stream = |queued_bytes| {
            let end = End::Parent;
            Stream { end, queued_bytes, held_senders, is_read, is_blocked }
        };
        assert_eq!(queued(&[stream(3), stream(4)]), 7);
        assert_eq!(queued(&[stream(u64::MAX), stream(4)]), u64::MAX);
    }
}
