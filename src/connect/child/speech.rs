//! What a child says, while it is brought up and afterwards: the protocols of its streams.

use super::Child;
use crate::connect::handshake::Origin;
use crate::error::{Cause, ConnectFailure, Death};
use crate::io::census::Role;
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
        let is_up = self.child.lock().attempt.is_none();
        if is_up && self.origin == Origin::Terminal {
            self.child.hear_said(bytes);
        }
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

    fn role(&self) -> Role {
        let id = self.child.lock().id;
        match self.origin {
            Origin::Stdout => Role::Starting(id),
            Origin::Terminal => Role::Terminal(id),
        }
    }
}

impl Child {
    /// Keeps what is said on standard error, and logs it line by line.
    fn hear_said(&self, mut bytes: &[u8]) {
        loop {
            let mut state = self.lock();
            let Some(rest) = state.said.fill(bytes) else { return };
            let line = trace::wanted(Level::Info).then(|| lossy(state.said.line()));
            state.said.end_line(true, &[]);
            let (node, id) = (state.node.clone(), state.id);
            drop(state);
            if let Some(line) = line {
                node.text(Level::Info, "a context says", &[id.0.into()], &line);
            }
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
