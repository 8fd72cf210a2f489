//! The public face of one context's place in the tree.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use crate::call::context::Context;
use crate::call::grant::Grants;
use crate::call::receiver::Receiver;
use crate::call::registry::Registry;
use crate::error::{Death, Result};
use crate::ids::{ContextId, Handle};
use crate::io::broker::Broker;
use crate::io::lending;
use crate::io::turn::Turn;
use crate::limits::SHUTDOWN_GRACE;
use crate::lock::{Held, Lock};
use crate::module::images::Images;
use crate::module::respond;
use crate::route::identity::Identity;
use crate::route::lease::Pool;
use crate::route::node::Node;
use crate::route::policy;
use crate::wire::codec::Decode;
use crate::wire::header::Kind;

/// One context's place in a tree: it routes messages, makes children, and knows the functions of
/// its program. Clones are the same router; two routers in one process are two trees.
///
/// When the last clone, context and receiver of a master's router is dropped, it shuts down.
#[derive(Clone)]
pub struct Router {
    inner: Arc<Inner>,
}

/// A router that this does not keep alive.
pub(crate) struct WeakRouter(Weak<Inner>);

impl WeakRouter {
    pub(crate) fn upgrade(&self) -> Option<Router> {
        Some(Router { inner: self.0.upgrade()? })
    }
}

pub(crate) struct Inner {
    node: Arc<Node>,
    registry: Arc<Registry>,
    images: Arc<Images>,
    /// What other files and floors keep here, one of a type.
    kept: OnceLock<Arc<dyn Keeps>>,
    /// A master's share in its broker, until its end.
    share: Lock<Option<Broker>>,
    /// What else its end ends: a master's tree. An agent, which ends with its process, does not
    /// link that.
    end: fn(&Inner),
    /// What of its tree's log its end sees to.
    log: Option<LogsEnd>,
    /// Whether the sink was waited for in vain: nobody waits for it twice.
    is_sink_stuck: AtomicBool,
}

/// What a master's end does for its tree's log; not on a thread that turns a loop.
#[derive(Clone, Copy)]
pub(crate) struct LogsEnd {
    /// Waits for what the contexts below have logged, before they end.
    pub gather: fn(&Arc<Node>),
    /// Waits until the sink has taken it, and what was logged of the end. Returns whether it is of
    /// use to wait again.
    pub flush: fn() -> bool,
}

/// The names of contexts that were started from here, sorted by id.
#[derive(Default)]
pub(crate) struct Names(Lock<Vec<(ContextId, Arc<str>)>>);

impl Names {
    /// Adds one, if it is not there; forgets those that are gone, for all but `alive`, which is
    /// sorted.
    pub(crate) fn add(&self, id: ContextId, name: &str, alive: &[ContextId]) {
        let mut list = self.0.lock();
        if 2 * alive.len() + 16 < list.len() {
            list.retain(|(id, _)| alive.binary_search(id).is_ok());
        }
        if let Err(at) = list.binary_search_by_key(&id, |(other, _)| *other) {
            list.insert(at, (id, name.into()));
        }
    }

    /// That of this context.
    pub(crate) fn find(&self, id: ContextId) -> Option<Arc<str>> {
        let list = self.0.lock();
        let at = list.binary_search_by_key(&id, |(other, _)| *other).ok()?;
        Some(list[at].1.clone())
    }
}

/// What this floor knows no more of than that it is kept.
type Kept = Arc<dyn Any + Send + Sync>;

/// A list of that. A stock agent, which keeps nothing, does not link it.
trait Keeps: Send + Sync {
    fn list(&self) -> Held<'_, Vec<Kept>>;
}

impl Keeps for Lock<Vec<Kept>> {
    fn list(&self) -> Held<'_, Vec<Kept>> {
        self.lock()
    }
}

