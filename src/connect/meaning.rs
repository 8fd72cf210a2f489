//! What the words of tools mean. Who asks for a connect reads them in the failure that comes back:
//! so neither they nor their meanings travel, and no agent has them.

use crate::connect::recipe::{ORDERED_TOOL, Pattern, Recipe};
use crate::connect::tail::{harmless, scrub};
use crate::error::{ConnectError, ConnectFailure, Exit, Phase};
use crate::wire::secret::Secret;

/// What a line of a tool means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The line.
    pub line: Pattern,
    /// Its meaning.
    pub meaning: Meaning,
}

/// The failures that a tool's words can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A password is wanted and there is none, or another one.
    PasswordRequired,
    /// The password was refused.
    PasswordWrong,
    /// The login was refused, whatever the password.
    Denied,
    /// The host's key is not known.
    HostKey,
    /// The host's name does not resolve.
    HostUnknown,
    /// The port is closed.
    ConnectionRefused,
    /// The host does not answer.
    Unreachable,
    /// The target has no `sh`.
    NoShell,
    /// The login was refused: for the password, if one was typed.
    LoginRefused,
    /// The server turned us away before we said who we are.
    Busy,
    /// The host's key is another than the known one.
    HostKeyChanged,
    /// There is no such container, or it does not run.
    NoTarget,
    /// The tool wants a terminal, and has none.
    NoTerminal,
    /// The container cannot be entered.
    NotEntered,
}

impl Meaning {
    /// The failure, given whether the password, or another answer, was typed.
    fn failure(self, typed: bool) -> ConnectFailure {
        match self {
            Meaning::PasswordRequired | Meaning::LoginRefused if typed => {
                ConnectFailure::PasswordWrong
            }
            Meaning::PasswordRequired => ConnectFailure::PasswordRequired,
            Meaning::PasswordWrong => ConnectFailure::PasswordWrong,
            Meaning::Denied | Meaning::LoginRefused => ConnectFailure::Denied,
            Meaning::HostKey => ConnectFailure::HostKey,
            Meaning::HostUnknown => ConnectFailure::HostUnknown,
            Meaning::ConnectionRefused => ConnectFailure::ConnectionRefused,
            Meaning::Unreachable => ConnectFailure::Unreachable,
            Meaning::NoShell => ConnectFailure::NoShell,
            // Who refuses us after an answer is not busy: another try could lock the account.
            Meaning::Busy if typed => ConnectFailure::Ended,
            Meaning::Busy => ConnectFailure::Busy,
            Meaning::HostKeyChanged => ConnectFailure::HostKeyChanged,
            Meaning::NoTarget => ConnectFailure::NoTarget,
            Meaning::NoTerminal => ConnectFailure::NoTerminal,
            Meaning::NotEntered => ConnectFailure::NotEntered,
        }
    }
}

/// Looks for what the tool's words tell of an attempt that ended before the target's shell spoke.
/// Docker says some of them on its standard output.
pub fn explain(recipe: &Recipe, error: &mut ConnectError) {
    let is_open = matches!(error.failure, ConnectFailure::Ended | ConnectFailure::NoShell);
    if !is_open || !matches!(error.phase, Phase::Spawn | Phase::Login) {
        return;
    }
    let says = |hint: &&Hint| {
        let hidden = as_shown(&hint.line, recipe.secret.as_slice());
        let matches = |line: &str| {
            [&hint.line, &hidden].into_iter().any(|pattern| pattern.matches(line.as_bytes()))
        };
        error.tail.lines().any(matches)
    };
    if let Some(hint) = recipe.hints.iter().find(says) {
        error.failure = hint.meaning.failure(error.typed);
    } else if let (Some(tool), Some(Exit::Code(127))) =
        (recipe.orders.get(ORDERED_TOOL), error.exit)
    {
        error.failure = ConnectFailure::NoTool(harmless(tool));
    }
}

/// How a line stands in a tail, which hides a password also where a tool has it among its words.
fn as_shown(line: &Pattern, secrets: &[Secret]) -> Pattern {
    let [starts, holds, ends] =
        [&line.starts, &line.holds, &line.ends].map(|text| scrub(text, secrets));
    Pattern { starts, holds, ends }
}

/// The failure of an attempt whose tool has ended so, as who asked hears of it.
#[cfg(test)]
pub fn told(handshake: &mut crate::connect::handshake::Handshake, exit: Exit) -> Box<ConnectError> {
    let mut error = handshake.closed(Some(exit));
    explain(handshake.recipe(), &mut error);
    error
}
