//! How a context is asked to start a child, or to end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::connect::child::{self, Child, Connected, Listener};
use crate::connect::recipe::Recipe;
use crate::error::{ConnectError, ConnectFailure, Death, Phase, Result};
use crate::ids::{ContextId, Handle};
use crate::io::turn::Turn;
use crate::module::images::Images;
use crate::route::node::{Node, Outgoing, Payload};
use crate::route::pending::Deliver;
use crate::route::policy;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Shape, Writer};
use crate::wire::frame::FrameBuf;
use crate::wire::header::{Kind, Lane};
use crate::wire::message::Message;

/// Takes the outcome of an attempt, on the broker's thread.
pub type Taker = Box<dyn FnOnce(&mut Turn, Result<Connected, Refusal>) + Send>;

/// Why there is no new context.
pub enum Refusal {
    /// The attempt failed.
    Failed(Box<ConnectError>),
    /// The context that was asked is gone.
    Gone(Death),
}

/// What is said to [`Handle::CONNECT`], in its first byte. Who asked names an attempt by the handle
/// where its outcome is to arrive.
#[repr(u8)]
enum Word {
    /// Start a child; a recipe follows.
    Begin = 0,
    /// Give an attempt up; its handle follows.
    Cancel = 1,
}

/// Serves [`Handle::CONNECT`] for those who have authority over this context.
pub fn listen(node: &Arc<Node>, images: Arc<Images>) -> Result<()> {
    let attempts = Arc::new(Attempts::default());
    let service = Service { node: Arc::downgrade(node), images, attempts };
    let policy = policy::has_parent_authority;
    node.listen(Handle::CONNECT, Kind::Control, policy, Arc::new(service))
}

struct Service {
    node: Weak<Node>,
    images: Arc<Images>,
    attempts: Arc<Attempts>,
}

/// The attempts of one context.
#[derive(Default)]
struct Attempts(Mutex<Vec<Attempt>>);

struct Attempt {
    asker: Asker,
    /// None until its process is started.
    child: Option<Child>,
    given_up: bool,
}

/// Who asked for an attempt, and where its outcome is to arrive.
type Asker = (ContextId, Handle);

impl Attempts {
    fn lock(&self) -> MutexGuard<'_, Vec<Attempt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes an attempt that is under way; gives its child.
    fn find(&self, asker: Asker, change: impl FnOnce(&mut Attempt)) -> Option<Child> {
        let mut all = self.lock();
        let attempt = all.iter_mut().find(|attempt| attempt.asker == asker)?;
        change(attempt);
        attempt.child.clone()
    }
}

impl Deliver for Service {
    fn message(&self, turn: &mut Turn, message: Message) {
        let Some(node) = self.node.upgrade() else { return };
        let mut r = Reader::new(&message.data, None);
        match (r.take_u8(), message.reply_to) {
            (Ok(word), Some(handle)) if word == Word::Begin as u8 => {
                let asker = (message.src, handle);
                match Recipe::decode(&mut r) {
                    Ok(recipe) => self.begin(&node, turn, asker, recipe),
                    Err(_) => tell(&node, asker, &|w| w.put_u8(2)),
                }
            }
            (Ok(word), None) if word == Word::Cancel as u8 => {
                let Ok(handle) = u32::decode(&mut r) else { return };
                let asker = (message.src, Handle(handle));
                let child = self.attempts.find(asker, |attempt| attempt.given_up = true);
                if let Some(child) = child {
                    child.cancel(turn);
                }
            }
            _ => (),
        }
    }

    fn dead(&self, _: &mut Turn, _: ContextId, _: &Death) {}
}

impl Service {
    #[inline(never)] // a frame of its own: smaller code
    fn begin(&self, node: &Arc<Node>, turn: &mut Turn, asker: Asker, recipe: Recipe) {
        let (attempts, node) = (self.attempts.clone(), node.clone());
        attempts.lock().push(Attempt { asker, child: None, given_up: false });
        let listener = Arc::new(Line { node: node.clone(), attempts, asker });
        child::connect(&node, &self.images, turn, Arc::new(recipe), listener);
    }
}

/// The line to who asked for an attempt.
struct Line {
    node: Arc<Node>,
    attempts: Arc<Attempts>,
    asker: Asker,
}

impl Listener for Line {
    fn begun(&self, turn: &mut Turn, child: &Child) {
        let mut given_up = false;
        self.attempts.find(self.asker, |attempt| {
            attempt.child = Some(child.clone());
            given_up = attempt.given_up;
        });
        if given_up {
            child.cancel(turn);
        }
    }

