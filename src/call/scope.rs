//! What stands around the values of one message while they are encoded or decoded: who sends, who
//! takes, and which Senders pass. Only Context and Sender ask for it.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use crate::call::holders;
use crate::call::router::Router;
use crate::call::sender::SenderCore;
use crate::error::Death;
use crate::ids::{ContextId, Handle};
use crate::route::node::Node;
use crate::route::pending::Gift;

/// The surroundings of one message's values.
pub(crate) struct Scope {
    pub(crate) router: Router,
    /// The other context: who takes what is encoded, or who sent what is decoded.
    pub(crate) peer: ContextId,
    /// Under whose authority references that are decoded here act.
    pub(crate) auth: ContextId,
    /// Senders that were given to the peer: the Receiver's context and handle.
    given: RefCell<List>,
    /// Senders that arrived.
    taken: RefCell<Vec<Arc<SenderCore>>>,
}

impl Scope {
    /// The scope of what is sent to `peer`.
    pub(crate) fn to(router: &Router, peer: ContextId) -> Scope {
        let (given, taken) = (RefCell::default(), RefCell::default());
        Scope { router: router.clone(), peer, auth: router.context_id(), given, taken }
    }

    /// The scope of what `peer` sent under the authority `auth`. References that it gives act under
    /// that authority too, unless it has authority over us anyway; beyond us only as far as
    /// [`Node::may_act_for`] says.
    pub(crate) fn from(router: &Router, peer: ContextId, auth: ContextId) -> Scope {
        let trusted = router.parent_ids().contains(&auth);
        let auth = if trusted { router.context_id() } else { auth };
        Scope { auth, ..Scope::to(router, peer) }
    }

    /// Notes a Sender that is being given away.
    pub(crate) fn give(&self, owner: ContextId, handle: Handle) {
        let mut given = self.given.borrow_mut();
        given.senders.push((owner, handle));
        given.take_back = Some(Given::take_back_all);
    }

    /// Notes a Sender that arrived.
    pub(crate) fn take(&self, core: &Arc<SenderCore>) {
        self.taken.borrow_mut().push(core.clone());
    }

    /// The Senders that arrived; they close once nobody holds them any more.
    pub(crate) fn taken(&self) -> Vec<Arc<SenderCore>> {
        std::mem::take(&mut self.taken.borrow_mut())
    }

    /// What was given away, to be taken back if the message does not get there.
    pub(crate) fn given(self) -> Given {
        let list = self.given.into_inner();
        Given { node: Arc::downgrade(self.router.node()), peer: self.peer, list }
    }
}

/// Senders that went away with one message.
pub(crate) struct Given {
    node: Weak<Node>,
    peer: ContextId,
    list: List,
}

#[derive(Default)]
struct List {
    senders: Vec<(ContextId, Handle)>,
    /// What that is done by: a stock agent, which gives none away, does not link it.
    take_back: Option<fn(&Given, Option<&Death>)>,
}

impl Given {
    /// The message did not get there: its destination holds none of them. Their Receivers are told
    /// why, unless who sent it is.
    pub(crate) fn take_back(&self, why: Option<&Death>) {
        if let Some(take_back) = self.list.take_back {
            take_back(self, why);
        }
    }

    fn take_back_all(&self, why: Option<&Death>) {
        let Some(node) = self.node.upgrade() else { return };
        for (owner, handle) in &self.list.senders {
            let gift = Gift::TakenBack(why.cloned());
            holders::tell(&node, *owner, *handle, self.peer, gift);
        }
    }
}
