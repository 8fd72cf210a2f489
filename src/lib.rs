//! Self-replicating distributed programs.
#![deny(missing_docs)]

pub mod error;
mod limits;
mod ids;
mod trace;
mod sys;
mod wire;
mod call;
mod connect;
