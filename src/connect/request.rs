//! How a context is asked to start a child, or to end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::connect::child::Connected;
use crate::connect::recipe::Recipe;
use crate::connect::tail::harmless;
use crate::error::{Cause, ConnectError, ConnectFailure, Death, Error, Phase, Result};
use crate::ids::{ContextId, Handle};
use crate::io::turn::Turn;
use crate::limits::QUESTION_BYTES_MAX;
use crate::lock::{Held, Lock, rank};
use crate::route::node::{Node, Outgoing, Payload};
use crate::route::pending::Deliver;
use crate::sys::errno::Errno;
use crate::sys::thread;
use crate::trace::Level;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Shape, Writer};
use crate::wire::frame::FrameBuf;
use crate::wire::header::{Kind, Lane};
use crate::wire::message::Message;
use crate::wire::secret::Secret;

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
pub(super) enum Word {
    /// Start a child; the handle for a question follows, or 0, and a recipe.
    Begin = 0,
    /// Give an attempt up; its handle follows.
    Cancel = 1,
    /// What to type at its question; the handle for the next one follows, and the answer if any.
    Answer = 2,
}

/// Answers questions, on a thread of its own.
pub type Answerer = Arc<dyn Fn(&Question) -> Option<Secret> + Send + Sync>;

/// What a tool asks while a connection is made, and no option answers: a verification code, say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name that the new context is to have: its address, unless another was given.
    pub name: String,
    /// The words of the question, without control characters.
    pub text: String,
}

/// An attempt that a context was asked to make.
pub struct Ticket(Arc<Asked>);

/// Has `via`, which may be this context, start a child; `taker` is called once, unless this fails.
///
/// # Errors
/// Those of sending.
pub fn ask(
    node: &Arc<Node>,
    via: ContextId,
    recipe: &Recipe,
    answerer: Option<Answerer>,
    taker: Taker,
) -> Result<Ticket> {
    if via != node.id() && recipe.stays_here() {
        let why =
            "on_fork and on_start run in a copy of this very process: they cannot go with via";
        let (failure, phase) = (ConnectFailure::BadOption(why.to_owned()), Phase::Prepare);
        let (hop, tail) = (recipe.name.clone(), String::new());
        return Err(ConnectError { failure, phase, hop, exit: None, typed: false, tail }.into());
    }
    let progress = Progress { answers: None, questions: None, taker: Some(taker), given_up: false };
    let asked = Arc::new(Asked { node: node.clone(), via, progress: Lock::new(progress) });
    let handle = node.listen_for_answer(via, asked.clone())?;
    asked.lock().answers = Some(handle);
    let begun = asked.begin(handle, recipe, answerer);
    if let Err(error) = begun {
        asked.end();
        return Err(error);
    }
    Ok(Ticket(asked))
}

impl Ticket {
    /// Gives the attempt up: its outcome comes soon, and is no context. One that is up is ended.
    pub fn cancel(&self) {
        let mut progress = self.0.lock();
        progress.given_up = true;
        let answers = progress.answers;
        drop(progress);
        if let Some(handle) = answers {
            // Who is gone has told so.
            let _ = self.0.say(None, &|w| {
                w.put_u8(Word::Cancel as u8);
                handle.0.encode(w);
            });
        }
    }
}

/// Waits for the outcome.
struct Asked {
    node: Arc<Node>,
    via: ContextId,
    progress: Lock<Progress, { rank::CHILD }>,
}

struct Progress {
    /// Where the outcome arrives; none when it has.
    answers: Option<Handle>,
    /// Where the next question arrives.
    questions: Option<Handle>,
    taker: Option<Taker>,
    given_up: bool,
}

impl Asked {
    fn lock(&self) -> Held<'_, Progress> {
        self.progress.lock()
    }

    fn begin(
        self: &Arc<Self>,
        handle: Handle,
        recipe: &Recipe,
        answerer: Option<Answerer>,
    ) -> Result<()> {
        let questions = match answerer {
            Some(answerer) => {
                let name = recipe.name.clone();
                Some(self.listen(&Arc::new(Asking { asked: self.clone(), name, answerer }))?)
            }
            None => None,
        };
        self.say(Some(handle), &|w| {
            w.put_u8(Word::Begin as u8);
            questions.map_or(0, |handle| handle.0).encode(w);
            recipe.encode(w);
        })
    }

    /// Listens for the next question.
    fn listen(&self, asking: &Arc<Asking>) -> Result<Handle> {
        let mut progress = self.lock();
        if progress.answers.is_none() || progress.given_up {
            return Err(Error::closed(Cause::Cancelled));
        }
        let handle = self.node.listen_for_answer(self.via, Arc::new(Asks(asking.clone())))?;
        progress.questions = Some(handle);
        Ok(handle)
    }

    /// Waits for nothing any more.
    fn end(&self) -> (Option<Taker>, bool) {
        let mut progress = self.lock();
        let handles = [progress.answers.take(), progress.questions.take()];
        let left = (progress.taker.take(), progress.given_up);
        drop(progress);
        for handle in handles.into_iter().flatten() {
            self.node.unlisten(handle);
        }
        left
    }

    fn take(&self, turn: &mut Turn, mut outcome: Result<Connected, Refusal>) {
        let (taker, given_up) = self.end();
        if let (Ok(connected), true) = (&outcome, given_up) {
            ask_to_end(&self.node, connected.id);
            outcome = Err(failed(ConnectFailure::Cancelled));
        }
        if let Some(taker) = taker {
            taker(turn, outcome);
        }
    }

    fn say(&self, reply_to: Option<Handle>, payload: Payload<'_>) -> Result<()> {
        let (kind, dst, handle) = (Kind::Control, self.via, Handle::CONNECT);
        let out = Outgoing { kind, dst, auth: self.node.id(), handle, reply_to };
        self.node.send(&out, FrameBuf::encode(None, payload).unwrap_or_default())
    }
}

