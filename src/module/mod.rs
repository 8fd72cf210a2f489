//! Images of agents, and who holds them.

pub mod image;
