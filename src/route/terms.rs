//! What a new child is asked to keep to.

use crate::ids::ContextId;
use crate::route::files::Files;
use crate::route::heartbeat::Heartbeat;

/// What a new child is asked to keep to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Whether those below it may talk to it and its ancestors only; as its parent unless given.
    pub unidirectional: Option<bool>,
    /// Of its link.
    pub heartbeat: Heartbeat,
    /// How many functions it is to run at a time; 0 as 1.
    pub threads: u32,
    /// What it is to leave of what it does; as its parent unless given.
    pub files: Files,
}

impl Terms {
    /// They were asked for under this authority: none but the master's can loosen what a child
    /// would keep to otherwise.
    pub fn ask_under(&mut self, auth: ContextId) {
        if self.unidirectional == Some(false) && auth != ContextId::MASTER {
            self.unidirectional = None;
        }
    }
}
