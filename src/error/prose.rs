//! What people read of an error. Nothing here decides anything.

use std::fmt;

use super::{
    AddressError, CallError, CallFailure, Cause, ConnectError, ConnectFailure, Death, Error,
    ErrorKind, Exit, Phase, strerror,
};
use crate::trace::Printable;

/// That number everywhere.
const SIGKILL: i32 = 9;

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            ErrorKind::Timeout => f.write_str("timed out"),
            ErrorKind::Interrupted => f.write_str("a signal interrupted the wait"),
            ErrorKind::Closed(death) => death.fmt(f),
            ErrorKind::Connect(error) => error.fmt(f),
            ErrorKind::Call(error) => error.fmt(f),
            ErrorKind::TooLarge { bytes, bytes_max } => {
                write!(
                    f,
                    "a message of {bytes} bytes is too large: at most {bytes_max} may be sent"
                )
            }
            ErrorKind::Malformed(what) => write!(f, "malformed data from another context: {what}"),
            ErrorKind::Usage(what) => f.write_str(what),
            ErrorKind::Address(error) => error.fmt(f),
            ErrorKind::System { doing, errno } => write!(f, "{doing}: {}", strerror(*errno)),
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = self.context {
            write!(f, "context {id}: ")?;
        }
        f.write_str(self.cause.text())?;
        if let Some(exit) = self.exit {
            // What this library kills it says to be shut down.
            let unexplained = self.cause == Cause::Exited && exit == Exit::Signal(SIGKILL);
            let hint = if unexplained { "; was there too little memory?" } else { "" };
            write!(f, " ({exit}{hint})")?;
        }
        if let Some(id) = self.seen_by {
            write!(f, ", seen by context {id}")?;
        }
        write_tail(f, &self.tail)
    }
}

impl Cause {
    fn text(self) -> &'static str {
        match self {
            Cause::SenderClosed => "the last sender closed",
            Cause::ReceiverClosed => "the receiver closed",
            Cause::Shutdown => "shut down",
            Cause::NoRoute => "no route leads there",
            Cause::Disconnected => "the connection ended",
            Cause::Exited => "the process ended",
            Cause::Protocol => "broke the protocol and was cut off",
            Cause::NoHandle => "nothing listens at this handle",
            Cause::Refused => "refused by the receiver's policy",
            Cause::DoesNotRead => "does not read what it is sent",
            Cause::Failed => "the function that was to send failed",
            Cause::Cancelled => "cancelled",
            Cause::TooLarge => "the message is larger than the receiver allows",
            Cause::Unidirectional => {
                "a context on the way is unidirectional: those below it may \
                                      talk to it and its ancestors only"
            }
            Cause::Silent => "nothing was heard of it for too long",
            Cause::BrokerFailed => "the broker failed",
            Cause::Detached => "it has detached itself and goes on alone",
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit status {code}"),
            Exit::Signal(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", Printable(&self.hop), self.phase, self.failure)?;
        if let Some(exit) = self.exit {
            write!(f, " ({exit})")?;
        }
        write_tail(f, &self.tail)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Prepare => "while preparing",
            Phase::Spawn => "while starting the process",
            Phase::Login => "while logging in",
            Phase::Push => "while sending the agent",
            Phase::Start => "while starting the agent",
            Phase::Configure => "while configuring the agent",
        })
    }
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawn(errno) => f.write_str(&strerror(*errno)),
            Self::NoTool(tool) => {
                let tool = Printable(tool);
                write!(f, "{tool} is not installed, or not in PATH; install it, or give its path")
            }
            Self::UnknownPrompt(question) => write!(
                f,
                "a question was asked that has no answer: `{}`; answer it with on_prompt",
                Printable(question)
            ),
            Self::TargetUnknown(says) => write!(
                f,
                "an unknown kind of target: uname says `{}`; agents are for POSIX systems",
                Printable(says)
            ),
            Self::NoImage { target, available } => write!(
                f,
                "no agent image for {}; there are: {}; `make agents` builds more",
                Printable(target),
                Printable(if available.is_empty() { "none" } else { available })
            ),
            Self::ImageUnusable(why) => Printable(why).fmt(f),
            Self::NoDirectory(tried) => write!(
                f,
                "no directory of the target lets a file be executed; give one with directory; \
                 tried: {}",
                Printable(tried)
            ),
            Self::Version { ours, theirs } => write!(
                f,
                "protocol versions differ: this program speaks {ours}, the agent {theirs}; build \
                 both from the same sources"
            ),
            Self::Protocol(what) => write!(f, "unexpected data: {}", Printable(what)),
            Self::ViaGone(death) => write!(f, "the context to connect through is gone: {death}"),
            Self::BadOption(why) => write!(f, "a bad option: {}", Printable(why)),
            plain => f.write_str(plain.words()),
        }
    }
}

