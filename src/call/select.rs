//! Many sources, of any kinds, as one stream of events.

mod hub;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::call::select::hub::Hub;
use crate::call::source::{Refused, Source, Stream, Taken, Watchable, Watched};
use crate::error::{Cause, Error, ErrorKind, Result};
use crate::io::broker::Broker;
use crate::io::latch::Watcher;
use crate::lock::{self, Lock};

/// Waits for many [`Source`]s at once: what any of them yields becomes an event `E`, by a function
/// that was given with the source. It is the merge of its sources' iterators, in the order in which
/// items arrive, and fair: a source that always has one lets the others have their turn.
///
/// A source leaves when it has ended: a [`Call`](crate::Call) or
/// [`Connecting`](crate::Connecting) with its outcome, a [`Receiver`](crate::Receiver) silently
/// with its last Sender, or with one error that says why it broke; a [`Latch`](crate::Latch) when
/// it is closed. Iteration ends when no source is left. Sources come and go meanwhile, also from
/// other threads, any number of which may wait. Dropping it cancels the calls and connects in it.
///
/// ```
/// # use mitogen::{Latch, Program, Receiver, Result, Select, Sender};
/// # use std::{thread::sleep, time::Duration};
/// # fn measure(times: u32, out: Sender<u32>) -> Result<()> {
/// #     (0..times).try_for_each(|n| out.send(n)) }
/// enum Event {
///     Number(Result<u32>),
///     Tired,
/// }
///
/// # fn main() -> Result<()> {
/// # Program::new().function(measure).run(|router| {
/// # let child = router.local().connect()?;
/// let (numbers, tired) = (router.receiver(), Latch::<()>::new());
/// child.call_no_reply(measure, (3, numbers.to_sender()))?;
/// let select = Select::new();
/// select.add(&numbers, Event::Number)?;
/// let stop = select.add(&tired, |_| Event::Tired)?;
/// let mut sum = 0;
/// for event in &select {
///     match event {
///         Event::Number(number) => sum += number?,
///         Event::Tired => break,
///     }
///     if sum == 3 {
///         select.remove(stop);
///     }
/// }
/// assert_eq!(sum, 3);
/// # Ok(()) }) }
/// ```
///
/// # Resources
/// Memory only: no thread, and no descriptor but one for each thread that waits.
pub struct Select<'a, E> {
    hub: Arc<Hub>,
    /// Sorted by key. Invariant: those of `hub`, but for those that come or go in this moment.
    entries: Lock<Entries<'a, E>>,
    /// The loop of the first source that has one.
    broker: OnceLock<Broker>,
    oneshot: bool,
}

type Entries<'a, E> = VecDeque<(u64, Arc<dyn Entry<E> + 'a>)>;

/// A source in a [`Select`]; no other source ever has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u64);

/// A source, and what becomes of its items.
trait Entry<E>: Send + Sync {
    /// Takes what the source has; tells `settle` what becomes of it, then makes an event of that.
    fn take(&self, settle: &mut dyn FnMut(Fate)) -> Option<E>;

    /// The event of an error that is not the source's own.
    fn tell(&self, error: Error) -> E;

    fn source(&self) -> &dyn Watched;

    /// What rings for it.
    fn watcher(&self) -> &Watcher;
}

/// What becomes of a source that was looked at.
enum Fate {
    HadNothing,
    HasYielded,
    Ends,
}

struct Added<S, F> {
    source: S,
    event: F,
    watcher: Watcher,
}

impl<E, S: Source, F: Fn(Result<S::Item>) -> E + Send + Sync> Entry<E> for Added<S, F> {
    fn take(&self, settle: &mut dyn FnMut(Fate)) -> Option<E> {
        let (fate, item) = match self.source.take() {
            Taken::Nothing => (Fate::HadNothing, None),
            Taken::One(item) => (Fate::HasYielded, Some(item)),
            Taken::Last(item) => (Fate::Ends, Some(item)),
            Taken::End => (Fate::Ends, None),
        };
        settle(fate);
        item.map(&self.event)
    }

    fn tell(&self, error: Error) -> E {
        (self.event)(Err(error))
    }

    fn source(&self) -> &dyn Watched {
        &self.source
    }

    fn watcher(&self) -> &Watcher {
        &self.watcher
    }
}

impl<E> Default for Select<'_, E> {
    fn default() -> Self {
        Select::new()
    }
}

impl<'a, E> Select<'a, E> {
    /// One whose sources stay until they end.
    pub fn new() -> Self {
        Select::of(false)
    }

    /// One whose sources stay until they have yielded an item, or end.
    pub fn oneshot() -> Self {
        Select::of(true)
    }

    fn of(oneshot: bool) -> Self {
        let (entries, broker) = (Lock::default(), OnceLock::new());
        Select { hub: Hub::new(), entries, broker, oneshot }
    }

