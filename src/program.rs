//! A program: its functions, and the two roles that it can wake up in.

mod files;
#[cfg(test)]
mod identities;
#[cfg(test)]
mod sizes;
#[cfg(test)]
mod tests;

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::agent;
use crate::call::function::{Function, Signature};
use crate::call::panics;
use crate::call::registry::Registry;
use crate::call::router::{LogsEnd, Router};
use crate::connect::connects::Connects;
use crate::connect::{service, stage};
use crate::error::{Error, Result};
use crate::inspect;
use crate::io::broker::Broker;
use crate::limits::MESSAGE_BYTES_MIN;
use crate::log::{level, receive, sink};
use crate::module::image::Image;
use crate::module::images::{Forks, Images, Source};
use crate::module::source::{Given, Own, TEST_VARIABLE};
use crate::route::identity::Identity;
use crate::stock;
use crate::sys::errno::Errno;
use crate::sys::fork::{self, ForkPromise};
use crate::sys::{environment, fd, limit, signal};

/// The functions that can be called in any context of a tree, and the images that contexts are
/// started from. The stock functions are among them.
#[must_use = "a program does nothing until `run` or `router`"]
pub struct Program {
    registry: Registry,
    images: Vec<Image>,
    own: Own,
    connects_at_once: Option<usize>,
    broker: Option<Broker>,
    /// Who the master is: what holds for the whole tree.
    master: Identity,
    /// How its processes are copied for others; who does not allow it does not link it.
    forks: Option<Allowed>,
}

/// Makes what copies a process that has these functions; and by what promise.
type Allowed = (fn(ForkPromise, Arc<Registry>) -> Arc<dyn Forks>, ForkPromise);

impl Default for Program {
    fn default() -> Program {
        Program::new()
    }
}

impl Program {
    /// A program of the [stock functions](crate::stock) alone.
    pub fn new() -> Program {
        let (registry, images, own) = (stock::registry(), Vec::new(), Own::Unknown);
        let (connects_at_once, broker, forks) = (None, None, None);
        let mut master = Identity::of_master();
        master.files.profiling = files::profiling_of_environment();
        Program { registry, images, own, connects_at_once, broker, master, forks }
    }

    /// Adds a function. [`function`](crate::function) says which can be.
    ///
    /// # Panics
    /// If it is a closure, or has the name of another function of this program.
    #[track_caller]
    pub fn function<F, M>(mut self, function: F) -> Program
    where
        F: Signature<M> + Function<M>,
    {
        self.registry.add(function);
        self
    }

    /// Adds an image. Once there is one, contexts are started from these alone, and no longer from
    /// this program's own executable, unless that is [among them](Image::own). One target may have
    /// two, one of them compressed.
    pub fn image(mut self, image: Image) -> Program {
        self.images.push(image);
        self
    }

    /// Adds several images, as [`Image::directory`] finds them.
    pub fn images(mut self, images: impl IntoIterator<Item = Image>) -> Program {
        self.images.extend(images);
        self
    }

    /// How many connects of the first process are under way at a time; the others wait, first come
    /// first served. Each takes a process and its descriptors. At least 1. Default: 128.
    pub fn connects_at_once(mut self, count: usize) -> Program {
        self.connects_at_once = Some(count);
        self
    }

    /// Bytes of the largest message in the whole tree: the arguments of a call, its value, or what
    /// a [`Sender`](crate::Sender) sends, as they are encoded. Who would send more fails with
    /// [`ErrorKind::TooLarge`](crate::error::ErrorKind) before anything is sent; where a function's
    /// value or error is larger, its caller is told [`Cause::TooLarge`](crate::error::Cause). At
    /// least 64 KiB, else [`Program::router`] and [`Program::run`] fail. Default: 128 MiB.
    ///
    /// # Resources
    /// A context has room for four of these from each neighbour.
    pub fn message_bytes_max(mut self, bytes: u64) -> Program {
        self.master.message_bytes_max = bytes;
        self
    }

    /// Has this broker serve the router: many routers may share one, and so one thread. Their trees
    /// have nothing else in common: one that is shut down or dropped ends alone, and none can reach
    /// another's contexts. Their callbacks have one thread, too: a shutdown waits for those of all
    /// that are due, 3 seconds at most. Default: a broker for each router.
    ///
    /// ```
    /// # use mitogen::{Broker, Program, Result};
    /// # fn main() -> Result<()> {
    /// let broker = Broker::new()?;
    /// let one = Program::new().broker(&broker).router()?;
    /// let other = Program::new().broker(&broker).router()?;
    /// one.shutdown();
    /// other.in_process()?;
    /// # Ok(()) }
    /// ```
    pub fn broker(mut self, broker: &Broker) -> Program {
        self.broker = Some(broker.clone());
        self
    }

