//! What runs in a child: takes over its standard descriptors, says that it is there, learns who it
//! is, and serves until its parent is gone.

mod detach;
mod enter;
mod fork;
mod logs;

pub(crate) use fork::for_all as forks_for_all;
pub(crate) use logs::{FOR_USERS, ForUsers};

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::call::context::Context;
use crate::call::dispatch::Calls;
use crate::call::panics;
use crate::call::registry::Registry;
use crate::call::router::Router;
use crate::connect::stage;
use crate::connect::{request, service};
use crate::error::{Cause, Death, Error, Result};
use crate::ids::{ContextId, Handle};
use crate::inspect;
use crate::io::broker::Broker;
use crate::io::promise::promise;
use crate::io::side::Side;
use crate::io::turn::{Key, Turn};
use crate::limits::{COPY_STACK_BYTES, SHUTDOWN_GRACE};
use crate::log::forward::Forward;
use crate::log::{debug, level, profile};
use crate::module::images::{Images, Source};
use crate::route::control;
use crate::route::identity::Identity;
use crate::route::lease::{Lease, Pool};
use crate::route::node::Node;
use crate::route::peer::{End, Guardian, Peer};
use crate::route::pending::Deliver;
use crate::route::policy;
use crate::route::terms::Terms;
use crate::stock;
use crate::sys::errno::Errno;
use crate::sys::guard::Guard;
use crate::sys::thread::Body;
use crate::sys::{fd, host, pipe, signal, stdio, thread, title};
use crate::wire::PROTOCOL;
use crate::wire::codec::{Malformed, Reader};
use crate::wire::framer::Framer;
use crate::wire::header::Kind;
use crate::wire::message::Message;

/// The first descriptor of ours: below are those of user code.
const FIRST_FD: i32 = 3;
/// How often an agent that was asked to end looks whether what it started has.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Keeps the own image at hand, and does what the arguments behind the nonce say: takes the title
/// that `ps` is to show; removes the image's directory, where a shell could not do that before it
/// executed it; goes to the container that it is to be in.
pub(crate) fn be_seen(args: &[Vec<u8>]) {
    fd::keep_self_exe();
    let Some((name, rest)) = args.split_first() else { return };
    title::set_title(name);
    let Some((directory, orders)) = rest.split_first() else { return };
    if !directory.is_empty() {
        // Somebody may have tidied up already.
        let _ = fd::unlink(&[directory, &b"/"[..], stage::IMAGE_FILE.as_bytes()].concat());
        let _ = fd::remove_directory(directory);
    }
    enter::enter(orders);
}

/// Serves as an agent; the process ends with it. Without a source it starts no others of its kind;
/// a stock agent, without user code, does nothing for the sake of that.
pub(crate) fn serve(
    registry: Arc<Registry>,
    nonce: u64,
    source: Option<Box<dyn Source>>,
    users: Option<ForUsers>,
) -> ! {
    let link = or_end(take_over_stdio());
    settle();
    attend(registry, link, nonce, source, users, |_| ())
}

/// What agents of all kinds do: one that is its own image, and one that is a copy of its parent.
/// `start` comes before the first call.
#[inline(always)] // as below
fn attend(
    registry: Arc<Registry>,
    (receive, transmit): (OwnedFd, OwnedFd),
    nonce: u64,
    source: Option<Box<dyn Source>>,
    users: Option<ForUsers>,
    start: impl FnOnce(&Router),
) -> ! {
    stock::guard_processes();
    let broker = Broker::of_process().unwrap_or_else(|_| no_room());
    or_end(fd::write_all(transmit.as_fd(), &stage::answer_line(nonce, PROTOCOL)));
    let (identity, lease) = or_end(read_identity(receive.as_fd()));
    let mut pool = Pool::default();
    pool.add(lease);
    let images = Arc::new(Images::new(source));
    let node = Node::new(identity, pool, broker);
    let forward = Forward::new(&node, or_end(stdio::take_over()), users.map(|users| users.wait));
    let flush = users.map(|users| users.flush);
    let (router, calls) = or_end(begin(&node, registry, images, flush));
    or_end(logs::listen(&node, &forward));
    if let Some(users) = users {
        (users.guard)(&router, &forward);
    }
    debug::begin(&node.identity().files);
    let shutdown = Shutdown { node: node.clone(), calls: calls.clone(), forward: forward.clone() };
    let shutdown = Arc::new(shutdown);
    or_end(node.listen(Handle::SHUTDOWN, Kind::Control, policy::has_parent_authority, shutdown));
    let link = node.clone();
    or_end(node.broker().defer(move |turn| {
        let (receive, transmit) = (Side::new(receive), Side::new(transmit));
        profile::begin(turn, &link);
        let parent = Box::new(Parent(forward.clone()));
        or_end(Peer::attach(&link, turn, End::Parent, receive, transmit, parent));
        or_end(forward.watch(turn));
    }));
    start(&router);
    for _ in 1..calls.threads() {
        or_end(thread::spawn(c"mitogen-call", COPY_STACK_BYTES, serving(&calls, &router)));
    }
    serving(&calls, &router)();
    end_process(0)
}

