//! What one context tells of itself when it is inspected: the values that travel.

use crate::error::Phase;
use crate::ids::{ContextId, Handle};
use crate::io::counters::Counters;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Shape, Writer};

crate::value! {
    /// What one context is doing, of which its loop has told: it answers while all its functions
    /// are stuck. Times are measured there, to some 20 ms; [`Display`](std::fmt::Display) shows all
    /// but the counters. There is nothing in it of what calls and messages carry.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Snapshot {
        /// Its id.
        pub context_id: ContextId,
        /// Its name, as its parent gave it.
        pub name: String,
        /// The process that it is, by the number that it knows itself.
        pub pid: u32,
        /// Its ancestors, the nearest first; none in the master.
        pub parent_ids: Vec<ContextId>,
        /// Milliseconds since it knows who it is.
        pub age_ms: u64,
        /// Whether it ends: it was asked to, or its loop has been.
        pub is_ending: bool,
        /// Whether a thread that waits turned the loop in the broker's place when this was told.
        pub is_lent: bool,
        /// Timers of its loop that are set.
        pub timers: u64,
        /// Milliseconds until the first of them is due, if there is one.
        pub next_timer_ms: Option<u64>,
        /// The contexts below it.
        pub routes: Listed<Route>,
        /// What its loop reads and writes on its behalf.
        pub streams: Listed<Stream>,
        /// The processes of its children, from their start until they are reaped.
        pub children: Listed<Child>,
        /// Destinations of which the room is used in part, or waited for.
        pub rooms: Listed<Room>,
        /// Threads that sleep since 4 MiB of calls to one context are unanswered.
        pub held_callers: u64,
        /// The answers that it waits for, the oldest first.
        pub pending: Listed<Awaited>,
        /// Where it takes messages that are no answers: its receivers, handlers and events.
        pub receivers: Listed<Awaited>,
        /// Functions that it runs now.
        pub running: Listed<Running>,
        /// Calls that have arrived and not begun, in the order in which they will.
        pub queued: Listed<Queued>,
        /// What its broker has counted, for all routers that share it.
        pub counters: Counters,
    }

    /// A context that lives below.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Route {
        /// Its id.
        pub context_id: ContextId,
        /// The direct child by which it is reached; itself, if it is one.
        pub via: ContextId,
        /// Who started it.
        pub parent_id: ContextId,
    }

    /// A descriptor, or a pair of them, that the loop serves.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Stream {
        /// What it leads to.
        pub end: End,
        /// Bytes that wait to be written.
        pub queued_bytes: u64,
        /// Threads that sleep until fewer bytes wait.
        pub held_senders: u64,
        /// Whether what arrives is read.
        pub is_read: bool,
        /// Whether the loop waits until it takes more.
        pub is_blocked: bool,
    }

    /// What a stream leads to.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum End {
        /// Something else.
        Other,
        /// The parent.
        Parent,
        /// A child that is up.
        Child(ContextId),
        /// A child that is being brought up.
        Starting(ContextId),
        /// A child's terminal or standard error.
        Terminal(ContextId),
        /// A child's process, which is watched.
        Process(ContextId),
        /// A process of the program's, which is watched:
        /// [`Broker::watch_process`](crate::Broker::watch_process).
        Watched,
        /// A stream of the program's: [`Broker::attach`](crate::Broker::attach).
        Attached,
    }

    /// A child whose process this context has started.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Child {
        /// Its id.
        pub context_id: ContextId,
        /// The first 64 bytes of its name, while it is being brought up; else nothing.
        pub name: String,
        /// The process that was started: of ssh or sudo, say.
        pub pid: u32,
        /// How far it is.
        pub state: ChildState,
        /// Milliseconds since that process was started.
        pub age_ms: u64,
    }

    /// How far a child is.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum ChildState {
        /// It is being brought up, in this phase.
        Starting(Phase),
        /// It is there.
        Up,
        /// Its process is to end, and was told so.
        Ending,
        /// It has left the tree and lives on.
        Detached,
        /// Its process has ended; its streams are about to.
        Exited,
    }

    /// A handle at which this context listens.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Awaited {
        /// The handle.
        pub handle: Handle,
        /// Milliseconds since it listens.
        pub age_ms: u64,
        /// The only context that may send to it: the one that was asked.
        pub context_id: Option<ContextId>,
        /// What is to arrive.
        pub what: What,
    }

    /// What is to arrive at a handle.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum What {
        /// Something else: an answer of the protocol's own, say.
        Other,
        /// The answer of a call.
        Call(Function),
        /// The same, which nobody waits for.
        CallNoReply(Function),
        /// The outcome of a connect, or a question that it has.
        Connect,
        /// Values or messages, for a [`Receiver`](crate::Receiver) or
        /// [`RawReceiver`](crate::RawReceiver).
        Receiver(Queue),
        /// Messages, for a [`Handler`](crate::Handler).
        Handler,
        /// Nothing but the news that the context has ended.
        End,
    }

    /// What waits in a receiver, or for it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Queue {
        /// Values that nobody has taken.
        pub values: u64,
        /// Threads that sleep until there is one.
        pub takers: u64,
        /// The contexts that hold a Sender.
        pub holders: Listed<ContextId>,
    }

    /// What was sent to a destination and not taken there.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Room {
        /// The context.
        pub context_id: ContextId,
        /// The handle there.
        pub handle: Handle,
        /// Bytes on their way, of the 64 KiB that may be.
        pub outstanding_bytes: u64,
        /// Threads that sleep until there is room.
        pub held_senders: u64,
        /// Whether a message of more than 16 KiB is being sent, of which the destination asks for
        /// one part after the other: then threads wait for that, else for the 64 KiB.
        pub is_announced: bool,
    }

    /// A function that runs.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Running {
        /// Which.
        pub function: Function,
        /// Who called it.
        pub caller_id: ContextId,
        /// Where the caller waits for the answer.
        pub reply_to: Handle,
        /// Milliseconds since it began.
        pub age_ms: u64,
        /// Milliseconds that are left of its time, if that is limited.
        pub left_ms: Option<u64>,
        /// Whether it was cancelled.
        pub is_cancelled: bool,
    }

    /// A call that waits for its turn.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Queued {
        /// The function.
        pub function: Function,
        /// Who called it.
        pub caller_id: ContextId,
        /// Where the caller waits for the answer.
        pub reply_to: Handle,
        /// Milliseconds since it arrived.
        pub age_ms: u64,
        /// Milliseconds that are left of its time, if that is limited.
        pub left_ms: Option<u64>,
    }

    /// Names a function.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Function {
        /// What names it in a call.
        pub fingerprint: u64,
        /// Its full path, if the program that has asked knows it; else empty.
        pub name: String,
    }
}

/// The first of something, of which there may be too many to tell all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// Those that are told.
    pub first: Vec<T>,
    /// How many more there are.
    pub more: u64,
}

/// As `io::census::List` writes one.
impl<T: Encode> Encode for Listed<T> {
    fn encode(&self, w: &mut Writer<'_>) {
        for item in &self.first {
            w.put_u8(1);
            item.encode(w);
        }
        w.put_u8(0);
        self.more.encode(w);
    }
}

impl<T: Decode> Decode for Listed<T> {
    fn decode(r: &mut Reader<'_>) -> Result<Listed<T>, Malformed> {
        let mut first = Vec::new();
        while bool::decode(r)? {
            first.push(r.nested(T::decode)?);
        }
        Ok(Listed { first, more: u64::decode(r)? })
    }

    fn shape(s: &mut Shape) {
        s.word("listed");
        T::shape(s);
    }
}

impl<T> Default for Listed<T> {
    fn default() -> Listed<T> {
        Listed { first: Vec::new(), more: 0 }
    }
}

impl<T> Listed<T> {
    /// How many there are in all.
    pub fn count(&self) -> u64 {
        self.more.saturating_add(self.first.len() as u64)
    }
}