    /// Whether the contexts below the first process may talk to their ancestors and to those below
    /// them only, and never to each other: so networks that are apart stay apart. What one of them
    /// sends to another fails with [`Cause::Unidirectional`](crate::error::Cause). It holds in the
    /// whole tree, but for contexts that the first process makes
    /// [less strict](crate::Connect::unidirectional). Default: no.
    pub fn unidirectional(mut self, only: bool) -> Program {
        self.master.unidirectional = only;
        self
    }

    /// Has every process of the tree time what it delivers, and write that and all its
    /// [counters](crate::Counters) to `mitogen.stats.<process>.log` in this folder of its machine
    /// when it ends as it was asked to, or with its parent: one `name value` on each line, behind
    /// them the handlers and the slowest deliveries as rows. Files are made as those of
    /// [`Router::enable_debug`] are; one that cannot be made is a warning in the log. An empty text
    /// is none. Default: the folder that the environment variable `MITOGEN_PROFILING` names, if
    /// any.
    pub fn profiling(mut self, folder: impl Into<String>) -> Program {
        self.master.files.profiling = folder.into();
        self
    }

    /// Lets processes of this program be forked by the hop `fork` in an [address](crate::Address),
    /// and, as agents, by [`fork`](Router::fork) with [`via`](crate::Connect::via). Without it only
    /// [`Router::fork`] does that, where the promise stands.
    pub fn allow_fork(mut self, promise: ForkPromise) -> Program {
        self.forks = Some((agent::forks_for_all, promise));
        self
    }

    /// Runs `main` in the first process, with a router that is shut down when `main` returns or
    /// panics. In a child this never returns: it serves calls until its connection ends.
    ///
    /// Make it the first statement of your `main`: what stands before it runs in every child, too.
    ///
    /// # Errors
    /// Those of `main`, and what keeps a router from being made.
    pub fn run<T, E: From<Error>>(
        mut self,
        main: impl FnOnce(&Router) -> Result<T, E>,
    ) -> Result<T, E> {
        self = self.serve(|registry, forks| Some(of_agent(Own::Entered, registry, forks)));
        self.own = Own::Entered;
        signal::ignore_pipe();
        let router = Shutdown(self.build()?);
        main(&router.0)
    }

    /// Becomes an agent if this process was started as one; else returns. For an executable that is
    /// an image and nothing else: the parts of [`Program::run`] that make a tree are not linked.
    pub fn serve_if_agent(self) -> Program {
        self.serve(|_, _| None)
    }

    fn serve(self, source: MakeSource) -> Program {
        let args: Vec<Vec<u8>> = std::env::args_os().map(OsString::into_vec).collect();
        if let Some(nonce) = asked(&args) {
            let registry = Arc::new(self.registry);
            let source = source(&registry, self.forks);
            SERVES.store(true, Ordering::Relaxed);
            agent::serve(registry, nonce, source, Some(agent::FOR_USERS));
        }
        self
    }

    /// A router of this program's functions, for tests and libraries. Contexts need an
    /// [image](Program::image), since this process's own executable may not know how to be an
    /// agent.
    ///
    /// A process may have any number of routers. A function may make one, too: its context is then
    /// an agent of one tree and the master of another, which ends with the agent. Agents asked to
    /// end wait for processes of that tree as for all that a function has started.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind) if this process was started as an agent and
    /// does not serve as one: its `main` does not enter [`Program::run`] first, and children of it
    /// would never end. `Closed` if the [broker](Program::broker) has ended.
    pub fn router(self) -> Result<Router> {
        let is_to_serve = agent_nonce().is_some() || std::env::var_os(TEST_VARIABLE).is_some();
        if is_to_serve && !SERVES.load(Ordering::Relaxed) {
            return Err(Error::usage(
                "this process was started as an agent, but its main never called Program::run: \
                 call it first, before anything else",
            ));
        }
        self.build()
    }

    fn build(mut self) -> Result<Router> {
        static TREES: AtomicU32 = AtomicU32::new(1);
        if self.master.message_bytes_max < MESSAGE_BYTES_MIN {
            return Err(Error::usage("message_bytes_max must be 64 KiB at least"));
        }
        // Rust's own runtime has seen to it, unless `main` is another language's.
        let failed = |Errno(errno)| Error::system("opening /dev/null", errno);
        fd::fill_missing_stdio().map_err(failed)?;
        fork::watch();
        let registry = Arc::new(self.registry);
        let given = Given::new(self.images, self.own).with_forks(forks(&registry, self.forks));
        let images = Arc::new(Images::new(Some(Box::new(given))));
        self.master.tree = TREES.fetch_add(1, Ordering::Relaxed);
        files::check(&self.master)?;
        let router =
            Router::master(self.broker.as_ref(), self.master, registry, images.clone(), LOG)?;
        service::listen(router.node(), images)?;
        receive::listen(&router)?;
        level::register(router.node());
        files::keep(&router)?;
        inspect::listen(router.node())?;
        if let Some(count) = self.connects_at_once {
            Connects::of(&router).limit(count);
        }
        Ok(router)
    }