impl Router {
    /// The router of a new tree, served by this broker or by one of its own.
    pub(crate) fn master(
        broker: Option<&Broker>,
        identity: Identity,
        registry: Arc<Registry>,
        images: Arc<Images>,
        log: LogsEnd,
    ) -> Result<Router> {
        let broker = broker.map_or_else(Broker::new, Broker::keep)?;
        let node = Node::new(identity, Pool::of_master(), broker.weak());
        // Whoever ends the broker alone ends all that waits for it.
        let (closing, tenant) = (Arc::downgrade(&node), node.tenant());
        broker.defer(move |turn| {
            let close = move |turn: &mut Turn, why: &Death| {
                if let Some(node) = closing.upgrade() {
                    node.close(turn, why);
                }
            };
            turn.at_end(tenant, Box::new(close));
        })?;
        Router::ending(node, Some((broker, log)), registry, images, Inner::shutdown)
    }

    /// The router of a context whose node exists.
    pub(crate) fn of(
        node: Arc<Node>,
        registry: Arc<Registry>,
        images: Arc<Images>,
    ) -> Result<Router> {
        Router::ending(node, None, registry, images, |_| ())
    }

    fn ending(
        node: Arc<Node>,
        master: Option<(Broker, LogsEnd)>,
        registry: Arc<Registry>,
        images: Arc<Images>,
        end: fn(&Inner),
    ) -> Result<Router> {
        let grants = Arc::new(Grants(node.clone()));
        node.listen(Handle::HOLD, Kind::Control, policy::anyone, grants.clone())?;
        node.listen(Handle::GRANT, Kind::Control, policy::is_ancestor, grants)?;
        respond::listen(&node, &images)?;
        let (share, log) = master.unzip();
        let (kept, share) = (OnceLock::new(), Lock::new(share));
        let is_sink_stuck = AtomicBool::new(false);
        let inner = Inner { node, registry, images, kept, share, end, log, is_sink_stuck };
        Ok(Router { inner: Arc::new(inner) })
    }

    /// This context's id.
    pub fn context_id(&self) -> ContextId {
        self.node().id()
    }

    /// The id of the parent; none in the master.
    pub fn parent_id(&self) -> Option<ContextId> {
        self.parent_ids().first().copied()
    }

    /// The ids of all ancestors, the nearest first; none in the master.
    pub fn parent_ids(&self) -> &[ContextId] {
        self.node().parents()
    }

    /// Whether this is the first process of its tree.
    pub fn is_master(&self) -> bool {
        self.context_id() == ContextId::MASTER
    }

    /// This context's name: the address of its path, or the one that it was given.
    pub fn name(&self) -> &str {
        &self.node().identity().name
    }

    /// The broker that serves this router. Other routers may [share](crate::Program::broker) it; it
    /// lasts as long as one of them, whoever keeps what this returns.
    pub fn broker(&self) -> &Broker {
        self.node().broker()
    }

    /// A receiver of values of one type; its senders travel to other contexts as arguments.
    pub fn receiver<T: Decode>(&self) -> Receiver<T> {
        Receiver::new(self)
    }

    /// The contexts that are this one's direct children, by id.
    pub fn children(&self) -> Vec<Context> {
        self.node().children().into_iter().map(|id| self.context_by_id(id)).collect()
    }

    /// The context with this id, whether it lives or not. Its name is known if this context started
    /// it, else empty.
    pub fn context_by_id(&self, id: ContextId) -> Context {
        let name = self.names().find(id);
        Context::new(self, id, name.as_deref().unwrap_or_default(), self.context_id())
    }

    /// A context that was started, whose name is kept while it lives.
    pub(crate) fn started(&self, id: ContextId, name: &str) -> Context {
        let context = Context::new(self, id, name, self.context_id());
        self.names().add(id, name, &self.node().below());
        context
    }

    /// Ends every child at once, and the broker unless others share it, and waits for that: what
    /// has not ended after half a second is killed, and 3 seconds are the most. Callbacks that are
    /// due then, as those of [`Router::on_shutdown`], have 3 seconds more. All that is used
    /// afterwards fails with [`Cause::Shutdown`](crate::error::Cause).
    ///
    /// If there is a sink for the [log](crate::log_to), it first waits, for a second at most, for
    /// what all contexts have logged and printed by now, and at last, for 3 at most, until the sink
    /// has taken it.
    pub fn shutdown(&self) {
        self.inner.shutdown();
    }

    /// The names of contexts that were started from here.
    pub(crate) fn names(&self) -> Arc<Names> {
        self.kept(Names::default)
    }

