//! How a context is asked to start a child, or to end.

use std::sync::Arc;

use crate::connect::child::{self, Connected};
use crate::connect::recipe::Recipe;
use crate::error::{ConnectError, ConnectFailure, Death, Phase, Result};
use crate::ids::{ContextId, Handle};
use crate::io::latch::Latch;
use crate::io::turn::Turn;
use crate::module::images::Images;
use crate::route::node::{Node, Outgoing};
use crate::route::pending::Deliver;
use crate::route::policy;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Shape, Writer};
use crate::wire::frame::FrameBuf;
use crate::wire::header::{Kind, Lane};
use crate::wire::message::Message;

/// Where the outcome of an attempt arrives.
pub type Outcome = Latch<Result<Connected, Refusal>>;

/// Why there is no new context.
pub enum Refusal {
    /// The attempt failed.
    Failed(Box<ConnectError>),
    /// The context that was asked is gone.
    Gone(Death),
}

/// Serves [`Handle::CONNECT`] for those who have authority over this context.
pub fn listen(node: &Arc<Node>, images: Arc<Images>) -> Result<()> {
    let service = Service { node: Arc::downgrade(node), images };
    let policy = policy::has_parent_authority;
    node.listen(Handle::CONNECT, Kind::Control, policy, Arc::new(service))
}

struct Service {
    node: std::sync::Weak<Node>,
    images: Arc<Images>,
}

impl Deliver for Service {
    fn message(&self, turn: &mut Turn, message: Message) {
        let (Some(node), Some(handle)) = (self.node.upgrade(), message.reply_to) else { return };
        let (dst, auth) = (message.src, node.id());
        let out = Outgoing { kind: Kind::Reply, dst, auth, handle, reply_to: None };
        let mut r = Reader::new(&message.data, None);
        let Ok(recipe) = Recipe::decode(&mut r) else {
            node.tell(&out, Lane::Quick, &|w| w.put_u8(2));
            return;
        };
        let answer = node.clone();
        let done = move |_: &mut Turn, outcome: Result<Connected, Box<ConnectError>>| {
            answer.tell(&out, Lane::Quick, &|w| put_outcome(&outcome, w));
        };
        child::connect(&node, &self.images, turn, Arc::new(recipe), Box::new(done));
    }

    fn dead(&self, _: &mut Turn, _: ContextId, _: &Death) {}
}

/// Has `via` start a child; the outcome comes to `outcome`.
///
/// # Errors
/// Those of sending.
pub fn ask(
    node: &Arc<Node>,
    via: ContextId,
    recipe: &Recipe,
    outcome: &Arc<Outcome>,
) -> Result<()> {
    let to = Arc::new(Asked(outcome.clone()));
    let handle = node.listen_for_answer(via, to)?;
    let (auth, reply_to) = (node.id(), Some(handle));
    let out = Outgoing { kind: Kind::Control, dst: via, auth, handle: Handle::CONNECT, reply_to };
    let payload = FrameBuf::encode(None, |w| recipe.encode(w)).unwrap_or_default();
    let sent = node.send(&out, payload);
    if sent.is_err() {
        node.unlisten(handle);
    }
    sent
}

struct Asked(Arc<Outcome>);

impl Deliver for Asked {
    fn message(&self, _: &mut Turn, message: Message) {
        let outcome = take_outcome(&mut Reader::new(&message.data, None));
        // Who asked may have given up.
        let _ = self.0.put(outcome.map_err(Refusal::Failed));
    }

    fn dead(&self, _: &mut Turn, _: ContextId, death: &Death) {
        // As above.
        let _ = self.0.put(Err(Refusal::Gone(death.clone())));
    }
}

/// Asks a context to end.
pub fn ask_to_end(node: &Node, id: ContextId) {
    let (auth, handle) = (node.id(), Handle::SHUTDOWN);
    let out = Outgoing { kind: Kind::Control, dst: id, auth, handle, reply_to: None };
    node.tell(&out, Lane::Quick, &|_| ());
}

fn put_outcome(outcome: &Result<Connected, Box<ConnectError>>, w: &mut Writer<'_>) {
    match outcome {
        Ok(connected) => {
            w.put_u8(0);
            connected.encode(w);
        }
        Err(error) => {
            w.put_u8(1);
            error.encode(w);
        }
    }
}

fn take_outcome(r: &mut Reader<'_>) -> Result<Connected, Box<ConnectError>> {
    let outcome = match r.take_u8() {
        Ok(0) => Connected::decode(r).map(Ok),
        Ok(1) => ConnectError::decode(r).map(|error| Err(Box::new(error))),
        _ => Err(Malformed("an outcome of no kind")),
    };
    outcome.unwrap_or_else(|Malformed(why)| {
        Err(Box::new(ConnectError {
            failure: ConnectFailure::Protocol(why),
            phase: Phase::Prepare,
            hop: String::new(),
            exit: None,
            tail: String::new(),
        }))
    })
}

impl Encode for Connected {
    fn encode(&self, w: &mut Writer<'_>) {
        self.id.encode(w);
        self.pushed_bytes.encode(w);
        self.elapsed_us.encode(w);
    }
}

impl Decode for Connected {
    fn decode(r: &mut Reader<'_>) -> Result<Connected, Malformed> {
        let (id, pushed_bytes) = (ContextId::decode(r)?, u64::decode(r)?);
        Ok(Connected { id, pushed_bytes, elapsed_us: u64::decode(r)? })
    }

    fn shape(s: &mut Shape) {
        s.word("connected");
    }
}
