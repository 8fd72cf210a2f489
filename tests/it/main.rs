//! Integration tests: the library on real targets. Mods only.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![cfg(test)]

mod support;

mod hosts;
mod calls;
mod every_way;
mod examples;
mod command;
mod command_hosts;
mod command_many;
mod connect_failures;
mod many;
mod questions;
mod giving_up;
mod deaths;
mod shutdown;
mod fork;
mod after_fork;
mod guest;
mod startup_deaths;
mod storm;
mod trust;
mod ssh;
mod ssh_lifetimes;
mod ssh_logins;
mod ssh_many;
mod sudo;
mod su;
mod doas;
mod prompts;
mod docker;
mod lxc;
mod podman;
mod tools;
mod command_method;
mod inside;
mod streams;
mod sharing;
mod images;
mod cross_cpu;
mod login_shells;
mod setns;
mod sandboxes;
mod first_use;
mod soak;
