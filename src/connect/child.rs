//! A child and its process: started by a recipe, brought up by the handshake, watched until it is
//! reaped. All of it runs on the broker's thread.

mod census;
mod end;
mod speech;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::connect::child::speech::{LinkGuard, Speech};
use crate::connect::handshake::{Action, Handshake, Origin};
use crate::connect::launch::{self, Started};
use crate::connect::recipe::Recipe;
use crate::connect::stage::Target;
use crate::connect::tail::Tail;
use crate::error::{Cause, ConnectError, ConnectFailure, Death, Exit};
use crate::ids::ContextId;
use crate::io::outbox::{Outbox, Pushed};
use crate::io::side::Side;
use crate::io::timers::TimerId;
use crate::io::turn::{Key, Protocol, Turn, broken};
use crate::io::watch::Pause;
use crate::limits::{NUDGE_AFTER, REAP_GRACE, SETTLE_AFTER};
use crate::lock::{Held, Lock, rank};
use crate::module::content::Parcel;
use crate::module::images::{Images, Outcome, Want};
use crate::route::control::configure;
use crate::route::node::Node;
use crate::route::peer::{End, Peer};
use crate::sys::clock::Moment;
use crate::sys::wait::Process;
use crate::trace::Level;
use crate::wire::header::Lane;
use crate::wire::secret::Secret;

/// A context that was started, as its starter tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Its id.
    pub id: ContextId,
    /// Bytes that were written to bring it up.
    pub pushed_bytes: u64,
    /// Microseconds that it took.
    pub elapsed_us: u64,
}

/// Who hears of an attempt.
pub trait Listener: Send + Sync {
    /// Its process was started.
    fn begun(&self, turn: &mut Turn, child: &Child);

    /// The tool asks what nothing foresees; [`Child::answer`] is to be called.
    fn asks(&self, question: &str);

    /// The outcome; this is the last call.
    fn done(&self, turn: &mut Turn, outcome: Result<Connected, Box<ConnectError>>);
}

/// Starts a child. `listener` gets the outcome, within the recipe's time.
pub fn connect(
    node: &Arc<Node>,
    images: &Arc<Images>,
    turn: &mut Turn,
    recipe: Arc<Recipe>,
    listener: Arc<dyn Listener>,
) {
    let (parent, images) = (node.clone(), images.clone());
    let mut handshake = Handshake::new(recipe);
    let begin = move |turn: &mut Turn, id: Result<ContextId, Death>| {
        let started = id.map_err(ConnectFailure::ViaGone).and_then(|id| {
            if parent.is_closed() {
                return Err(ConnectFailure::Cancelled);
            }
            let started = launch::start(handshake.recipe(), &images)?;
            Ok((id, started))
        });
        match started {
            Ok((id, started)) => {
                Attempt::begin(parent, images, turn, id, started, handshake, listener);
            }
            Err(failure) => listener.done(turn, Err(handshake.failed(failure, None))),
        }
    };
    node.take_id(turn, Box::new(begin));
}

/// What is done when a timer fires.
type Then = fn(&Child, &mut Turn);

/// One child, from its start to the end of its process. Every protocol of its streams shares it.
#[derive(Clone)]
pub struct Child(Arc<Lock<State, { rank::CHILD }>>);

struct State {
    process: Process,
    /// The context that has started it.
    node: Arc<Node>,
    exit: Option<Exit>,
    attempt: Option<Box<Attempt>>,
    /// The last that it said on its standard error; while it is brought up the handshake has that,
    /// which knows what must not be shown.
    said: Tail,
    /// The stream of its standard input and output: first the handshake's, then the link.
    main: Option<Key>,
    terminal: Option<Key>,
    watch: Option<Key>,
    /// Kills the process, which was asked to end.
    ending: Option<TimerId>,
    /// How long to wait for the next look at the process, where it is looked at.
    look_pause: Pause,
    id: ContextId,
    /// Its name, as its recipe gives it.
    name: Arc<str>,
    /// When its process was started.
    since: Moment,
    /// Whether it has left the tree: it lives on by itself.
    detached: bool,
}

