//! How one child is reached, as plain data: made by a method's builder, carried to the context that
//! makes the connection, run there by one engine that knows nothing of methods.

use crate::error::ConnectFailure;
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
    /// Whether what is started gets a pty as its controlling terminal and stderr.
    pub terminal: bool,
    /// Typed, once, when a prompt is seen.
    pub secret: Option<Secret>,
    /// What asks for the secret: how the unfinished last line of the terminal looks.
    pub prompts: Vec<Pattern>,
    /// What the tool's lines mean if the connection ends before the target's shell has spoken. The
    /// first in this list that any line matches decides.
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
}

/// What is executed to bring the child up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

/// What a line of a tool means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// The line.
    pub line: Pattern,
    /// Its meaning.
    pub meaning: Meaning,
}

/// The failures that a tool's words can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Meaning {
    /// A password is wanted and there is none.
    #[default]
    PasswordRequired = 0,
    /// The password was refused.
    PasswordWrong = 1,
    /// The login was refused, whatever the password.
    Denied = 2,
    /// The host's key is unknown or has changed.
    HostKey = 3,
    /// The host's name does not resolve.
    HostUnknown = 4,
    /// The port is closed.
    ConnectionRefused = 5,
    /// The host does not answer.
    Unreachable = 6,
    /// The target has no `sh`.
    NoShell = 7,
    /// The login was refused: for the password, if one was typed.
    LoginRefused = 8,
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
        let end = line.trim_ascii_end();
        let tail_at = end.len().checked_sub(self.ends.len());
        line.len() >= self.starts.len()
            && line[..self.starts.len()].eq_ignore_ascii_case(&self.starts)
            && tail_at.is_some_and(|at| end[at..].eq_ignore_ascii_case(&self.ends))
            && holds(line, &self.holds)
    }
}

