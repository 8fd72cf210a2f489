//! Images of agents, and who holds them.

pub mod target;
pub mod elf;
pub mod image;
