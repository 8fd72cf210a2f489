//! The command's own words: its help, and its complaints on standard error.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use mitogen::Printable;

/// What `--help` says.
pub const HELP: &str = include_str!("help.txt");
/// What `run --help` says.
pub const HELP_RUN: &str = include_str!("help_run.txt");
/// What `tree --help` says.
pub const HELP_TREE: &str = include_str!("help_tree.txt");
/// What `--version` says.
pub const VERSION: &str = concat!("mitogen ", env!("CARGO_PKG_VERSION"), "\n");

/// How long the log may wait for a reader who has stopped reading.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The exit status of what nobody reads any more, as a shell tells it of SIGPIPE.
pub const NOT_READ: u8 = 128 + 13;

/// Prints text to standard output.
pub fn show(text: &str) -> ExitCode {
    match unbuffered(io::stdout()).and_then(|mut out| out.write_all(text.as_bytes())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(unwritable(&error)),
    }
}

/// The exit status of output that cannot be written. Says why, unless nobody reads it.
pub fn unwritable(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return NOT_READ;
    }
    complain(&format!("cannot write: {error}"));
    1
}

/// Ends the process at once, but for what was logged by now. The contexts end with it.
pub fn leave(status: u8) -> ! {
    mitogen::flush_log(LAST_WORDS);
    std::process::exit(status.into())
}

/// One of our standard descriptors, without a buffer.
pub fn unbuffered(stdio: impl AsFd) -> io::Result<File> {
    Ok(File::from(stdio.as_fd().try_clone_to_owned()?))
}

/// Says on standard error what is wrong, without what a terminal would obey.
pub fn complain(what: &str) {
    complain_behind("", what);
}

/// The same, behind something that is ours.
pub fn complain_behind(first: &str, what: &str) {
    let text = [first, &complaint(what)].concat();
    // Without a standard error there is nobody to tell.
    let _ = unbuffered(io::stderr()).and_then(|mut out| out.write_all(text.as_bytes()));
}

/// `mitogen: ` and what is wrong; further lines are indented, so that each is ours to see.
pub fn complaint(what: &str) -> String {
    let harmless = Printable(what.trim_end()).to_string();
    ["mitogen: ", &harmless.replace('\n', "\n  "), "\n"].concat()
}

/// Another process's word, made to fit a line.
pub fn word(text: &str) -> String {
    Printable(text).to_string().replace('\n', "\\x0a").replace('\t', "\\x09")
}