    /// Adds a source; `event` makes events of what it yields, on the thread that takes them. What
    /// is queued in it already counts.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if the source is in a `Select` already, or is one that waits for this;
    /// [`ErrorKind::Closed`] if this is closed. The source is dropped.
    pub fn add<S: Source + 'a>(
        &self,
        source: S,
        event: impl Fn(Result<S::Item>) -> E + Send + Sync + 'a,
    ) -> Result<Key> {
        self.forbid_copy()?;
        if let Some(broker) = source.broker() {
            broker.forbid_copy()?;
            self.broker.get_or_init(|| broker);
        }
        let key = self.hub.enter().ok_or_else(|| Error::closed(Cause::ReceiverClosed))?;
        let watcher = self.hub.watcher(key);
        let entry = Arc::new(Added { source, event, watcher });
        let mut entries = self.entries.lock();
        let at = entries.partition_point(|(other, _)| *other < key);
        entries.insert(at, (key, entry.clone()));
        drop(entries);
        self.begin(key, &*entry).inspect_err(|_| {
            self.remove(Key(key));
        })?;
        Ok(Key(key))
    }

    fn begin(&self, key: u64, entry: &dyn Entry<E>) -> Result<()> {
        if entry.source().latch().is_some_and(|latch| !latch.watch(entry.watcher())) {
            return Err(Error::usage("this source is in a Select already, in this or another"));
        }
        if entry.source().leads_to(self.address()) {
            return Err(Error::usage("this Select would wait for itself"));
        }
        entry.source().begin();
        if entry.source().may_have() {
            // It came before it was watched.
            self.hub.ring(key);
        }
        if !self.hub.has(key) {
            unwatch(entry);
            if self.hub.is_closed() {
                return Err(Error::closed(Cause::ReceiverClosed));
            }
        }
        Ok(())
    }

    /// Removes a source: it yields nothing here any more, also if it has something already. Returns
    /// whether it was in here.
    pub fn remove(&self, key: Key) -> bool {
        if self.forbid_copy().is_err() {
            return false;
        }
        let mut entries = self.entries.lock();
        let at = entries.binary_search_by_key(&key.0, |(key, _)| *key).ok();
        let entry = at.and_then(|at| entries.remove(at));
        drop(entries);
        let was_in = self.hub.leave(key.0);
        if let Some((_, entry)) = entry {
            unwatch(&*entry);
        }
        was_in
    }

    /// Waits for the next event; `None` once no source is left.
    ///
    /// A wait that a signal interrupts is an event, too: the oldest source is said to have failed
    /// with [`ErrorKind::Interrupted`], or with [`ErrorKind::System`] if there is no descriptor to
    /// sleep on, and stays.
    pub fn next(&self) -> Option<E> {
        match self.next_until(None) {
            Ok(event) => event,
            Err(error) if self.forbid_copy().is_ok() => {
                let first = self.entries.lock().front().map(|(_, entry)| entry.clone());
                first.map(|entry| entry.tell(error))
            }
            Err(_) => None,
        }
    }

    /// As [`Select::next`], for at most this long.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`]; [`ErrorKind::Interrupted`] after a signal; [`ErrorKind::Usage`] in a
    /// copy of the process.
    pub fn next_timeout(&self, timeout: Duration) -> Result<Option<E>> {
        self.next_until(Instant::now().checked_add(timeout))
    }

    /// The next event, if there is one now.
    pub fn try_next(&self) -> Option<E> {
        if self.forbid_copy().is_err() {
            return None;
        }
        while let Some(key) = self.hub.pop() {
            if let Some(event) = self.take(key) {
                return Some(event);
            }
        }
        None
    }

    fn next_until(&self, deadline: Option<Instant>) -> Result<Option<E>> {
        self.forbid_copy()?;
        loop {
            if let Some(event) = self.try_next() {
                return Ok(Some(event));
            }
            if self.hub.is_over() {
                return Ok(None);
            }
            match self.hub.sleep(self.broker.get(), deadline) {
                Err(error) if matches!(error.kind(), ErrorKind::Closed(_)) => return Ok(None),
                slept => slept?,
            }
        }
    }

    fn take(&self, key: u64) -> Option<E> {
        let mut looked = Some(Looked { hub: &self.hub, key, more: true });
        let entry = {
            let entries = self.entries.lock();
            let at = entries.binary_search_by_key(&key, |(key, _)| *key).ok()?;
            entries[at].1.clone()
        };
        lock::assert_none_held("calling user code");
        entry.take(&mut |fate| {
            let stays = match fate {
                Fate::HadNothing => true,
                Fate::HasYielded => !self.oneshot,
                Fate::Ends => false,
            };
            if !stays {
                self.remove(Key(key));
            }
            if let Some(mut looked) = looked.take() {
                looked.more = matches!(fate, Fate::HasYielded) && entry.source().may_have();
            }
        })
    }

    /// Whether any source is left.
    pub fn has_sources(&self) -> bool {
        self.forbid_copy().is_ok() && self.hub.has_sources()
    }

    /// Whether [`Select::next`] would sleep: a hint, since a source that said that it has something
    /// may have been drained by another thread, and new items come at any time.
    pub fn is_empty(&self) -> bool {
        self.has_sources() && self.hub.is_idle()
    }

    /// Removes all sources, and takes no more; every wait ends.
    pub fn close(&self) {
        if self.forbid_copy().is_err() {
            return;
        }
        self.hub.close();
        let entries = std::mem::take(&mut *self.entries.lock());
        for (_, entry) in entries {
            unwatch(&*entry);
        }
    }

    fn forbid_copy(&self) -> Result<()> {
        self.broker.get().map_or(Ok(()), Broker::forbid_copy)
    }

    fn address(&self) -> *const () {
        Arc::as_ptr(&self.hub).cast()
    }
}