/// Whether `part` stands in `line`, whatever the case.
pub fn holds(line: &[u8], part: &[u8]) -> bool {
    part.is_empty() || line.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

impl Meaning {
    const ALL: [Meaning; 9] = [
        Meaning::PasswordRequired,
        Meaning::PasswordWrong,
        Meaning::Denied,
        Meaning::HostKey,
        Meaning::HostUnknown,
        Meaning::ConnectionRefused,
        Meaning::Unreachable,
        Meaning::NoShell,
        Meaning::LoginRefused,
    ];

    /// The failure, given whether the password was typed.
    pub fn failure(self, typed: bool) -> ConnectFailure {
        match self {
            Meaning::PasswordRequired => ConnectFailure::PasswordRequired,
            Meaning::PasswordWrong => ConnectFailure::PasswordWrong,
            Meaning::LoginRefused if typed => ConnectFailure::PasswordWrong,
            Meaning::Denied | Meaning::LoginRefused => ConnectFailure::Denied,
            Meaning::HostKey => ConnectFailure::HostKey,
            Meaning::HostUnknown => ConnectFailure::HostUnknown,
            Meaning::ConnectionRefused => ConnectFailure::ConnectionRefused,
            Meaning::Unreachable => ConnectFailure::Unreachable,
            Meaning::NoShell => ConnectFailure::NoShell,
        }
    }
}

impl Encode for Recipe {
    fn encode(&self, w: &mut Writer<'_>) {
        self.name.encode(w);
        self.title.encode(w);
        match &self.start {
            Start::Own => w.put_u8(0),
            Start::Shell { argv, nonce } => {
                w.put_u8(1);
                put_all(argv, w, |word, w| w.put_bytes(word));
                nonce.encode(w);
            }
        }
        self.answer_nonce.encode(w);
        w.put_u8(u8::from(self.terminal));
        put_option(&self.secret, w, Secret::encode);
        put_all(&self.prompts, w, Pattern::put);
        put_all(&self.hints, w, |hint, w| {
            w.put_u8(hint.meaning as u8);
            hint.line.put(w);
        });
        self.timeout_ms.encode(w);
        w.put_u8(u8::from(self.same_root));
        put_option(&self.directory, w, |directory, w| w.put_bytes(directory));
        w.put_u8(u8::from(self.memfd));
        put_all(&self.wrapper, w, |word, w| w.put_bytes(word));
    }
}

impl Decode for Recipe {
    fn decode(r: &mut Reader<'_>) -> Result<Recipe, Malformed> {
        let mut recipe = Recipe::default();
        recipe.fill(r)?;
        Ok(recipe)
    }

    fn shape(s: &mut Shape) {
        s.word("recipe-2");
    }
}

/// Values are filled in where they stand: one that is half made then needs no code of its own.
impl Recipe {
    #[inline(never)] // a frame of its own: smaller code
    fn fill(&mut self, r: &mut Reader<'_>) -> Result<(), Malformed> {
        fill(&mut self.name, r)?;
        fill(&mut self.title, r)?;
        if take_flag(r)? {
            let (mut argv, mut nonce) = (Vec::new(), 0);
            fill_words(&mut argv, r)?;
            fill(&mut nonce, r)?;
            self.start = Start::Shell { argv, nonce };
        }
        fill(&mut self.answer_nonce, r)?;
        self.terminal = take_flag(r)?;
        if take_flag(r)? {
            self.secret = Some(Secret::decode(r)?);
        }
        fill_all(&mut self.prompts, r, Pattern::fill)?;
        fill_all(&mut self.hints, r, Hint::fill)?;
        fill(&mut self.timeout_ms, r)?;
        self.same_root = take_flag(r)?;
        if take_flag(r)? {
            fill_bytes(self.directory.insert(Vec::new()), r)?;
        }
        self.memfd = take_flag(r)?;
        fill_words(&mut self.wrapper, r)
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

impl Hint {
    fn fill(&mut self, r: &mut Reader<'_>) -> Result<(), Malformed> {
        let code = usize::from(r.take_u8()?);
        self.meaning = *Meaning::ALL.get(code).ok_or(Malformed("no meaning of a hint"))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        let line = Pattern::line(b"sudo: ", b"unknown user");
        Recipe {
            name: "ssh:web/sudo".to_owned(),
            title: "mitogen:me@here:1".to_owned(),
            start: Start::Shell { argv: vec![b"sudo".to_vec(), b"sh".to_vec()], nonce: u64::MAX },
            answer_nonce: 7,
            terminal: true,
            secret: Some(Secret::from("hunter2")),
            prompts: vec![Pattern::ending(b"", b"password:")],
            hints: vec![Hint { line, meaning: Meaning::NoShell }],
            timeout_ms: 30_000,
            same_root: false,
            directory: Some(b"/opt".to_vec()),
            memfd: false,
            wrapper: vec![b"nice".to_vec()],
        }
    }

    fn bytes_of(recipe: &Recipe) -> Vec<u8> {
        let mut w = Writer::new(Vec::new(), None);
        recipe.encode(&mut w);
        w.finish().unwrap()
    }

    #[test]
    fn a_recipe_arrives_as_it_was_sent() {
        let own = Recipe { start: Start::Own, secret: None, directory: None, ..recipe() };
        for sent in [recipe(), own] {
            let bytes = bytes_of(&sent);
            let mut r = Reader::new(&bytes, None);
            let arrived = Recipe::decode(&mut r).unwrap();
            assert_eq!(format!("{arrived:?}"), format!("{sent:?}"));
            assert_eq!(arrived.secret.is_some(), sent.secret.is_some());
            assert!(arrived.secret.is_none_or(|secret| secret.expose() == "hunter2"));
            assert_eq!(r.finish(), Ok(()));
        }
    }

    #[test]
    fn a_truncated_recipe_is_malformed() {
        let bytes = bytes_of(&recipe());
        for count in 0..bytes.len() {
            assert!(Recipe::decode(&mut Reader::new(&bytes[..count], None)).is_err());
        }
    }

    #[test]
    fn every_meaning_has_its_own_code() {
        for (code, meaning) in Meaning::ALL.into_iter().enumerate() {
            assert_eq!(code, meaning as usize);
        }
    }

    #[test]
    fn a_pattern_matches_start_middle_and_end() {
        let pattern = Pattern { ends: b":".to_vec(), ..Pattern::line(b"(", b") Password") };
        assert!(pattern.matches(b"(me@here) password for me: "));
        assert!(!pattern.matches(b"x(me@here) Password: "));
        assert!(!pattern.matches(b"(me@here) Password: x"));
        assert!(!pattern.matches(b"("));
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        assert!(!format!("{:?}", recipe()).contains("hunter2"));
    }
}
