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

pub use call::context::CallContext;
pub use call::function;
pub use wire::codec::{Decode, Encode};

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
mod call;
mod connect;
pub mod error;
mod ids;
mod limits;
mod sys;
mod trace;
mod wire;
