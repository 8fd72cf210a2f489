//! Functions, contexts and channels: what a program says to another context.

pub mod function;
pub mod arguments;
pub mod reply;
pub mod registry;
pub mod value;
pub mod paths;
pub mod router;
pub mod scope;
pub mod context;
pub mod manner;
pub mod chain;
pub mod token;
pub mod call_context;
pub mod pending;
pub mod ending;
pub mod receiver;
pub mod sender;
pub mod pair;
pub mod source;
pub mod select;
pub mod holders;
pub mod load;
pub mod refusals;
pub mod room;
pub mod gate;
pub mod handler;
pub mod message;
pub mod raw;
pub mod events;
pub mod routing;
pub mod queue;
pub mod panics;
pub mod dispatch;
pub mod grant;

#[cfg(test)]
mod failure_tests;
#[cfg(test)]
mod cancel_tests;
