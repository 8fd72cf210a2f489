//! What a call that runs and those who wait inside of it have in common: whether it is cancelled.

use std::sync::atomic::{AtomicU8, Ordering, fence};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use crate::io::broker::Broker;
use crate::io::latch::Latch;
use crate::io::timers::{Action, TimerId};
use crate::io::turn::Turn;
use crate::lock::Lock;

/// Is told that a call is cancelled. Called on any thread, with no lock held.
pub(crate) trait Cancels: Send + Sync {
    /// It was cancelled.
    fn cancelled(&self);
}

/// The context was asked to end; an answer is welcome still.
const ENDS: u8 = 1;
/// Nobody waits for the answer.
const GIVEN_UP: u8 = 2;

/// Of one call.
#[derive(Default)]
pub(crate) struct Token {
    state: AtomicU8,
    /// From the first who asks on: a stock agent, in which nobody does, does not link them.
    listeners: OnceLock<Box<dyn Listen>>,
}

impl Token {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.state.load(Ordering::Acquire) != 0
    }

    /// Whether nobody waits for the answer.
    pub(crate) fn is_given_up(&self) -> bool {
        self.state.load(Ordering::Acquire) & GIVEN_UP != 0
    }

    /// Cancels the call, for which nobody waits, and tells those who listen for that.
    pub(crate) fn cancel(&self) {
        self.set(GIVEN_UP);
    }

    /// As [`Token::cancel`], of a call that is to end soon; its answer is waited for.
    pub(crate) fn end(&self) {
        self.set(ENDS);
    }

    fn set(&self, state: u8) {
        self.state.fetch_or(state, Ordering::Release);
        // Either this sees the listeners, or they see that.
        fence(Ordering::SeqCst);
        if let Some(listeners) = self.listeners.get() {
            listeners.tell();
        }
    }

    /// Has it told, as long as it lives; at once if the call is cancelled already.
    pub(crate) fn listen(&self, listener: Weak<dyn Cancels>) {
        let listeners = self.listeners();
        listeners.add(listener);
        fence(Ordering::SeqCst);
        if self.is_cancelled() {
            listeners.tell();
        }
    }

    fn listeners(&self) -> &dyn Listen {
        &**self.listeners.get_or_init(|| Box::new(Listeners::default()))
    }

    /// Has it cancelled at this time, unless it is gone before; once is enough.
    pub(crate) fn cancel_at(self: &Arc<Self>, until: Instant, broker: &Broker) {
        let alarm = Arc::new(Alarm::new(broker));
        if !self.listeners().keep(alarm.clone()) {
            return;
        }
        let token = Arc::downgrade(self);
        let ring = move |_: &mut Turn| {
            if let Some(token) = token.upgrade() {
                token.cancel();
            }
        };
        alarm.set(until, Box::new(ring));
    }

    /// Whether nothing has happened to it, so that another call may use it.
    pub(crate) fn is_new(&mut self) -> bool {
        *self.state.get_mut() == 0 && self.listeners.get().is_none()
    }
}

/// Those who listen.
trait Listen: Send + Sync {
    fn add(&self, listener: Weak<dyn Cancels>);

    /// Tells all of them, once.
    fn tell(&self);

    /// Keeps the call's alarm. Returns whether it is the first.
    fn keep(&self, alarm: Arc<Alarm>) -> bool;
}

#[derive(Default)]
struct Listeners(Lock<Listening>);

#[derive(Default)]
struct Listening {
    list: Vec<Weak<dyn Cancels>>,
    /// How many make it worth looking for some that are gone.
    high: usize,
    alarm: Option<Arc<Alarm>>,
}

impl Listen for Listeners {
    fn add(&self, listener: Weak<dyn Cancels>) {
        let Listening { list, high, .. } = &mut *self.0.lock();
        if *high <= list.len() {
            list.retain(|listener| 0 < listener.strong_count());
            *high = 2 * list.len() + 16;
        }
        list.push(listener);
    }

    fn tell(&self) {
        let told = std::mem::take(&mut self.0.lock().list);
        told.iter().filter_map(Weak::upgrade).for_each(|listener| listener.cancelled());
    }

    fn keep(&self, alarm: Arc<Alarm>) -> bool {
        let kept = &mut self.0.lock().alarm;
        let is_first = kept.is_none();
        if is_first {
            *kept = Some(alarm);
        }
        is_first
    }
}

/// A timer that is of no use once the call has ended.
pub(crate) struct Alarm {
    broker: Broker,
    timer: Arc<Lock<Option<TimerId>>>,
}

impl Alarm {
    /// One that is not set.
    pub(crate) fn new(broker: &Broker) -> Alarm {
        Alarm { broker: broker.clone(), timer: Arc::default() }
    }

    /// Has this done at that time, unless it is dropped before.
    pub(crate) fn set(&self, until: Instant, ring: Action) {
        let timer = self.timer.clone();
        // An ended broker has ended every wait.
        let _ = self.broker.defer(move |turn| {
            let set = turn.timer(until, ring);
            *timer.lock() = Some(set);
        });
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let timer = self.timer.clone();
        // An ended broker has no timers.
        let _ = self.broker.defer(move |turn| {
            let set = timer.lock().take();
            if let Some(set) = set {
                turn.cancel(set);
            }
        });
    }
}

/// Gets an item.
impl Cancels for Latch<()> {
    fn cancelled(&self) {
        // Nobody waits at a closed one.
        let _ = self.put(());
    }
}