    pub(crate) fn downgrade(&self) -> WeakRouter {
        WeakRouter(Arc::downgrade(&self.inner))
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.inner.node
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.inner.registry
    }

    pub(crate) fn images(&self) -> &Arc<Images> {
        &self.inner.images
    }

    /// What of this type is kept here, which `make` makes if there is none.
    pub(crate) fn kept<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        if self.broker().is_copy() {
            return Arc::new(make());
        }
        let mut all = self.inner.keeps().list();
        let known = all.iter().find_map(|kept| kept.clone().downcast().ok());
        known.unwrap_or_else(|| {
            let made = Arc::new(make());
            all.push(made.clone());
            made
        })
    }

    /// The same router; but dropping this one ends nothing, and keeping it puts off no end.
    pub(crate) fn unowned(&self) -> Router {
        let Inner { node, registry, images, .. } = &*self.inner;
        let (node, registry, images) = (node.clone(), registry.clone(), images.clone());
        let kept = OnceLock::from(self.inner.keeps().clone());
        let (share, end, log) = (Lock::new(None), |_: &Inner| (), None);
        let is_sink_stuck = AtomicBool::new(false);
        let inner = Inner { node, registry, images, kept, share, end, log, is_sink_stuck };
        Router { inner: Arc::new(inner) }
    }

    /// Refuses what belongs to another tree.
    pub(crate) fn same_tree(&self, other: &Router) -> bool {
        Arc::ptr_eq(self.node(), other.node())
    }
}

impl Inner {
    fn keeps(&self) -> &Arc<dyn Keeps> {
        self.kept.get_or_init(|| Arc::new(Lock::<Vec<Kept>>::default()))
    }

    fn shutdown(&self) {
        let broker = self.node.broker();
        if broker.is_copy() {
            return;
        }
        let log = self.log.filter(|_| !lending::turns_one());
        if let Some(log) = log {
            (log.gather)(&self.node);
        }
        broker.end(self.node.tenant());
        broker.wait_for_callbacks(SHUTDOWN_GRACE);
        let share = self.share.lock().take();
        // The last one ends it; whoever else asks waits for that.
        drop(share);
        broker.join_unused();
        let log = log.filter(|_| !self.is_sink_stuck.load(Ordering::Relaxed));
        if log.is_some_and(|log| !(log.flush)()) {
            self.is_sink_stuck.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        (self.end)(self);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::Names;
    use crate::error::ErrorKind;
    use crate::ids::ContextId;
    use crate::{Broker, Program, stock};

    #[test]
    fn a_name_that_is_told_again_takes_no_more_memory() {
        let names = Names::default();
        (0..100).for_each(|_| names.add(ContextId(7), "x", &[ContextId(7)]));
        assert_eq!((names.find(ContextId(7)).as_deref(), names.0.lock().len()), (Some("x"), 1));
    }

    #[test]
    fn a_broker_that_was_shut_down_by_itself_leaves_no_wait_and_no_memory() {
        let router = Program::new().router().unwrap();
        let node = Arc::downgrade(router.node());
        let receiver = router.receiver::<u64>();
        let sender = receiver.to_sender();
        router.broker().shutdown();
        router.broker().join();
        let error = receiver.get_timeout(Duration::from_secs(10)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Closed(_)), "{error}");
        drop((receiver, sender, router));
        assert_eq!(node.strong_count(), 0);
    }

    #[test]
    fn a_broker_that_goes_on_keeps_no_memory_of_a_router() {
        let broker = Broker::new().unwrap();
        let router = Program::new().broker(&broker).router().unwrap();
        let node = Arc::downgrade(router.node());
        let receiver = router.receiver::<u64>();
        let starting =
            router.command(["sh", "-c", "exec sleep 1000"]).connect_timeout(Duration::MAX).start();
        let context = router.in_process().unwrap();
        context.call(stock::ping, ()).unwrap();
        router.shutdown();
        drop((router, receiver, starting, context));
        let begun = Instant::now();
        while 0 < node.strong_count() && begun.elapsed() < Duration::from_secs(10) {
            std::thread::yield_now();
        }
        assert_eq!(node.strong_count(), 0);
        broker.defer_sync(|_| ()).unwrap();
    }
}
