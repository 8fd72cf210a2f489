//! What stands before a handle of a program's own: who may send there, and what becomes of those
//! who may not.

use std::any::type_name;
use std::sync::Arc;

use crate::call::context::Context;
use crate::call::holders;
use crate::call::refusals::Refusals;
use crate::call::router::Router;
use crate::error::{Cause, Death, Error, Result};
use crate::ids::{ContextId, Handle};
use crate::route::node::Node;
use crate::route::pending::Deliver;
use crate::route::policy::Arrival;
use crate::trace::Level;
use crate::wire::message::Message;

type Lets = Box<dyn Fn(&Message, &Arrival<'_>) -> bool + Send + Sync>;

/// Who may send, and what that rule is called.
pub(crate) struct Policy {
    lets: Lets,
    name: &'static str,
}

impl Policy {
    /// This rule.
    pub(crate) fn of<P>(policy: P) -> Policy
    where
        P: Fn(&Message, &Arrival<'_>) -> bool + Send + Sync + 'static,
    {
        Policy { lets: Box::new(policy), name: type_name::<P>() }
    }
}

/// How a message had arrived.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    is_child: bool,
    is_neighbour: bool,
    is_granted: bool,
}

impl Origin {
    /// As it is known now.
    pub(crate) fn of(node: &Node, message: &Message) -> Origin {
        let Arrival { is_child, is_neighbour, is_granted, .. } = node.arrival(message);
        Origin { is_child, is_neighbour, is_granted }
    }
}

/// One handle's.
pub(crate) struct Gate {
    policy: Option<Policy>,
    refused: Refusals,
}

impl Gate {
    /// One that refuses what this policy does, if there is one.
    pub(crate) fn new(policy: Option<Policy>) -> Gate {
        Gate { policy, refused: Refusals::default() }
    }

    /// Whether the policy, which is a user's code, does not let a message in; that is logged.
    pub(crate) fn refuses(&self, router: &Router, message: &Message, origin: Origin) -> bool {
        let Some(policy) = &self.policy else { return false };
        let Origin { is_child, is_neighbour, is_granted } = origin;
        let (me, parents) = (router.context_id(), router.parent_ids());
        if (policy.lets)(message, &Arrival { me, parents, is_child, is_neighbour, is_granted }) {
            return false;
        }
        if self.refused.count() {
            let about = [message.src.0, message.auth.0, message.handle.0].map(u64::from);
            let what = "refused by a handler's policy (source, authority, handle):";
            router.node().text(Level::Warn, what, &about, policy.name);
        }
        true
    }
}

/// Where somebody is to listen, for how long, and to whom.
#[derive(Clone, Default)]
pub(crate) struct Place {
    pub(crate) at: Option<Handle>,
    pub(crate) once: bool,
    pub(crate) from: Option<Context>,
}

impl Place {
    /// The id of the only context that may send, if this is a place to listen at.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind) if it is none.
    pub(crate) fn sender(&self, router: &Router) -> Result<Option<ContextId>> {
        if self.at.is_some_and(|handle| !handle.is_well_known()) {
            return Err(Error::usage("a handler's handle is one of Handle::well_known"));
        }
        if self.from.as_ref().is_some_and(|from| !router.same_tree(from.router())) {
            return Err(Error::usage("a context of another tree cannot send to this one"));
        }
        Ok(self.from.as_ref().map(|from| from.context_id()))
    }

    /// Begins to listen there.
    ///
    /// # Errors
    /// As [`Router::add_handler`].
    pub(crate) fn listen(&self, router: &Router, to: Arc<dyn Deliver>) -> Result<Handle> {
        match (self.at, self.once, self.sender(router)?) {
            (None, true, Some(from)) => router.node().listen_for_answer(from, to),
            (at, _, from) => router.node().listen_at(at, from, to),
        }
    }
}

/// Sees to it that the end of the only sender is told where there is no question that it would
/// answer; what this returns has ended already.
pub(crate) fn watch(router: &Router, handle: Handle, from: Option<ContextId>) -> Option<Death> {
    let (node, from) = (router.node(), from?);
    let is_answer = handle < Handle::FIRST_RANDOM;
    if is_answer || from == node.id() || holders::probe(node, from, handle) {
        return None;
    }
    Some(node.broker().death(Cause::NoRoute).at(from))
}
