//! What callers do in a storm: one operation after the other, each of which ends, and is checked.
//!
//! A function waits only for contexts of a higher number than its own, so that no two wait for each
//! other whatever is queued where.

use std::ffi::OsString;

use mitogen::error::{ConnectFailure, ErrorKind};
use mitogen::{Error, stock};

use super::LIMIT;
use super::fate::Fates;
use super::functions::{End, Heard, Sent, ask, count, echo, gather, hear, nap, relay};
use super::tree::{Random, Tree};

/// Bytes of a message at most: a few fragments.
const MESSAGE_MAX: usize = 100_000;
/// Values of a stream at most.
const VALUES_MAX: usize = 300;
/// Bytes of one of them at most.
const VALUE_MAX: usize = 2000;

/// One thing that a caller does; contexts by their numbers.
#[derive(Debug)]
pub enum Operation {
    Ping(usize),
    Echo(usize, usize),
    Nap(usize, u64),
    /// Dropped at once.
    Drop(usize),
    /// Many at a time.
    Scatter(Vec<usize>),
    /// A stream to us.
    Count(usize, u32, usize),
    /// A command's output to us.
    Command(usize),
    /// One calls another.
    Ask(usize, usize, usize),
    /// One has another send to us.
    Relay(usize, usize, u32, usize),
    /// Streams of some to one of their own.
    Gather(usize, Vec<usize>, u32, usize),
    /// A context more, for a moment.
    Connect(usize),
}

impl Operation {
    pub fn name(&self) -> &'static str {
        match self {
            Operation::Ping(..) => "ping",
            Operation::Echo(..) => "echo",
            Operation::Nap(..) => "nap",
            Operation::Drop(..) => "drop",
            Operation::Scatter(..) => "scatter",
            Operation::Count(..) => "count",
            Operation::Command(..) => "command",
            Operation::Ask(..) => "ask",
            Operation::Relay(..) => "relay",
            Operation::Gather(..) => "gather",
            Operation::Connect(..) => "connect",
        }
    }
}

/// Whether it ended well; or what is wrong.
type Outcome = Result<bool, String>;

/// One caller's.
pub struct Traffic<'a> {
    tree: &'a Tree,
    fates: &'a Fates<'a>,
    random: Random,
}

