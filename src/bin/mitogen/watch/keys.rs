//! Keys, read from what a terminal sends. Pure.

/// What a user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Not to look any more.
    Quit,
    /// A line up.
    Up,
    /// A line down.
    Down,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// The first line.
    Home,
    /// The last line.
    End,
    /// All of it drawn anew.
    Redraw,
}

/// Reads keys from pieces that may end within one.
#[derive(Default)]
pub struct Keys {
    /// What an escape sequence has been so far.
    sequence: Vec<u8>,
}

/// Longer sequences are none of ours.
const SEQUENCE_BYTES_MAX: usize = 16;

impl Keys {
    /// The keys of the next piece.
    pub fn read(&mut self, bytes: &[u8]) -> Vec<Key> {
        bytes.iter().filter_map(|byte| self.next(*byte)).collect()
    }

    fn next(&mut self, byte: u8) -> Option<Key> {
        const ESCAPE: u8 = 0x1b;
        let begins = byte == ESCAPE || SEQUENCE_BYTES_MAX <= self.sequence.len();
        if begins {
            self.sequence.clear();
        }
        if byte == ESCAPE || !self.sequence.is_empty() {
            self.sequence.push(byte);
            let is_over = match self.sequence.len() {
                1 => false,
                2 => !matches!(byte, b'[' | b'O'),
                _ => (0x40..0x7f).contains(&byte),
            };
            if !is_over {
                return None;
            }
            return sequence(&std::mem::take(&mut self.sequence));
        }
        match byte {
            b'q' | b'Q' => Some(Key::Quit),
            b'k' => Some(Key::Up),
            b'j' => Some(Key::Down),
            b'g' => Some(Key::Home),
            b'G' => Some(Key::End),
            b' ' => Some(Key::PageDown),
            0x0c => Some(Key::Redraw),
            _ => None,
        }
    }
}

fn sequence(bytes: &[u8]) -> Option<Key> {
    match bytes {
        b"\x1b[A" | b"\x1bOA" => Some(Key::Up),
        b"\x1b[B" | b"\x1bOB" => Some(Key::Down),
        b"\x1b[5~" => Some(Key::PageUp),
        b"\x1b[6~" => Some(Key::PageDown),
        b"\x1b[H" | b"\x1bOH" | b"\x1b[1~" => Some(Key::Home),
        b"\x1b[F" | b"\x1bOF" | b"\x1b[4~" => Some(Key::End),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_keys_however_they_are_cut_and_unknown_ones_are_none() {
        let all = b"jk\x1b[A\x1bOB\x1b[5~\x1b[6~\x1b[1;5A\x1bqx\x1b[HG q";
        let expected = [
            Key::Down,
            Key::Up,
            Key::Up,
            Key::Down,
            Key::PageUp,
            Key::PageDown,
            Key::Home,
            Key::End,
            Key::PageDown,
            Key::Quit,
        ];
        assert_eq!(Keys::default().read(all), expected);
        let mut keys = Keys::default();
        let single: Vec<Key> = all.iter().flat_map(|byte| keys.read(&[*byte])).collect();
        assert_eq!(single, expected);
    }

    #[test]
    fn a_sequence_without_end_does_not_keep_keys_from_working() {
        let mut keys = Keys::default();
        keys.read(b"\x1b[");
        keys.read(&[b'0'; 100]);
        assert_eq!(keys.read(b"~q"), [Key::Quit]);
    }
}
