//! How one child is reached, as plain data: made by a method's builder, carried to the context that
//! makes the connection, run there by one engine that knows nothing of methods.

use std::any::Any;
use std::sync::Arc;

use crate::connect::meaning::Hint;
use crate::route::terms::Terms;
use crate::sys::host;
use crate::sys::text::are_same;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Shape, Writer};
use crate::wire::secret::Secret;

/// All that the connecting context must know.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// The child's name: the address of its whole path, unless one was given.
    pub name: String,
    /// What `ps` shows for the agent.
    pub title: String,
    /// What is executed.
    pub start: Start,
    /// What the agent must answer with. It stands in no command line before the agent's own.
    pub answer_nonce: u64,
    /// What its environment has instead of the connecting context's: `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// Whether what is started gets a pty as its controlling terminal and stderr, and reads
    /// answers there.
    pub terminal: bool,
    /// Whether it reads answers where the `su` of the connecting context's system does: from its
    /// standard input on Linux, from a terminal elsewhere.
    pub as_su: bool,
    /// Whether somebody answers questions that are not foreseen, and gives a password that is not
    /// here. Without, such a question ends the attempt.
    pub asks: bool,
    /// The password; typed, once, when a prompt is seen.
    pub secret: Option<Secret>,
    /// The questions that are foreseen; of several that match, the first counts.
    pub prompts: Vec<Prompt>,
    /// What the tool's lines mean if the connection ends before the target's shell has spoken. The
    /// first in this list that any line matches decides. They stay with who asks.
    pub hints: Vec<Hint>,
    /// Milliseconds for the whole attempt.
    pub timeout_ms: u64,
    /// Whether the target has the files of the machine that it is started from, libraries too.
    pub same_root: bool,
    /// The directory of the target that the caller chose for the image; tried before all others.
    pub directory: Option<Vec<u8>>,
    /// Whether the agent may run from a file in memory.
    pub memfd: bool,
    /// A command and its arguments that execute the agent, whose own are added; may be empty.
    pub wrapper: Vec<Vec<u8>>,
    /// Whether its standard input and output are pipes; by default a tool's are where SELinux is.
    pub pipes: Option<bool>,
    /// What the new context is to keep to.
    pub terms: Terms,
    /// What our own image does before it is an agent: nothing, unless there are words here. The
    /// first is empty; the others are what `agent/enter.rs` reads.
    pub orders: Vec<Vec<u8>>,
}

/// The place among the orders of the tool that is asked; its arguments follow.
pub const ORDERED_TOOL: usize = 3;

/// What is executed to bring the child up.
#[derive(Clone, Debug, Default)]
pub enum Start {
    /// The connecting context's own image, without a shell.
    #[default]
    Own,
    /// A tool that brings us to a POSIX shell on the target.
    Shell {
        /// The tool and its arguments, the first-stage line among them.
        argv: Vec<Vec<u8>>,
        /// What the shell's marker carries.
        nonce: u64,
    },
    /// A copy of the connecting context's process: the one that is offered for this attempt, or
    /// else one that its program allows.
    Fork(Option<Offered>),
}

/// A copy of this very process that is offered, by the attempt's nonce, as long as this lives.
#[derive(Clone, Debug)]
pub struct Offered {
    /// Whether no other process could take its place.
    pub stays_here: bool,
    /// Takes the offer back.
    pub lasts: Arc<dyn Any + Send + Sync>,
}

/// What a line looks like. Case of ASCII letters does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pattern {
    /// What the line begins with; may be empty.
    pub starts: Vec<u8>,
    /// What stands anywhere in it; may be empty.
    pub holds: Vec<u8>,
    /// What it ends with, blanks apart; may be empty.
    pub ends: Vec<u8>,
}

/// A question that is foreseen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// The unfinished last line of the terminal.
    pub line: Pattern,
    /// What is typed.
    pub reply: Reply,
}

/// What is typed at a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Reply {
    /// The password, at once.
    #[default]
    Password = 0,
    /// The password, once the line has stood for `SETTLE_AFTER`, if it ends as a question does and
    /// no password was typed yet: for words that a banner may have, too.
    PasswordOnceSettled = 1,
    /// `yes`, at once.
    Yes = 2,
    /// An empty line, at once: the question is passed over.
    Nothing = 3,
}

impl Recipe {
    /// Whether it can be followed by this process alone.
    pub fn stays_here(&self) -> bool {
        matches!(self.start, Start::Fork(Some(Offered { stays_here: true, .. })))
    }
}

