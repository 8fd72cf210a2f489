//! What is said between the start of a child and the agent's first word: bytes in, actions out.
//! It knows no process, descriptor or clock; the engine that owns those feeds it.

mod prompts;

use std::sync::Arc;

use crate::connect::push::{Push, Rung, memory_line};
use crate::connect::recipe::{Recipe, Start, holds};
use crate::connect::stage::{self, Mark, Target};
use crate::connect::tail::{self, Tail};
use crate::error::{ConnectError, ConnectFailure, Exit, Phase};
use crate::limits::{NOISE_BYTES_MAX, UNAME_BYTES_MAX};
use crate::wire::PROTOCOL;
use crate::wire::secret::Secret;

/// One connection attempt.
pub struct Handshake {
    recipe: Arc<Recipe>,
    nonce: u64,
    phase: Phase,
    awaits: Awaits,
    /// What the shell has told.
    target: Target,
    stdout: Tail,
    terminal: Tail,
    rest: Vec<u8>,
    noise_bytes: usize,
    prompts: Prompts,
    /// Whether a line says that something cannot be executed.
    cannot_run: bool,
    /// The place on the target that is tried, and what was said of those before it.
    rung: Rung,
    tried: String,
    actions: Vec<Action>,
}

/// What is known of questions and answers.
#[derive(Default)]
struct Prompts {
    /// All that was or may be typed and must not be shown.
    secrets: Vec<Secret>,
    /// Whether a password was typed, ever.
    typed: bool,
    /// Whether the unfinished line of the terminal has its answer, or waits for one.
    answered: bool,
    /// The last question that somebody was asked; whether it is for the password; whether an
    /// answer is awaited.
    question: String,
    for_password: bool,
    asked: bool,
    /// Whether an answer is on its way to a question that is gone: the next one waits for that, or
    /// it would be taken for its own.
    owed: bool,
    /// Whether the engine is to call [`Handshake::settled`], and whether something came since.
    settling: bool,
    stirred: bool,
}

/// What the next mark must be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaits {
    Shell,
    Raw,
    /// None: the engine looks for an image.
    Image,
    Agent,
    Memory,
    /// The agent, without a shell before it.
    Own,
    /// None ever: the agent is up, or all is over.
    Nothing,
}

/// Where bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The child's standard output.
    Stdout,
    /// The child's pty, or its standard error.
    Terminal,
}

/// What the engine is to do, in order.
#[derive(Clone, Debug)]
pub enum Action {
    /// Write this to the child's standard input.
    Send(Vec<u8>),
    /// Write this and a line feed where the child reads answers: see [`Recipe::types_to_stdin`].
    Type(Secret),
    /// Call [`Handshake::settled`] after `SETTLE_AFTER`.
    Settle,
    /// Have somebody answer this question, made harmless; then call [`Handshake::answer`].
    Ask(String),
    /// Find an image for this target; then call [`Handshake::image`], or [`Handshake::failed`].
    WantImage(Target),
    /// The agent has spoken. [`Handshake::rest`] has what came behind; feed no more.
    Up,
    /// The attempt is over: end the child; [`Handshake::failed`] has all that is known.
    Failed(ConnectFailure),
}

/// How shells say that something cannot be executed.
const CANNOT_RUN: [&[u8]; 8] = [
    b"not found",
    b"no such file",
    b"unknown command",
    b"cannot execute",
    b"cannot be executed",
    b"not executable",
    b"format error",
    b"syntax error",
];

impl Handshake {
    /// How far it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// An attempt, of which nothing has been started yet.
    pub fn new(recipe: Arc<Recipe>) -> Box<Handshake> {
        let (nonce, awaits) = match recipe.start {
            Start::Shell { nonce, .. } => (nonce, Awaits::Shell),
            _ => (0, Awaits::Own),
        };
        let secrets = recipe.secret.iter().cloned().collect();
        Box::new(Handshake {
            recipe,
            nonce,
            phase: Phase::Spawn,
            awaits,
            target: Target::default(),
            stdout: Tail::default(),
            terminal: Tail::default(),
            rest: Vec::new(),
            noise_bytes: 0,
            prompts: Prompts { secrets, ..Prompts::default() },
            cannot_run: false,
            rung: Rung::Chosen,
            tried: String::new(),
            actions: Vec::new(),
        })
    }