/// What there is only while it is being brought up.
struct Attempt {
    node: Arc<Node>,
    images: Arc<Images>,
    handshake: Box<Handshake>,
    outbox: Arc<Outbox>,
    typewriter: Option<Arc<Outbox>>,
    listener: Arc<dyn Listener>,
    begun: Instant,
    pushed_bytes: u64,
    timers: Vec<TimerId>,
}

impl Attempt {
    #[inline(never)] // a frame of its own: smaller code
    fn begin(
        node: Arc<Node>,
        images: Arc<Images>,
        turn: &mut Turn,
        id: ContextId,
        started: Started,
        mut handshake: Box<Handshake>,
        listener: Arc<dyn Listener>,
    ) {
        handshake.started();
        let timeout = Duration::from_millis(handshake.recipe().timeout_ms);
        let Started { begun, process, main: [main, transmit], terminal } = started;
        let outbox = Arc::new(Outbox::new(transmit));
        let types = handshake.recipe().wants_pty();
        let typewriter = types.then(|| Arc::new(Outbox::new(terminal.clone())));
        let name = handshake.recipe().name.as_str().into();
        let attempt = Box::new(Attempt {
            node: node.clone(),
            images,
            handshake,
            outbox: outbox.clone(),
            typewriter: typewriter.clone(),
            listener: listener.clone(),
            begun,
            pushed_bytes: 0,
            timers: Vec::new(),
        });
        let child = Child(Arc::new(Lock::new(State {
            process,
            node,
            exit: None,
            attempt: Some(attempt),
            said: Tail::default(),
            main: None,
            terminal: None,
            watch: None,
            ending: None,
            look_pause: Pause::FIRST,
            id,
            name,
            since: Moment::now(),
            detached: false,
        })));
        child.attach(turn, main, outbox, terminal, typewriter);
        child.set_timer(turn, timeout, |child, turn| child.fail(turn, ConnectFailure::Timeout));
        child.set_nudge(turn);
        listener.begun(turn, &child);
    }
}

impl Child {
    /// Gives the attempt up, unless it is over.
    pub fn cancel(&self, turn: &mut Turn) {
        self.fail(turn, ConnectFailure::Cancelled);
    }

    /// Types the answer to the question that was asked; without one the attempt fails.
    pub fn answer(&self, turn: &mut Turn, answer: Option<Secret>) {
        self.tell(turn, &mut |handshake| handshake.answer(answer.clone()));
    }