impl<'a> Traffic<'a> {
    pub fn new(tree: &'a Tree, fates: &'a Fates<'a>, random: Random) -> Traffic<'a> {
        Traffic { tree, fates, random }
    }

    /// Mostly contexts that live, but others are called, too.
    fn any(&mut self) -> usize {
        let at = self.random.below(self.tree.nodes.len());
        match self.fates.is_doomed(at) && 0 < self.random.below(4) {
            true => self.any(),
            false => at,
        }
    }

    fn copy(&mut self) -> usize {
        let at = self.any();
        if self.tree.nodes[at].is_copy { at } else { self.copy() }
    }

    /// A copy of a number above this one; below it in the tree, if there is such a one and that is
    /// wanted.
    fn copy_above(&mut self, at: usize, below: bool) -> Option<usize> {
        let copies = (at + 1..self.tree.nodes.len()).filter(|n| self.tree.nodes[*n].is_copy);
        let copies = copies.filter(|other| !below || self.tree.path(*other).contains(&at));
        self.random.one_of(&copies.collect::<Vec<_>>())
    }

    pub fn choose(&mut self) -> Operation {
        let bytes = self.random.below(2) * self.random.below(MESSAGE_MAX);
        let (values, size) = (self.random.below(VALUES_MAX) as u32, self.random.below(VALUE_MAX));
        let below = 0 < self.random.below(4);
        let one = self.copy();
        let other = self.copy_above(one, below);
        match (self.random.below(11), other) {
            (0, _) => Operation::Ping(self.any()),
            (1, _) => Operation::Nap(one, self.random.below(30) as u64),
            (2, _) => Operation::Drop(one),
            (3, _) => Operation::Scatter((0..self.random.below(20)).map(|_| self.any()).collect()),
            (4, _) => Operation::Command(self.any()),
            (5, _) => Operation::Connect(self.any()),
            (6, _) => Operation::Count(one, values, size),
            (7, Some(other)) => Operation::Ask(one, other, bytes),
            (8, Some(other)) => Operation::Relay(one, other, values, size),
            (9, Some(other)) => {
                let mut all = vec![other];
                all.extend((0..self.random.below(4)).filter_map(|_| self.copy_above(one, false)));
                all.sort_unstable();
                all.dedup();
                Operation::Gather(one, all, values, size)
            }
            _ => Operation::Echo(one, bytes),
        }
    }

    pub fn perform(&mut self, operation: &Operation) -> Outcome {
        let context = |at: usize| &self.tree.nodes[at].context;
        match operation {
            Operation::Ping(at) => self.check(context(*at).call(stock::ping, ()), &[*at]),
            Operation::Nap(at, ms) => self.check(context(*at).call(nap, *ms), &[*at]),
            Operation::Drop(at) => {
                drop(context(*at).call_async(nap, 1));
                Ok(true)
            }
            Operation::Echo(at, bytes) => {
                let said = vec![*at as u8; *bytes];
                match context(*at).call(echo, &said) {
                    Ok(back) if back != said => Err("other bytes".to_owned()),
                    outcome => self.check(outcome.map(drop), &[*at]),
                }
            }
            Operation::Scatter(all) => {
                let calls =
                    all.iter().map(|at| (*at, context(*at).call_async(stock::identify, ())));
                let calls: Vec<_> = calls.collect();
                let mut whole = true;
                for (at, call) in calls {
                    let answer = call.get_timeout(LIMIT);
                    let pid = answer.as_ref().map_or(None, |identity| Some(identity.pid));
                    if pid.is_some_and(|pid| pid != self.tree.nodes[at].pid) {
                        return Err(format!("{at} has the process {pid:?}"));
                    }
                    whole &= self.check(answer.map(drop), &[at])?;
                }
                Ok(whole)
            }
            Operation::Count(at, values, bytes) => self.count(*at, *values, *bytes),
            Operation::Command(at) => self.command(*at),
            Operation::Ask(at, other, bytes) => {
                match context(*at).call(ask, (context(*other), vec![3; *bytes])) {
                    Ok(None) if self.is_below(*other, *at) => Ok(true),
                    Ok(None) => Err("a call of a sibling was let in".to_owned()),
                    Ok(Some(end)) => self.explain(&end, &[*other], Some((*at, *other))),
                    Err(error) => self.explain(&End::of(&error), &[*at], None),
                }
            }
            Operation::Relay(at, other, values, bytes) => self.relay(*at, *other, *values, *bytes),
            Operation::Gather(at, others, values, bytes) => {
                self.gather(*at, others, *values, *bytes)
            }
            Operation::Connect(via) => self.connect(*via),
        }
    }

    fn is_below(&self, at: usize, above: usize) -> bool {
        self.tree.path(at).contains(&above)
    }

    fn check(&self, outcome: Result<(), Error>, about: &[usize]) -> Outcome {
        outcome.map_or_else(|error| self.explain(&End::of(&error), about, None), |()| Ok(true))
    }

    /// An end that is none of those that a call of the second by the first may have.
    fn explain(&self, end: &End, about: &[usize], called: Option<(usize, usize)>) -> Outcome {
        if let ("Refused", Some((by, of))) = (&*end.cause, called) {
            let id = self.tree.nodes[of].context.context_id().0;
            if end.context == Some(id) && !self.is_below(of, by) {
                return Ok(true);
            }
        }
        self.fates.explain(end, about).map(|()| false)
    }

    /// Whether a stream brought what there was.
    fn is_whole(&self, heard: &Heard, from: &[usize], values: u32) -> Outcome {
        let ids = from.iter().map(|at| self.tree.nodes[*at].context.context_id().0);
        let count = |id| heard.counts.iter().find(|(from, _)| *from == id).map_or(0, |(_, n)| *n);
        let counts: Vec<u32> = ids.map(count).collect();
        let known = heard.counts.len() <= from.len() && counts.iter().all(|n| *n <= values);
        match heard.in_order && known {
            true => Ok(counts.iter().all(|n| *n == values)),
            false => Err(format!("not what was sent: {heard:?}")),
        }
    }

    fn count(&self, at: usize, values: u32, bytes: usize) -> Outcome {
        let numbers = self.tree.router.receiver();
        let context = &self.tree.nodes[at].context;
        let call = context.call_async(count, (values, bytes, numbers.to_sender()));
        let heard = hear(numbers);
        let whole = self.is_whole(&heard, &[at], values)?;
        match (&heard.end, call.get_timeout(LIMIT)) {
            (None, Ok(Sent { end: None, .. })) if whole => Ok(true),
            (None, Ok(sent)) => Err(format!("{heard:?} after {sent:?}")),
            // It was not sent: then its Sender ends well.
            (None, Err(error)) => self.explain(&End::of(&error), &[at], None),
            (Some(end), outcome) => {
                self.explain(end, &[at], None)?;
                // It may have been told before the end of what it sent.
                self.check(outcome.map(drop), &[at]).map(|_| false)
            }
        }
    }

    fn command(&self, at: usize) -> Outcome {
        let output = self.tree.router.receiver();
        let argv: Vec<OsString> = ["seq", "3000"].map(Into::into).to_vec();
        let context = &self.tree.nodes[at].context;
        let command = stock::Command { argv };
        let call = context.call_async(stock::run, (command, output.to_sender()));
        let (mut bytes, mut end) = (0, None);
        for piece in output {
            match piece {
                Ok(stock::Output::Stdout(piece) | stock::Output::Stderr(piece)) => {
                    bytes += piece.len();
                }
                Err(error) => end = Some(End::of(&error)),
            }
        }
        let called = call.get_timeout(LIMIT);
        match (&end, &called) {
            (None, Ok(stock::Ended::Exited(0))) if bytes == 13_893 => Ok(true),
            // It was not sent: then its Sender ends well.
            (end, Err(error)) => {
                end.as_ref().map_or(Ok(true), |end| self.explain(end, &[at], None))?;
                self.explain(&End::of(error), &[at], None)
            }
            _ => Err(format!("{bytes} bytes, {end:?}, {called:?}")),
        }
    }

    fn relay(&self, at: usize, other: usize, values: u32, bytes: usize) -> Outcome {
        let numbers = self.tree.router.receiver();
        let context = |at: usize| &self.tree.nodes[at].context;
        let args = (context(other), values, bytes, numbers.to_sender());
        let call = context(at).call_async(relay, args);
        let heard = hear(numbers);
        let whole = self.is_whole(&heard, &[other], values)?;
        let sent = call.get_timeout(LIMIT);
        match (&heard.end, &sent) {
            (None, Ok(None)) if whole && self.is_below(other, at) => return Ok(true),
            (None, Ok(Some(_)) | Err(_)) | (Some(_), _) => (),
            _ => return Err(format!("{heard:?} after {sent:?}")),
        }
        let called = Some((at, other));
        for end in heard.end.iter().chain(sent.iter().flatten()) {
            self.explain(end, &[at, other], called)?;
        }
        self.check(sent.map(drop), &[at]).map(|_| false)
    }

    fn gather(&self, at: usize, others: &[usize], values: u32, bytes: usize) -> Outcome {
        let handed = self.tree.router.receiver();
        let context = |at: usize| &self.tree.nodes[at].context;
        let gathering = context(at).call_async(gather, handed.to_sender());
        let sender = match handed.get_timeout(LIMIT) {
            Ok(sender) => sender,
            Err(error) => {
                return match (gathering.get_timeout(LIMIT), End::of(&error)) {
                    (Ok(heard), end) => Err(format!("{end:?} though {heard:?}")),
                    // It was not sent: then its Sender ends well.
                    (Err(error), end) if end.cause == "SenderClosed" => {
                        self.check(Err(error), &[at])
                    }
                    (Err(error), end) => {
                        self.explain(&end, &[at], None)?;
                        self.check(Err(error), &[at])
                    }
                };
            }
        };
        let counting = others
            .iter()
            .map(|other| (*other, context(*other).call_async(count, (values, bytes, &sender))));
        let counting: Vec<_> = counting.collect();
        drop(sender);
        let (mut well, mut all) = (true, vec![at]);
        all.extend(others);
        for (other, call) in counting {
            match call.get_timeout(LIMIT) {
                Ok(Sent { end: None, .. }) => (),
                Ok(Sent { end: Some(end), .. }) => well &= self.explain(&end, &[at], None)?,
                Err(error) => well &= self.explain(&End::of(&error), &[other], None)?,
            }
        }
        let heard = match gathering.get_timeout(LIMIT) {
            Ok(heard) => heard,
            Err(error) => return self.explain(&End::of(&error), &[at], None),
        };
        let whole = self.is_whole(&heard, others, values)?;
        match &heard.end {
            None if whole || !well => Ok(whole),
            None => Err(format!("{heard:?}, and nobody knows why")),
            Some(end) => self.explain(end, &all, None),
        }
    }

    fn connect(&self, via: usize) -> Outcome {
        let via_context = &self.tree.nodes[via].context;
        let via_id = Some(via_context.context_id().0);
        let error = match self.tree.router.local().via(via_context).connect() {
            Ok(context) => {
                let outcomes = [context.call(stock::ping, ()), context.shutdown()];
                let mut ends = outcomes.into_iter().filter_map(|o| o.err()).map(|e| End::of(&e));
                // Where nobody knows more it is its own end, which is that of who started it.
                let id = context.context_id().0;
                let own =
                    |end: &mut End| end.context = end.context.filter(|of| *of != id).or(via_id);
                return ends.try_fold(true, |_, mut end| {
                    own(&mut end);
                    self.explain(&end, &[via], None)
                });
            }
            Err(error) => error,
        };
        let ErrorKind::Connect(failed) = error.kind() else {
            return self.explain(&End::of(&error), &[via], None);
        };
        match &failed.failure {
            ConnectFailure::ViaGone(death) => {
                self.explain(&End::of(&death.clone().into()), &[via], None)
            }
            ConnectFailure::Cancelled if self.fates.is_over() => Ok(false),
            _ => Err(error.to_string()),
        }
    }
}
