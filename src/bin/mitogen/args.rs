//! The command line: what is asked for, or what is wrong with the asking.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use mitogen::{Address, Level, Result, Router, log_to_stderr};

use super::{run, signals, text, tree, watch};

/// The exit status of a command line that asks for nothing we know.
const USAGE: u8 = 2;

/// The option of `run` that has a number of seconds.
const TIMEOUT: &str = "--timeout";
/// That of `tree`.
const INTERVAL: &str = "--interval";
/// How often a watched tree is looked at.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(1);

/// An address, and what it is called in all that is printed.
pub struct Place {
    /// Where it is.
    pub address: Address,
    /// The text that was given, or one without its passwords.
    pub label: String,
}

/// What is asked for.
pub enum Asked {
    /// This text.
    Text(&'static str),
    /// `mitogen run`.
    Run(run::Options),
    /// `mitogen tree`.
    Tree {
        /// One object a line instead of a table.
        json: bool,
        /// The addresses to connect.
        places: Vec<Place>,
    },
    /// `mitogen tree --watch`.
    Watch(watch::Options),
}

/// Does what the arguments of this process ask for.
pub fn dispatch(router: &Router) -> Result<ExitCode> {
    // With the limit that there was, fewer hosts go at a time.
    let _ = mitogen::raise_descriptor_limit();
    let asked = log_as_asked().and_then(|()| parse(std::env::args_os().skip(1).collect()));
    match asked {
        Ok(Asked::Text(text)) => Ok(text::show(text)),
        Ok(Asked::Run(options)) => {
            signals::dump_when_asked(router);
            Ok(run::run(router, &options))
        }
        Ok(Asked::Tree { json, places }) => {
            signals::dump_when_asked(router);
            tree::tree(router, json, &places)
        }
        Ok(Asked::Watch(options)) => watch::watch(router, &options),
        Err(wrong) => {
            text::complain(&wrong);
            Ok(ExitCode::from(USAGE))
        }
    }
}

/// Logs to standard error, with what contexts log and print, if `MITOGEN_LOG_LEVEL` says so.
fn log_as_asked() -> Result<(), String> {
    let Some(level) = std::env::var_os("MITOGEN_LOG_LEVEL") else { return Ok(()) };
    let level = level.to_string_lossy().to_ascii_lowercase();
    match level.trim() {
        "" | "none" => Ok(()),
        "error" | "warn" | "warning" | "info" | "debug" | "io" => {
            // It looks for itself which it is.
            log_to_stderr(Level::Error);
            Ok(())
        }
        _ => Err("MITOGEN_LOG_LEVEL is error, warn, info, debug, io or none".to_owned()),
    }
}

/// What these arguments ask for; or what is wrong, and how to get help.
fn parse(args: Vec<OsString>) -> Result<Asked, String> {
    let mut args = args.into_iter();
    let help = "`mitogen --help` says more";
    let Some(first) = args.next() else {
        return Err(format!("no subcommand: it is `run` or `tree`; {help}"));
    };
    match first.to_str() {
        Some("run") => parse_run(args).map_err(|why| format!("run: {why}")),
        Some("tree") => parse_tree(args).map_err(|why| format!("tree: {why}")),
        Some("help" | "--help" | "-h") => Ok(Asked::Text(text::HELP)),
        Some("version" | "--version" | "-V") => Ok(Asked::Text(text::VERSION)),
        _ => Err(format!("unknown: `{}`; {help}", first.to_string_lossy())),
    }
}

/// The words in front of `--`: options, and addresses.
struct Words {
    json: bool,
    watch: bool,
    /// The value of the one option that has one.
    seconds: Option<Duration>,
    places: Vec<Place>,
    /// Whether `--` came.
    ended: bool,
}

/// Reads up to `--`; none if help is wanted. `timed` is the option that has a number of seconds.
fn words(args: &mut impl Iterator<Item = OsString>, timed: &str) -> Result<Option<Words>, String> {
    let (places, ended) = (Vec::new(), false);
    let mut words = Words { json: false, watch: false, seconds: None, places, ended };
    let mut wrong = Vec::new();
    while let Some(word) = args.next() {
        let word = word.into_string();
        let word = word.map_err(|word| format!("not UTF-8: `{}`", word.to_string_lossy()))?;
        match (&*word, word.split_once('=')) {
            ("--", _) => {
                words.ended = true;
                break;
            }
            ("--help" | "-h", _) => return Ok(None),
            ("--json", _) => words.json = true,
            ("--watch", _) if timed == INTERVAL => words.watch = true,
            (option, _) if option == timed => {
                let value = args.next().ok_or(format!("{timed} needs a number of seconds"))?;
                words.seconds = Some(seconds(timed, &value.to_string_lossy())?);
            }
            (_, Some((option, value))) if option == timed => {
                words.seconds = Some(seconds(timed, value)?);
            }
            _ if word.starts_with('-') => return Err(format!("unknown option: `{word}`")),
            _ => match word.parse::<Address>() {
                Ok(address) => words.places.push(place(word, address)),
                Err(error) => wrong.push(error.to_string()),
            },
        }
    }
    match wrong.is_empty() {
        true => Ok(Some(words)),
        false => Err(wrong.join("\n")),
    }
}

/// What was typed is the label, unless it tells a password.
fn place(typed: String, address: Address) -> Place {
    let label = if typed.contains("password=") { address.to_string() } else { typed };
    Place { address, label }
}

fn seconds(option: &str, value: &str) -> Result<Duration, String> {
    let time = value.parse().ok().and_then(|value| Duration::try_from_secs_f64(value).ok());
    time.filter(|time| !time.is_zero())
        .ok_or_else(|| format!("{option} takes a number of seconds above 0, not `{value}`"))
}

fn parse_run(mut args: impl Iterator<Item = OsString>) -> Result<Asked, String> {
    let Some(words) = words(&mut args, TIMEOUT)? else { return Ok(Asked::Text(text::HELP_RUN)) };
    let argv: Vec<OsString> = args.collect();
    if words.places.is_empty() {
        return Err("no address: mitogen run ADDRESS... -- COMMAND [ARG...]".to_owned());
    }
    if !words.ended {
        return Err("no `--` in front of the command: mitogen run ADDRESS... -- COMMAND".to_owned());
    }
    if argv.is_empty() {
        return Err("no command behind `--`".to_owned());
    }
    let Words { json, seconds: timeout, places, .. } = words;
    Ok(Asked::Run(run::Options { json, timeout, places, argv }))
}

fn parse_tree(mut args: impl Iterator<Item = OsString>) -> Result<Asked, String> {
    let Some(words) = words(&mut args, INTERVAL)? else { return Ok(Asked::Text(text::HELP_TREE)) };
    if let Some(word) = args.next() {
        return Err(format!("takes no command: `{}`", word.to_string_lossy()));
    }
    if words.places.is_empty() {
        return Err("no address: mitogen tree ADDRESS...".to_owned());
    }
    let Words { json, watch, seconds: interval, places, .. } = words;
    match (watch, interval) {
        (true, interval) => {
            let interval = interval.unwrap_or(INTERVAL_DEFAULT);
            Ok(Asked::Watch(watch::Options { json, interval, places }))
        }
        (false, None) => Ok(Asked::Tree { json, places }),
        (false, Some(_)) => Err("--interval goes with --watch".to_owned()),
    }
}
