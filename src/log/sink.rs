//! The program's sink, and the thread that hands it every record: of this process, and of the
//! contexts below. Whoever logs only queues; the loop never waits for the sink.

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::ErrorKind;
use crate::ids::ContextId;
use crate::io::latch::Latch;
use crate::io::lending;
use crate::io::promise::{Promise, promise};
use crate::io::sleep::{self, Sleeper};
use crate::limits::{
    COPY_STACK_BYTES, LOG_DROPPED_TOLD, LOG_FLUSH_TIME, LOG_QUEUED_BYTES_MAX, LOG_WAIT,
    LOOK_AGAIN_MAX,
};
use crate::lock::{Lock, rank};
use crate::log::level;
use crate::log::record::{self, Arrived};
use crate::route::credit::was_interrupted;
use crate::sys::pipe::Wake;
use crate::sys::{fork, poll, thread};
use crate::trace::{self, Level, Record, Slot, TARGET, Take};
use crate::wire::codec::{Reader, Writer};

/// Takes records, one at a time.
pub type Sink = Box<dyn Fn(&Record<'_>) + Send>;

/// Sends records of this level and above to `sink`, in place of the sink before: those of this
/// process, and those of all contexts of the trees that begin here. Without one, which is the
/// default, the library is silent.
///
/// The sink is one for the process. A thread of its own calls it for one record at a time, in
/// order: it may take its time, and call this library, and nobody waits but those who log more
/// than it takes. Records of this process that find 1 MiB waiting are dropped, and their number is
/// logged; contexts wait, so the sink must not wait without end for a function that may log or
/// print more than that. A panic in the sink loses that record; what the sink itself logs goes to
/// no sink. The sink before gets what was logged before, and is dropped then.
///
/// ```
/// mitogen::log_to(mitogen::Level::Warn, Box::new(|record| eprintln!("{record}")));
/// ```
///
/// # Resources
/// One thread, from the first call on. Where there is no room for it nothing is logged.
pub fn log_to(level: Level, sink: Sink) {
    log_from(Some(level), sink);
}

/// As [`log_to`]; none is silence.
pub(crate) fn log_from(level: Option<Level>, sink: Sink) {
    let Some(hall) = Hall::of_process() else { return };
    {
        let _in_turn = hall.setting.lock();
        hall.put(Item::Sink(sink));
        trace::take_by(Slot::Sink, level, Some(hall.clone()));
    }
    level::changed();
}

/// Changes the level of the sink of [`log_to`], from now on and in all contexts below: they hear of
/// it one after the other. None is silence.
///
/// ```
/// mitogen::log_at(mitogen::Level::Debug);
/// mitogen::log_at(None);
/// ```
pub fn log_at(level: impl Into<Option<Level>>) {
    trace::take_from(Slot::Sink, level.into());
    level::changed();
}

/// Waits until the sink has taken all that was logged by now, and has arrived from other contexts,
/// for at most this long. Returns whether it has; false at once where it cannot be waited for: in
/// the sink.
pub fn flush_log(timeout: Duration) -> bool {
    let Some(hall) = Hall::known() else { return true };
    if !may_wait() {
        return false;
    }
    let deadline = Instant::now().checked_add(timeout);
    let (promise, taken) = promise();
    hall.put(Item::Mark(promise));
    loop {
        match taken.wait(deadline) {
            Ok(()) => return true,
            Err(error) if was_interrupted(&error) => (),
            Err(error) if matches!(error.kind(), ErrorKind::Timeout) => return false,
            // There are too few descriptors to sleep on one.
            Err(_) => return false,
        }
    }
}

/// As [`flush_log`], at the end of a router; nothing if there is no sink. False if time was up.
pub(crate) fn flush_at_end() -> bool {
    !may_wait() || flush_log(LOG_FLUSH_TIME)
}

thread_local! {
    /// Whether this thread calls the sink.
    static IS_LOG: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread may wait for the sink: neither one that turns a loop nor the sink's.
pub(crate) fn may_wait() -> bool {
    !IS_LOG.get() && !lending::turns_one()
}

/// What waits for the sink of one process.
pub(crate) struct Hall {
    queue: Latch<Item>,
    budget: Lock<Budget>,
    /// Held while the sink and its level are set: each sink has the level that came with it.
    setting: Lock<(), { rank::CALLBACKS }>,
    /// Which copy of the process has its thread.
    generation: u32,
}

#[derive(Default)]
struct Budget {
    /// Bytes of local records in the queue. Invariant: at most LOG_QUEUED_BYTES_MAX, or one record.
    queued: usize,
    /// Records that found no room, and were not told of.
    dropped: u64,
    waiting: Vec<Arc<Wake>>,
}

/// What is taken in order.
enum Item {
    /// A record of this process, as it would travel.
    Local { tree: u32, context: Option<ContextId>, bytes: Vec<u8> },
    /// Records that have arrived.
    Batch(Batch),
    /// So many records were dropped.
    Dropped(u64),
    /// The sink from here on.
    Sink(Sink),
    /// Somebody waits until all before it has been taken.
    Mark(Promise<()>),
}

/// Hands over what has arrived in one message.
pub(crate) type Batch = Box<dyn FnOnce(&Hand<'_>) + Send>;

/// A copy of the process shares none with its original, whose thread it has not; and may have been
/// made while a lock was held.
static HALLS: [Lock<Option<Arc<Hall>>>; 4] = [const { Lock::new(None) }; 4];

fn slot(generation: u32) -> &'static Lock<Option<Arc<Hall>>> {
    &HALLS[generation as usize % HALLS.len()]
}

impl Hall {
    /// This process's, if it has one.
    fn known() -> Option<Arc<Hall>> {
        let now = fork::generation();
        slot(now).lock().as_ref().filter(|hall| hall.generation == now).cloned()
    }

    /// This process's; starts its thread if it is the first. None if there is no room for one.
    pub(crate) fn of_process() -> Option<Arc<Hall>> {
        let now = fork::generation();
        let mut known = slot(now).lock();
        if let Some(hall) = known.as_ref().filter(|hall| hall.generation == now) {
            return Some(hall.clone());
        }
        let (queue, budget) = (Latch::new(), Lock::default());
        let hall = Arc::new(Hall { queue, budget, setting: Lock::default(), generation: now });
        let own = hall.clone();
        let body = Box::new(move || own.main());
        thread::spawn(c"mitogen-log", COPY_STACK_BYTES, body).ok()?;
        // An original's is not dropped in a copy.
        std::mem::forget(known.replace(hall.clone()));
        Some(hall)
    }

    /// Has what has arrived handed over, behind what was logged before.
    pub(crate) fn batch(&self, batch: Batch) {
        self.put(Item::Batch(batch));
    }

    fn put(&self, item: Item) {
        // It is never closed.
        let _ = self.queue.put(item);
    }

    /// Calls the sink, for as long as the process lives.
    fn main(&self) {
        IS_LOG.set(true);
        let mut sink = None;
        loop {
            if self.queue.is_empty() {
                self.tell_dropped(&sink);
            }
            match self.queue.get() {
                Ok(item) => self.take_out(item, &mut sink),
                // There are too few descriptors to sleep on one.
                Err(_) => {
                    let _ = poll::sleep(&[], Instant::now().checked_add(LOOK_AGAIN_MAX));
                }
            }
        }
    }

    fn take_out(&self, item: Item, sink: &mut Option<Sink>) {
        match item {
            Item::Local { tree, context, bytes } => {
                let taken = bytes.len();
                if let Ok(Some(arrived)) = record::take(&mut Reader::new(&bytes, None)) {
                    call(sink, &arrived.as_record(tree, context, &arrived.name));
                }
                self.leaves(taken);
            }
            Item::Batch(batch) => {
                let hand = Hand { sink };
                let _ = catch_unwind(AssertUnwindSafe(|| batch(&hand)));
            }
            Item::Dropped(count) => tell(sink, count),
            Item::Sink(next) => {
                let before = sink.replace(next);
                // Whatever it owns may panic.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(before)));
            }
            Item::Mark(promise) => {
                self.tell_dropped(sink);
                promise.keep(());
            }
        }
    }

    fn tell_dropped(&self, sink: &Option<Sink>) {
        let dropped = std::mem::take(&mut self.budget.lock().dropped);
        if 0 < dropped {
            tell(sink, dropped);
        }
    }

    /// Room for a record of so many bytes; what was dropped before it is told first.
    fn enters(&self, bytes: usize) -> bool {
        let dropped = {
            let mut budget = self.budget.lock();
            if !budget.has_room(bytes) {
                return false;
            }
            budget.queued += bytes;
            // Of a flood not every few by themselves.
            let is_over = budget.queued < LOG_QUEUED_BYTES_MAX / 2;
            if is_over || LOG_DROPPED_TOLD <= budget.dropped {
                std::mem::take(&mut budget.dropped)
            } else {
                0
            }
        };
        if 0 < dropped {
            self.put(Item::Dropped(dropped));
        }
        true
    }

    fn leaves(&self, bytes: usize) {
        let mut budget = self.budget.lock();
        budget.queued = budget.queued.saturating_sub(bytes);
        if budget.queued < LOG_QUEUED_BYTES_MAX / 2 {
            budget.waiting.drain(..).for_each(|wake| wake.wake());
        }
    }

    /// Sleeps until there may be room for so much, or until then. Returns whether there is.
    fn wait_for_room(&self, bytes: usize, deadline: Option<Instant>) -> bool {
        let (mut mine, mut failed) = (None::<Sleeper>, false);
        loop {
            let wake = {
                let mut budget = self.budget.lock();
                if let Some(mine) = &mine {
                    budget.waiting.retain(|wake| !Arc::ptr_eq(wake, mine));
                }
                let has_room = budget.has_room(bytes);
                if failed || has_room {
                    return has_room;
                }
                if mine.is_none() {
                    mine = sleep::sleeper().ok();
                }
                let Some(wake) = &mine else { return false };
                budget.waiting.push(Arc::clone(wake));
                Arc::clone(wake)
            };
            let slept = sleep::sleep(&wake, &[], deadline);
            failed = slept.is_err_and(|error| !was_interrupted(&error));
        }
    }

    fn take_or(&self, record: &Record<'_>, waits: bool) -> bool {
        // What the sink logs would never end; and a copy has no thread that would take it.
        if IS_LOG.get() || self.generation != fork::generation() {
            return true;
        }
        let mut w = Writer::new(Vec::new(), None);
        record::put(record, &mut w);
        let Ok(bytes) = w.finish() else { return true };
        let mut has_room = self.enters(bytes.len());
        if !has_room && waits {
            let deadline = Instant::now().checked_add(LOG_WAIT);
            // Another thread may be faster.
            while !has_room && self.wait_for_room(bytes.len(), deadline) {
                has_room = self.enters(bytes.len());
            }
        }
        if !has_room {
            self.budget.lock().dropped += 1;
            return false;
        }
        self.put(Item::Local { tree: record.tree, context: record.context, bytes });
        true
    }
}

impl Budget {
    fn has_room(&self, bytes: usize) -> bool {
        self.queued == 0 || self.queued + bytes <= LOG_QUEUED_BYTES_MAX
    }
}

impl Take for Hall {
    fn take(&self, record: &Record<'_>) -> bool {
        self.take_or(record, false)
    }

    fn take_waiting(&self, record: &Record<'_>) -> bool {
        self.take_or(record, may_wait())
    }
}

/// Where what has arrived is handed over.
pub(crate) struct Hand<'a> {
    sink: &'a Option<Sink>,
}

impl Hand<'_> {
    /// Hands over a record of another context, if anybody wants it: to the sink, and in an agent to
    /// the master, as what a tree of its own has to say.
    pub(crate) fn over(&self, record: &Record<'_>) {
        if trace::level_of(Slot::Sink).is_some_and(|level| record.level <= level) {
            call(self.sink, record);
        }
        if let Some(forward) = trace::taker(Slot::Forward, record.level) {
            forward.take_waiting(record);
        }
    }
}

fn call(sink: &Option<Sink>, record: &Record<'_>) {
    if let Some(sink) = sink {
        // It has said so itself, by way of the panic hook; there is nowhere else to log it.
        let _ = catch_unwind(AssertUnwindSafe(|| sink(record)));
    }
}

fn tell(sink: &Option<Sink>, dropped: u64) {
    const WHAT: &str = "records were dropped, since the sink takes too long:";
    call(sink, &Record { what: WHAT, about: &[dropped], ..Record::now(Level::Warn, TARGET) });
}

impl Arrived {
    /// A record of this context, whose name is known.
    pub(crate) fn as_record<'a>(
        &'a self,
        tree: u32,
        context: Option<ContextId>,
        name: &'a str,
    ) -> Record<'a> {
        let Arrived { time_us, level, target, what, about, text, continues, .. } = self;
        let (time_us, level, continues) = (*time_us, *level, *continues);
        Record { time_us, level, tree, context, name, target, what, about, text, continues }
    }
}
