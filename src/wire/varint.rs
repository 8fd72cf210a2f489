//! Variable-length integers: seven bits a byte, the lowest first, the high bit means more follows.
//! Only the shortest form is accepted, so that every number has one encoding.

/// Bytes of the longest varint, that of a 64-bit number.
pub const BYTES_MAX: usize = 10;

/// Appends `value`.
pub fn put(value: u64, out: &mut Vec<u8>) {
    let mut bytes = [0; BYTES_MAX];
    let len = write(value, &mut bytes);
    out.extend_from_slice(&bytes[..len]);
}

/// Writes `value` at the head of `out`, which has room for it; returns the bytes written.
pub fn write(mut value: u64, out: &mut [u8]) -> usize {
    let mut len = 0;
    while 0x80 <= value {
        out[len] = value as u8 | 0x80;
        value >>= 7;
        len += 1;
    }
    out[len] = value as u8;
    len + 1
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
        if i == BYTES_MAX - 1 && 1 < byte || 0 < i && byte == 0 {
            return Taken::Malformed;
        }
        value |= bits << (7 * i);
        if byte < 0x80 {
            return Taken::Value(value, i + 1);
        }
    }
    Taken::Short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn both_ways(value: u64, bytes: &[u8]) {
        let mut out = Vec::new();
        put(value, &mut out);
        assert_eq!(out, bytes);
        assert_eq!(take(bytes), Taken::Value(value, bytes.len()));
        for len in 0..bytes.len() {
            assert_eq!(take(&bytes[..len]), Taken::Short);
        }
    }

    #[test]
    fn each_number_has_one_encoding() {
        both_ways(0, &[0]);
        both_ways(127, &[0x7f]);
        both_ways(128, &[0x80, 1]);
        both_ways(16_384, &[0x80, 0x80, 1]);
        both_ways(u64::from(u32::MAX), &[0xff, 0xff, 0xff, 0xff, 0x0f]);
        both_ways(u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
    }

    #[test]
    fn longer_forms_are_malformed() {
        assert_eq!(take(&[0x80, 0]), Taken::Malformed);
        assert_eq!(take(&[0xff, 0x80, 0]), Taken::Malformed);
        assert_eq!(
            take(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2]),
            Taken::Malformed
        );
        assert_eq!(take(&[0xff; 10]), Taken::Malformed);
    }
}
