//! Starts the process of a recipe: its descriptors, its terminal, and its image where it needs one
//! here.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use crate::connect::recipe::{Recipe, Start};
use crate::connect::stage;
use crate::error::ConnectFailure;
use crate::io::side::Side;
use crate::module::images::{Images, Launch};
use crate::sys::errno::Errno;
use crate::sys::spawn::{self, Env, Program, Spawn};
use crate::sys::wait::Process;
use crate::sys::{fd, pipe, pty};

/// A process that was started, and our ends of its descriptors.
pub struct Started {
    /// When.
    pub begun: Instant,
    /// The process.
    pub process: Process,
    /// Its standard input and output.
    pub main: Side,
    /// Its terminal, or its standard error.
    pub terminal: Side,
}

/// Starts what the recipe says.
///
/// # Errors
/// Why it could not be started.
pub fn start(recipe: &Recipe, images: &Images) -> Result<Started, ConnectFailure> {
    match &recipe.start {
        Start::Shell { argv, .. } => {
            let argv = strings(argv)?;
            let name = argv.first().ok_or(ConnectFailure::BadOption("no command".to_owned()))?;
            execute(recipe, Program::Search(name), None, &argv, Env::Inherit)
        }
        Start::Own => {
            let Launch { file, test_args } = images.launch()?;
            let argv = strings(&stage::agent_argv(recipe.answer_nonce, &recipe.title))?;
            match test_args {
                None => start_agent(recipe, &file, &argv, Env::Inherit),
                Some(args) => start_test(recipe, &file, &argv, args),
            }
        }
    }
}

/// Executes the file; or the wrapper, which executes it by its path.
fn start_agent(
    recipe: &Recipe,
    file: &OwnedFd,
    argv: &[CString],
    env: Env<'_>,
) -> Result<Started, ConnectFailure> {
    if recipe.wrapper.is_empty() {
        return execute(recipe, Program::Fd(file.as_fd()), None, argv, env);
    }
    let file = fd::dup_above(file.as_fd(), 3).map_err(refused)?;
    let mut words = recipe.wrapper.clone();
    words.push(spawn::path_of(file.as_fd()));
    let mut words = strings(&words)?;
    words.extend_from_slice(&argv[1..]);
    execute(recipe, Program::Search(&words[0]), Some(&file), &words, env)
}

/// Starts a copy of a test binary: its arguments are its harness's, so a variable says the rest.
fn start_test(
    recipe: &Recipe,
    file: &OwnedFd,
    argv: &[CString],
    args: Vec<CString>,
) -> Result<Started, ConnectFailure> {
    let mut variable = TEST_VARIABLE.as_bytes().to_vec();
    variable.push(b'=');
    variable.extend_from_slice(argv[1].as_bytes());
    let env = strings(&[variable])?;
    let mut argv = vec![argv[0].clone()];
    argv.extend(args);
    start_agent(recipe, file, &argv, Env::Extra(&env))
}

/// The variable that tells a test binary that it is an agent; its value is the agent's argument.
pub const TEST_VARIABLE: &str = "MITOGEN_TEST_AGENT";

fn execute(
    recipe: &Recipe,
    program: Program<'_>,
    keep: Option<&OwnedFd>,
    argv: &[CString],
    env: Env<'_>,
) -> Result<Started, ConnectFailure> {
    let begun = Instant::now();
    let (ours, theirs) = pipe::socketpair().map_err(refused)?;
    let (terminal, errors) = match recipe.terminal {
        true => {
            let pair = pty::open_pty().map_err(refused)?;
            pty::make_raw(pair.follower.as_fd());
            (pair.leader, pair.follower)
        }
        false => pipe::pipe().map_err(refused)?,
    };
    let stdio = [theirs.as_fd(), theirs.as_fd(), errors.as_fd()];
    let is_image = matches!(program, Program::Fd(_));
    let process = spawn::spawn(&Spawn {
        env,
        terminal: recipe.terminal.then_some(errors.as_fd()),
        session: true,
        die_with_parent: true,
        keep: keep.map(AsFd::as_fd),
        ..Spawn::new(program, argv, stdio)
    });
    let process = process.map_err(|error| match (error.errno, is_image) {
        (Errno::NOEXEC, true) => ConnectFailure::ImageDoesNotRun,
        (errno, _) => refused(errno),
    })?;
    Ok(Started { begun, process, main: Side::new(ours), terminal: Side::new(terminal) })
}

fn strings(argv: &[Vec<u8>]) -> Result<Vec<CString>, ConnectFailure> {
    let failed = || ConnectFailure::BadOption("an argument with a NUL in it".to_owned());
    spawn::c_strings(argv).ok_or_else(failed)
}

fn refused(Errno(errno): Errno) -> ConnectFailure {
    ConnectFailure::Spawn(errno)
}
