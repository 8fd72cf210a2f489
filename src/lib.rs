//! Self-replicating distributed programs.
#![deny(missing_docs)]

mod call;
mod connect;
pub mod error;
mod ids;
mod limits;
mod sys;
mod trace;
mod wire;

pub use call::context::CallContext;
pub use call::function;
pub use wire::codec::{Decode, Encode};
