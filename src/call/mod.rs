//! Functions, contexts and channels: what a program says to another context.

pub mod router;
pub mod context;
