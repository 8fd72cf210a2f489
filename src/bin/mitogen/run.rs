//! `mitogen run`: one command, in every context at once.

use std::ffi::{OsStr, OsString};
use std::io;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use mitogen::error::ErrorKind;
use mitogen::stock::{self, Command, Ended, Output};
use mitogen::{Context, Error, Router};

use super::args::Place;
use super::printer::{Form, Printer, Stream};
use super::status::Tally;
use super::text;

/// The exit status when an address could not be reached, or was lost.
pub const UNREACHABLE: u8 = 255;
/// The exit status when the time ran out.
const TIMED_OUT: u8 = 124;
/// The exit status of a command that could not be started, as a shell's.
const NOT_STARTED: u8 = 127;
/// The same, if it was found and may not be executed.
const NOT_EXECUTABLE: u8 = 126;
/// The exit status when several commands ran and not all ended with 0; and of what went wrong
/// in a way that has no other.
const NOT_ALL: u8 = 1;
/// How long the last words may wait for a reader who has stopped reading.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// A thread here waits and copies.
const STACK_BYTES: usize = 256 << 10;

/// What `mitogen run` is asked to do.
pub struct Options {
    /// Whether to print events as JSON.
    pub json: bool,
    /// The time for all of it.
    pub timeout: Option<Duration>,
    /// Where to run the command.
    pub places: Vec<Place>,
    /// The command.
    pub argv: Vec<OsString>,
}

/// How it went at one address.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// The command ended so, as a shell's status.
    Status(u8),
    /// The context was not reached, or was lost.
    Unreachable,
}

/// Runs the command everywhere. The result is our exit status.
pub fn run(router: &Router, options: &Options) -> ExitCode {
    let deadline = options.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let form = match options.places.len() {
        _ if options.json => Form::Json,
        1 => Form::Raw,
        _ => Form::Prefixed,
    };
    let labels = options.places.iter().map(|place| text::word(&place.label)).collect();
    let printer = match Printer::new(form, labels) {
        Ok(printer) => printer,
        Err(error) => return ExitCode::from(text::unwritable(&error)),
    };
    let told = connect(router, options);
    let mut outcomes = vec![None; options.places.len()];
    let mut tally = Tally::of(options.places.len());
    let mut due = printer.progress_due();
    thread::scope(|scope| {
        loop {
            match next(&told, deadline.into_iter().chain(due).min()) {
                Ok((at, Event::Ended(outcome))) => outcomes[at] = Some(outcome),
                Ok((at, Event::Connected(context, tell))) => {
                    tally.add(context.is_ok());
                    printer.progress(tally);
                    let printer = &printer;
                    let body = move || go(context, options, printer, at, &tell);
                    let thread = thread::Builder::new().stack_size(STACK_BYTES);
                    if let Err(error) = thread.spawn_scoped(scope, body) {
                        no_thread(&error);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                        give_up(options, &printer, &outcomes);
                    }
                    due = None;
                    printer.progress(tally);
                }
            }
        }
        ExitCode::from(status(&outcomes))
    })
}

/// What happens at an address.
enum Event {
    /// It was reached, or not; and whom to tell of the end.
    Connected(Result<Context, Error>, Sender<(usize, Event)>),
    /// It is done with.
    Ended(Outcome),
}

/// Starts to connect all; the events come to what is returned, and end with the last one's.
fn connect(router: &Router, options: &Options) -> Receiver<(usize, Event)> {
    let (tell, told) = mpsc::channel();
    for (at, place) in options.places.iter().enumerate() {
        let tell = tell.clone();
        router.start(&place.address).then(move |outcome| {
            // Whoever waits ends the process when the time is over, and not before.
            let _ = tell.send((at, Event::Connected(outcome, tell.clone())));
        });
    }
    told
}

fn next(
    told: &Receiver<(usize, Event)>,
    end: Option<Instant>,
) -> Result<(usize, Event), RecvTimeoutError> {
    match end {
        None => told.recv().map_err(RecvTimeoutError::from),
        Some(end) => told.recv_timeout(end.saturating_duration_since(Instant::now())),
    }
}

