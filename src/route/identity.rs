//! Who a context is in its tree, and what it was asked to keep to.

use crate::ids::ContextId;
use crate::limits::MESSAGE_BYTES_MAX;
use crate::route::heartbeat::Heartbeat;
use crate::trace::{self, Level};
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

/// Folders for what a context, and each that is started below it, writes down of what it does;
/// empty where it is to write nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// For its debug file: a character for the level, and the folder.
    pub debug: String,
    /// For its counters and times, at its end.
    pub profiling: String,
}

/// What a character of a level has if it counts only where the parent has none for its children.
const GIVES_WAY: u8 = 0x40;

impl Files {
    /// What stands for a debug file of this level in this folder.
    pub fn debug_of(level: Level, folder: &str) -> String {
        [LEVELS[level as usize], folder].concat()
    }

    /// The level of what is to be in the debug file, and its folder.
    pub fn debug(&self) -> Option<(Level, &str)> {
        let (level, folder) = self.debug.split_at_checked(1)?;
        Some((Level::from_number(level.as_bytes()[0] & 7)?, folder))
    }

    /// These; those that are not wanted here as the parent has them.
    fn or(&self, parent: &Files) -> Files {
        let gives_way = self.debug.as_bytes().first().is_none_or(|level| level & GIVES_WAY != 0);
        let is_own = !gives_way || parent.debug.is_empty();
        let debug = if is_own { &self.debug } else { &parent.debug };
        let is_own = !self.profiling.is_empty();
        let profiling = if is_own { &self.profiling } else { &parent.profiling };
        Files { debug: debug.clone(), profiling: profiling.clone() }
    }

    /// Has a child get this debug file if neither it nor its parent was told otherwise.
    pub fn suggest(&mut self, level: Level, folder: &str) {
        if self.debug.is_empty() {
            self.debug = [SUGGESTED[level as usize], folder].concat();
        }
    }

    /// Appends them.
    pub fn put(&self, w: &mut Writer<'_>) {
        self.debug.encode(w);
        self.profiling.encode(w);
    }

    /// Takes what [`Files::put`] appended.
    pub fn fill(&mut self, r: &mut Reader<'_>) -> Result<(), Malformed> {
        self.debug = String::decode(r)?;
        self.profiling = String::decode(r)?;
        Ok(())
    }
}

/// The characters of levels; of those that are suggested, with `GIVES_WAY`.
const LEVELS: [&str; 6] = ["0", "1", "2", "3", "4", "5"];
const SUGGESTED: [&str; 6] = ["p", "q", "r", "s", "t", "u"];

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
        let unidirectional = terms.unidirectional.unwrap_or(self.unidirectional);
        let (message_bytes_max, heartbeat) = (self.message_bytes_max, terms.heartbeat);
        let threads = terms.threads.max(1);
        let (log_level, files) = (trace::level_below(), terms.files.or(&self.files));
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
