//! Self-replicating distributed programs: call Rust functions anywhere you can get a shell.
//!
//! A program starts copies of itself in subprocesses, under other accounts, on other machines, or
//! behind any chain of these, and calls functions there. Nothing is installed on a target: the copy
//! travels through the connection's own standard input, leaves no file, and ends with the
//! connection.
//!
//! # A program, step by step
//!
//! This guide builds a tool that finds what fills the disks of some machines. The whole of it:
//!
//! ```
//! use std::{error::Error, fs, io, path::{Path, PathBuf}};
//! use mitogen::{Program, Select, Sender};
//!
//! /// Bytes of the files right in `folder`. Runs wherever it is called.
//! fn folder_bytes(folder: &Path) -> io::Result<u64> {
//!     let mut total = 0;
//!     for entry in fs::read_dir(folder)? {
//!         total += entry?.metadata()?.len();
//!     }
//!     Ok(total)
//! }
//!
//! mitogen::value! {
//!     /// A file of some size.
//!     struct Found { path: PathBuf, bytes: u64 }
//! }
//!
//! /// Sends every file right in `folder` that has at least `bytes` bytes.
//! fn find_large(folder: &Path, bytes: u64, out: Sender<Found>) -> Result<(), Box<dyn Error>> {
//!     for entry in fs::read_dir(folder)? {
//!         let (path, about) = { let entry = entry?; (entry.path(), entry.metadata()?) };
//!         if about.is_file() && bytes <= about.len() {
//!             out.send(Found { path, bytes: about.len() })?;
//!         }
//!     }
//!     Ok(())
//! }
//!
//! fn main() -> Result<(), Box<dyn Error>> {
//!     Program::new().function(folder_bytes).function(find_large).run(|router| {
//!         // Hosts: here two processes of this machine, one behind the other.
//!         let near = router.local().connect()?;
//!         let far = router.connect(&"local/local".parse()?)?;
//!
//!         // One call, which waits.
//!         println!("{near}: {} bytes", near.call(folder_bytes, "/etc")?);
//!
//!         // Many at once: all of them, or each as it arrives.
//!         let hosts = [near, far];
//!         let calls = hosts.iter().map(|host| host.call_async(folder_bytes, "/etc"));
//!         println!("{} bytes in all", Select::all(calls)?.into_iter().sum::<u64>());
//!         let calls = hosts.iter().map(|host| (host, host.call_async(folder_bytes, "/etc")));
//!         for (host, bytes) in calls.collect::<Select<_>>() {
//!             println!("{host}: {} bytes", bytes?);
//!         }
//!
//!         // A stream of values, which ends when the function over there has ended.
//!         let found = router.receiver::<Found>();
//!         hosts[1].call_no_reply(find_large, ("/etc", 1000, found.to_sender()))?;
//!         for file in found {
//!             let Found { path, bytes } = file?;
//!             println!("{}: {} has {bytes} bytes", hosts[1], path.display());
//!         }
//!         Ok(())
//!     })
//! }
//! ```
//!
//! **Functions** are plain `fn`s, registered by [`Program::function`] and called by the same name
//! on both sides. They may borrow (`&Path`, `&str`, `&[u8]`), take a [`&CallContext`](CallContext)
//! where they want to know who calls, and fail with any error. What a function may be, and what the
//! compiler says of one that may not, is in [`function`]. Types of your own travel once they are
//! defined in [`value!`].
//!
//! **[`Program::run`]** is the first statement of `main`, because the copies start there too: in a
//! copy it serves calls and never returns. What stands before it runs in every copy.
//!
//! **[`Context::call`]** waits; [`Context::call_async`] gives a [`Call`] to wait for later. A
//! context runs its calls one at a time, in the order in which they were sent, unless it has more
//! [threads](Connect::threads). Dropping a `Call` cancels it: what has not begun never does, and a
//! function that runs [sees it](CallContext::is_cancelled). [`Context::within`] gives calls a limit
//! of time, which travels with them; a [`Chain`]'s calls fail as one.
//!
//! **[`Receiver`] and [`Sender`]** are a stream. Senders travel as arguments, and on from there.
//! The receiver ends when the last of them was dropped, wherever that was: here, after the
//! function's return. If the function failed, or its context died, the last item says so. A sender
//! sleeps while 64 KiB of what it sent have not been taken, so a slow receiver slows the other side
//! down.
//!
//! **[`Select`]** waits for many at once: calls, connects, streams, and whatever else is a
//! [`Source`]. What they yield is one stream of events, and `Select::all` gathers what each of them
//! brings. A **[`Channel`]** is a stream in each direction; its other end travels as an argument.
//!
//! ## Other machines
//!
//! A host is reached by methods: [`local`](Router::local), [`ssh`](Router::ssh),
//! [`sudo`](Router::sudo), [`docker`](Router::docker) and [more](manual::methods); what is not
//! among them by a [`command`](Router::command) of yours. Each is a builder, and each goes
//! [`via`](Connect::via) any context; or all hops are an [`Address`] in text, which
//! [`Router::connect`] follows, connecting once what addresses have in common. What `start` gives
//! in place of `connect` is a [`Connecting`], to be waited for later: so hundreds are on their way
//! at a time and take no thread.
//!
//! ```no_run
//! # use mitogen::{HostKeys, Program, Result};
//! # fn main() -> Result<()> {
//! # Program::new().run(|router| {
//! let web = router.ssh("web1").username("deploy").check_host_keys(HostKeys::Accept).connect()?;
//! let root = router.sudo().via(&web).connect()?;
//! let same = router.connect(&"ssh:deploy@web1?check_host_keys=accept/sudo:root".parse()?)?;
//! # let _ = (root, same); Ok(()) }) }
//! ```
//!
//! What travels is this program's own executable, once for each connection through a shell (`ssh`
//! and `sudo`; `local` needs none). A dynamic executable runs on the same machine only: link
//! statically for `ssh`, for instance by `RUSTFLAGS=-Ctarget-feature=+crt-static cargo build
//! --release --target x86_64-unknown-linux-gnu`, or give an [`Image`] that was, for this or another
//! CPU. A context that lies behind another is sent by that one, from its own copy or from what it
//! fetched once; see [`manual::images`].
//!
//! ## What goes on
//!
//! The library is silent, unless asked. [`log_to_stderr`] in the first process has whatever
//! happens in the whole tree, and what functions say by [`info!`] and its like wherever they run,
//! written as lines; [`log_to`] hands it to a function of yours, [`log_at`] changes the level while
//! all of it runs. With the optional feature `log`, the one dependency beside three, functions may
//! use the `log` crate, and `log_to_crate` hands records to the program's own logger.
//!
//! ```
//! # use mitogen::{Level, Program, Result, log_to_stderr};
//! fn prune(path: &std::path::Path) -> usize {
//!     mitogen::info!("pruning {}", path.display());
//!     0
//! }
//!
//! fn main() -> Result<()> {
//!     Program::new().function(prune).run(|router| {
//!         log_to_stderr(Level::Info);
//!         // A line of standard error: its time, `INFO local doc: pruning /var/cache`.
//!         router.local().connect()?.call(prune, "/var/cache").map(drop)
//!     })
//! }
//! ```
//!
//! ## When it fails
//!
//! Everything fails with one [`Error`], whose [`kind`](Error::kind) is for `match`:
//!
//! ```
//! use mitogen::{Program, Result, error::{CallFailure, ErrorKind}};
//! use std::{io, path::Path};
//!
//! fn size(path: &Path) -> io::Result<u64> {
//!     Ok(path.metadata()?.len())
//! }
//!
//! fn main() -> Result<()> {
//!     Program::new().function(size).run(|router| {
//!         let child = router.local().connect()?;
//!         let error = child.call(size, "/nowhere").unwrap_err();
//!         let ErrorKind::Call(failed) = error.kind() else { panic!("{error}") };
//!         assert!(matches!(failed.failure, CallFailure::Error { .. }));
//!         assert!(error.to_string().contains("No such file"));
//!
//!         child.shutdown()?;
//!         let error = child.call(size, "/etc").unwrap_err();
//!         assert!(matches!(error.kind(), ErrorKind::Closed(_)));
//!         Ok(())
//!     })
//! }
//! ```
//!
//! A context that dies fails every wait for it and for those below it, with the cause and who saw
//! it ([`error::Death`]). [`Context::shutdown`] ends one within 4 seconds, whatever its functions
//! do; [`Router::disconnect`] at once; and [`CallContext::detach`] has it live on alone. A connect
//! that fails tells the hop, how far it came, the exit status, and the last lines that the target
//! printed; see [`error::ConnectFailure`]. Where there is no time limit in a name, as in
//! [`Call::get`], a wait lasts until the answer or the end of the context; a connect has 30
//! seconds. do; [`Router::disconnect`] at once; and [`CallContext::detach`] has it live on alone. A
//! connect that fails tells the hop, A context that dies fails every wait for it, with the cause;
//! who does not wait is told by [`Context::on_disconnect`] or [`Router::on_disconnect`]. A connect
//! that fails tells the hop, how far it came, the exit status, and the last lines that the target
//! printed; see [`error::ConnectFailure`]. Where there is no time limit in a name, as in
//! [`Call::get`], a wait lasts until the answer or the end of the context; a connect has 30
//! seconds.
//!
//! ## Tests
//!
//! Functions are tested as functions, with [`CallContext::local`] for their surroundings; or called
//! in [`Router::in_process`], a context on a thread of the test's own process; or in real children,
//! for which [`test_agent!`] lets a test binary start copies of itself. `src/manual/examples` has
//! all three in `in_process.rs`.
//!
//! ```
//! # use mitogen::{Program, Result};
//! # fn double(n: u32) -> u32 { 2 * n }
//! # fn main() -> Result<()> {
//! let router = Program::new().function(double).router()?;
//! assert_eq!(router.in_process()?.call(double, 21)?, 42);
//! # Ok(()) }
//! ```
//!
//! # Public names
//!
//! | | |
//! |---|---|
//! | [`Program`] | the functions and images of a program; its entry |
//! | [`Router`], [`Broker`] | a context's place in its tree; the thread that serves it |
//! | [`Context`], [`ContextId`], [`CallContext`] | another context; its id; what a function sees |
//! | [`Call`], [`Ending`] | an answer that is on its way; a context that was asked to end |
//! | [`Receiver`], [`Sender`] | a stream of values |
//! | [`Channel`], [`ChannelEnd`] | one in each direction |
//! | [`Select`], [`Source`], [`Key`] | many of these at once |
//! | [`Local`], [`Fork`], [`Ssh`], [`HostKeys`] | methods, and what all share: [`Connect`] |
//! | [`Sudo`], [`Su`], [`Doas`] | methods that lead to other accounts |
//! | [`Docker`], [`Podman`], [`Buildah`], [`Kubectl`] | methods that lead into containers |
//! | [`Lxc`], [`Lxd`], [`Incus`], [`Jail`], [`Setns`] | more of them |
//! | [`ByCommand`] | the method for whatever else there is |
//! | [`Address`] | a path of hops, as text |
//! | [`Connecting`], [`Cost`] | a context that is on its way; what it took |
//! | [`Question`] | what a tool asks meanwhile, and no option answers |
//! | [`Image`], [`minimize_image`] | an executable to start contexts from; what of it runs |
//! | [`ForkPromise`] | what who forks a process must promise |
//! | [`raise_descriptor_limit`] | for hundreds of contexts at a time |
//! | [`Error`], [`Result`], [`error`](mod@error) | what went wrong, and where |
//! | [`value!`], [`Encode`], [`Decode`], [`Secret`] | what travels |
//! | [`function`] | which functions can be called, and the traits that say so |
//! | [`stock`] | functions that every program has: who and where, ping, run a command |
//! | [`test_agent!`] | lets a test binary start copies of itself |
//! | [`Message`], [`Handle`], [`Handler`] | sent besides calls, where to, and who takes it |
//! | [`RawReceiver`] | a queue of these messages |
//! | [`policy`] | who may send to a handle |
//! | [`Latch`] | a queue that threads sleep on |
//! | [`Side`] | a descriptor, as the floors below use it |
//! | [`Attached`], [`StreamEvent`] | descriptors of your own, which a broker serves |
//! | [`inspect`] | what contexts are doing: who waits for whom, and for how long |
//! | [`blocking`] | reads, writes and children with a deadline, without a broker |
//! | [`Counters`], [`HandlerTimes`], [`SlowDelivery`] | what a broker has done, and when |
//! | [`log_to`], [`Level`], [`Record`], [`Printable`] | what the library has to say |
//! | [`log_to`], [`log_at`], [`flush_log`] | what goes on in the whole tree, and how much of it |
//! | [`log_to_stderr`], [`log_to_file`] | the same as lines |
//! | [`error!`](macro@error), [`warn!`](macro@warn), [`info!`], [`debug!`] | what functions say |
//! | [`Level`], [`Record`], [`Sink`], [`Printable`] | a record of that, and who takes it |
//!
//! # Floors
//!
//! Code uses floors below its own only; a test proves it.
//!
//! ```text
//! 8  lib.rs  bin/            the guide and the public names; the command
//! 7  program  agent  inspect  stock  the two roles; what contexts do; functions of all programs
//! 6  connect                 how a child is reached and started: a file per method
//! 5  call  module  log       functions, contexts, streams; images; records on their way
//! 4  route                   ids, handles, pending answers; who may talk to whom, and by which way
//! 3  io                      descriptors, outboxes, latches, timers, the loop; threads live here
//! 2  wire                    bytes <-> messages; no descriptor, clock or thread
//! 1  sys                     system calls: all unsafe code
//! 0  error limits ids lock trace  errors; every maximum; ids; locks; what all floors log through
//! ```
//!
//! The [`manual`] goes on from here: [`manual::architecture`] is the map,
//! [`manual::life_of_a_call`] follows one call through it, [`manual::security`] says who can do
//! what to whom, and [`manual::seeing_inside`] why a tree hangs.
#![deny(missing_docs)]