/// What each thread of a context does that runs functions.
fn serving(calls: &Arc<Calls>, router: &Router) -> Body {
    let (calls, router) = (calls.clone(), router.clone());
    Box::new(move || calls.serve(&router))
}

/// What an agent cannot be without. The parent learns of its end, and no more.
fn or_end<T, E>(needed: Result<T, E>) -> T {
    needed.unwrap_or_else(|_| end_process(1))
}

/// The handles that every context serves, but for its end.
fn begin(
    node: &Arc<Node>,
    registry: Arc<Registry>,
    images: Arc<Images>,
    flush: Option<fn()>,
) -> Result<(Router, Arc<Calls>)> {
    let router = Router::of(node.clone(), registry, images.clone())?;
    service::listen(node, images)?;
    inspect::listen(node)?;
    logs::listen_below(node)?;
    Ok((router, Calls::listen(node, flush)?))
}

/// Moves the connection away from descriptors 0 and 1 and leaves harmless ones there for user code.
#[inline(always)] // into the one that calls it in a stock agent: smaller code
fn take_over_stdio() -> Result<(OwnedFd, OwnedFd), Errno> {
    fd::fill_missing_stdio()?;
    let receive = fd::dup_above(fd::stdin(), FIRST_FD)?;
    let transmit = fd::dup_above(fd::stdout(), FIRST_FD)?;
    fd::dup_onto(fd::open_null()?.as_fd(), 0)?;
    // Programs break on standard descriptors that do not block. Whoever left it so is not us.
    fd::set_nonblocking(fd::stderr(), false)?;
    fd::dup_onto(fd::stderr(), 1)?;
    use std::os::fd::AsRawFd;
    let kept = [receive.as_raw_fd(), transmit.as_raw_fd(), fd::kept_self_exe()];
    fd::close_from(FIRST_FD, &kept);
    Ok((receive, transmit))
}

/// Makes this process a good guest, independent of what it was started by.
#[inline(always)] // as above
fn settle() {
    signal::default_mask();
    signal::restore_ignored();
    for signal in &[signal::PIPE, signal::TERM, signal::HUP] {
        signal::absorb(*signal);
    }
    // Who leads a group already, as a login's shell does, needs no other.
    let _ = signal::start_session();
    signal::die_with_group();
    if !host::cwd_is_readable() {
        // Then it stays unreadable.
        let _ = host::chdir(c"/");
    }
}

/// Reads the one frame that comes before all others, and not a byte more.
fn read_identity(fd: BorrowedFd<'_>) -> Result<(Identity, Lease), Malformed> {
    let mut framer = Framer::new();
    loop {
        let mut byte = [0];
        let Ok(1) = fd::read_blocking(fd, &mut byte) else { return Err(Malformed("no identity")) };
        let mut frames = framer.feed(&byte);
        if let Some(frame) = frames.next() {
            let frame = frame?;
            if (frame.header.kind, frame.header.handle) != (Kind::Control, Handle::CONFIGURE) {
                return Err(Malformed("no identity"));
            }
            return control::take_identity(&mut Reader::new(frame.payload, None));
        }
    }
}

/// Watches the link to the parent: its end is this process's end.
struct Parent(Arc<Forward>);

impl Guardian for Parent {
    fn takes_logs(&mut self, turn: &mut Turn) {
        self.0.pump(turn);
    }

    fn ended(&mut self, turn: &mut Turn, _: Key) {
        profile::end(turn, self.0.node());
        signal::die();
    }

    fn closed(&mut self, turn: &mut Turn, _: &Death) {
        profile::end(turn, self.0.node());
        signal::die();
    }
}

/// Ends this process, which may have too few of what it needs; says so to whoever started it.
fn no_room() -> ! {
    // Without a standard error there is nobody to tell.
    let _ = fd::write_all(fd::stderr(), b"mitogen: no room for a thread\n");
    signal::die()
}

/// Ends this process; what it started ends with it.
fn end_process(status: i32) -> ! {
    if signal::leads_group() && signal::had_children() {
        match Guard::start() {
            // Our end sets it off.
            Ok(guard) => std::mem::forget(guard),
            Err(_) => signal::die(),
        }
    }
    signal::exit_now(status)
}

/// Serves [`Handle::SHUTDOWN`]: children and user code have some time, then all ends.
struct Shutdown {
    node: Arc<Node>,
    calls: Arc<Calls>,
    forward: Arc<Forward>,
}

impl Deliver for Shutdown {
    fn message(&self, turn: &mut Turn, _: Message) {
        self.node.begins_to_end();
        for id in self.node.children() {
            request::ask_to_end(&self.node, id);
        }
        self.calls.end();
        if signal::leads_group() {
            signal::kill_own_group(signal::TERM);
        }
        let deadline = Instant::now() + SHUTDOWN_GRACE;
        let (node, calls, forward) = (&self.node, &self.calls, &self.forward);
        look(node.clone(), calls.clone(), forward.clone(), turn, deadline);
    }

