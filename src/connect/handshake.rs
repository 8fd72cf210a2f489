//! What is said between the start of a child and the agent's first word: bytes in, actions out.
//! It knows no process, descriptor or clock; the engine that owns those feeds it.

use crate::connect::recipe::Recipe;
use crate::connect::stage::Target;
use crate::error::{ConnectError, ConnectFailure, Exit};
use crate::wire::secret::Secret;

/// One connection attempt.
pub struct Handshake {}

/// Where bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The child's standard output.
    Stdout,
    /// The child's pty, or its standard error.
    Terminal,
}

/// What the engine is to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write this to the child's standard input.
    Send(Vec<u8>),
    /// Write this and a line feed to the child's terminal.
    Type(Secret),
    /// Find an image for this target; then call [`Handshake::image`], or [`Handshake::fail`].
    WantImage(Target),
    /// The agent has spoken. [`Handshake::rest`] has what came behind; feed no more.
    Up,
    /// The attempt is over: end the child.
    Failed(ConnectError),
}

impl Handshake {
    /// An attempt that has not begun.
    pub fn new(recipe: &Recipe) -> Handshake {
        let _ = recipe;
        Handshake {}
    }

    /// The process has been started.
    pub fn started(&mut self) {}

    /// Bytes of the child. After `Up` or `Failed`, nothing more is to be fed.
    pub fn input(&mut self, from: Origin, bytes: &[u8], actions: &mut Vec<Action>) {
        let _ = (from, bytes, actions);
    }

    /// The image is at hand: the line to send, behind which `sent_bytes` of image follow, which are
    /// gzip's output if `gzipped` (only where [`Target::gzip`] says so).
    pub fn image(&mut self, sent_bytes: u64, gzipped: bool) -> Vec<u8> {
        let _ = (sent_bytes, gzipped);
        Vec::new()
    }

    /// The image is wholly written.
    pub fn pushed(&mut self) {}

    /// Nothing came for `NUDGE_AFTER`.
    pub fn quiet(&mut self, actions: &mut Vec<Action>) {
        let _ = actions;
    }

    /// The child's output has ended, all of it was fed; how the process ended, if that is known.
    pub fn closed(&mut self, exit: Option<Exit>) -> ConnectError {
        self.failed(ConnectFailure::Ended, exit)
    }

    /// The time is over.
    pub fn timed_out(&mut self) -> ConnectError {
        self.failed(ConnectFailure::Timeout, None)
    }

    /// The engine met a failure of its own: no process, no image, given up.
    pub fn failed(&mut self, failure: ConnectFailure, exit: Option<Exit>) -> ConnectError {
        let phase = crate::error::Phase::Prepare;
        ConnectError { failure, phase, hop: String::new(), exit, tail: self.tail() }
    }

    /// What came behind the agent's line, taken.
    pub fn rest(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// The last that was said, harmless and without secrets.
    pub fn tail(&self) -> String {
        String::new()
    }
}