    /// How it is made.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The process has been started.
    pub fn started(&mut self) {
        self.phase = match self.awaits {
            Awaits::Own if self.recipe.orders.is_empty() => Phase::Start,
            _ => Phase::Login,
        };
    }

    /// Bytes of the child: what to do for them. Once `Up` or `Failed` was given, that is nothing.
    pub fn input(&mut self, origin: Origin, bytes: &[u8]) -> Vec<Action> {
        if !self.is_over() {
            self.noise_bytes += bytes.len();
            match origin {
                Origin::Stdout => self.stdout_bytes(bytes),
                Origin::Terminal => self.terminal_bytes(bytes),
            }
        }
        if NOISE_BYTES_MAX < self.noise_bytes && !self.is_over() {
            self.fail(ConnectFailure::Protocol("too much of it before the agent".into()));
        }
        std::mem::take(&mut self.actions)
    }

    /// The image is at hand: the line to send, behind which `sent_bytes` of image follow, which are
    /// gzip's output if `gzipped` (only where [`Target::gzip`] says so). Only when asked for it.
    pub fn image(&mut self, sent_bytes: u64, gzipped: bool) -> Vec<u8> {
        if self.awaits != Awaits::Image {
            return Vec::new();
        }
        let target = self.target;
        self.phase = Phase::Push;
        self.awaits = Awaits::Agent;
        let Recipe { title, directory, answer_nonce, wrapper, .. } = &*self.recipe;
        let (nonce, answer_nonce, directory) = (self.nonce, *answer_nonce, directory.as_deref());
        let rung = self.rung;
        Push { target, nonce, answer_nonce, sent_bytes, gzipped, title, rung, directory, wrapper }
            .line()
    }

    /// The image is wholly written.
    pub fn pushed(&mut self) {
        if self.phase == Phase::Push && !matches!(self.awaits, Awaits::Image | Awaits::Nothing) {
            self.phase = Phase::Start;
        }
    }

    /// Nothing came for `NUDGE_AFTER`: an empty line, for an rc file that reads; not where it could
    /// be taken for an answer.
    pub fn quiet(&mut self) -> Vec<Action> {
        if self.awaits == Awaits::Shell && !self.recipe.types_to_stdin() {
            self.actions.push(Action::Send(b"\n".to_vec()));
        }
        std::mem::take(&mut self.actions)
    }

    /// The child's output has ended, and all of it was fed; how the process ended, where known.
    pub fn closed(&mut self, exit: Option<Exit>) -> Box<ConnectError> {
        self.terminal_line();
        self.stdout_line();
        let failure = match self.phase {
            Phase::Spawn | Phase::Login => match exit {
                Some(Exit::Code(126 | 127)) if self.cannot_run => ConnectFailure::NoShell,
                _ => ConnectFailure::Ended,
            },
            Phase::Start if (self.cannot_run || is_unrunnable(exit)) && self.executes() => {
                ConnectFailure::ImageDoesNotRun
            }
            _ => ConnectFailure::Ended,
        };
        self.failed(failure, exit)
    }

    /// All that is known of a failure: one of [`Action::Failed`], or one that the engine met.
    pub fn failed(&mut self, failure: ConnectFailure, exit: Option<Exit>) -> Box<ConnectError> {
        self.awaits = Awaits::Nothing;
        // An answer counts as a password does: what refuses it is not to be tried again.
        let answered = self.recipe.secret.iter().len() < self.prompts.secrets.len();
        let typed = self.prompts.typed || answered;
        let (hop, tail) = (self.recipe.name.clone(), self.tail());
        Box::new(ConnectError { failure, phase: self.phase, hop, exit, typed, tail })
    }