fn no_thread(error: &io::Error) -> ! {
    text::complain(&format!("cannot start a thread: {error}"));
    text::leave(1)
}

/// The time is over: says so for all that have not ended, and ends. The contexts end with us.
fn give_up(options: &Options, printer: &Printer, outcomes: &[Option<Outcome>]) -> ! {
    let unfinished: Vec<usize> = (0..outcomes.len()).filter(|at| outcomes[*at].is_none()).collect();
    let lost = outcomes.contains(&Some(Outcome::Unreachable));
    let status = if lost { UNREACHABLE } else { TIMED_OUT };
    let late = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        thread::sleep(LAST_WORDS);
        std::process::exit(status.into())
    });
    if late.is_ok() {
        let seconds = options.timeout.unwrap_or_default().as_secs_f64();
        printer.give_up(&unfinished, &format!("not done within {seconds} s"));
    }
    text::leave(status)
}

/// The exit status of all of it.
fn status(outcomes: &[Option<Outcome>]) -> u8 {
    if outcomes.contains(&Some(Outcome::Unreachable)) {
        return UNREACHABLE;
    }
    match outcomes {
        [Some(Outcome::Status(status))] => *status,
        _ if outcomes.iter().all(|outcome| *outcome == Some(Outcome::Status(0))) => 0,
        _ => NOT_ALL,
    }
}

/// One address, from the connection to the command's end.
fn go(
    context: Result<Context, Error>,
    options: &Options,
    printer: &Printer,
    at: usize,
    tell: &Sender<(usize, Event)>,
) {
    let outcome = context.and_then(|context| in_context(&context, options, printer, at));
    let outcome = outcome.unwrap_or_else(|error| {
        printer.failed(at, &reason(&options.places[at], &error));
        match error.kind() {
            ErrorKind::Call(_) => Outcome::Status(NOT_ALL),
            _ => Outcome::Unreachable,
        }
    });
    // As above.
    let _ = tell.send((at, Event::Ended(outcome)));
}

fn in_context(
    context: &Context,
    options: &Options,
    printer: &Printer,
    at: usize,
) -> Result<Outcome, Error> {
    let output = context.router().receiver::<Output>();
    let command = Command { argv: options.argv.clone() };
    let begun = Instant::now();
    let call = context.call_async(stock::run, (command, output.to_sender()));
    // A stream that does not end well is explained by the call's own end.
    for piece in output.into_iter().map_while(Result::ok) {
        match piece {
            Output::Stdout(bytes) => printer.output(at, Stream::Stdout, bytes),
            Output::Stderr(bytes) => printer.output(at, Stream::Stderr, bytes),
        }
    }
    printer.end(at);
    let ended = call.get()?;
    let elapsed_ms = begun.elapsed().as_millis() as u64;
    let (status, signal) = match ended {
        Ended::Exited(status) => (status as u8, None),
        Ended::Killed(signal) => (128_u8.wrapping_add(signal as u8), Some(signal)),
        Ended::NotStarted(errno) => {
            let error = io::Error::from_raw_os_error(errno);
            printer.failed(at, &not_started(&options.argv[0], &error));
            let denied = error.kind() == io::ErrorKind::PermissionDenied;
            return Ok(Outcome::Status(if denied { NOT_EXECUTABLE } else { NOT_STARTED }));
        }
    };
    printer.ended(at, |object| {
        let object = object.number("exit", status);
        let object = match signal {
            Some(signal) => object.number("signal", signal),
            None => object,
        };
        object.number("elapsed_ms", elapsed_ms)
    });
    Ok(Outcome::Status(status))
}

fn not_started(program: &OsStr, error: &io::Error) -> String {
    let why = error.to_string();
    let why = why.split(" (os error").next().unwrap_or(&why);
    [&program.to_string_lossy(), ": ", why].concat()
}

/// What an error says, without the address that is printed in front of it anyway.
pub fn reason(place: &Place, error: &Error) -> String {
    let said = error.to_string();
    let own = [&place.address.to_string(), ": "].concat();
    said.strip_prefix(&own).unwrap_or(&said).to_owned()
}