    fn lock(&self) -> Held<'_, State> {
        self.0.lock()
    }

    #[inline(never)] // a frame of its own: smaller code
    fn attach(
        &self,
        turn: &mut Turn,
        main: Side,
        outbox: Arc<Outbox>,
        terminal: Side,
        typewriter: Option<Arc<Outbox>>,
    ) {
        let tenant = self.lock().node.tenant();
        let watch = self.watch(turn, tenant);
        let speech = |origin| Box::new(Speech { child: self.clone(), origin });
        let terminal = turn.attach(tenant, terminal, typewriter, speech(Origin::Terminal));
        let main = turn.attach(tenant, main, Some(outbox), speech(Origin::Stdout));
        let failed = main.is_err() || terminal.is_err() || watch.is_err();
        {
            let mut state = self.lock();
            state.main = main.ok();
            state.terminal = terminal.ok();
            state.watch = watch.ok();
        }
        if failed {
            self.fail(turn, ConnectFailure::Protocol("no room to watch the child".into()));
            self.lock().kill_and_reap();
        }
    }

    /// Calls `then` after a while.
    fn after(&self, turn: &mut Turn, pause: Duration, then: Then) -> TimerId {
        let (child, now) = (self.clone(), Instant::now());
        let at = now.checked_add(pause).unwrap_or(now);
        turn.timer(at, Box::new(move |turn| then(&child, turn)))
    }

    /// As [`Child::after`], unless the attempt is over by then.
    fn set_timer(&self, turn: &mut Turn, pause: Duration, then: Then) {
        let timer = self.after(turn, pause, then);
        match &mut self.lock().attempt {
            Some(attempt) => attempt.timers.push(timer),
            None => turn.cancel(timer),
        }
    }

    fn set_nudge(&self, turn: &mut Turn) {
        self.set_timer(turn, NUDGE_AFTER, |child, turn| {
            child.tell(turn, &mut Handshake::quiet);
            child.set_nudge(turn);
        });
    }

    /// Feeds the handshake, and does what it says.
    fn tell(&self, turn: &mut Turn, what: &mut dyn FnMut(&mut Handshake) -> Vec<Action>) {
        let actions = match &mut self.lock().attempt {
            Some(attempt) => what(&mut attempt.handshake),
            None => return,
        };
        self.act(turn, actions);
    }

    fn act(&self, turn: &mut Turn, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(bytes) => self.write(turn, bytes),
                Action::Type(secret) => self.type_secret(turn, secret.expose()),
                Action::Settle => self.set_timer(turn, SETTLE_AFTER, |child, turn| {
                    child.tell(turn, &mut Handshake::settled);
                }),
                Action::Ask(question) => {
                    let listener = self.lock().attempt.as_ref().map(|it| it.listener.clone());
                    if let Some(listener) = listener {
                        listener.asks(&question);
                    }
                }
                Action::WantImage(target) => self.push_image(turn, &target),
                Action::Up => self.up(turn),
                Action::Failed(failure) => self.fail(turn, failure),
            }
        }
    }

    fn write(&self, turn: &mut Turn, bytes: Vec<u8>) {
        let mut state = self.lock();
        let (Some(key), Some(attempt)) = (state.main, &mut state.attempt) else { return };
        attempt.pushed_bytes += bytes.len() as u64;
        let pushed = attempt.outbox.push_image(bytes);
        drop(state);
        if pushed == Pushed::Arm {
            turn.arm(key);
        }
    }

    #[inline(never)] // a frame of its own: smaller code
    fn type_secret(&self, turn: &mut Turn, secret: &str) {
        let state = self.lock();
        let Some(attempt) = &state.attempt else { return };
        let (key, outbox) = match &attempt.typewriter {
            Some(typewriter) => (state.terminal, typewriter.clone()),
            None => (state.main, attempt.outbox.clone()),
        };
        let Some(key) = key else { return };
        drop(state);
        let line = [secret.as_bytes(), b"\n"].concat();
        // It may be logged, without what it is.
        let pushed = outbox.push(&line, Lane::Quick);
        if pushed == Pushed::Arm {
            turn.arm(key);
        }
    }

    #[inline(never)] // a frame of its own: smaller code
    fn push_image(&self, turn: &mut Turn, target: &Target) {
        let (images, node, same_root) = {
            let state = self.lock();
            let Some(attempt) = &state.attempt else { return };
            (attempt.images.clone(), attempt.node.clone(), attempt.handshake.recipe().same_root)
        };
        let want = Want { target: target.name(), gzip: target.gzip };
        let child = self.clone();
        let taker = Box::new(move |turn: &mut Turn, parcel: &Outcome| {
            let pushed = match parcel {
                Ok(parcel) => child.push_parcel(turn, parcel),
                Err(failure) => Err(failure.clone()),
            };
            if let Err(failure) = pushed {
                child.fail(turn, failure);
            }
        });
        images.want(&node, turn, want, same_root, taker);
    }

    /// Writes the second line and the image, unless the attempt is over.
    #[inline(never)] // a frame of its own: smaller code
    fn push_parcel(&self, turn: &mut Turn, parcel: &Parcel) -> Result<(), ConnectFailure> {
        let bytes = match &mut self.lock().attempt {
            Some(attempt) => attempt.handshake.image(parcel.content.len(), parcel.gzipped),
            None => return Ok(()),
        };
        self.write(turn, parcel.behind(bytes)?);
        Ok(())
    }

    /// The agent has spoken: tells it who it is, and makes its stream a link.
    #[inline(never)] // a frame of its own: smaller code
    fn up(&self, turn: &mut Turn) {
        let mut state = self.lock();
        let (Some(key), Some(mut attempt)) = (state.main, state.attempt.take()) else { return };
        let id = state.id;
        state.said = attempt.handshake.said();
        drop(state);
        for timer in attempt.timers {
            turn.cancel(timer);
        }
        let lease = attempt.node.lease_for_child();
        let name = attempt.handshake.recipe().name.clone();
        let terms = &attempt.handshake.recipe().terms;
        let heartbeat = terms.heartbeat;
        let configure = configure(&attempt.node.identity_of_child(id, name, terms), lease);
        let bytes = configure.as_bytes();
        attempt.pushed_bytes += bytes.len() as u64;
        if attempt.outbox.push(bytes, Lane::Quick) == Pushed::Arm {
            turn.arm(key);
        }
        let guardian = Box::new(LinkGuard(self.clone()));
        let end = End::Child(id, lease);
        let mut peer = Peer::adopt(&attempt.node, key, end, attempt.outbox, guardian);
        peer.keep_alive(turn, key, heartbeat);
        attempt.node.announce(id);
        let fed = peer.input(turn, key, &attempt.handshake.rest());
        turn.replace(key, Box::new(peer));
        // What was pushed before the link knew its stream found none to arm.
        turn.arm(key);
        let elapsed_us = attempt.begun.elapsed().as_micros() as u64;
        let pushed_bytes = attempt.pushed_bytes;
        let about = [id.0.into(), pushed_bytes, elapsed_us];
        attempt.node.event(Level::Info, "a context is up:", &about);
        attempt.listener.done(turn, Ok(Connected { id, pushed_bytes, elapsed_us }));
        if let Err(why) = fed {
            turn.close(key, &broken(why));
        }
    }

    /// The attempt is over: tells why, and ends the process.
    fn fail(&self, turn: &mut Turn, failure: ConnectFailure) {
        if let Some(mut attempt) = self.give_up(turn) {
            let error = attempt.handshake.failed(failure, None);
            attempt.listener.done(turn, Err(error));
        }
    }

    /// As [`Child::fail`], where the child's output or process has ended.
    fn fail_closed(&self, turn: &mut Turn, exit: Option<Exit>) {
        if let Some(mut attempt) = self.give_up(turn) {
            let error = attempt.handshake.closed(exit);
            attempt.listener.done(turn, Err(error));
        }
    }

    fn give_up(&self, turn: &mut Turn) -> Option<Box<Attempt>> {
        let mut state = self.lock();
        let mut attempt = state.attempt.take()?;
        if attempt.outbox.queued() == 0 {
            attempt.handshake.pushed();
        }
        let keys = [state.main.take(), state.terminal.take()];
        drop(state);
        for timer in attempt.timers.drain(..) {
            turn.cancel(timer);
        }
        for key in keys.into_iter().flatten() {
            turn.close(key, &Death::of(Cause::Cancelled));
        }
        self.end_process(turn);
        Some(attempt)
    }

    /// The process has ended: what it said last is read, then its streams are closed.
    fn exited(&self, turn: &mut Turn, exit: Option<Exit>) {
        let (terminal, main) = {
            let mut state = self.lock();
            state.exit = exit;
            (state.terminal, state.main)
        };
        self.process_ended(turn);
        for key in [terminal, main].into_iter().flatten() {
            turn.drain(key);
        }
        self.fail_closed(turn, exit);
        let cause = if exit.is_some() { Cause::Exited } else { Cause::Disconnected };
        self.close_streams(turn, cause);
    }

    /// Its output has ended. Its process should end at once, and tell why; unless it has left, and
    /// could not say so.
    fn output_ended(&self, turn: &mut Turn) {
        if let Some(attempt) = &mut self.lock().attempt {
            if attempt.outbox.queued() == 0 {
                attempt.handshake.pushed();
            }
        }
        self.after(turn, REAP_GRACE, |child, turn| {
            let (lives, left) = {
                let state = child.lock();
                (state.exit.is_none(), state.detached)
            };
            if lives {
                child.fail_closed(turn, None);
                let cause = if left { Cause::Detached } else { Cause::Disconnected };
                child.close_streams(turn, cause);
            }
        });
    }

    fn close_streams(&self, turn: &mut Turn, cause: Cause) {
        let (node, main, terminal, death) = {
            let mut state = self.lock();
            let tail = state.said.text(true, &[]);
            let (context, seen_by) = (Some(state.id), Some(state.node.id()));
            let death = Death { cause, context, seen_by, exit: state.exit, tail };
            (state.node.clone(), state.main.take(), state.terminal.take(), death)
        };
        let about = death.context.map_or(0, |id| id.0.into());
        node.event(Level::Info, "a context is gone:", &[about]);
        for key in [main, terminal].into_iter().flatten() {
            turn.close(key, &death);
        }
        self.end_process(turn);
    }
}