    fn dead(&self, _: &mut Turn, _: ContextId, _: &Death) {}
}

/// Ends the process when nothing is left to wait for, or in time.
fn look(
    node: Arc<Node>,
    calls: Arc<Calls>,
    forward: Arc<Forward>,
    turn: &mut Turn,
    deadline: Instant,
) {
    let busy = calls.is_busy()
        || node.broker().is_calling()
        || !node.children().is_empty()
        || signal::reap_children()
        || !forward.finish(turn);
    if !busy || deadline <= Instant::now() {
        profile::end(turn, &node);
        // What that has logged.
        forward.pump(turn);
        end_process(0);
    }
    let again = Instant::now() + LOOK_AGAIN;
    turn.timer(again, Box::new(move |turn| look(node, calls, forward, turn, deadline)));
}

impl Router {
    /// A context in this very process: its functions run on a thread of their own. For tests of
    /// functions without a process; debuggers and coverage see through it.
    ///
    /// # Errors
    /// What keeps it from being made: [`ErrorKind::System`](crate::error::ErrorKind) or `Closed`.
    pub fn in_process(&self) -> Result<Context> {
        self.broker().forbid_own_thread()?;
        panics::note_places();
        let (ours, theirs) =
            pipe::socketpair().map_err(|Errno(e)| Error::system("socketpair", e))?;
        let (ours, theirs) = (Side::new(ours), Side::new(theirs));
        let node = self.node().clone();
        let (promise, answer) = promise();
        self.broker().defer(move |turn| {
            let attach = node.clone();
            node.take_id(
                turn,
                Box::new(move |turn, id| {
                    let attached = id.map_err(Error::from).and_then(|id| {
                        let lease = attach.lease_for_child();
                        let end = End::Child(id, lease);
                        Peer::attach(&attach, turn, end, ours.clone(), ours, Box::new(InProcess))?;
                        attach.announce(id);
                        Ok((id, lease))
                    });
                    promise.keep(attached);
                }),
            );
        })?;
        let (id, lease) = self.broker().wait_for(&answer)??;
        let name = [self.name(), "/in_process"].concat();
        serve_in_process(self, id, lease, &name, theirs)?;
        Ok(self.started(id, &name))
    }
}

fn serve_in_process(
    router: &Router,
    id: ContextId,
    lease: Lease,
    name: &str,
    side: Side,
) -> Result<()> {
    let identity = router.node().identity_of_child(id, name.to_owned(), &Terms::default());
    let mut pool = Pool::default();
    pool.add(lease);
    let node = Node::new(identity, pool, Broker::start()?);
    let started = start_in_process(router, &node, side);
    if started.is_err() {
        node.broker().shutdown();
    }
    started
}

/// Serves the calls of a context in this process, once its link is there.
fn start_in_process(router: &Router, node: &Arc<Node>, side: Side) -> Result<()> {
    let (registry, images) = (router.registry().clone(), router.images().clone());
    let (inner, calls) = begin(node, registry, images, None)?;
    let asked = Arc::new(InProcessShutdown(Arc::downgrade(node)));
    node.listen(Handle::SHUTDOWN, Kind::Control, policy::has_parent_authority, asked)?;
    level::serve_in_process(node)?;
    let link = node.clone();
    let guardian = Box::new(InProcessEnd(node.clone()));
    let attached = node.broker().defer_sync(move |turn| {
        Peer::attach(&link, turn, End::Parent, side.clone(), side, guardian).map(drop)
    })?;
    attached?;
    let started = thread::spawn(c"mitogen-context", 0, serving(&calls, &inner));
    started.map_err(|Errno(e)| Error::system("starting a thread", e))
}

/// The parent's side of a context in its own process.
struct InProcess;

impl Guardian for InProcess {
    fn ended(&mut self, turn: &mut Turn, key: Key) {
        turn.close(key, &Death::of(Cause::Disconnected));
    }

    fn closed(&mut self, _: &mut Turn, _: &Death) {}
}

/// The other side: the end of the link ends the context.
struct InProcessEnd(Arc<Node>);

impl Guardian for InProcessEnd {
    fn ended(&mut self, turn: &mut Turn, key: Key) {
        turn.close(key, &Death::of(Cause::Disconnected));
    }

    fn closed(&mut self, turn: &mut Turn, why: &Death) {
        let Identity { id, parents, .. } = self.0.identity();
        let context = why.context.or(parents.first().copied());
        self.0.close(turn, &Death { context, ..why.clone() }.seen_by(*id));
        turn.stop();
    }
}

/// Serves [`Handle::SHUTDOWN`] in a context that has no process to end.
struct InProcessShutdown(Weak<Node>);

impl Deliver for InProcessShutdown {
    fn message(&self, turn: &mut Turn, _: Message) {
        if let Some(node) = self.0.upgrade() {
            node.close(turn, &Death::of(Cause::Shutdown));
        }
        turn.stop();
    }

    fn dead(&self, _: &mut Turn, _: ContextId, _: &Death) {}
}
