//! Functions, contexts and channels: what a program says to another context.

pub mod arguments;
pub mod context;
pub mod function;
pub mod paths;
pub mod registry;
pub mod router;
pub mod value;
