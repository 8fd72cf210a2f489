//! Who and where a context is.

use crate::sys::host;

crate::value! {
    /// What a context says of itself.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Identity {
        /// The name of the effective user, or its number where it has no name.
        pub user: String,
        /// The host's name.
        pub host: String,
        /// The operating system, as `std::env::consts::OS` names it.
        pub os: String,
        /// The processor that its image was built for, as `std::env::consts::ARCH` names it.
        pub cpu: String,
        /// Its process id, in its own namespace.
        pub pid: u32,
    }
}

/// Who and where this context is.
pub fn identify() -> Identity {
    Identity {
        user: host::user_name(),
        host: host::uname().nodename,
        os: std::env::consts::OS.to_owned(),
        cpu: std::env::consts::ARCH.to_owned(),
        pid: host::pid() as u32,
    }
}

/// Does nothing: what is measured is the way there and back.
pub fn ping() {}
