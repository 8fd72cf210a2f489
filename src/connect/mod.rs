//! How a child is reached and started: one engine, and per method a table of options and words.

pub mod handshake;
pub mod recipe;
pub mod stage;
pub mod tail;
pub mod launch;
pub mod child;
pub mod request;

#[cfg(test)]
mod handshake_tests;
#[cfg(test)]
mod stage_tests;