pub mod manual;

pub mod error;
mod limits;
mod ids;
mod lock;
mod trace;
mod sys;
mod wire;
mod io;
mod route;
mod call;
mod module;
mod log;
mod connect;
pub mod inspect;
mod agent;
mod program;
pub mod stock;

pub use call::call_context::CallContext;
pub use call::chain::Chain;
pub use call::context::Context;
pub use call::ending::Ending;
pub use call::function;
pub use call::handler::Handler;
pub use call::pair::{Channel, ChannelEnd};
pub use call::pending::Call;
pub use call::raw::{RawOptions, RawReceiver};
pub use call::receiver::Receiver;
pub use call::router::Router;
pub use call::select::{Key, Select};
pub use call::sender::Sender;
pub use call::source::Source;
pub use connect::address::Address;
pub use connect::buildah::Buildah;
pub use connect::command::ByCommand;
pub use connect::connecting::{Connecting, Cost};
pub use connect::doas::Doas;
pub use connect::docker::Docker;
pub use connect::fork::Fork;
pub use connect::incus::Incus;
pub use connect::jail::Jail;
pub use connect::kubectl::Kubectl;
pub use connect::local::Local;
pub use connect::lxc::Lxc;
pub use connect::lxd::Lxd;
pub use connect::options::Connect;
pub use connect::podman::Podman;
pub use connect::request::Question;
pub use connect::setns::{ContainerKind, Setns};
pub use connect::ssh::{HostKeys, Ssh};
pub use connect::su::Su;

