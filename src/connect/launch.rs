//! Starts the process of a recipe: its descriptors, its terminal, and its image where it needs one
//! here.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use crate::connect::recipe::{Recipe, Start};
use crate::connect::stage;
use crate::error::ConnectFailure;
use crate::io::side::Side;
use crate::lock;
use crate::module::images::Images;
use crate::sys::errno::Errno;
use crate::sys::spawn::{self, Program, Spawn, SpawnError, Step};
use crate::sys::text::{has, lossy};
use crate::sys::{fd, host, memfd, pipe, pty};

pub use crate::module::images::Started;

/// Starts what the recipe says.
///
/// # Errors
/// Why it could not be started.
#[inline(never)] // a frame of its own: smaller code
pub fn start(recipe: &Recipe, images: &Images) -> Result<Started, ConnectFailure> {
    lock::assert_none_held("starting a process");
    let argv = match &recipe.start {
        Start::Own => return start_own(recipe, images),
        Start::Fork(_) => return images.fork(recipe.answer_nonce, &recipe.title),
        Start::Shell { argv, .. } => strings(argv)?,
    };
    let name = argv.first().ok_or(ConnectFailure::BadOption("no command".to_owned()))?;
    let started = execute(recipe, Program::Search(name), None, &argv, &strings(&recipe.env)?);
    // A folder of PATH that we may not look into says no more than that.
    let is_searched = !has(name.to_bytes(), b'/');
    started.map_err(|SpawnError { step, errno }| match (step, errno) {
        (Step::Exec, Errno::NOENT) => ConnectFailure::NoTool(lossy(name.to_bytes())),
        (Step::Exec, Errno::ACCES) if is_searched => ConnectFailure::NoTool(lossy(name.to_bytes())),
        (_, errno) => refused(errno),
    })
}

/// Executes our own image; or the wrapper, which executes it by its path.
#[inline(never)] // a frame of its own: smaller code
fn start_own(recipe: &Recipe, images: &Images) -> Result<Started, ConnectFailure> {
    let mut launch = images.launch(stage::agent_argv(recipe.answer_nonce, &recipe.title))?;
    let file = match recipe.orders.is_empty() {
        true => fd::dup_above(launch.file.as_fd(), 3),
        // A test binary has threads.
        false if !launch.env.is_empty() => return Err(ConnectFailure::NotEntered),
        // What others run must not be within reach of those who rule where it goes.
        false => memfd::sealed_copy(launch.file.as_fd()),
    };
    let file = file.map_err(refused)?;
    let mut argv = strings(&recipe.wrapper)?;
    let wrapped = !argv.is_empty();
    if wrapped {
        launch.argv[0] = spawn::path_of(file.as_fd());
    }
    argv.append(&mut strings(&launch.argv)?);
    argv.append(&mut strings(&recipe.orders)?);
    let env = strings(&launch.env)?;
    let program = match wrapped {
        true => Program::Search(&argv[0]),
        false => Program::Fd(file.as_fd()),
    };
    let started = execute(recipe, program, wrapped.then_some(&file), &argv, &env);
    started.map_err(|error| match error.errno {
        Errno::NOEXEC if !wrapped => ConnectFailure::ImageDoesNotRun,
        errno => refused(errno),
    })
}

fn execute(
    recipe: &Recipe,
    program: Program<'_>,
    keep: Option<&OwnedFd>,
    argv: &[CString],
    env: &[CString],
) -> Result<Started, SpawnError> {
    let begun = Instant::now();
    let pipes =
        recipe.pipes.unwrap_or_else(|| !matches!(recipe.start, Start::Own) && host::has_selinux());
    let (ours, theirs) = if pipes { pipe_pair() } else { socket_pair() }.map_err(before)?;
    let (terminal, errors) = match recipe.wants_pty() {
        true => {
            let pair = pty::open_pty().map_err(before)?;
            pty::make_raw(pair.follower.as_fd());
            (pair.leader, pair.follower)
        }
        false => pipe::pipe().map_err(before)?,
    };
    let stdio = [theirs[0].as_fd(), theirs[1].as_fd(), errors.as_fd()];
    let process = spawn::spawn(&Spawn {
        env,
        terminal: recipe.wants_pty().then_some(errors.as_fd()),
        session: true,
        die_with_parent: true,
        keep: keep.map(AsFd::as_fd),
        ..Spawn::new(program, argv, stdio)
    })?;
    Ok(Started { begun, process, main: ours, terminal: Side::new(terminal) })
}

/// A failure before anything was started.
fn before(errno: Errno) -> SpawnError {
    SpawnError { step: Step::Stdio, errno }
}

/// Our sides of a child's output and input, and the child's input and output.
type Ends = ([Side; 2], [Arc<OwnedFd>; 2]);

fn socket_pair() -> Result<Ends, Errno> {
    let (ours, theirs) = pipe::socketpair()?;
    let (ours, theirs) = (Side::new(ours), Arc::new(theirs));
    Ok(([ours.clone(), ours], [theirs.clone(), theirs]))
}

fn pipe_pair() -> Result<Ends, Errno> {
    let (input, transmit) = pipe::pipe()?;
    let (receive, output) = pipe::pipe()?;
    Ok(([Side::new(receive), Side::new(transmit)], [Arc::new(input), Arc::new(output)]))
}

fn strings(argv: &[Vec<u8>]) -> Result<Vec<CString>, ConnectFailure> {
    let failed = || ConnectFailure::BadOption("an argument with a NUL in it".to_owned());
    spawn::c_strings(argv).ok_or_else(failed)
}

fn refused(Errno(errno): Errno) -> ConnectFailure {
    ConnectFailure::Spawn(errno)
}
