//! Copies of this process: made on a broker's thread, and what they do instead of what it did.
//! Nothing of the original is dropped in a copy: neither its loops nor its descriptors' owners.

use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::{FOR_USERS, attend, end_process, logs, or_end, settle};
use crate::call::panics;
use crate::call::registry::Registry;
use crate::call::router::Router;
use crate::connect::fork::{Fork, ForkOptions, Hooks};
use crate::connect::options::Connect;
use crate::connect::recipe::Offered;
use crate::error::ConnectFailure;
use crate::io::side::Side;
use crate::io::sleep;
use crate::limits::COPY_STACK_BYTES;
use crate::module::images::{Forks, Source, Started};
use crate::stock;
use crate::sys::errno::Errno;
use crate::sys::fork::{self, ForkPromise};
use crate::sys::{fd, pipe, signal, stdio, thread, title};
use crate::trace::{self, panic_text};

/// The status of a copy whose hook panicked, as that of a program.
const PANICKED: i32 = 101;

impl Router {
    /// A copy of this process: of its memory, but not of its threads. It executes nothing, so it
    /// needs no image; it has its own identity, broker and router, and serves calls as any other
    /// context does. [`local`](Router::local) is better almost always: use this for what must be
    /// isolated and lives briefly, and takes from memory what cannot be sent. See [`ForkPromise`].
    ///
    /// ```no_run
    /// # use mitogen::{ForkPromise, Program, Result};
    /// # use std::sync::OnceLock;
    /// static TABLE: OnceLock<Vec<u64>> = OnceLock::new();
    ///
    /// fn total() -> u64 {
    ///     TABLE.get().map_or(0, |table| table.iter().sum())
    /// }
    ///
    /// # fn main() -> Result<()> {
    /// Program::new().function(total).run(|router| {
    ///     let table = vec![1; 1_000_000];
    ///     // SAFETY: nothing here has threads, locks or connections but the library.
    ///     let promise = unsafe { ForkPromise::new() };
    ///     let fork = router.fork(promise).on_start(move |_| drop(TABLE.set(table)));
    ///     assert_eq!(fork.connect()?.call(total, ())?, 1_000_000);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    ///
    /// # Resources
    /// This process stands still while it is copied, some 20 ms per GiB that it uses.
    pub fn fork(&self, promise: ForkPromise) -> Fork {
        fork::watch();
        let (registry, images) = (self.registry().clone(), self.images().clone());
        let promised = move |hooks: Hooks, nonce| {
            let stays_here = hooks.on_fork.is_some() || hooks.on_start.is_some();
            let copier = Copier { promise, registry: registry.clone(), hooks };
            Offered { stays_here, lasts: Arc::new(images.offer(nonce, Arc::new(copier))) }
        };
        Connect::new(self, ForkOptions::promised(Arc::new(promised)))
    }
}

/// What copies a process whose program allows it.
pub(crate) fn for_all(promise: ForkPromise, registry: Arc<Registry>) -> Arc<dyn Forks> {
    Arc::new(Copier { promise, registry, hooks: Hooks::default() })
}

struct Copier {
    promise: ForkPromise,
    registry: Arc<Registry>,
    hooks: Hooks,
}

impl Forks for Copier {
    fn fork(
        &self,
        images: Box<dyn Source>,
        nonce: u64,
        title: &str,
    ) -> Result<Started, ConnectFailure> {
        self.make(images, nonce, title).map_err(|Errno(errno)| ConnectFailure::Spawn(errno))
    }
}

