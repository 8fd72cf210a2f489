//! The one error type: opaque outside, codes inside. Prose is made in `Display` alone, so an agent,
//! which only passes codes on, does not carry it.

mod prose;
#[cfg(test)]
mod prose_tests;

use std::borrow::Cow;

use crate::ids::ContextId;

/// What every fallible function of this library returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. [`Error::kind`] is for `match`, `Display` for people.
#[derive(Clone)]
pub struct Error(Box<ErrorKind>);

/// The failures that a program may want to tell apart.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A wait ran out of time.
    Timeout,
    /// This thread handled a signal while it waited. What it waited for may still come.
    Interrupted,
    /// What was waited for, or sent to, is gone or closed.
    Closed(Death),
    /// A context could not be started.
    Connect(ConnectError),
    /// The function was called, and failed there.
    Call(CallError),
    /// A message is larger than the tree allows.
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The largest size allowed.
        bytes_max: u64,
    },
    /// Bytes from another context do not mean what they should.
    Malformed(&'static str),
    /// The program asked for something that cannot be; the text says what to do instead.
    Usage(String),
    /// An address does not parse.
    Address(AddressError),
    /// A system call failed.
    System {
        /// What was attempted.
        doing: &'static str,
        /// The error number.
        errno: i32,
    },
}

/// Why a context or a channel is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// What happened.
    pub cause: Cause,
    /// The context that it happened to, if it is one's end.
    pub context: Option<ContextId>,
    /// The context that saw it happen, if that was told.
    pub seen_by: Option<ContextId>,
    /// How its process ended, where somebody saw that.
    pub exit: Option<Exit>,
    /// The last lines that it printed to its standard error, made harmless.
    pub tail: String,
}

/// What ended a context or a channel.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// The end of what was sent: the last Sender was dropped or closed.
    SenderClosed = 0,
    /// The Receiver was dropped or closed.
    ReceiverClosed = 1,
    /// This router or broker was shut down.
    Shutdown = 2,
    /// No way leads to the context.
    NoRoute = 3,
    /// The connection ended.
    Disconnected = 4,
    /// The process at the other end of the connection ended.
    Exited = 5,
    /// The peer broke the protocol and was cut off.
    Protocol = 6,
    /// Nothing there listens at this handle.
    NoHandle = 7,
    /// The receiver's policy refused the message.
    Refused = 8,
    /// The destination does not read, and its queue is full.
    DoesNotRead = 9,
    /// The function that held the Sender failed.
    Failed = 10,
    /// The call was cancelled.
    Cancelled = 11,
    /// The message was larger than the receiver allows.
    TooLarge = 12,
    /// A context on the way lets those below it talk to its ancestors and itself only.
    Unidirectional = 13,
    /// Nothing was heard on a connection with a heartbeat for too long.
    Silent = 14,
    /// The broker of this router failed; the tail says how.
    BrokerFailed = 15,
    /// The context has left the tree and goes on by itself.
    Detached = 16,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// Why a context could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectError {
    /// What went wrong.
    pub failure: ConnectFailure,
    /// How far the connection had come.
    pub phase: Phase,
    /// The address of the context that was to be, the whole path of hops.
    pub hop: String,
    /// How the process that was to bring us there ended, if it did.
    pub exit: Option<Exit>,
    /// Whether a password, or what somebody answered, was typed before.
    pub typed: bool,
    /// The last that the target or the tool said, made harmless and free of our secrets.
    pub tail: String,
}

/// How far a connection had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Before a process was started.
    Prepare = 0,
    /// Starting ssh, sudo, or the agent itself.
    Spawn = 1,
    /// Waiting for the target's shell: logging in.
    Login = 2,
    /// Sending the image.
    Push = 3,
    /// Waiting for the agent to speak.
    Start = 4,
    /// Telling the agent who it is.
    Configure = 5,
}

