//! What a child says, while it is brought up and afterwards: the protocols of its streams.

use super::{Child, State};
use crate::connect::handshake::Origin;
use crate::error::{Cause, ConnectFailure, Death};
use crate::io::turn::{Key, Protocol, Turn};
use crate::route::peer::Guardian;
use crate::sys::text::lossy;
use crate::trace::{self, Level};
use crate::wire::codec::Malformed;

/// The handshake's ear on one stream; of the terminal also afterwards.
pub(super) struct Speech {
    pub child: Child,
    pub origin: Origin,
}

impl Protocol for Speech {
    fn input(&mut self, turn: &mut Turn, _: Key, bytes: &[u8]) -> Result<(), Malformed> {
        let mut state = self.child.lock();
        if state.attempt.is_none() && self.origin == Origin::Terminal {
            state.hear_said(bytes);
        }
        drop(state);
        self.child.tell(turn, &mut |handshake| handshake.input(self.origin, bytes));
        Ok(())
    }

    fn ended(&mut self, turn: &mut Turn, key: Key) {
        match self.origin {
            Origin::Stdout => self.child.output_ended(turn),
            Origin::Terminal => {
                self.child.lock().terminal = None;
                turn.close(key, &Death::of(Cause::Disconnected));
            }
        }
    }

    fn closed(&mut self, turn: &mut Turn, _: &Death) {
        if self.origin == Origin::Stdout {
            self.child.fail(turn, ConnectFailure::Cancelled);
        }
    }
}

impl State {
    /// Keeps what is said on standard error, and logs it line by line.
    fn hear_said(&mut self, mut bytes: &[u8]) {
        while let Some(rest) = self.said.fill(bytes) {
            if trace::wanted(Level::Info) {
                let line = lossy(self.said.line());
                trace::text(Level::Info, "a context says", &[u64::from(self.id.0)], &line);
            }
            self.said.end_line(true, &[]);
            bytes = rest;
        }
    }
}

/// Watches the link on behalf of the child.
pub(super) struct LinkGuard(pub Child);

impl Guardian for LinkGuard {
    fn ended(&mut self, turn: &mut Turn, _: Key) {
        self.0.output_ended(turn);
    }

    fn closed(&mut self, turn: &mut Turn, _: &Death) {
        self.0.lock().main = None;
        self.0.end_process(turn);
    }

    fn detaches(&mut self, turn: &mut Turn, done: bool) -> bool {
        self.0.let_live(turn);
        if done {
            self.0.close_streams(turn, Cause::Detached);
        }
        true
    }
}
