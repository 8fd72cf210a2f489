//! Functions, contexts and channels: what a program says to another context.

pub mod function;
pub mod arguments;
pub mod reply;
pub mod paths;
pub mod registry;
pub mod value;
pub mod router;
pub mod context;
