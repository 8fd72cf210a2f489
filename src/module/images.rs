//! What images a context can start children from: those that the program gave, its own executable,
//! and, in an agent, those that it had from its parent. What is wanted and not at hand comes once,
//! however many want it.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::ConnectFailure;
use crate::io::turn::Turn;
use crate::limits::{IMAGE_TAKERS_MAX, IMAGES_COMING_MAX, IMAGES_HELD_MAX};
use crate::module::content::{Content, Parcel};
use crate::module::elf::{self, Elf};
use crate::module::image::Image;
use crate::module::{forward, target};
use crate::route::node::Node;
use crate::sys::errno::Errno;
use crate::sys::{fd, thread};

/// Bytes of an executable's head that hold its headers.
const HEAD_BYTES: usize = 4096;

/// Whether a process may start copies of its own executable.
#[derive(Clone, Debug, Default)]
pub enum Own {
    /// It may not: nobody has said that its `main` can be an agent's.
    #[default]
    Unknown,
    /// It entered `Program::run`, or it is an agent.
    Entered,
    /// It is a test binary: these arguments lead a copy to the agent, and this variable tells it.
    Test(Vec<CString>),
}

/// What a target needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// `<os>-<cpu>`, by our names.
    pub target: String,
    /// Whether it may be gzip's output; else it must be plain.
    pub gzip: bool,
}

/// Makes of an image what is wanted, small; it may take a while. The second is whether it is gzip's
/// output, the third whether it may be.
pub type Make = fn(&Content, bool, bool) -> Result<Parcel, ConnectFailure>;

/// An image, or why there is none.
pub type Outcome = Result<Parcel, ConnectFailure>;
/// Takes an image, or why there is none. Called on the broker's thread, with no lock held.
pub type Taker = Box<dyn FnOnce(&mut Turn, Outcome) + Send>;

/// All images that a context can start children from.
pub struct Images {
    given: Vec<Image>,
    /// The own executable, where it may be used.
    own: Option<Own>,
    /// Whether the parent is asked for what is not here.
    asks: bool,
    make: Option<Make>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What was made or has come, and what there is none of. No want stands here twice.
    held: Vec<(Want, Outcome)>,
    /// What is on its way, and who waits for it. No want stands here twice, nor here and above.
    coming: Vec<(Want, Vec<Taker>)>,
}

/// Where an image is.
pub(super) enum Found {
    /// Here, or nowhere.
    Known(Outcome),
    /// Here, but not as it is wanted: this, which is gzip's output or not, can become so.
    ToMake(Content, bool),
    /// Perhaps with the parent.
    ToAsk,
}

/// An image, ready to be executed here.
pub struct Launch {
    /// The open file.
    pub file: OwnedFd,
    /// Arguments that lead it to the agent, in place of the agent word: a test binary's.
    pub test_args: Option<Vec<CString>>,
}

impl Images {
    /// These images; the own executable as far as `own` lets it, if it is among them or they are
    /// none. There are no others.
    pub fn new(mut given: Vec<Image>, own: Own, make: Make) -> Images {
        let uses_own = given.is_empty() || given.iter().any(Image::is_own);
        given.retain(|image| !image.is_own());
        let own = uses_own.then_some(own);
        Images { given, own, asks: false, make: Some(make), state: Mutex::default() }
    }