impl Deliver for Asked {
    fn message(&self, turn: &mut Turn, message: Message) {
        let mut outcome = take_outcome(&mut Reader::new(&message.data, None));
        if let Ok(Connected { id, .. }) = outcome {
            if self.via != self.node.id() && !self.node.may_have_started(self.via, id) {
                // What is done to it would be done to another.
                outcome = Err(failed(ConnectFailure::Protocol("a context of others".into())));
            }
        }
        self.take(turn, outcome);
    }

    fn dead(&self, turn: &mut Turn, from: ContextId, death: &Death) {
        let refusal = match from == self.node.id() {
            true => failed(ConnectFailure::Cancelled),
            false => Refusal::Gone(death.clone()),
        };
        self.take(turn, Err(refusal));
    }

    fn describe(&self, _: usize, w: &mut Writer<'_>) {
        w.put_u8(3);
    }
}

/// Waits for questions.
struct Asking {
    asked: Arc<Asked>,
    name: String,
    answerer: Answerer,
}

impl Asking {
    /// Has the program answer, and passes that on. It may take its time: a person is asked, maybe.
    fn answer(self: Arc<Self>, question: &Question) {
        let answered = catch_unwind(AssertUnwindSafe(|| (self.answerer)(question)));
        let answer = answered.unwrap_or_else(|_| {
            self.asked.node.event(Level::Error, "a function that answers questions panicked", &[]);
            None
        });
        let Ok(next) = self.asked.listen(&self) else { return };
        let Some(handle) = self.asked.lock().answers else { return };
        // Who is gone has told so.
        let _ = self.asked.say(None, &|w| {
            w.put_u8(Word::Answer as u8);
            handle.0.encode(w);
            next.0.encode(w);
            answer.encode(w);
        });
    }
}

/// One question, on the way to the thread that answers it.
struct Asks(Arc<Asking>);

impl Deliver for Asks {
    fn message(&self, _: &mut Turn, message: Message) {
        // Nobody is to be bothered with what is given up, whatever the hop says.
        if self.0.asked.lock().given_up {
            return;
        }
        let bytes = Reader::new(&message.data, None).take_bytes().unwrap_or_default();
        let bytes = &bytes[bytes.len().saturating_sub(QUESTION_BYTES_MAX)..];
        let (asking, name) = (self.0.clone(), self.0.name.clone());
        let question = Question { name, text: harmless(bytes) };
        let body = Box::new(move || asking.answer(&question));
        if let Err(Errno(errno)) = thread::spawn(c"mitogen-answer", 0, body) {
            // Nobody answers; the timeout ends it.
            self.0.asked.node.event(Level::Error, "starting a thread failed", &[errno as u64]);
        }
    }

    fn dead(&self, _: &mut Turn, _: ContextId, _: &Death) {}

    fn describe(&self, _: usize, w: &mut Writer<'_>) {
        w.put_u8(3);
    }
}

/// A failure that whoever hears of it names the hop of.
fn failed(failure: ConnectFailure) -> Refusal {
    let (phase, hop) = (Phase::Prepare, String::new());
    let (exit, typed, tail) = (None, false, String::new());
    Refusal::Failed(Box::new(ConnectError { failure, phase, hop, exit, typed, tail }))
}

/// Asks a context to end.
pub fn ask_to_end(node: &Node, id: ContextId) {
    let (auth, handle) = (node.id(), Handle::SHUTDOWN);
    let out = Outgoing { kind: Kind::Control, dst: id, auth, handle, reply_to: None };
    node.tell(&out, Lane::Quick, &|_| ());
}

fn take_outcome(r: &mut Reader<'_>) -> Result<Connected, Refusal> {
    let outcome = match r.take_u8() {
        Ok(0) => Connected::decode(r).map(Ok),
        Ok(1) => ConnectError::decode(r).map(|error| Err(Refusal::Failed(Box::new(error)))),
        Ok(2) => Err(Malformed("what that context cannot read; or it has too many under way")),
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