pub use connect::sudo::Sudo;
pub use error::{Error, Result};
pub use ids::{ContextId, Handle};
pub use io::attach::{Attached, StreamEvent};
pub use io::blocking;
pub use io::broker::Broker;
pub use io::counters::{Counters, HandlerTimes, SlowDelivery};
pub use io::latch::Latch;
pub use io::side::{Read as SideRead, Side};
#[cfg(feature = "log")]
pub use log::bridge::log_to_crate;
pub use log::file::{log_to_file, log_to_stderr};
pub use log::sink::{Sink, flush_log, log_at, log_to};
pub use module::image::Image;
pub use module::minimize::minimize_image;
pub use program::{Program, raise_descriptor_limit};
pub use route::policy;
pub use sys::fork::ForkPromise;
pub use trace::{Level, Printable, Record};
pub use wire::codec::{Decode, Encode};
pub use wire::message::Message;
pub use wire::secret::Secret;

/// What `value!` writes into other crates, and what the command needs of the system.
#[doc(hidden)]
pub mod __private {
    pub use crate::error::CallFailure;
    pub use crate::log::macros::{log, log_wants};
    pub use crate::program::stock_agent;
    pub use crate::sys::entry::*;
    pub use crate::sys::fork::promise_of_command;
    pub use crate::sys::{heard, terminal};
    pub use crate::wire::codec::{Malformed, Reader, Shape, Writer};
    pub use std::result::Result;

    /// The tag of an enum is none of its variants'.
    pub const NO_VARIANT: Malformed = Malformed("no such variant");
}

/// What must hold of any bytes.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::log::fuzzing::records;
    pub use crate::wire::fuzzing::*;
}

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