/// What kept a context from being started.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// The connect timeout ran out.
    Timeout,
    /// The process could not be started; the error number.
    Spawn(i32),
    /// The tool that was to bring us there is not installed, or not in PATH; its name.
    NoTool(String),
    /// The connection ended, and nothing tells more than the exit status and the tail.
    Ended,
    /// A password is wanted, and none was given.
    PasswordRequired,
    /// The password is wrong.
    PasswordWrong,
    /// A question was asked that nobody answered; the question.
    UnknownPrompt(String),
    /// The login was refused: wrong key, no such user, not permitted.
    Denied,
    /// The host's key is not recorded.
    HostKey,
    /// The host's key is another than the recorded one, or was revoked.
    HostKeyChanged,
    /// The host's name does not resolve.
    HostUnknown,
    /// The port is closed.
    ConnectionRefused,
    /// No route leads to the host, or it does not answer; or the tool's daemon does not.
    Unreachable,
    /// The server ended the connection before it heard who we are: too many are logging in
    /// (sshd's `MaxStartups`), or it does not want us now. Another try may succeed.
    Busy,
    /// There is no container, pod, jail or image of this name, or it does not run.
    NoTarget,
    /// A container's namespaces cannot be entered, or its users not be read.
    NotEntered,
    /// The target has no POSIX shell `sh`, or the account none to log in with.
    NoShell,
    /// The tool that was to bring us there wants a terminal.
    NoTerminal,
    /// `uname` on the target says something that we do not know; what it says.
    TargetUnknown(String),
    /// No image for that OS and CPU; the target's, and those there are.
    NoImage {
        /// What the target is, as `<os>-<cpu>`.
        target: String,
        /// The images that are there, separated by blanks.
        available: String,
    },
    /// No image at all, or one that cannot run there; says how to get one.
    ImageUnusable(String),
    /// No place of the target lets us execute a file; those that were tried, each with the reason.
    NoDirectory(String),
    /// The image arrived and does not execute there.
    ImageDoesNotRun,
    /// What arrived there is not the image that was sent.
    ImageDamaged,
    /// The input of the target's shell has an end, or does not wait for what we send.
    InputEnded,
    /// The agent speaks another protocol version than we do.
    Version {
        /// Ours.
        ours: u32,
        /// The agent's.
        theirs: u32,
    },
    /// The target printed something that no target of ours prints.
    Protocol(Cow<'static, str>),
    /// The connect was given up by the program, or its router was shut down.
    Cancelled,
    /// The context that was to make the connection is gone.
    ViaGone(Death),
    /// An option's value cannot be used; which and why.
    BadOption(String),
    /// The process that was to be forked has not said that it may be.
    ForkForbidden,
}

/// The failure of a function in another context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    /// The function's name.
    pub function: String,
    /// What failed.
    pub failure: CallFailure,
}

/// How a call failed.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// The function returned an error.
    Error {
        /// The name of the error's type there.
        type_name: String,
        /// Its message, then those of its sources, outermost first.
        chain: Vec<String>,
    },
    /// The function panicked; the message with its place.
    Panic(String),
    /// The program there has no function of this name.
    Unknown,
    /// The function there takes or returns something else; its shape there, and here.
    Signature {
        /// The shape in the called context.
        there: String,
        /// The shape in the caller.
        here: String,
    },
    /// The arguments arrived and do not decode.
    Arguments(String),
}

/// Where and why an address does not parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    /// The text.
    pub address: String,
    /// The byte at which it goes wrong.
    pub at: usize,
    /// Why.
    pub why: String,
}

impl Error {
    /// An error of this kind.
    pub(crate) fn new(kind: ErrorKind) -> Error {
        Error(Box::new(kind))
    }

    /// The caller's mistake; `what` says how to do it right.
    pub(crate) fn usage(what: impl Into<String>) -> Error {
        Error::new(ErrorKind::Usage(what.into()))
    }

    /// A channel or context that ended for `cause`, with nothing more known.
    pub(crate) fn closed(cause: Cause) -> Error {
        Error::new(ErrorKind::Closed(Death::of(cause)))
    }

    /// A system call that failed.
    pub(crate) fn system(doing: &'static str, errno: i32) -> Error {
        Error::new(ErrorKind::System { doing, errno })
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> &ErrorKind {
        &self.0
    }

    /// The kind, owned.
    pub fn into_kind(self) -> ErrorKind {
        *self.0
    }
}

impl Death {
    /// An end of which only the cause is known.
    pub(crate) fn of(cause: Cause) -> Death {
        Death { cause, context: None, seen_by: None, exit: None, tail: String::new() }
    }

    /// Whether it is the end of the router here, or of its broker, and nobody else's.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self.cause, Cause::Shutdown | Cause::BrokerFailed)
    }

    /// The same end, of this context.
    pub(crate) fn at(self, context: ContextId) -> Death {
        Death { context: Some(context), ..self }
    }

    /// The same end, as this context saw it, unless another had seen it before.
    pub(crate) fn seen_by(self, context: ContextId) -> Death {
        Death { seen_by: self.seen_by.or(Some(context)), ..self }
    }
}

impl From<Death> for Error {
    fn from(death: Death) -> Error {
        Error::new(ErrorKind::Closed(death))
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Error {
        Error::new(ErrorKind::Connect(error))
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Error {
        Error::new(ErrorKind::Call(error))
    }
}

impl From<AddressError> for Error {
    fn from(error: AddressError) -> Error {
        Error::new(ErrorKind::Address(error))
    }
}

impl std::error::Error for Error {}
impl std::error::Error for AddressError {}

/// The system's text for an error number.
pub(crate) fn strerror(errno: i32) -> String {
    let mut text = std::io::Error::from_raw_os_error(errno).to_string();
    text.truncate(text.find(" (os error").unwrap_or(text.len()));
    text
}
