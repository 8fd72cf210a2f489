//! Addresses: `method[:[user@]target[:port]][?option=value&...]`, hop behind hop, joined by `/`.
//!
//! A `/` in a value is literal, unless a hop follows: a method's name and then `:` or `?`; or just
//! the name, of one that needs no more than that.
//! `%XX` stands for a byte wherever a user, a target or a value does; IPv6 goes in brackets.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::connect::methods::{METHODS, find};
use crate::connect::options::Common;
use crate::connect::options::sealed::{Describe, Entry};
use crate::connect::places::Server;
use crate::error::AddressError;
use crate::ids::ContextId;
use crate::limits::{HOPS_MAX, OPTION_BYTES_MAX};

/// A path of hops to a context, from text such as `ssh:deploy@web1:2222/sudo:root`.
///
/// `Display` gives a canonical text, which parses to the same address; but a password shows as
/// `***`, which does not parse, so that it is never tried by mistake.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    hops: Vec<Hop>,
}

/// One hop: a method, and the options that were given.
#[derive(Clone)]
pub struct Hop {
    entry: &'static Entry,
    values: Vec<(&'static str, String)>,
}

/// What a password is shown as.
const HIDDEN: &str = "***";

impl Address {
    /// The hops, the nearest first; at least one.
    pub(crate) fn hops(&self) -> &[Hop] {
        &self.hops
    }

    /// This address and those it leads through, the shortest first. Equal prefixes of two
    /// addresses are one context.
    pub fn prefixes(&self) -> impl Iterator<Item = Address> {
        (1..=self.hops.len()).map(|count| Address { hops: self.hops[..count].to_vec() })
    }
}

impl Hop {
    /// The hop that these options make.
    pub(crate) fn of(method: &dyn Describe, common: &Common) -> Hop {
        let mut values = method.values();
        values.extend(common.values());
        Hop { entry: method.entry(), values }
    }

    /// The options that were given, by name.
    pub(crate) fn values(&self) -> &[(&'static str, String)] {
        &self.values
    }

    /// The options that make this hop.
    pub(crate) fn options(&self) -> (Common, Box<dyn Describe>) {
        let mut common = Common::default();
        let mut method = (self.entry.make)();
        for (key, value) in &self.values {
            // They were accepted when this hop was made.
            let _ = set(&mut *method, &mut common, key, value);
        }
        (common, method)
    }

    /// The server that it logs in to from `via`, where that is one: methods with ports do.
    pub(crate) fn server(&self, via: ContextId) -> Option<Server> {
        let Entry { target, port, .. } = *self.entry;
        let port = self.value(Some(port?)).unwrap_or_default().to_owned();
        Some(Arc::new((via, self.value(target)?.to_owned(), port)))
    }

    fn value(&self, key: Option<&str>) -> Option<&str> {
        let key = key?;
        self.values.iter().find(|(name, _)| *name == key).map(|(_, value)| &**value)
    }
}

fn set(
    method: &mut dyn Describe,
    common: &mut Common,
    key: &str,
    value: &str,
) -> Result<(), String> {
    if Common::OPTIONS.contains(&key) { common.set(key, value) } else { method.set(key, value) }
}

impl PartialEq for Hop {
    fn eq(&self, other: &Hop) -> bool {
        self.entry.name == other.entry.name && self.values == other.values
    }
}

impl Eq for Hop {}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, hop) in self.hops.iter().enumerate() {
            if 0 < i {
                f.write_str("/")?;
            }
            hop.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { name, target, user, port, .. } = *self.entry;
        f.write_str(name)?;
        let shown = self.value(target).map(|_| [target, user, port]);
        if let Some(text) = self.value(target) {
            f.write_str(":")?;
            if let Some(user) = self.value(user) {
                write!(f, "{}@", Escaped(user))?;
            }
            match port.is_some() && text.contains(':') {
                true => write!(f, "[{text}]")?,
                false => Escaped(text).fmt(f)?,
            }
            if let Some(port) = self.value(port) {
                write!(f, ":{port}")?;
            }
        }
        let mut mark = '?';
        for (key, value) in &self.values {
            if shown.is_some_and(|keys| keys.contains(&Some(*key))) {
                continue;
            }
            match *key {
                "password" => write!(f, "{mark}{key}={HIDDEN}")?,
                _ => write!(f, "{mark}{key}={}", Value(value))?,
            }
            mark = '&';
        }
        Ok(())
    }
}