/// The right to look what a source has. Dropped in a panic, it lets somebody else look.
struct Looked<'h> {
    hub: &'h Hub,
    key: u64,
    more: bool,
}

impl Drop for Looked<'_> {
    fn drop(&mut self) {
        self.hub.done(self.key, self.more);
    }
}

fn unwatch<E>(entry: &(dyn Entry<E> + '_)) {
    if let Some(latch) = entry.source().latch() {
        latch.unwatch(entry.watcher());
    }
}

impl Select<'_, ()> {
    /// One item of each source, in the order in which they arrive. All sources are there before
    /// the first wait. If one fails, the others are dropped, which cancels calls.
    ///
    /// # Errors
    /// The first that a source fails with; [`ErrorKind::Closed`] if one ends without an item;
    /// those of [`Select::add`]; [`ErrorKind::Interrupted`] after a signal.
    pub fn all<S: Source>(sources: impl IntoIterator<Item = S>) -> Result<Vec<S::Item>> {
        let items = Select::one_of_each(sources)?;
        Ok(items.into_iter().map(|(_, item)| item).collect())
    }

    /// As [`Select::all`], in the order of the sources.
    ///
    /// # Errors
    /// As [`Select::all`].
    pub fn in_order<S: Source>(sources: impl IntoIterator<Item = S>) -> Result<Vec<S::Item>> {
        let mut items = Select::one_of_each(sources)?;
        items.sort_unstable_by_key(|(at, _)| *at);
        Ok(items.into_iter().map(|(_, item)| item).collect())
    }

    /// What arrives, with its source's place.
    fn one_of_each<S: Source>(
        sources: impl IntoIterator<Item = S>,
    ) -> Result<Vec<(usize, S::Item)>> {
        let select = Select::oneshot();
        let mut count = 0;
        for source in sources {
            let at = count;
            select.add(source, move |item: Result<S::Item>| item.map(|item| (at, item)))?;
            count += 1;
        }
        let mut items = Vec::with_capacity(count);
        while let Some(item) = select.next_until(None)? {
            items.push(item?);
        }
        if items.len() < count {
            return Err(Error::closed(Cause::SenderClosed));
        }
        Ok(items)
    }
}

/// Each event has the key of its source. A source that [`Select::add`] refuses yields that error.
impl<'a, K, S> FromIterator<(K, S)> for Select<'a, (K, Result<S::Item>)>
where
    K: Clone + Send + Sync + 'a,
    S: Source + 'a,
    S::Item: 'a,
{
    fn from_iter<I: IntoIterator<Item = (K, S)>>(sources: I) -> Self {
        let select = Select::new();
        for (key, source) in sources {
            let own = key.clone();
            if let Err(why) = select.add(source, move |item| (own.clone(), item)) {
                let refused = Refused { why, item: PhantomData };
                // Nothing is wrong with this one.
                let _ = select.add(refused, move |item| (key.clone(), item));
            }
        }
        select
    }
}

/// Waits for events, until no source is left.
impl<E> Iterator for Select<'_, E> {
    type Item = E;

    fn next(&mut self) -> Option<E> {
        Select::next(self)
    }
}

/// Waits for events, until no source is left.
impl<E> Iterator for &Select<'_, E> {
    type Item = E;

    fn next(&mut self) -> Option<E> {
        Select::next(self)
    }
}

impl<E> Drop for Select<'_, E> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<E> Watched for Select<'_, E> {
    fn latch(&self) -> Option<&dyn Watchable> {
        Some(self.hub.wake())
    }

    fn broker(&self) -> Option<Broker> {
        self.broker.get().cloned()
    }

    fn may_have(&self) -> bool {
        !self.hub.is_idle() || !self.hub.has_sources()
    }

    fn leads_to(&self, select: *const ()) -> bool {
        let entries = || self.entries.lock().iter().map(|(_, e)| e.clone()).collect::<Vec<_>>();
        self.address() == select || entries().iter().any(|e| e.source().leads_to(select))
    }
}

/// Its end is that it has no source left.
impl<E> Source for Select<'_, E> {
    type Item = E;

    fn take(&self) -> Taken<E> {
        self.hub.heard();
        match self.try_next() {
            Some(event) => Taken::One(Ok(event)),
            None if self.hub.is_over() => Taken::End,
            None => Taken::Nothing,
        }
    }
}

impl<E> Stream for Select<'_, E> {}
