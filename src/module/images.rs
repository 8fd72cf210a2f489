//! What images a context can start children from: those of its program, and those that it had from
//! its parent. What is wanted and not at hand is made, or comes, once, however many want it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use crate::error::ConnectFailure;
use crate::io::side::Side;
use crate::io::turn::Turn;
use crate::limits::{IMAGE_TAKERS_MAX, IMAGES_COMING_MAX, IMAGES_HELD_MAX};
use crate::lock::{Held, Lock};
use crate::module::content::{Content, Parcel};
use crate::module::{forward, target};
use crate::route::node::Node;
use crate::sys::errno::Errno;
use crate::sys::wait::Process;
use crate::sys::{fd, thread};

/// What a target needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// `<os>-<cpu>`, by our names.
    pub target: String,
    /// Whether it may be gzip's output; else it must be plain.
    pub gzip: bool,
}

/// An image, or why there is none.
pub type Outcome = Result<Parcel, ConnectFailure>;
/// Takes an image, or why there is none. Called on the broker's thread, with no lock held.
pub type Taker = Box<dyn FnOnce(&mut Turn, &Outcome) + Send>;

/// What a program can send, and start here.
pub trait Source: Send + Sync {
    /// Where to find what is wanted. `same_root` tells that the target has this machine's files.
    fn find(&self, want: &Want, same_root: bool) -> Found;

    /// What to execute here, without a shell; `argv` is an agent's.
    ///
    /// # Errors
    /// Why there is no image, or why this system refuses to make it a file.
    fn launch(&self, argv: Vec<Vec<u8>>) -> Result<Launch, ConnectFailure>;

    /// Makes what is [`Found::ToMake`] on a thread of its own. Here, so that a stock agent, which
    /// makes nothing, does not link it.
    fn make(
        &self,
        images: &Arc<Images>,
        node: &Arc<Node>,
        turn: &mut Turn,
        want: Want,
        make: Make,
    ) {
        images.start_making(node, turn, want, make);
    }

    /// Copies this process for the attempt of this nonce: as was offered to it, or as is allowed to
    /// anyone.
    ///
    /// # Errors
    /// [`ConnectFailure::ForkForbidden`], and what the system refuses.
    fn fork(&self, nonce: u64, title: &str) -> Result<Started, ConnectFailure>;

    /// Offers a copy to an attempt, or takes that back.
    fn offer(&self, nonce: u64, forks: Option<Arc<dyn Forks>>);
}

/// Copies this process.
pub trait Forks: Send + Sync {
    /// Makes a copy, which has these images, answers as an agent does, and has this title in `ps`.
    /// Only on a broker's thread: the copy ends with it.
    ///
    /// # Errors
    /// What the system refuses.
    fn fork(
        &self,
        images: Box<dyn Source>,
        nonce: u64,
        title: &str,
    ) -> Result<Started, ConnectFailure>;
}

/// An offer that lasts as long as this.
pub struct Offer {
    images: Arc<Images>,
    nonce: u64,
}

impl Drop for Offer {
    fn drop(&mut self) {
        if let Some(source) = &self.images.source {
            source.offer(self.nonce, None);
        }
    }
}

/// A process that was started, and our ends of its descriptors.
pub struct Started {
    /// When.
    pub begun: Instant,
    /// The process.
    pub process: Process,
    /// Its standard output, and its standard input, which may be the same socket.
    pub main: [Side; 2],
    /// Its terminal, or its standard error.
    pub terminal: Side,
}

/// Makes an image.
pub type Make = Box<dyn FnOnce() -> Outcome + Send>;

/// All images that a context can start children from.
pub struct Images {
    /// None in a stock agent: its own executable, as it is, and what its parent has.
    source: Option<Box<dyn Source>>,
    state: Lock<State>,
}

#[derive(Default)]
struct State {
    /// What was made or has come, and what there is none of. No want stands here twice.
    held: Vec<(Want, Outcome)>,
    /// What is on its way, and who waits for it. No want stands here twice, nor here and above.
    coming: Vec<(Want, Vec<Taker>)>,
}

/// Where an image is.
pub enum Found {
    /// Here, or nowhere.
    Known(Outcome),
    /// Here, but not as it is wanted: this makes it so, and may take a while.
    ToMake(Make),
    /// Perhaps with the parent.
    ToAsk,
}

/// An image, ready to be executed here.
pub struct Launch {
    /// The open file.
    pub file: Arc<OwnedFd>,
    /// Its arguments, its name included.
    pub argv: Vec<Vec<u8>>,
    /// What its environment has beside ours, as `NAME=value`.
    pub env: Vec<Vec<u8>>,
}

impl Images {
    /// Those of a program, or of a stock agent.
    pub fn new(source: Option<Box<dyn Source>>) -> Images {
        Images { source, state: Lock::default() }
    }