    /// Becomes an agent if this test binary was started as one; see
    /// [`test_agent!`](crate::test_agent).
    #[doc(hidden)]
    pub fn serve_if_child(self) {
        let Some(value) = std::env::var_os(TEST_VARIABLE) else { return };
        environment::forget(TEST_VARIABLE);
        if let Some(nonce) = stage::parse_agent_arg(value.as_bytes()) {
            let args = std::env::args_os().skip(1);
            let args = args.filter_map(|arg| CString::new(arg.as_bytes()).ok());
            let registry = Arc::new(self.registry);
            let source = of_agent(Own::Test(args.collect()), &registry, self.forks);
            agent::serve(registry, nonce, Some(source), Some(agent::FOR_USERS));
        }
    }

    /// Starts `local` contexts as copies of this test binary with these arguments.
    #[doc(hidden)]
    pub fn self_agent(mut self, args: &[&str]) -> Program {
        let args = args.iter().filter_map(|arg| CString::new(*arg).ok());
        self.own = Own::Test(args.collect());
        self
    }
}

/// What a master's end does for the log.
const LOG: LogsEnd = LogsEnd { gather: level::gather, flush: sink::flush_at_end };

/// Whether this process has become the agent that it was started as.
static SERVES: AtomicBool = AtomicBool::new(false);

/// Makes what an agent can send and start.
type MakeSource = fn(&Arc<Registry>, Option<Allowed>) -> Option<Box<dyn Source>>;

/// That of an agent that is more than a stock one.
fn of_agent(own: Own, registry: &Arc<Registry>, allowed: Option<Allowed>) -> Box<dyn Source> {
    fork::watch();
    panics::note_places();
    #[cfg(feature = "log")]
    crate::log::bridge::listen();
    // No copy keeps the link to our parent.
    fork::mark(fd::stdin());
    fork::mark(fd::stdout());
    Box::new(Given::of_agent(own).with_forks(forks(registry, allowed)))
}

/// How a process with these functions is copied for anyone, if that is allowed.
fn forks(registry: &Arc<Registry>, allowed: Option<Allowed>) -> Option<Arc<dyn Forks>> {
    allowed.map(|(make, promise)| make(promise, registry.clone()))
}

/// Raises this process's soft limit on open descriptors to the hard one, for hundreds of contexts
/// at a time. The command does so at its start; the library does it only here. What is started
/// afterwards, contexts too, gets the limit that was.
///
/// # Errors
/// [`ErrorKind::System`](crate::error::ErrorKind) if the system refuses.
///
/// # Resources
/// A child takes three descriptors here.
pub fn raise_descriptor_limit() -> Result<()> {
    let failed = |Errno(errno)| Error::system("raising the limit on descriptors", errno);
    limit::raise_nofile().map_err(failed)
}

/// The router of `run`, whatever way it is left.
struct Shutdown(Router);

impl Drop for Shutdown {
    fn drop(&mut self) {
        self.0.shutdown();
    }
}

/// The whole of the stock agent, with its arguments; returns its status if nobody started it as
/// one.
#[doc(hidden)]
pub fn stock_agent(args: Vec<Vec<u8>>) -> i32 {
    const WHY: &[u8] = b"mitogen: this is an agent; a program that uses mitogen starts it\n";
    if let Some(nonce) = asked(&args) {
        agent::serve(Arc::new(stock::registry()), nonce, None, None);
    }
    // Without a standard error there is nobody to tell.
    let _ = fd::write_all(fd::stderr(), WHY);
    2
}

/// The nonce, if these arguments say that the process is to be an agent. It shows as one then.
fn asked(args: &[Vec<u8>]) -> Option<u64> {
    let nonce = stage::parse_agent_arg(args.get(1)?)?;
    agent::be_seen(&args[2..]);
    Some(nonce)
}

/// The nonce of the agent that this process is to be.
fn agent_nonce() -> Option<u64> {
    let argument = std::env::args_os().nth(1)?;
    stage::parse_agent_arg(OsStr::as_bytes(&argument))
}

/// Lets a test binary start copies of itself as agents: write it once at the top of a test file,
/// with the program whose functions are to be called; then `mitogen_test_program().router()` makes
/// routers whose `local` contexts are such copies. It shows as one more test, which passes.
#[macro_export]
macro_rules! test_agent {
    ($program:expr) => {
        /// Not a test: the entry of this binary's own agents.
        #[test]
        fn mitogen_agent() {
            let program: $crate::Program = $program;
            program.serve_if_child();
        }

        /// The program, with this binary as the image of `local` contexts.
        fn mitogen_test_program() -> $crate::Program {
            let path = concat!(module_path!(), "::mitogen_agent");
            let path = path.split_once("::").map_or(path, |(_, path)| path);
            let program: $crate::Program = $program;
            program.self_agent(&["--exact", path, "--nocapture", "--test-threads=1"])
        }
    };
}
