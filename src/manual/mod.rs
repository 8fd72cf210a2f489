//! The manual: what the items' own pages do not say.
//!
//! | page | answers |
//! |---|---|
//! | [`architecture`] | what is always true here, what there is none of, and where things are |
//! | [`life_of_a_call`] | from `context.call` to its value: by which thread, lock, file |
//! | [`threads`] | who runs where, what may sleep, and what locks are held in which order |
//! | [`methods`] | every way to reach a context: its options, what it runs, what it needs |
//! | [`images`] | which executable a context is started from, and how it gets there |
//! | [`seeing_inside`] | what happens in a tree, what it does now, and why it hangs |
//! | [`security`] | who can do what to whom, by which rules, and what is not protected |
//! | [`wire`] | the bytes between two contexts |
//! | [`from_mitogen`] | where a user of Python's Mitogen finds what, and what differs |
//! | [`changelog`] | what changed |
//!
//! Examples are in `src/manual/examples`: `cargo run --example NAME` runs `hello`, `stream`,
//! `fan_out`, `ssh_sudo` and `in_process`; `make demo` runs `demo` on real targets.

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("life_of_a_call.md")]
pub mod life_of_a_call {}

#[doc = include_str!("threads.md")]
pub mod threads {}

#[doc = include_str!("methods.md")]
pub mod methods {}

#[doc = include_str!("images.md")]
pub mod images {}

#[doc = include_str!("seeing_inside.md")]
pub mod seeing_inside {}

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("wire.md")]
pub mod wire {}

#[doc = include_str!("from_mitogen.md")]
pub mod from_mitogen {}

#[doc = include_str!("changelog.md")]
pub mod changelog {}
