//! What a child says, while it is brought up and afterwards: the protocols of its streams.

use super::{Child, State};
use crate::connect::handshake::Origin;
use crate::error::{Cause, ConnectFailure, Death};
use crate::io::census::Role;
use crate::io::turn::{Key, Protocol, Turn};
use crate::log::stdio::texts_of;
use crate::route::peer::Guardian;
use crate::sys::text::lossy;
use crate::trace::{self, Level, Record};
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
            Origin::Stdout => Role::starting(id),
            Origin::Terminal => Role::terminal(id),
        }
    }
}

impl Child {
    /// Keeps what is said on standard error, words of the tool and the last of the process, and
    /// logs it line by line.
    fn hear_said(&self, mut bytes: &[u8]) {
        loop {
            let mut state = self.lock();
            let Some(rest) = state.said.fill(bytes) else { return };
            let line = trace::wanted(Level::Info).then(|| lossy(state.said.line()));
            state.said.end_line(true, &[]);
            let (node, id, name) = (state.node.clone(), state.id, state.name.clone());
            drop(state);
            if let Some(text) = &line {
                let now = Record::now(Level::Info, "stderr");
                let (tree, context, name) = (node.identity().tree, Some(id), &*name);
                trace::record(&Record { tree, context, name, text, ..now });
            }
            bytes = rest;
        }
    }
}

impl State {
    /// Keeps a line of what was printed there, which is logged elsewhere.
    fn keep_printed(&mut self, text: &[u8], continues: bool) {
        self.said.fill(text);
        if !continues {
            self.said.end_line(true, &[]);
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

    fn printed(&mut self, records: &[u8]) {
        let mut state = self.0.lock();
        texts_of(records, &mut |text, continues| state.keep_printed(text, continues));
    }

    fn detaches(&mut self, turn: &mut Turn, done: bool) -> bool {
        self.0.let_live(turn);
        if done {
            self.0.close_streams(turn, Cause::Detached);
        }
        true
    }
}
