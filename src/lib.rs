//! Self-replicating distributed programs.
#![deny(missing_docs)]

pub mod error;
mod limits;
mod ids;
mod trace;
mod sys;
mod wire;
mod io;
mod route;
mod call;
mod module;
mod connect;
mod agent;
mod program;
pub mod stock;

pub use call::channel::{Receiver, Sender};
pub use call::context::{CallContext, Context};
pub use call::function;
pub use call::pending::Call;
pub use call::router::Router;
pub use connect::address::Address;
pub use connect::connecting::{Connecting, Cost};
pub use connect::local::Local;
pub use connect::options::Connect;
pub use connect::ssh::{HostKeys, Ssh};
pub use connect::sudo::Sudo;
pub use error::{Error, Result};
pub use ids::{ContextId, Handle};
pub use io::broker::Broker;
pub use io::latch::Latch;
pub use io::side::Side;
pub use module::image::Image;
pub use program::Program;
pub use trace::{Level, Printable, Record, log_to};
pub use wire::codec::{Decode, Encode};
pub use wire::message::Message;
pub use wire::secret::Secret;

/// What `value!` writes into other crates.
#[doc(hidden)]
pub mod __private {
    pub use crate::error::CallFailure;
    pub use crate::wire::codec::{Malformed, Reader, Shape, Writer};
    pub use std::result::Result;

    /// The tag of an enum is none of its variants'.
    pub const NO_VARIANT: Malformed = Malformed("no such variant");
}

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use wire::fuzzing;
