//! What runs in the contexts of a storm: functions that answer, sleep, send, and call on. None of
//! them fails: what goes wrong is their value.

use std::time::Duration;

use mitogen::error::{Death, ErrorKind, Exit};
use mitogen::{CallContext, Context, Error, Program, Receiver, Result, Sender};

mitogen::value! {
    /// Why something ended, as it can travel.
    #[derive(Clone, Debug)]
    pub struct End {
        pub cause: String,
        pub context: Option<u32>,
        pub seen_by: Option<u32>,
        pub signal: Option<i32>,
        pub text: String,
    }

    /// One value of a stream to which several may send.
    #[derive(Debug)]
    pub struct Numbered { pub from: u32, pub number: u32, pub bytes: Vec<u8> }

    /// What came of a stream: how many of each sender, whether each's were in order and whole, and
    /// the end unless it was a clean one.
    #[derive(Clone, Debug)]
    pub struct Heard { pub counts: Vec<(u32, u32)>, pub in_order: bool, pub end: Option<End> }

    /// What was sent into one, and what kept the rest from it.
    #[derive(Clone, Debug)]
    pub struct Sent { pub count: u32, pub end: Option<End> }
}

pub fn add_to(program: Program) -> Program {
    let program = program.function(echo).function(nap).function(count).function(gather);
    program.function(ask).function(relay).function(pass).function(adopt)
}

impl End {
    pub fn of(error: &Error) -> End {
        let text = error.to_string();
        let ErrorKind::Closed(Death { cause, context, seen_by, exit, .. }) = error.kind() else {
            let cause = format!("{error:?}");
            return End { cause, context: None, seen_by: None, signal: None, text };
        };
        let signal = exit.and_then(|exit| match exit {
            Exit::Signal(signal) => Some(signal),
            Exit::Code(_) => None,
        });
        let (context, seen_by) = (context.map(|id| id.0), seen_by.map(|id| id.0));
        End { cause: format!("{cause:?}"), context, seen_by, signal, text }
    }
}

pub fn echo(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

pub fn nap(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// The bytes of a value of a stream.
fn piece(from: u32, number: u32, bytes: usize) -> Vec<u8> {
    vec![(from ^ number) as u8; bytes]
}

/// Sends that many values of that many bytes.
pub fn count(cx: &CallContext, values: u32, bytes: usize, out: Sender<Numbered>) -> Sent {
    let from = cx.context_id().0;
    for number in 0..values {
        if let Err(error) = out.send(Numbered { from, number, bytes: piece(from, number, bytes) }) {
            return Sent { count: number, end: Some(End::of(&error)) };
        }
    }
    Sent { count: values, end: None }
}

/// Makes a receiver, hands its Sender out, and hears what comes.
pub fn gather(cx: &CallContext, to: Sender<Sender<Numbered>>) -> Heard {
    let numbers = cx.router().receiver();
    let handed = to.send(numbers.to_sender());
    drop(to);
    match handed {
        Ok(()) => hear(numbers),
        Err(error) => Heard { counts: Vec::new(), in_order: true, end: Some(End::of(&error)) },
    }
}

/// What comes of a stream until its end.
pub fn hear(numbers: Receiver<Numbered>) -> Heard {
    let mut heard = Heard { counts: Vec::new(), in_order: true, end: None };
    for value in numbers {
        match value {
            Err(error) => heard.end = Some(End::of(&error)),
            Ok(Numbered { from, number, bytes }) => {
                heard.in_order &= bytes == piece(from, number, bytes.len());
                match heard.counts.iter_mut().find(|(id, _)| *id == from) {
                    Some((_, next)) => {
                        heard.in_order &= *next == number;
                        *next += 1;
                    }
                    None => {
                        heard.in_order &= number == 0;
                        heard.counts.push((from, 1));
                    }
                }
            }
        }
    }
    heard
}

/// Calls another context, and tells how that ended if it was not well.
pub fn ask(to: Context, bytes: Vec<u8>) -> Option<End> {
    match to.call(echo, &bytes) {
        Ok(back) => (back != bytes).then(|| End {
            cause: "other bytes".to_owned(),
            context: None,
            seen_by: None,
            signal: None,
            text: String::new(),
        }),
        Err(error) => Some(End::of(&error)),
    }
}

/// Has another context send, and waits for nothing.
pub fn relay(to: Context, values: u32, bytes: usize, out: Sender<Numbered>) -> Option<End> {
    let sent: Result<()> = to.call_no_reply(count, (values, bytes, out));
    sent.err().map(|error| End::of(&error))
}

/// Gives one Sender away by another.
pub fn pass(to: Sender<Sender<Numbered>>, out: Sender<Numbered>) -> Result<()> {
    to.send(out)
}

/// Takes Senders, which it hands a way out for, until there are no more to come; then sends by
/// each.
pub fn adopt(
    cx: &CallContext,
    to: Sender<Sender<Sender<Numbered>>>,
    taken: Sender<()>,
) -> Result<()> {
    let senders = cx.router().receiver();
    to.send(senders.to_sender())?;
    drop(to);
    let mut all = Vec::new();
    for sender in &senders {
        all.push(sender?);
        taken.send(())?;
    }
    all.into_iter().for_each(|out| drop(count(cx, 10, 10, out)));
    Ok(())
}
