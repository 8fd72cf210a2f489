//! The folders where contexts are to leave what they write down of what they do.

use crate::trace::Level;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Writer};

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
    pub fn or(&self, parent: &Files) -> Files {
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
