//! What images a program can send: those that it gave, and its own executable. The stock agent does
//! not carry this.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::error::ConnectFailure;
use crate::lock::{Held, Lock};
use crate::module::content::{Content, Parcel};
use crate::module::elf::{self, Elf};
use crate::module::image::Image;
use crate::module::images::{Forks, Found, Launch, Source, Started, Want, own_content, unreadable};
use crate::module::{pack, target};
use crate::sys::errno::Errno;
use crate::sys::fd;

/// Bytes of an executable's head that hold its headers.
const HEAD_BYTES: usize = 4096;

/// The variable that tells a test binary that it is an agent; its value is the agent's argument.
pub const TEST_VARIABLE: &str = "MITOGEN_TEST_AGENT";

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

/// The images of a program.
pub struct Given {
    images: Vec<Image>,
    /// The own executable, where it may be used.
    own: Option<Own>,
    /// Whether the parent may have others.
    asks: bool,
    /// The given image for this machine, once it was started: all that run it share its pages.
    started: Lock<Option<Arc<OwnedFd>>>,
    /// How this process is copied for anyone.
    forks: Option<Arc<dyn Forks>>,
    /// How it is copied for the attempts of these nonces.
    offers: Lock<Vec<(u64, Arc<dyn Forks>)>>,
}

impl Given {
    /// These images; the own executable as far as `own` lets it, if it is among them or they are
    /// none. There are no others.
    pub fn new(mut images: Vec<Image>, own: Own) -> Given {
        let uses_own = images.is_empty() || images.iter().any(Image::is_own);
        images.retain(|image| !image.is_own());
        Given { asks: false, ..Given::of(images, uses_own.then_some(own)) }
    }

    /// Those of a program that is an agent: its own executable, and what its parent has.
    pub fn of_agent(own: Own) -> Given {
        Given::of(Vec::new(), Some(own))
    }

    fn of(images: Vec<Image>, own: Option<Own>) -> Given {
        let (started, offers) = (Lock::default(), Lock::default());
        Given { images, own, asks: true, started, forks: None, offers }
    }

    fn offers(&self) -> Held<'_, Vec<(u64, Arc<dyn Forks>)>> {
        self.offers.lock()
    }

    /// The same of a process that may be copied like this.
    pub fn with_forks(self, forks: Option<Arc<dyn Forks>>) -> Given {
        Given { forks, ..self }
    }

    /// The image for a target; of two the one that is compressed as wanted.
    fn given(&self, target: &str, gzipped: bool) -> Option<&Image> {
        let mut all = self.images.iter().filter(|image| image.target == target);
        let first = all.next();
        let other = || all.find(|image| image.is_gzipped() == gzipped);
        first.filter(|image| image.is_gzipped() == gzipped).or_else(other).or(first)
    }

    /// This content, if it is what is wanted, and surely an executable for its target; else what it
    /// takes to make that of it.
    fn as_wanted(&self, content: Content, gzipped: bool, want: &Want) -> Found {
        let (target, gzip) = (want.target.clone(), want.gzip);
        // What was compressed cannot be looked into, but what lies beside it can.
        let is_ready = gzipped && gzip;
        let sibling = self.given(&target, false).filter(|image| is_ready && !image.is_gzipped());
        if let Some(sibling) = sibling {
            // A look at its head alone: this is done for each piece that a child asks for.
            let mut head = Vec::new();
            let read = sibling.content.append_to(&mut head, 0, HEAD_BYTES as u64);
            let fits = read.map_err(unreadable).and_then(|()| pack::check(&head, &target));
            return Found::Known(fits.map(|()| Parcel { content, gzipped }));
        }
        Found::ToMake(Box::new(move || pack::make(&content, &target, gzipped, gzip)))
    }

    /// The file of this image, which is made once.
    fn start(&self, image: &Image) -> Result<Arc<OwnedFd>, ConnectFailure> {
        let mut started = self.started.lock();
        if let Some(file) = &*started {
            return Ok(file.clone());
        }
        let plain = match image.is_gzipped() {
            true => pack::make(&image.content, &image.target, true, false)?.content,
            false => image.content.clone(),
        };
        let file = Arc::new(plain.to_file().map_err(unreadable)?);
        *started = Some(file.clone());
        Ok(file)
    }

    fn none_for(&self, wanted: &str) -> ConnectFailure {
        let mut names: Vec<String> = Vec::new();
        if let Some(Own::Entered) = self.own {
            names.push(target::own());
        }
        for image in &self.images {
            if !names.contains(&image.target) {
                names.push(image.target.clone());
            }
        }
        ConnectFailure::NoImage { target: wanted.to_owned(), available: names.join(" ") }
    }
}

impl Source for Given {
    fn find(&self, want: &Want, same_root: bool) -> Found {
        if let Some(image) = self.given(&want.target, want.gzip) {
            return match image.dynamic && !same_root {
                true => Found::Known(Err(dynamic())),
                false => self.as_wanted(image.content.clone(), image.is_gzipped(), want),
            };
        }
        let own = self.own.as_ref().filter(|_| want.target == target::own());
        match own.map(|own| may_be_sent(own, same_root)) {
            Some(Err(failure)) => Found::Known(Err(failure)),
            Some(Ok(())) => match own_content() {
                Ok(content) => self.as_wanted(content, false, want),
                Err(errno) => Found::Known(Err(unreadable(errno))),
            },
            None if self.asks => Found::ToAsk,
            None => Found::Known(Err(self.none_for(&want.target))),
        }
    }

    fn launch(&self, argv: Vec<Vec<u8>>) -> Result<Launch, ConnectFailure> {
        let here = target::own();
        if let Some(image) = self.given(&here, false) {
            let file = self.start(image)?;
            return Ok(Launch { file, argv, env: Vec::new() });
        }
        let (argv, env) = match &self.own {
            None => return Err(self.none_for(&here)),
            Some(Own::Unknown) => return Err(no_own()),
            Some(Own::Entered) => (argv, Vec::new()),
            Some(Own::Test(args)) => as_test(argv, args),
        };
        let file = Arc::new(fd::open_self_exe().map_err(unreadable)?);
        Ok(Launch { file, argv, env })
    }

    fn fork(&self, nonce: u64, title: &str) -> Result<Started, ConnectFailure> {
        let offered = {
            let offers = self.offers();
            offers.iter().find(|(other, _)| *other == nonce).map(|(_, forks)| forks.clone())
        };
        let forks = offered.as_ref().or(self.forks.as_ref());
        let forks = forks.ok_or(ConnectFailure::ForkForbidden)?;
        let copy = Given::of(self.images.clone(), self.own.clone());
        forks.fork(Box::new(copy.with_forks(self.forks.clone())), nonce, title)
    }

    fn offer(&self, nonce: u64, forks: Option<Arc<dyn Forks>>) {
        let mut offers = self.offers();
        let before = offers.iter().position(|(other, _)| *other == nonce);
        let before = before.map(|at| offers.swap_remove(at));
        offers.extend(forks.map(|forks| (nonce, forks)));
        drop(offers);
        // It may own what takes a while to be dropped.
        drop(before);
    }
}

/// A test binary's arguments are its harness's, so a variable says what an agent's would.
fn as_test(mut argv: Vec<Vec<u8>>, args: &[CString]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let variable = [TEST_VARIABLE.as_bytes(), b"=", &argv[1]].concat();
    argv.truncate(1);
    argv.extend(args.iter().map(|arg| arg.as_bytes().to_vec()));
    (argv, vec![variable])
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
