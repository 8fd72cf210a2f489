//! The signs of life of a link, where they were asked for: each end says from time to time that it
//! is there, and gives the link up when it has heard nothing at all for too long.

use std::time::Duration;

use crate::error::{Cause, Death};
use crate::ids::{ContextId, Handle};
use crate::io::turn::{Key, Turn};
use crate::route::node::{Node, Outgoing};
use crate::wire::header::{Kind, Lane};

/// How often a neighbour says that it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// Milliseconds between two; 0 is never.
    pub interval_ms: u32,
    /// Intervals of silence that end the connection.
    pub count: u32,
}

/// One end's part in it.
#[derive(Default)]
pub struct Pulse {
    heartbeat: Heartbeat,
    /// Intervals that have ended since something was heard; the first was not a whole one.
    silences: u32,
}

impl Pulse {
    /// Begins, unless there is to be none.
    pub fn start(&mut self, turn: &mut Turn, key: Key, heartbeat: Heartbeat) {
        self.heartbeat = heartbeat;
        self.wait(turn, key);
    }

    /// Something has arrived, whatever it is.
    pub fn hear(&mut self) {
        self.silences = 0;
    }

    /// An interval is over, and what has arrived in it was heard.
    pub fn beat(&mut self, node: &Node, turn: &mut Turn, key: Key, neighbour: ContextId) {
        self.silences += 1;
        if self.heartbeat.count < self.silences {
            let death = Death::of(Cause::Silent).at(neighbour);
            return turn.close(key, &death);
        }
        let (kind, dst, auth, handle) = (Kind::Control, neighbour, node.id(), Handle::BEAT);
        node.tell(&Outgoing { kind, dst, auth, handle, reply_to: None }, Lane::Quick, &|_| ());
        self.wait(turn, key);
    }

    /// Ends: the neighbour will say no more, and how it ends is about to be known.
    pub fn stop(&mut self) {
        self.heartbeat.count = u32::MAX;
    }

    fn wait(&self, turn: &mut Turn, key: Key) {
        if 0 < self.heartbeat.interval_ms {
            turn.remind(key, Duration::from_millis(self.heartbeat.interval_ms.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::latch::Latch;
    use crate::io::outbox::Outbox;
    use crate::io::side::Side;
    use crate::route::lease::Lease;
    use crate::route::peer::{End, Guardian, Peer};
    use crate::route::testing::{self, Tree};
    use crate::sys::pipe;
    use crate::wire::frame::FrameBuf;
    use crate::wire::framer::Framer;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::time::Instant;

    const CHILD: ContextId = ContextId(3);
    const INTERVAL: Duration = Duration::from_millis(100);
    const COUNT: u32 = 8;
    /// Who falls silent now is given up after this, within one interval more.
    const SILENCE: Duration = Duration::from_millis(800);

    struct Ended(Arc<Latch<Death>>);

    impl Guardian for Ended {
        /// How it ended is about to be known.
        fn ended(&mut self, _: &mut Turn, _: Key) {}

        fn closed(&mut self, _: &mut Turn, why: &Death) {
            self.0.put(why.clone()).unwrap();
        }
    }

    /// A link with a heartbeat to a child that is played by hand.
    struct Link {
        tree: Tree,
        child: UnixStream,
        ended: Arc<Latch<Death>>,
    }

    fn link() -> Link {
        let interval_ms = INTERVAL.as_millis() as u32;
        link_of(Heartbeat { interval_ms, count: COUNT })
    }

    fn link_of(heartbeat: Heartbeat) -> Link {
        let (tree, ended) = (testing::tree(), Arc::new(Latch::new()));
        let (ours, theirs) = pipe::socketpair().unwrap();
        let side = Side::new(ours);
        let outbox = Arc::new(Outbox::new(side.clone()));
        let (node, told) = (tree.root.clone(), Ended(ended.clone()));
        let attach = move |turn: &mut Turn| {
            let key = turn.attach_silent(node.tenant(), side, Some(outbox.clone())).unwrap();
            let end = End::Child(CHILD, Lease::default());
            let mut peer = Peer::adopt(&node, key, end, outbox, Box::new(told));
            peer.keep_alive(turn, key, heartbeat);
            turn.replace(key, Box::new(peer));
        };
        tree.root.broker().defer_sync(attach).unwrap();
        Link { tree, child: UnixStream::from(theirs), ended }
    }

    impl Link {
        /// Fails unless the child is given up, and that long after this.
        #[track_caller]
        fn is_given_up(&self, silent_since: Instant) {
            let why = self.ended.get_timeout(20 * SILENCE).unwrap();
            let elapsed = silent_since.elapsed();
            assert_eq!(why, Death::of(Cause::Silent).at(CHILD));
            assert!(SILENCE <= elapsed, "{elapsed:?}");
            self.tree.others_are_well();
        }

        /// Speaks for a while, a byte of one frame at a time; returns when it did last.
        fn speak(&mut self, time: Duration) -> Instant {
            let header = testing::header(Kind::Data, Handle(9));
            let frame = FrameBuf::encode(None, |w| w.put(&[0; 1000])).unwrap();
            let frame =
                frame.seal(&crate::wire::header::Header { src: CHILD, auth: CHILD, ..header });
            let begun = Instant::now();
            let mut last = begun;
            for byte in frame.as_bytes().iter().take_while(|_| begun.elapsed() < time) {
                last = Instant::now();
                self.child.write_all(&[*byte]).unwrap();
                std::thread::sleep(INTERVAL / 10);
            }
            last
        }
    }

    #[test]
    fn who_is_silent_is_given_up_and_hears_until_then_that_we_are_there() {
        let begun = Instant::now();
        let mut link = link();
        link.is_given_up(begun);
        let mut bytes = Vec::new();
        link.child.read_to_end(&mut bytes).unwrap();
        let mut framer = Framer::new();
        let (mut frames, mut count) = (framer.feed(&bytes), 0);
        while let Some(frame) = frames.next() {
            let frame = frame.unwrap();
            let kind = (frame.header.kind, frame.header.handle, frame.header.dst);
            assert_eq!(kind, (Kind::Control, Handle::BEAT, CHILD));
            assert!(frame.payload.is_empty() && frame.header.lane == Lane::Quick);
            count += 1;
        }
        assert_eq!(count, COUNT);
    }

    #[test]
    fn anything_at_all_is_a_sign_of_life() {
        let mut link = link();
        let last = link.speak(3 * SILENCE);
        assert!(link.ended.is_empty(), "{:?}", link.ended.try_get());
        link.is_given_up(last);
    }

    #[test]
    fn who_ends_is_not_called_silent() {
        let link = link();
        drop(link.child);
        std::thread::sleep(2 * SILENCE);
        assert!(link.ended.is_empty(), "{:?}", link.ended.try_get());
    }

    #[test]
    fn what_came_while_the_loop_was_held_up_was_heard() {
        let mut link = link_of(Heartbeat { interval_ms: 500, count: 1 });
        // Now one interval of silence is over, and another will be too much.
        assert_ne!(link.child.read(&mut [0; 100]).unwrap(), 0);
        let mut child = link.child.try_clone().unwrap();
        let held = move |_: &mut Turn| {
            child.write_all(&[0xa0]).unwrap();
            std::thread::sleep(Duration::from_millis(800));
        };
        link.tree.root.broker().defer(held).unwrap();
        // The second comes when timers have had their turn.
        for _ in 0..2 {
            link.tree.root.broker().defer_sync(|_| ()).unwrap();
        }
        assert!(link.ended.is_empty(), "{:?}", link.ended.try_get());
    }
}