impl Copier {
    fn make(&self, images: Box<dyn Source>, nonce: u64, title: &str) -> Result<Started, Errno> {
        let begun = Instant::now();
        // In a copy nobody would finish what another thread is doing for the first time.
        panics::note_places();
        let (link, theirs) = pipe::socketpair()?;
        let (errors, said) = pipe::pipe()?;
        let stdio = [fd::open_null()?, said];
        // Until the original has let go of the copy's link, which has no mark for a moment: no copy
        // that another broker makes shall keep it.
        let held = Held::new();
        let copy = Begun {
            registry: self.registry.clone(),
            hooks: self.hooks.clone(),
            images,
            link: (fd::dup_above(theirs.as_fd(), 3)?, theirs),
            nonce,
            title: title.as_bytes().to_vec(),
        };
        let (link, terminal) = (Side::new(link), Side::new(errors));
        let main = [link.clone(), link];
        match fork::fork(self.promise)? {
            Some(process) => Ok(Started { begun, process, main, terminal }),
            None => copy.live(held, stdio),
        }
    }
}

/// What other threads may hold for a moment, held while they vanish.
struct Held {
    sink: trace::Held,
    guard: stock::Held,
    /// Of use as long as it lives.
    _idle: sleep::Held,
}

impl Held {
    fn new() -> Held {
        Held { guard: stock::hold(), sink: trace::hold(), _idle: sleep::hold() }
    }

    fn leave_behind(self) {
        self.sink.leave_behind();
        self.guard.leave_behind();
    }
}

/// Ends the copy rather than let a panic unwind into the loop of the original.
struct NoWayBack;

impl Drop for NoWayBack {
    fn drop(&mut self) {
        signal::exit_now(1)
    }
}

/// A copy that has not begun to live; all that it needs was made before.
struct Begun {
    registry: Arc<Registry>,
    hooks: Hooks,
    images: Box<dyn Source>,
    link: (OwnedFd, OwnedFd),
    nonce: u64,
    title: Vec<u8>,
}

impl Begun {
    /// The life of the thread that the copy begins with: what is the original's goes, then another
    /// thread, which has room on its stack, is the context's.
    fn live(self, held: Held, stdio: [OwnedFd; 2]) -> ! {
        let _no_way_back = NoWayBack;
        held.leave_behind();
        // It leads none yet.
        let _ = signal::start_session();
        signal::die_with_group();
        or_end(self.take_descriptors(stdio));
        title::set_title(&self.title);
        or_end(thread::spawn(c"mitogen-copy", COPY_STACK_BYTES, Box::new(move || self.serve())));
        fork::rest()
    }

    /// Keeps the link, the program's own descriptors, and standard ones that harm nobody.
    fn take_descriptors(&self, [null, said]: [OwnedFd; 2]) -> Result<(), Errno> {
        fd::dup_onto(null.as_fd(), 0)?;
        // As long as there are words of the original's in memory.
        fd::dup_onto(null.as_fd(), 1)?;
        fd::dup_onto(said.as_fd(), 2)?;
        drop((null, said));
        stdio::forget_inherited();
        fork::unmark(self.link.0.as_fd());
        fork::close_marked();
        // A copy of this copy shall not keep it.
        fork::mark(self.link.0.as_fd());
        Ok(())
    }

    fn serve(self) -> ! {
        settle();
        or_end(logs::forget_printed());
        or_end(fd::dup_onto(fd::stderr(), 1));
        let Hooks { on_fork, on_start } = self.hooks;
        if let Some(hook) = on_fork.and_then(|hook| hook.take()) {
            run("on_fork", hook);
        }
        let on_start = on_start.and_then(|hook| hook.take());
        let start = |router: &Router| {
            if let Some(hook) = on_start {
                run("on_start", || hook(router));
            }
        };
        let users = Some(FOR_USERS);
        attend(self.registry, self.link, self.nonce, Some(self.images), users, start)
    }
}

/// Runs a hook; the copy does not outlive its panic. What is told last is sure to be heard.
fn run(name: &str, hook: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(hook)) {
        let why = [name, " panicked: ", &panic_text(&*panic), "\n"].concat();
        // Without anybody who listens there is nobody to tell.
        let _ = fd::write_all(stdio::inherited(), why.as_bytes());
        end_process(PANICKED);
    }
}