/// A user or a target.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| put(f, c, "%/?:@[]& "))
    }
}

/// An option's value: a `/` in it stays, unless a method's name comes behind it.
struct Value<'a>(&'a str);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.char_indices().try_for_each(|(at, c)| {
            let is_hop = c == '/' && begins_hop(&self.0[at + 1..]);
            put(f, c, if is_hop { "/" } else { "%& " })
        })
    }
}

fn put(f: &mut fmt::Formatter<'_>, c: char, escaped: &str) -> fmt::Result {
    if escaped.contains(c) { write!(f, "%{:02X}", c as u32) } else { write!(f, "{c}") }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let mut parser = Parser { text, at: 0 };
        let mut hops = Vec::new();
        loop {
            if hops.len() == HOPS_MAX {
                return Err(parser.error(format!("more than {HOPS_MAX} hops")));
            }
            hops.push(parser.hop()?);
            if parser.at == text.len() {
                return Ok(Address { hops });
            }
            parser.at += 1;
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

/// What was read, and the byte where it began.
type Piece = (&'static str, String, usize);

impl<'a> Parser<'a> {
    fn hop(&mut self) -> Result<Hop, AddressError> {
        let start = self.at;
        let name = self.until([':', '?', '/']);
        let entry = find(name).ok_or_else(|| {
            let known = METHODS.map(|entry| entry.name).join(", ");
            let what = if name.is_empty() { "no method".to_owned() } else { unknown(name) };
            self.error_at(start, format!("{what}; methods are: {known}{}", slash_hint(0 < start)))
        })?;
        let mut pieces = Vec::new();
        match self.peek() {
            Some(b':') => self.place(entry, &mut pieces)?,
            _ if entry.needs_target => {
                let hint = slash_hint(0 < start);
                return Err(self.error(format!("{name} needs a target: {name}:host{hint}")));
            }
            _ => (),
        }
        if self.peek() == Some(b'?') {
            self.options(entry, &mut pieces)?;
        }
        self.build(entry, pieces)
    }

    /// Sets what was read, and finds what is wrong with it, and with all of it together.
    fn build(&self, entry: &'static Entry, pieces: Vec<Piece>) -> Result<Hop, AddressError> {
        let mut common = Common::default();
        let mut method = (entry.make)();
        let mut seen = Vec::new();
        for (key, value, at) in pieces {
            if seen.contains(&key) {
                return Err(self.error_at(at, format!("{key} is given twice")));
            }
            seen.push(key);
            if key == "password" && value == HIDDEN {
                let why = "this text was made to be shown; it does not have the password";
                return Err(self.error_at(at, why.to_owned()));
            }
            set(&mut *method, &mut common, key, &value).map_err(|why| self.error_at(at, why))?;
        }
        method.check().map_err(|why| self.error(why))?;
        Ok(Hop::of(&*method, &common))
    }

    /// Reads `:[user@]target[:port]`.
    fn place(&mut self, entry: &'static Entry, out: &mut Vec<Piece>) -> Result<(), AddressError> {
        self.at += 1;
        let Some(target) = entry.target else {
            return Err(self.error(format!("{} takes no target", entry.name)));
        };
        let end = self.at + self.rest().find(['?', '/']).unwrap_or(self.rest().len());
        let user_length = self.text[self.at..end].rfind('@');
        if let (Some(user), Some(length)) = (entry.user, user_length) {
            let text = &self.text[self.at..self.at + length];
            out.insert(0, (user, self.decode(self.at, text)?, self.at));
            self.at += length + 1;
        }
        let start = self.at;
        let text = &self.text[start..end];
        let length = match entry.port {
            None => text.len(),
            Some(_) => self.host_length(text)?,
        };
        let host = &text[..length];
        if host.is_empty() {
            return Err(
                self.error(format!("no {target}{}", slash_hint(self.text[end..].starts_with('/'))))
            );
        }
        let host = if host.starts_with('[') { host.to_owned() } else { self.decode(start, host)? };
        out.insert(0, (target, host, start));
        if let (Some(port), Some(text)) = (entry.port, text.get(length + 1..)) {
            out.push((port, text.to_owned(), start + length + 1));
        }
        self.at = end;
        Ok(())
    }

    /// Bytes of the host in `host[:port]`, which stands here.
    fn host_length(&self, text: &str) -> Result<usize, AddressError> {
        let length = if text.starts_with('[') {
            let close = text.find(']').ok_or_else(|| self.error("no `]`".to_owned()))?;
            if !text[..close].contains(':') {
                return Err(self.error("brackets are for IPv6 addresses".to_owned()));
            }
            close + 1
        } else {
            text.find(':').unwrap_or(text.len())
        };
        match text.as_bytes().get(length) {
            Some(b':') if text[length + 1..].contains(':') => {
                Err(self.error("an IPv6 address goes in brackets: [::1]".to_owned()))
            }
            None | Some(b':') => Ok(length),
            _ => Err(self.error_at(self.at + length, "expected `:` and a port".to_owned())),
        }
    }

    /// Reads `?key=value&key=value`.
    fn options(&mut self, entry: &'static Entry, out: &mut Vec<Piece>) -> Result<(), AddressError> {
        while matches!(self.peek(), Some(b'?' | b'&')) {
            self.at += 1;
            let key_at = self.at;
            let name = self.until(['=', '&', '/', '?']);
            let mut known = entry.options.iter().chain(&Common::OPTIONS);
            let key = *known.clone().find(|key| **key == name).ok_or_else(|| {
                let known = known.by_ref().copied().collect::<Vec<_>>().join(", ");
                let what = if name.is_empty() { "no option".to_owned() } else { unknown(name) };
                self.error_at(key_at, format!("{what}; options of {}: {known}", entry.name))
            })?;
            if self.peek() != Some(b'=') {
                return Err(self.error(format!("expected `=` and a value of {key}")));
            }
            self.at += 1;
            let start = self.at;
            let value = self.value();
            out.push((key, self.decode(start, value)?, start));
        }
        Ok(())
    }

    /// The value that stands here: up to `&`, the end, or a `/` behind which a hop begins.
    fn value(&mut self) -> &'a str {
        let rest = self.rest();
        let ends = |(at, c): &(usize, char)| *c == '&' || *c == '/' && begins_hop(&rest[at + 1..]);
        let length = rest.char_indices().find(ends).map_or(rest.len(), |(at, _)| at);
        self.at += length;
        &rest[..length]
    }

    fn decode(&self, start: usize, text: &str) -> Result<String, AddressError> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut at = 0;
        while let Some(&byte) = text.as_bytes().get(at) {
            if byte != b'%' {
                bytes.push(byte);
                at += 1;
                continue;
            }
            let digits = text.get(at + 1..at + 3).filter(|two| !two.contains(['+', '-']));
            let code = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            bytes.push(code.ok_or_else(|| {
                self.error_at(start + at, "expected two hexadecimal digits behind `%`".to_owned())
            })?);
            at += 3;
        }
        let text = String::from_utf8(bytes);
        let text = text.map_err(|_| self.error_at(start, "not UTF-8".to_owned()))?;
        if OPTION_BYTES_MAX < text.len() {
            return Err(self.error_at(start, format!("more than {OPTION_BYTES_MAX} bytes")));
        }
        Ok(text)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.rest().bytes().next()
    }

    fn until<const N: usize>(&mut self, stops: [char; N]) -> &'a str {
        let rest = self.rest();
        let length = rest.find(stops).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn error(&self, why: String) -> AddressError {
        self.error_at(self.at, why)
    }

    /// An error that does not show the text of a password.
    fn error_at(&self, at: usize, why: String) -> AddressError {
        AddressError { address: hide_passwords(self.text), at, why }
    }
}

/// What to do if a `/` is near that may not have been meant to end a hop.
fn slash_hint(is_near: bool) -> &'static str {
    if is_near { "; a `/` that is part of a value is written %2F" } else { "" }
}

fn unknown(name: &str) -> String {
    format!("unknown: `{name}`")
}

/// Whether a hop begins here, behind a `/` in a value: paths may end with a method's name, too.
fn begins_hop(text: &str) -> bool {
    METHODS.iter().any(|entry| {
        let rest = text.strip_prefix(entry.name);
        rest.is_some_and(|rest| match rest.bytes().next() {
            Some(b':' | b'?') => true,
            Some(b'/') | None => (entry.make)().check().is_ok(),
            Some(_) => false,
        })
    })
}

/// The text with a `*` for each byte of a password, so that places in it stay.
fn hide_passwords(text: &str) -> String {
    const KEY: &str = "password=";
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(KEY) {
        let (head, tail) = rest.split_at(at + KEY.len());
        let length = Parser { text: tail, at: 0 }.value().len();
        shown.push_str(head);
        shown.extend(std::iter::repeat_n('*', length));
        rest = &tail[length..];
    }
    shown + rest
}
