//! Bytes to messages and back: a pure function of its input. No descriptor, clock or thread.

pub mod varint;
pub mod codec;
pub mod secret;
pub mod failure;
#[cfg(test)]
mod failure_tests;
pub mod header;
pub mod frame;
pub mod framer;
pub mod message;
pub mod fragment;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;

/// The protocol's version. Both ends of a connection must have the same.
pub const PROTOCOL: u32 = 1;
