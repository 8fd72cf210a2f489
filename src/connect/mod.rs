//! How a child is reached and started: one engine, and per method a table of options and words.

pub mod address;
pub mod buildah;
pub mod command;
pub mod docker;
pub mod doas;
pub mod escalation;
pub mod fork;
pub mod handshake;
pub mod incus;
pub mod jail;
pub mod kubectl;
pub mod local;
pub mod lxc;
pub mod lxd;
pub mod meaning;
pub mod methods;
pub mod options;
pub mod push;
pub mod recipe;
pub mod podman;
pub mod ssh;
pub mod stage;
pub mod su;
pub mod setns;
pub mod sudo;
pub mod tool;
pub mod tail;
pub mod launch;
pub mod child;
pub mod request;
pub mod service;
pub mod places;
pub mod slot;
pub mod table;
pub mod debugging;
pub mod connects;
pub mod attempts;
pub mod connecting;

#[cfg(test)]
mod address_tests;
#[cfg(test)]
mod handshake_tests;
#[cfg(test)]
mod ladder_tests;
#[cfg(test)]
mod prompt_tests;
#[cfg(test)]
mod recipe_tests;
#[cfg(test)]
mod request_tests;
#[cfg(test)]
mod stage_tests;
#[cfg(test)]
mod transcript_tests;