    /// What came behind the agent's line, taken.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.rest)
    }

    /// What the tool has said on the terminal, taken: the last words so far of one that is up.
    pub fn said(&mut self) -> Tail {
        self.terminal_line();
        std::mem::take(&mut self.terminal)
    }

    /// The last that was said on the terminal and on standard output, at most `TAIL_BYTES` of each.
    pub fn tail(&self) -> String {
        let shown = self.prompts.asked || !self.prompts.answered && !self.is_prompt();
        let mut text = self.terminal.text(shown, &self.prompts.secrets);
        if !text.is_empty() && !text.ends_with('\n') {
            text += "\n";
        }
        let shown = !self.is_echo(self.stdout.line());
        text.push_str(&self.stdout.text(shown, &self.prompts.secrets));
        text
    }

    fn stdout_bytes(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(behind) = self.stdout.fill(rest) {
            rest = behind;
            self.mark();
            self.stdout_line();
            if self.is_over() {
                self.rest = rest.to_vec();
                return;
            }
        }
        if self.recipe.as_su {
            self.look(Origin::Stdout);
        }
    }

    /// Acts on the finished line of standard output, if it is the mark that is awaited.
    #[inline(never)] // a frame of its own: smaller code
    fn mark(&mut self) {
        let line = self.stdout.line().to_vec();
        let (text, cooked) = match line.strip_suffix(b"\r") {
            Some(text) => (text, true),
            None => (&line[..], false),
        };
        if Mark::Deaf.find(self.nonce, text).is_some() {
            return self.fail(ConnectFailure::InputEnded);
        }
        match self.awaits {
            Awaits::Shell => {
                if let Some(uname) = Mark::Shell.find(self.nonce, text) {
                    self.shell_spoke(uname, cooked);
                }
            }
            Awaits::Raw => match Mark::Raw.find(self.nonce, text) {
                Some(_) if cooked => {
                    self.fail(ConnectFailure::Protocol("a terminal that stays cooked".into()));
                }
                Some(_) => self.want_image(),
                None => (),
            },
            Awaits::Memory => {
                if Mark::Memory.find(self.nonce, text).is_some() {
                    self.want_image();
                }
                self.nowhere(text);
            }
            Awaits::Agent => {
                self.agent_line(&line);
                if Mark::Damaged.find(self.nonce, text).is_some() {
                    self.fail(ConnectFailure::ImageDamaged);
                }
                self.nowhere(text);
            }
            Awaits::Own => self.agent_line(&line),
            Awaits::Image | Awaits::Nothing => (),
        }
    }

    fn agent_line(&mut self, line: &[u8]) {
        if let Some(protocol) = Mark::Agent.find(self.recipe.answer_nonce, line) {
            self.agent_spoke(protocol);
        }
    }

    /// If the line says that no place would do, the next ones are tried.
    fn nowhere(&mut self, line: &[u8]) {
        let Some(says) = Mark::Nowhere.find(self.nonce, line) else { return };
        let (untried, tried) = match says.trim_ascii_start() {
            [digit @ b'0'..=b'9', tried @ ..] => (usize::from(digit - b'0'), tried),
            _ => return self.fail(ConnectFailure::Protocol("no number of places".into())),
        };
        if !self.tried.is_empty() {
            self.tried += " ";
        }
        let tried = self.quotable(tried);
        self.tried.push_str(&tried);
        let Some(mut next) = self.rung.after(untried) else {
            return self.fail(ConnectFailure::Protocol("more places than there are".into()));
        };
        let memory = memory_line(self.target, self.nonce).filter(|_| self.recipe.memfd);
        if let (Rung::Memory, None) = (next, &memory) {
            next = next.after(0).unwrap_or(Rung::End);
        }
        self.rung = next;
        match (next, memory) {
            (Rung::End, _) => {
                let tried = std::mem::take(&mut self.tried);
                self.fail(ConnectFailure::NoDirectory(tried));
            }
            (Rung::Memory, Some(line)) => {
                self.awaits = Awaits::Memory;
                self.actions.push(Action::Send(line));
            }
            _ => self.want_image(),
        }
    }

    #[inline(never)] // a frame of its own: smaller code
    fn shell_spoke(&mut self, uname: &[u8], cooked: bool) {
        self.target = match Target::parse(uname) {
            Ok(target) => target,
            Err(uname) => {
                let says = self.quotable(&uname[..uname.len().min(UNAME_BYTES_MAX)]);
                return self.fail(ConnectFailure::TargetUnknown(says));
            }
        };
        self.cannot_run = false;
        if cooked {
            self.awaits = Awaits::Raw;
            self.actions.push(Action::Send(stage::raw_line(self.nonce)));
        } else {
            self.want_image();
        }
    }

    fn want_image(&mut self) {
        self.awaits = Awaits::Image;
        self.phase = Phase::Push;
        self.actions.push(Action::WantImage(self.target));
    }

    fn agent_spoke(&mut self, protocol: &[u8]) {
        let number = std::str::from_utf8(protocol).ok().and_then(|text| text.parse().ok());
        self.phase = Phase::Start;
        match number {
            Some(PROTOCOL) => {
                self.phase = Phase::Configure;
                self.awaits = Awaits::Nothing;
                self.actions.push(Action::Up);
            }
            Some(theirs) => {
                self.fail(ConnectFailure::Version { ours: PROTOCOL, theirs });
            }
            None => self.fail(ConnectFailure::Protocol("no protocol number".into())),
        }
    }

    #[inline(never)] // a frame of its own: smaller code
    fn terminal_bytes(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(behind) = self.terminal.fill(rest) {
            self.terminal_line();
            rest = behind;
        }
        self.look(Origin::Terminal);
    }

    /// Looks at a line of the terminal that has ended, and keeps it unless it was a prompt.
    fn terminal_line(&mut self) {
        let line = self.terminal.line();
        self.cannot_run |= says_cannot_run(line);
        // Behind a prompt stand at most the stars of what was typed.
        let kept = !line.trim_ascii().is_empty() && !self.prompts.answered && !self.is_prompt();
        self.terminal.end_line(kept, &self.prompts.secrets);
        self.prompts.answered = false;
        self.prompts.owed |= std::mem::take(&mut self.prompts.asked);
    }

    /// Keeps a line of standard output that has ended, unless it is a mark or an echo of ours.
    fn stdout_line(&mut self) {
        let line = self.stdout.line();
        self.cannot_run |= says_cannot_run(line);
        let kept = !line.trim_ascii().is_empty() && !self.is_echo(line);
        self.stdout.end_line(kept, &self.prompts.secrets);
    }

    /// Whether the line has a nonce of ours: then the words are ours too.
    fn is_echo(&self, line: &[u8]) -> bool {
        let is_shell = matches!(self.recipe.start, Start::Shell { .. });
        holds(line, &stage::hex(self.recipe.answer_nonce))
            || is_shell && holds(line, &stage::hex(self.nonce))
    }

    fn executes(&self) -> bool {
        !matches!(self.recipe.start, Start::Fork(_))
    }

    fn is_over(&self) -> bool {
        matches!(self.awaits, Awaits::Nothing)
    }

    fn fail(&mut self, failure: ConnectFailure) {
        self.awaits = Awaits::Nothing;
        self.actions.push(Action::Failed(failure));
    }

    fn quotable(&self, text: &[u8]) -> String {
        tail::harmless(&tail::scrub(text.trim_ascii(), &self.prompts.secrets))
    }
}

fn says_cannot_run(line: &[u8]) -> bool {
    CANNOT_RUN.iter().any(|words| holds(line, words))
}

/// Whether a process that ended so before its first word was one that this CPU cannot run: the
/// shell's two statuses; illegal instruction, bus error, bad address, bad system call.
fn is_unrunnable(exit: Option<Exit>) -> bool {
    match exit {
        Some(Exit::Code(code)) => matches!(code, 126 | 127 | 132 | 135 | 139 | 159),
        Some(Exit::Signal(signal)) => matches!(signal, 4 | 7 | 11 | 31),
        None => false,
    }
}