impl Pattern {
    /// A line that begins with `starts` and has `holds` in it.
    pub fn line(starts: &[u8], holds: &[u8]) -> Pattern {
        Pattern { starts: starts.to_vec(), holds: holds.to_vec(), ends: Vec::new() }
    }

    /// A line that begins with `starts` and ends with `ends`.
    pub fn ending(starts: &[u8], ends: &[u8]) -> Pattern {
        Pattern { starts: starts.to_vec(), holds: Vec::new(), ends: ends.to_vec() }
    }

    /// Whether `line`, which has no line feed, looks like this.
    pub fn matches(&self, line: &[u8]) -> bool {
        let line = trim(line);
        let tail_at = line.len().checked_sub(self.ends.len());
        line.len() >= self.starts.len()
            && are_same(&line[..self.starts.len()], &self.starts)
            && tail_at.is_some_and(|at| are_same(&line[at..], &self.ends))
            && holds(line, &self.holds)
    }
}

impl Prompt {
    /// One at which the password is typed at once.
    pub fn password(line: Pattern) -> Prompt {
        Prompt { line, reply: Reply::Password }
    }
}

impl Recipe {
    /// Whether answers are typed to the standard input of what is started.
    pub fn types_to_stdin(&self) -> bool {
        self.as_su && host::SU_READS_STDIN
    }

    /// Whether what is started gets a pty.
    pub fn wants_pty(&self) -> bool {
        self.terminal || self.as_su && !host::SU_READS_STDIN
    }

    /// Whether answers can be typed at all.
    pub fn types(&self) -> bool {
        self.terminal || self.as_su
    }
}

/// The line without the blanks around it, those that no ASCII has among them: some languages set
/// one before the colon or behind it.
pub fn trim(line: &[u8]) -> &[u8] {
    const NO_BREAK: [&str; 3] = ["\u{a0}", "\u{202f}", "\u{3000}"];
    let mut line = line.trim_ascii();
    while let Some(rest) = NO_BREAK.iter().find_map(|blank| line.strip_suffix(blank.as_bytes())) {
        line = rest.trim_ascii_end();
    }
    line
}

/// Whether the line ends as a question does.
pub fn is_question(line: &[u8]) -> bool {
    [":", "?", "\u{ff1a}", "\u{ff1f}"].iter().any(|end| trim(line).ends_with(end.as_bytes()))
}

/// Whether `part` stands in `line`, whatever the case.
pub fn holds(line: &[u8], part: &[u8]) -> bool {
    part.is_empty() || line.windows(part.len()).any(|window| are_same(window, part))
}

impl Encode for Recipe {
    fn encode(&self, w: &mut Writer<'_>) {
        self.name.encode(w);
        self.title.encode(w);
        match &self.start {
            Start::Own => w.put_u8(0),
            Start::Fork(_) => w.put_u8(2),
            Start::Shell { argv, nonce } => {
                w.put_u8(1);
                put_all(argv, w, |word, w| w.put_bytes(word));
                nonce.encode(w);
            }
        }
        self.answer_nonce.encode(w);
        put_all(&self.env, w, |word, w| w.put_bytes(word));
        let flags = [self.terminal, self.as_su, self.asks, self.same_root, self.memfd];
        w.put_u8(flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag)));
        put_option(&self.secret, w, Secret::encode);
        put_all(&self.prompts, w, |prompt, w| {
            w.put_u8(prompt.reply as u8);
            prompt.line.put(w);
        });
        self.timeout_ms.encode(w);
        put_option(&self.directory, w, |directory, w| w.put_bytes(directory));
        put_all(&self.wrapper, w, |word, w| w.put_bytes(word));
        put_option(&self.pipes, w, |pipes, w| w.put_u8(u8::from(*pipes)));
        put_option(&self.terms.unidirectional, w, |only, w| w.put_u8(u8::from(*only)));
        self.terms.heartbeat.interval_ms.encode(w);
        self.terms.heartbeat.count.encode(w);
        self.terms.threads.encode(w);
        self.terms.files.put(w);
        put_all(&self.orders, w, |word, w| w.put_bytes(word));
    }
}

impl Decode for Recipe {
    fn decode(r: &mut Reader<'_>) -> Result<Recipe, Malformed> {
        let mut recipe = Recipe::default();
        recipe.fill(r)?;
        Ok(recipe)
    }