    /// Those of an agent: its own executable, and what its parent has.
    pub fn of_agent(own: Own, make: Option<Make>) -> Images {
        let (given, own) = (Vec::new(), Some(own));
        Images { given, own, asks: true, make, state: Mutex::default() }
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
            Found::Known(outcome) => taker(turn, outcome),
            found => match self.wait(&want, taker) {
                Err(taker) => taker(turn, Err(ConnectFailure::ImageUnusable(crowd()))),
                Ok(false) => (),
                Ok(true) => match found {
                    Found::ToMake(content, gzipped) => {
                        self.start_making(node, turn, want, content, gzipped);
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
            taker(turn, outcome.clone());
        }
    }

    /// What to execute here, without a shell.
    ///
    /// # Errors
    /// Why there is no image, or why this system refuses to make it a file.
    pub fn launch(&self) -> Result<Launch, ConnectFailure> {
        let here = target::own();
        if let Some(image) = self.given(&here, false) {
            let (content, gzipped) = (&image.content, image.is_gzipped());
            let plain = match self.make {
                Some(make) if gzipped => Some(make(content, true, false)?.content),
                _ => None,
            };
            let file = plain.as_ref().unwrap_or(content).to_file().map_err(unreadable)?;
            return Ok(Launch { file, test_args: None });
        }
        let test_args = match &self.own {
            None => return Err(self.none_for(&here)),
            Some(Own::Unknown) => return Err(no_own()),
            Some(Own::Entered) => None,
            Some(Own::Test(args)) => Some(args.clone()),
        };
        let file = fd::open_self_exe().map_err(unreadable)?;
        Ok(Launch { file, test_args })
    }

    pub(super) fn find(&self, want: &Want, same_root: bool) -> Found {
        let image = self.given(&want.target, want.gzip);
        if image.is_some_and(|image| image.dynamic && !same_root) {
            return Found::Known(Err(dynamic()));
        }
        let own = self.own.as_ref().filter(|_| image.is_none() && want.target == target::own());
        if let Some(own) = own {
            if let Err(why) = may_be_sent(own, same_root) {
                return Found::Known(Err(why));
            }
        }
        if let Some(held) = self.state().held.iter().find(|(held, _)| held == want) {
            return Found::Known(held.1.clone());
        }
        match (image, own) {
            (Some(image), _) => self.as_wanted(&image.content, image.is_gzipped(), want),
            (None, Some(_)) => match own_content() {
                Ok(content) => self.as_wanted(&content, false, want),
                Err(errno) => Found::Known(Err(unreadable(errno))),
            },
            (None, None) if self.asks => Found::ToAsk,
            (None, None) => Found::Known(Err(self.none_for(&want.target))),
        }
    }

    /// This content, if it is what is wanted; else what it takes to make that of it.
    fn as_wanted(&self, content: &Content, gzipped: bool, want: &Want) -> Found {
        let content = content.clone();
        match self.make {
            Some(_) if gzipped != want.gzip => Found::ToMake(content, gzipped),
            _ => Found::Known(Ok(Parcel { content, gzipped })),
        }
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
    fn start_making(
        self: &Arc<Self>,
        node: &Arc<Node>,
        turn: &mut Turn,
        want: Want,
        content: Content,
        gzipped: bool,
    ) {
        let Some(make) = self.make else { return };
        let (images, node, wanted) = (self.clone(), node.clone(), want.clone());
        let body = move || {
            let outcome = make(&content, gzipped, wanted.gzip);
            // An ended broker has told those who wait.
            let _ = node.broker().defer(move |turn| images.arrived(turn, &wanted, &outcome));
        };
        if let Err(errno) = thread::spawn(c"mitogen-image", 0, Box::new(body)) {
            self.arrived(turn, &want, &Err(unreadable(errno)));
        }
    }

    /// The image for a target; of two the one that is compressed as wanted.
    fn given(&self, target: &str, gzipped: bool) -> Option<&Image> {
        let mut all = self.given.iter().filter(|image| image.target == target);
        let first = all.next();
        let other = || all.find(|image| image.is_gzipped() == gzipped);
        first.filter(|image| image.is_gzipped() == gzipped).or_else(other).or(first)
    }

    fn none_for(&self, wanted: &str) -> ConnectFailure {
        let mut names: Vec<String> = Vec::new();
        if let Some(Own::Entered) = self.own {
            names.push(target::own());
        }
        for image in &self.given {
            if !names.contains(&image.target) {
                names.push(image.target.clone());
            }
        }
        ConnectFailure::NoImage { target: wanted.to_owned(), available: names.join(" ") }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Remembers an outcome; an absence gives way when there are too many.
    fn hold(&mut self, want: &Want, outcome: &Outcome) {
        self.held.retain(|(held, _)| held != want);
        if IMAGES_HELD_MAX <= self.held.len() {
            let Some(at) = self.held.iter().position(|(_, held)| held.is_err()) else { return };
            drop(self.held.remove(at));
        }
        self.held.push((want.clone(), outcome.clone()));
    }
}

/// Whether the own executable may go to a target.
fn may_be_sent(own: &Own, same_root: bool) -> Result<(), ConnectFailure> {
    match own {
        Own::Unknown => Err(no_own()),
        Own::Test(_) => Err(ConnectFailure::ImageUnusable(
            "a test's own executable serves only `local`; give an image, as in \
             program.image(Image::file(env!(\"CARGO_BIN_EXE_name\"))?)"
                .to_owned(),
        )),
        Own::Entered if same_root || !is_dynamic().map_err(unreadable)? => Ok(()),
        Own::Entered => Err(dynamic()),
    }
}

/// Whether the own executable needs the libraries of this machine.
fn is_dynamic() -> Result<bool, Errno> {
    let file = fd::open_self_exe()?;
    let mut head = [0; HEAD_BYTES];
    let count = fd::pread(file.as_fd(), &mut head, 0)?;
    Ok(elf::parse(&head[..count]).is_none_or(|Elf { dynamic, .. }| dynamic))
}

fn own_content() -> Result<Content, Errno> {
    Content::of_file(fd::open_self_exe()?)
}

/// What this system refuses.
pub(super) fn unreadable(Errno(errno): Errno) -> ConnectFailure {
    ConnectFailure::Spawn(errno)
}

fn crowd() -> String {
    "too many wait for images".to_owned()
}

fn no_own() -> ConnectFailure {
    ConnectFailure::ImageUnusable(
        "there is no image to start an agent from: enter main by Program::run, or in a test give \
         an image with program.image(Image::file(env!(\"CARGO_BIN_EXE_name\"))?) or write \
         mitogen::test_agent!(program())"
            .to_owned(),
    )
}

fn dynamic() -> ConnectFailure {
    ConnectFailure::ImageUnusable(
        "a dynamic executable does not run on other machines; build a static one: \
         RUSTFLAGS=-Ctarget-feature=+crt-static cargo build --release --target \
         x86_64-unknown-linux-gnu, or for the musl target"
            .to_owned(),
    )
}
