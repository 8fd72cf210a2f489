//! Who a context is in its tree.

use crate::ids::ContextId;
use crate::limits::MESSAGE_BYTES_MAX;
use crate::route::files::Files;
use crate::route::heartbeat::Heartbeat;
use crate::route::terms::Terms;
use crate::trace;

/// Who a context is, as its parent told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its own id.
    pub id: ContextId,
    /// Its ancestors' ids, the nearest first; none in the master.
    pub parents: Vec<ContextId>,
    /// Its name: the address of its whole path.
    pub name: String,
    /// Bytes of the largest message that the tree allows.
    pub message_bytes_max: u64,
    /// Whether those below it may talk to it and its ancestors only.
    pub unidirectional: bool,
    /// Of the link to its parent.
    pub heartbeat: Heartbeat,
    /// How many functions it runs at a time, at least one.
    pub threads: u32,
    /// From which level on it sends records to the master, as a number; 0 is none.
    pub log_level: u8,
    /// Which of the trees that this process is the master of, from 1; 0 is none. It stays here.
    pub tree: u32,
    /// What it is to leave of what it does.
    pub files: Files,
}

impl Identity {
    /// The master of a tree, unless its program says otherwise.
    pub fn of_master() -> Identity {
        Identity {
            id: ContextId::MASTER,
            parents: Vec::new(),
            name: "master".to_owned(),
            message_bytes_max: MESSAGE_BYTES_MAX,
            unidirectional: false,
            heartbeat: Heartbeat::default(),
            threads: 1,
            log_level: 0,
            tree: 0,
            files: Files::default(),
        }
    }

    /// Who a new child of this context is.
    pub fn of_child(&self, id: ContextId, name: String, terms: &Terms) -> Identity {
        let mut parents = vec![self.id];
        parents.extend(&self.parents);
        Identity {
            id,
            parents,
            name,
            message_bytes_max: self.message_bytes_max,
            unidirectional: terms.unidirectional.unwrap_or(self.unidirectional),
            heartbeat: terms.heartbeat,
            threads: terms.threads.max(1),
            log_level: trace::level_below(),
            tree: self.tree,
            files: terms.files.or(&self.files),
        }
    }

    /// Whether a message may pass through this context: a unidirectional one lets those below talk
    /// to those above and back, and nobody else.
    pub fn lets_pass(&self, from_child: bool, src: ContextId, dst: ContextId) -> bool {
        !self.unidirectional || self.parents.contains(if from_child { &dst } else { &src })
    }
}