impl ConnectFailure {
    /// The words of those that have nothing else to tell.
    fn words(&self) -> &'static str {
        match self {
            Self::Timeout => "timed out; raise connect_timeout if the target is slow",
            Self::Ended => {
                "the connection ended before the agent ran; what was said and the exit status tell \
                 more"
            }
            Self::PasswordRequired => "a password is required; give one with password",
            Self::PasswordWrong => "the password is wrong",
            Self::Denied => {
                "permission denied; check the user, the key, and what the user may do there"
            }
            Self::HostKey => {
                "the host's key is not known; add it to known_hosts, or see check_host_keys"
            }
            Self::HostKeyChanged => {
                "the host's key is not the one that known_hosts has, or was revoked: somebody may \
                 be in between; if the host was made anew, remove its old key with ssh-keygen -R"
            }
            Self::HostUnknown => "the host's name does not resolve; is it spelt right?",
            Self::ConnectionRefused => "connection refused; is the port right?",
            Self::Unreachable => {
                "the host, or the tool's daemon, cannot be reached; is it up, and a route there?"
            }
            Self::Busy => {
                "the server ended the connection before the login; too many at once? see sshd's \
                 MaxStartups"
            }
            Self::NoTarget => {
                "there is no target of this name, or it does not run; start it, or list those that \
                 there are"
            }
            Self::NotEntered => {
                "the container cannot be entered: that takes root (sudo first), and an agent that \
                 starts no thread before Program::run"
            }
            Self::NoShell => {
                "the target has no shell named sh, or the account none to log in with; su can be \
                 given one with shell"
            }
            Self::NoTerminal => "a terminal is wanted; sudo gets one with tty",
            Self::ImageDoesNotRun => {
                "the agent, or what wraps it, does not run there; is it built for that CPU?"
            }
            Self::ImageDamaged => {
                "the image was damaged on its way to the target; something between changes bytes"
            }
            Self::InputEnded => {
                "the target's shell gets no input from us: its stdin has an end, or is set not to \
                 block"
            }
            Self::Cancelled => "cancelled",
            Self::ForkForbidden => {
                "that process has not said that it may be forked, by Program::allow_fork; a stock \
                 agent never does: it has nothing to share, so `local` serves as well there"
            }
            _ => "failed",
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Printable(&self.function);
        match &self.failure {
            CallFailure::Error { chain, .. } => write_chain(f, chain),
            CallFailure::Panic(message) => write!(f, "{name} panicked: {}", Printable(message)),
            CallFailure::Unknown => {
                write!(f, "the called context has no function {name}; register it in its program")
            }
            CallFailure::Signature { there, here } => write!(
                f,
                "{name} is `{}` there and `{}` here: the two ends were built from different \
                 sources",
                Printable(there),
                Printable(here)
            ),
            CallFailure::Arguments(why) => {
                write!(f, "the arguments of {name} do not decode: {}", Printable(why))
            }
        }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = self.address.split_at(self.at.min(self.address.len()));
        write!(
            f,
            "bad address at byte {}: {}\n  {}{}\n  {:5$}^",
            self.at,
            Printable(&self.why),
            Printable(before),
            Printable(after),
            "",
            before.chars().count()
        )?;
        Ok(())
    }
}

fn write_chain(f: &mut fmt::Formatter<'_>, chain: &[String]) -> fmt::Result {
    for (i, text) in chain.iter().enumerate() {
        write!(f, "{}{}", if i == 0 { "" } else { ": " }, Printable(text))?;
    }
    Ok(())
}

fn write_tail(f: &mut fmt::Formatter<'_>, tail: &str) -> fmt::Result {
    match tail.trim_end() {
        "" => Ok(()),
        tail => write!(f, "; it said:\n{}", Printable(tail)),
    }
}
