//! One JSON object, written onto one line.

use std::fmt::Write;

/// An object that is being written.
pub struct Object(String);

impl Object {
    /// An object without members.
    pub fn new() -> Object {
        Object("{".to_owned())
    }

    /// Adds a text.
    pub fn text(mut self, name: &str, text: &str) -> Object {
        self.name(name);
        quote(&mut self.0, text);
        self
    }

    /// Adds a number.
    pub fn number(mut self, name: &str, number: impl Into<i128>) -> Object {
        self.name(name);
        self.0.push_str(&number.into().to_string());
        self
    }

    /// Adds a number, or `null`.
    pub fn maybe(self, name: &str, number: Option<u64>) -> Object {
        match number {
            Some(number) => self.number(name, number),
            None => self.null(name),
        }
    }

    /// Adds bytes: as text if they are UTF-8, else in base64 under the name with `_base64`.
    pub fn bytes(self, name: &str, bytes: &[u8]) -> Object {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.text(name, text),
            Err(_) => self.text(&[name, "_base64"].concat(), &base64(bytes)),
        }
    }

    /// Adds a list of objects.
    pub fn objects(mut self, name: &str, objects: impl Iterator<Item = Object>) -> Object {
        self.name(name);
        let objects: Vec<String> = objects.map(|object| object.0 + "}").collect();
        self.0.push('[');
        self.0.push_str(&objects.join(","));
        self.0.push(']');
        self
    }

    /// The line, with its end.
    pub fn line(self) -> String {
        self.0 + "}\n"
    }

    fn null(mut self, name: &str) -> Object {
        self.name(name);
        self.0.push_str("null");
        self
    }

    fn name(&mut self, name: &str) {
        if 1 < self.0.len() {
            self.0.push(',');
        }
        quote(&mut self.0, name);
        self.0.push(':');
    }
}

/// Writes a string. What a terminal would obey is escaped, which changes nothing for a reader.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if is_obeyed(c) => {
                // Writing to a String cannot fail; all of these have four digits or fewer.
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Control characters, and those that reorder or hide the text around them.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{feff}')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= three.len() { char::from(digit) } else { '=' });
        }
    }
    out
}
