//! Who a context is in its tree, and what it was asked to keep to.

use crate::ids::ContextId;
use crate::limits::MESSAGE_BYTES_MAX;
use crate::route::heartbeat::Heartbeat;
use crate::trace;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Writer};

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

/// Added to a level that is asked for unless the parent-to-be has one for its children already.
const GIVES_WAY: u8 = 0x80;

/// Folders for what a context, and each that is started below it, writes down of what it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// For its debug file, if it is to have one.
    pub debug: String,
    /// From which level on records go to that, as a number; 0 is none.
    pub debug_level: u8,
    /// For its counters and times, at its end; empty if it is not to keep any.
    pub profiling: String,
}

impl Files {
    /// These; those that are not wanted here as `others` has them.
    pub fn or(mut self, others: &Files) -> Files {
        let is_asked = (1..GIVES_WAY).contains(&self.debug_level);
        if !is_asked && others.debug_level != 0 {
            (self.debug, self.debug_level) = (others.debug.clone(), others.debug_level);
        }
        self.debug_level %= GIVES_WAY;
        if self.profiling.is_empty() {
            self.profiling.clone_from(&others.profiling);
        }
        self
    }

    /// Has a child of another context have what children of this one get, if neither it nor that
    /// other was told otherwise.
    pub fn suggest(&mut self, own: &Files) {
        if self.debug_level == 0 && own.debug_level != 0 {
            (self.debug, self.debug_level) = (own.debug.clone(), own.debug_level | GIVES_WAY);
        }
    }

    /// Appends them.
    pub fn put(&self, w: &mut Writer<'_>) {
        w.put_u8(self.debug_level);
        self.debug.encode(w);
        self.profiling.encode(w);
    }

    /// Takes what [`Files::put`] appended.
    pub fn fill(&mut self, r: &mut Reader<'_>) -> Result<(), Malformed> {
        self.debug_level = r.take_u8()?;
        self.debug = String::decode(r)?;
        self.profiling = String::decode(r)?;
        Ok(())
    }
}

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
    /// These, if they were asked for under this authority: none but the master's can loosen what a
    /// child would keep to otherwise.
    pub fn asked_under(self, auth: ContextId) -> Terms {
        let loosens = self.unidirectional == Some(false) && auth != ContextId::MASTER;
        Terms { unidirectional: if loosens { None } else { self.unidirectional }, ..self }
    }
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
    pub fn of_child(&self, id: ContextId, name: String, terms: Terms) -> Identity {
        let mut parents = vec![self.id];
        parents.extend(&self.parents);
        let unidirectional = terms.unidirectional.unwrap_or(self.unidirectional);
        let (message_bytes_max, heartbeat) = (self.message_bytes_max, terms.heartbeat);
        let threads = terms.threads.max(1);
        let (log_level, files) = (trace::level_below(), terms.files);
        Identity {
            id,
            parents,
            name,
            message_bytes_max,
            unidirectional,
            heartbeat,
            threads,
            log_level,
            tree: self.tree,
            files,
        }
    }

    /// Whether a message may pass through this context: a unidirectional one lets those below talk
    /// to those above and back, and nobody else.
    pub fn lets_pass(&self, from_child: bool, src: ContextId, dst: ContextId) -> bool {
        !self.unidirectional || self.parents.contains(if from_child { &dst } else { &src })
    }
}
