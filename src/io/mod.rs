//! Descriptors, threads and waiting: moves bytes, and does not know what they mean.

pub mod side;
pub mod sleep;
pub mod latch;
pub mod promise;
pub mod counters;
pub mod outbox;
pub mod callbacks;
pub mod timers;
pub mod census;
pub mod turn;
pub mod lending;
pub mod broker;
pub mod watch;
pub mod attach;
pub mod blocking;
pub mod monitor;

#[cfg(test)]
mod turn_tests;
