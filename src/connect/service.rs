//! Makes the connections that this context is asked for, by itself or by an ancestor; and cuts
//! them.

use std::sync::Arc;

use crate::connect::child::{self, Child, Connected, Listener};
use crate::connect::recipe::Recipe;
use crate::connect::request::Word;
use crate::error::{ConnectError, Death, Result};
use crate::ids::{ContextId, Handle};
use crate::io::turn::Turn;
use crate::limits::{ATTEMPTS_MAX, NAME_BYTES_MAX};
use crate::lock::{Held, Lock};
use crate::module::images::Images;
use crate::route::node::Node;
use crate::route::pending::Deliver;
use crate::route::policy;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Writer};
use crate::wire::header::Kind;
use crate::wire::message::Message;
use crate::wire::secret::Secret;

/// Serves [`Handle::CONNECT`] and [`Handle::DISCONNECT`] for those who have authority over this
/// context.
pub fn listen(node: &Arc<Node>, images: Arc<Images>) -> Result<()> {
    let attempts = Arc::new(Attempts::default());
    let service = Arc::new(Service { node: node.clone(), images, attempts });
    for handle in [Handle::CONNECT, Handle::DISCONNECT] {
        let policy = policy::has_parent_authority;
        node.listen(handle, Kind::Control, policy, service.clone())?;
    }
    Ok(())
}

struct Service {
    node: Arc<Node>,
    images: Arc<Images>,
    attempts: Arc<Attempts>,
}

/// The attempts of one context.
#[derive(Default)]
struct Attempts(Lock<Vec<Attempt>>);

struct Attempt {
    asker: Asker,
    /// Where the next question goes.
    questions: Handle,
    /// None until its process is started.
    child: Option<Child>,
    given_up: bool,
}

/// Who asked for an attempt, and where its outcome is to arrive.
type Asker = (ContextId, Handle);

impl Attempts {
    fn lock(&self) -> Held<'_, Vec<Attempt>> {
        self.0.lock()
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
        let mut r = Reader::new(&message.data, None);
        if message.handle == Handle::DISCONNECT {
            if let Ok(child) = ContextId::decode(&mut r) {
                self.node.cut_off(turn, child);
            }
            return;
        }
        let read = match (r.take_u8(), message.reply_to) {
            (Ok(word), Some(handle)) if word == Word::Begin as u8 => {
                self.begin(turn, (message.src, handle), message.auth, &mut r)
            }
            (Ok(word), None) => self.change(turn, word, message.src, &mut r),
            _ => Err(Malformed("no word of a connect")),
        };
        if let (Err(_), Some(handle)) = (read, message.reply_to) {
            self.node.answer((message.src, handle), &|w| w.put_u8(2));
        }
    }

    fn dead(&self, _: &mut Turn, _: ContextId, _: &Death) {}
}

impl Service {
    #[inline(never)] // a frame of its own: smaller code
    fn begin(
        &self,
        turn: &mut Turn,
        asker: Asker,
        auth: ContextId,
        r: &mut Reader<'_>,
    ) -> Result<(), Malformed> {
        let questions = Handle(u32::decode(r)?);
        let mut recipe = Recipe::decode(r)?;
        recipe.terms.ask_under(auth);
        let recipe = Arc::new(recipe);
        let attempts = self.attempts.clone();
        if NAME_BYTES_MAX < recipe.name.len() || ATTEMPTS_MAX <= attempts.lock().len() {
            return Err(Malformed("a name that is too long, or too many attempts"));
        }
        attempts.lock().push(Attempt { asker, questions, child: None, given_up: false });
        let node = &self.node;
        let line = Arc::new(Line { node: node.clone(), attempts, asker });
        child::connect(node, &self.images, turn, recipe, line);
        Ok(())
    }

    /// An answer, or the end, for an attempt; which may be over by now.
    fn change(
        &self,
        turn: &mut Turn,
        word: u8,
        src: ContextId,
        r: &mut Reader<'_>,
    ) -> Result<(), Malformed> {
        let asker = (src, Handle(u32::decode(r)?));
        if word == Word::Answer as u8 {
            let questions = Handle(u32::decode(r)?);
            let answer = Option::<Secret>::decode(r)?;
            if let Some(child) = self.attempts.find(asker, |it| it.questions = questions) {
                child.answer(turn, answer);
            }
        } else if let Some(child) = self.attempts.find(asker, |it| it.given_up = true) {
            child.cancel(turn);
        }
        Ok(())
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

    fn asks(&self, question: &str) {
        let mut questions = None;
        self.attempts.find(self.asker, |attempt| questions = Some(attempt.questions));
        if let Some(handle) = questions {
            let asker = (self.asker.0, handle);
            self.node.answer(asker, &|w| w.put_bytes(question.as_bytes()));
        }
    }

    fn done(&self, _: &mut Turn, outcome: Result<Connected, Box<ConnectError>>) {
        self.attempts.lock().retain(|attempt| attempt.asker != self.asker);
        self.node.answer(self.asker, &|w| put_outcome(&outcome, w));
    }
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
