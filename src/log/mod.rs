//! The log of a tree: what its contexts log and print, on its way to the master, and there to the
//! program's sink. What they log through is the ground floor's (`trace`).

pub mod debug;
pub mod files;
pub mod profile;
pub mod record;
pub mod sink;
pub mod receive;
pub mod level;
pub mod macros;
pub mod file;
pub mod stdio;
pub mod forward;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
#[cfg(feature = "log")]
pub mod bridge;