    fn done(&self, _: &mut Turn, outcome: Result<Connected, Box<ConnectError>>) {
        self.attempts.lock().retain(|attempt| attempt.asker != self.asker);
        tell(&self.node, self.asker, &|w| put_outcome(&outcome, w));
    }
}

/// Answers, here or elsewhere.
fn tell(node: &Arc<Node>, (dst, handle): Asker, payload: Payload<'_>) {
    let out = Outgoing { kind: Kind::Reply, dst, auth: node.id(), handle, reply_to: None };
    if let Ok(payload) = FrameBuf::encode(None, payload) {
        // Who is gone need not be told.
        let _ = node.send(&out, payload);
    }
}

/// An attempt that a context was asked to make.
pub struct Ticket {
    via: ContextId,
    handle: Handle,
    asked: Arc<Asked>,
}

/// Has `via`, which may be this context, start a child; `taker` is called once, unless this fails.
///
/// # Errors
/// Those of sending.
pub fn ask(node: &Arc<Node>, via: ContextId, recipe: &Recipe, taker: Taker) -> Result<Ticket> {
    let taker = Mutex::new(Some(taker));
    let asked = Arc::new(Asked { node: node.clone(), taker, given_up: AtomicBool::new(false) });
    let handle = node.listen_for_answer(via, asked.clone())?;
    let sent = say(node, via, Some(handle), &|w| {
        w.put_u8(Word::Begin as u8);
        recipe.encode(w);
    });
    if let Err(error) = sent {
        node.unlisten(handle);
        return Err(error);
    }
    Ok(Ticket { via, handle, asked })
}

/// Gives an attempt up: its outcome comes soon, and is no context. One that is up is ended.
pub fn cancel(node: &Arc<Node>, ticket: &Ticket) {
    ticket.asked.given_up.store(true, Ordering::SeqCst);
    // Who is gone has told so.
    let _ = say(node, ticket.via, None, &|w| {
        w.put_u8(Word::Cancel as u8);
        ticket.handle.0.encode(w);
    });
}

fn say(
    node: &Arc<Node>,
    dst: ContextId,
    reply_to: Option<Handle>,
    payload: Payload<'_>,
) -> Result<()> {
    let (kind, handle) = (Kind::Control, Handle::CONNECT);
    let out = Outgoing { kind, dst, auth: node.id(), handle, reply_to };
    node.send(&out, FrameBuf::encode(None, payload).unwrap_or_default())
}

/// Waits for the outcome.
struct Asked {
    node: Arc<Node>,
    taker: Mutex<Option<Taker>>,
    given_up: AtomicBool,
}

impl Asked {
    fn take(&self, turn: &mut Turn, mut outcome: Result<Connected, Refusal>) {
        if let (Ok(connected), true) = (&outcome, self.given_up.load(Ordering::SeqCst)) {
            ask_to_end(&self.node, connected.id);
            outcome = Err(failed(ConnectFailure::Cancelled));
        }
        let taker = self.taker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(taker) = taker {
            taker(turn, outcome);
        }
    }
}

impl Deliver for Asked {
    fn message(&self, turn: &mut Turn, message: Message) {
        self.take(turn, take_outcome(&mut Reader::new(&message.data, None)));
    }

    fn dead(&self, turn: &mut Turn, from: ContextId, death: &Death) {
        let refusal = match from == self.node.id() {
            true => failed(ConnectFailure::Cancelled),
            false => Refusal::Gone(death.clone()),
        };
        self.take(turn, Err(refusal));
    }
}

/// A failure that whoever hears of it names the hop of.
fn failed(failure: ConnectFailure) -> Refusal {
    let (phase, hop) = (Phase::Prepare, String::new());
    Refusal::Failed(Box::new(ConnectError { failure, phase, hop, exit: None, tail: String::new() }))
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

fn take_outcome(r: &mut Reader<'_>) -> Result<Connected, Refusal> {
    let outcome = match r.take_u8() {
        Ok(0) => Connected::decode(r).map(Ok),
        Ok(1) => ConnectError::decode(r).map(|error| Err(Refusal::Failed(Box::new(error)))),
        _ => Err(Malformed("an outcome of no kind")),
    };
    outcome.unwrap_or_else(|Malformed(why)| Err(failed(ConnectFailure::Protocol(why.into()))))
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
