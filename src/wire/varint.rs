//! Variable-length integers: seven bits a byte, the lowest first, the high bit means more follows.
//! Only the shortest form is accepted, so that every number has one encoding.

/// Bytes of the longest varint, that of a 64-bit number.
pub const BYTES_MAX: usize = 10;

/// Appends `value`.
pub fn put(mut value: u64, out: &mut Vec<u8>) {
    while 0x80 <= value {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What stands at the head of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A number, and how many bytes it took.
    Value(u64, usize),
    /// The bytes end inside it.
    Short,
    /// No number of 64 bits in its shortest form.
    Malformed,
}

/// Reads the number at the head of `bytes`.
pub fn take(bytes: &[u8]) -> Taken {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().enumerate().take(BYTES_MAX) {
        let bits = u64::from(byte & 0x7f);
        if i == BYTES_MAX - 1 && 1 < bits || 0 < i && byte == 0 {
            return Taken::Malformed;
        }
        value |= bits << (7 * i);
        if byte < 0x80 {
            return Taken::Value(value, i + 1);
        }
    }
    if bytes.len() < BYTES_MAX { Taken::Short } else { Taken::Malformed }
}
