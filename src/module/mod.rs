//! Images of agents, and who holds them.

pub mod elf;
pub mod image;
