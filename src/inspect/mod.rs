//! What contexts are doing, told by their loops, so that any hang of a tree can be explained: who
//! waits for whom, for what, and for how long.
//!
//! A context answers as long as its loop turns, whatever its functions do. One that does not answer
//! in time is a finding, too: its process is stopped, or something between here and there is.
//!
//! ```
//! use mitogen::{Program, Result, Sender};
//! use std::time::Duration;
//!
//! fn hang(begun: Sender<()>) -> Result<()> {
//!     begun.send(())?;
//!     std::thread::sleep(Duration::from_secs(1));
//!     Ok(())
//! }
//!
//! # fn main() -> Result<()> {
//! let router = Program::new().function(hang).router()?;
//! let context = router.in_process()?;
//! let begun = router.receiver();
//! let call = context.call_async(hang, begun.to_sender());
//! begun.get()?;
//! let tree = router.inspect_tree(Duration::from_secs(10));
//! // For people; `entries` is for programs.
//! println!("{tree}");
//! let there = tree.entries[1].outcome.as_ref().unwrap();
//! assert!(there.running.first[0].function.name.ends_with("hang"));
//! # call.get()
//! # }
//! ```

mod ask;
mod serve;
mod show;
mod snapshot;
mod tree;
mod waits;
#[cfg(test)]
mod tests;

pub use snapshot::{
    Awaited, Child, ChildState, End, Function, Listed, Queue, Queued, Room, Route, Running,
    Snapshot, Stream, What,
};
pub use tree::{Entry, Tree};

pub(crate) use serve::listen;