    fn shape(s: &mut Shape) {
        s.word("recipe-7");
    }
}

/// Values are filled in where they stand: one that is half made then needs no code of its own.
impl Recipe {
    #[inline(never)] // a frame of its own: smaller code
    fn fill(&mut self, r: &mut Reader<'_>) -> Result<(), Malformed> {
        fill(&mut self.name, r)?;
        fill(&mut self.title, r)?;
        match r.take_u8()? {
            0 => (),
            1 => {
                let (mut argv, mut nonce) = (Vec::new(), 0);
                fill_words(&mut argv, r)?;
                fill(&mut nonce, r)?;
                self.start = Start::Shell { argv, nonce };
            }
            _ => self.start = Start::Fork(None),
        }
        fill(&mut self.answer_nonce, r)?;
        fill_words(&mut self.env, r)?;
        self.fill_flags(r.take_u8()?);
        if take_flag(r)? {
            self.secret = Some(Secret::decode(r)?);
        }
        fill_all(&mut self.prompts, r, Prompt::fill)?;
        fill(&mut self.timeout_ms, r)?;
        if take_flag(r)? {
            fill_bytes(self.directory.insert(Vec::new()), r)?;
        }
        fill_words(&mut self.wrapper, r)?;
        if take_flag(r)? {
            self.pipes = Some(take_flag(r)?);
        }
        if take_flag(r)? {
            self.terms.unidirectional = Some(take_flag(r)?);
        }
        fill(&mut self.terms.heartbeat.interval_ms, r)?;
        fill(&mut self.terms.heartbeat.count, r)?;
        fill(&mut self.terms.threads, r)?;
        self.terms.files.fill(r)?;
        fill_words(&mut self.orders, r)
    }

    fn fill_flags(&mut self, bits: u8) {
        self.terminal = bits & 1 != 0;
        self.as_su = bits & 2 != 0;
        self.asks = bits & 4 != 0;
        self.same_root = bits & 8 != 0;
        self.memfd = bits & 16 != 0;
    }
}

impl Pattern {
    fn put(&self, w: &mut Writer<'_>) {
        w.put_bytes(&self.starts);
        w.put_bytes(&self.holds);
        w.put_bytes(&self.ends);
    }

    fn fill(&mut self, r: &mut Reader<'_>) -> Result<(), Malformed> {
        fill_bytes(&mut self.starts, r)?;
        fill_bytes(&mut self.holds, r)?;
        fill_bytes(&mut self.ends, r)
    }
}

impl Prompt {
    fn fill(&mut self, r: &mut Reader<'_>) -> Result<(), Malformed> {
        self.reply = match r.take_u8()? {
            0 => Reply::Password,
            1 => Reply::PasswordOnceSettled,
            2 => Reply::Yes,
            3 => Reply::Nothing,
            _ => return Err(Malformed("no reply of a prompt")),
        };
        self.line.fill(r)
    }
}

fn put_all<T>(items: &[T], w: &mut Writer<'_>, put: impl Fn(&T, &mut Writer<'_>)) {
    w.put_varint(items.len() as u64);
    for item in items {
        put(item, w);
    }
}

fn fill_all<T: Default>(
    items: &mut Vec<T>,
    r: &mut Reader<'_>,
    fill: fn(&mut T, &mut Reader<'_>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    for _ in 0..r.take_len()? {
        let mut item = T::default();
        let filled = fill(&mut item, r);
        items.push(item);
        filled?;
    }
    Ok(())
}

fn fill_words(words: &mut Vec<Vec<u8>>, r: &mut Reader<'_>) -> Result<(), Malformed> {
    fill_all(words, r, fill_bytes)
}

fn fill_bytes(bytes: &mut Vec<u8>, r: &mut Reader<'_>) -> Result<(), Malformed> {
    bytes.extend_from_slice(r.take_bytes()?);
    Ok(())
}

fn fill<T: Decode>(value: &mut T, r: &mut Reader<'_>) -> Result<(), Malformed> {
    *value = T::decode(r)?;
    Ok(())
}

fn put_option<T>(item: &Option<T>, w: &mut Writer<'_>, put: impl Fn(&T, &mut Writer<'_>)) {
    w.put_u8(u8::from(item.is_some()));
    if let Some(item) = item {
        put(item, w);
    }
}

fn take_flag(r: &mut Reader<'_>) -> Result<bool, Malformed> {
    match r.take_u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed("neither true nor false")),
    }
}