    /// Gives `taker` what to send to a target: at once, or when it has been made or has come.
    /// `same_root` tells that the target has this machine's files.
    pub fn want(
        self: &Arc<Self>,
        node: &Arc<Node>,
        turn: &mut Turn,
        want: Want,
        same_root: bool,
        taker: Taker,
    ) {
        match self.find(&want, same_root) {
            Found::Known(outcome) => taker(turn, &outcome),
            found => match self.wait(&want, taker) {
                Err(taker) => taker(turn, &Err(ConnectFailure::ImageUnusable(crowd()))),
                Ok(false) => (),
                Ok(true) => match (found, &self.source) {
                    (Found::ToMake(make), Some(source)) => {
                        source.make(self, node, turn, want, make);
                    }
                    _ => forward::ask(self, node, turn, want),
                },
            },
        }
    }

    /// What has been made, or has come, or not.
    pub(super) fn arrived(&self, turn: &mut Turn, want: &Want, outcome: &Outcome) {
        let takers = {
            let mut state = self.state();
            let at = state.coming.iter().position(|(coming, _)| coming == want);
            let Some(at) = at else { return };
            if matches!(outcome, Ok(_) | Err(ConnectFailure::NoImage { .. })) {
                state.hold(want, outcome);
            }
            state.coming.swap_remove(at).1
        };
        for taker in takers {
            taker(turn, outcome);
        }
    }

    /// What to execute here; see [`Source::launch`].
    pub fn launch(&self, argv: Vec<Vec<u8>>) -> Result<Launch, ConnectFailure> {
        if let Some(source) = &self.source {
            return source.launch(argv);
        }
        let file = Arc::new(fd::open_self_exe().map_err(unreadable)?);
        Ok(Launch { file, argv, env: Vec::new() })
    }

    /// See [`Source::fork`]. A stock agent has nothing to share with a copy.
    pub fn fork(&self, nonce: u64, title: &str) -> Result<Started, ConnectFailure> {
        match &self.source {
            Some(source) => source.fork(nonce, title),
            None => Err(ConnectFailure::ForkForbidden),
        }
    }

    /// Offers a copy of this process to the attempt of this nonce, until what is returned is
    /// dropped.
    pub fn offer(self: &Arc<Self>, nonce: u64, forks: Arc<dyn Forks>) -> Offer {
        if let Some(source) = &self.source {
            source.offer(nonce, Some(forks));
        }
        Offer { images: self.clone(), nonce }
    }

    fn find(&self, want: &Want, same_root: bool) -> Found {
        let found = match &self.source {
            Some(source) => source.find(want, same_root),
            None if want.target != target::own() => Found::ToAsk,
            None => {
                let parcel = |content| Parcel { content, gzipped: false };
                Found::Known(own_content().map(parcel).map_err(unreadable))
            }
        };
        if let Found::Known(_) = found {
            return found;
        }
        let state = self.state();
        let held = state.held.iter().find(|(held, _)| held == want);
        held.map_or(found, |(_, outcome)| Found::Known(outcome.clone()))
    }

    /// Queues who waits. Whether it is the first; or the taker again if there are too many.
    fn wait(&self, want: &Want, taker: Taker) -> Result<bool, Taker> {
        let mut state = self.state();
        if let Some((_, takers)) = state.coming.iter_mut().find(|(coming, _)| coming == want) {
            if IMAGE_TAKERS_MAX <= takers.len() {
                return Err(taker);
            }
            takers.push(taker);
            return Ok(false);
        }
        if IMAGES_COMING_MAX <= state.coming.len() {
            return Err(taker);
        }
        state.coming.push((want.clone(), vec![taker]));
        Ok(true)
    }

    /// Makes it on a thread of its own, since that takes a while.
    fn start_making(self: &Arc<Self>, node: &Arc<Node>, turn: &mut Turn, want: Want, make: Make) {
        let (images, node, wanted) = (self.clone(), node.clone(), want.clone());
        let body = move || {
            let outcome = make();
            // An ended broker has told those who wait.
            let _ = node.broker().defer(move |turn| images.arrived(turn, &wanted, &outcome));
        };
        if let Err(errno) = thread::spawn(c"mitogen-image", 0, Box::new(body)) {
            self.arrived(turn, &want, &Err(unreadable(errno)));
        }
    }

    fn state(&self) -> Held<'_, State> {
        self.state.lock()
    }
}

impl State {
    /// Remembers an outcome; an absence gives way when there are too many.
    fn hold(&mut self, want: &Want, outcome: &Outcome) {
        if let Some(at) = self.held.iter().position(|(held, _)| held == want) {
            drop(self.held.remove(at));
        }
        if IMAGES_HELD_MAX <= self.held.len() {
            let Some(at) = self.held.iter().position(|(_, held)| held.is_err()) else { return };
            drop(self.held.remove(at));
        }
        self.held.push((want.clone(), outcome.clone()));
    }
}

/// The own executable, as it is.
pub(super) fn own_content() -> Result<Content, Errno> {
    Content::of_file(fd::open_self_exe()?)
}

/// What this system refuses.
pub(super) fn unreadable(Errno(errno): Errno) -> ConnectFailure {
    ConnectFailure::Spawn(errno)
}

fn crowd() -> String {
    "too many wait for images".to_owned()
}
