//! Images of agents, and who holds them.

pub mod target;
pub mod elf;
pub mod minimize;
pub mod content;
pub mod pack;
pub mod image;
pub mod images;
pub mod source;
pub mod forward;
pub mod respond;

#[cfg(test)]
mod images_tests;
#[cfg(test)]
mod fetch_tests;
