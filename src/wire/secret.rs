//! A text that neither prints nor logs, and is overwritten when it goes.

use std::fmt;

use crate::wire::codec::{Decode, Encode, Malformed, Reader, Shape, Writer};

/// A password or another text that must not be shown. `Debug` hides it; there is no `Display`.
///
/// # Security
///
/// Its own memory is overwritten when it is dropped. That does not reach copies made before it
/// became a `Secret`, nor the messages that carried it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text. Keep it out of what is printed, logged or put into an error.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Secret {
        Secret::new(text)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        // Without an observer the compiler may leave out what nobody reads.
        std::hint::black_box(&mut bytes);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Encode for Secret {
    fn encode(&self, w: &mut Writer<'_>) {
        self.0.encode(w);
    }
}

impl Decode for Secret {
    fn decode(r: &mut Reader<'_>) -> Result<Secret, Malformed> {
        String::decode(r).map(Secret)
    }

    fn shape(s: &mut Shape) {
        s.word("secret");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print() {
        let secret = Secret::from("hunter2");
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "Secret(..) Some(Secret(..))");
        assert_eq!(secret.expose(), "hunter2");
    }
}
