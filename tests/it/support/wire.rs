//! The wire, written a second time from `src/manual/wire.md` alone, as a context of another make
//! would speak it. Nothing of the library is used here, and nothing is refused.

use std::io::Read;

pub const CALL: u8 = 0;
pub const DATA: u8 = 1;
pub const REPLY: u8 = 2;
pub const DEAD: u8 = 3;
pub const GRANT: u8 = 4;
pub const CONTROL: u8 = 5;

/// Bytes of payload in one frame at most.
pub const FRAGMENT: usize = 16_384;

/// What of a message a frame carries.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Part {
    #[default]
    Whole,
    /// The first of several, and the bytes of all.
    First(u64),
    Next,
}

/// One frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frame {
    pub kind: u8,
    pub bulk: bool,
    pub dst: u32,
    pub src: u32,
    pub auth: u32,
    pub handle: u32,
    pub reply_to: Option<u32>,
    pub part: Part,
    pub payload: Vec<u8>,
}

impl Frame {
    /// All of it, as it travels.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header();
        bytes.extend(varint(self.payload.len() as u64));
        bytes.extend(&self.payload);
        bytes
    }

    /// What stands before the length of the payload.
    pub fn header(&self) -> Vec<u8> {
        let bulk = self.bulk || self.part != Part::Whole;
        let mut flags = u8::from(bulk);
        flags |= u8::from(self.auth != self.src) << 1;
        flags |= u8::from(self.reply_to.is_some()) << 2;
        flags |= match self.part {
            Part::Whole => 0,
            Part::First(_) => 8,
            Part::Next => 16,
        };
        let mut bytes = vec![0xa0 | self.kind, flags];
        let auth = (self.auth != self.src).then_some(self.auth);
        let fields = [Some(self.dst), Some(self.src), auth, Some(self.handle), self.reply_to];
        for field in fields.into_iter().flatten() {
            bytes.extend(varint(field.into()));
        }
        if let Part::First(total) = self.part {
            bytes.extend(varint(total));
        }
        bytes
    }

    /// The next frame; none at the end. Panics where the page is not followed.
    pub fn read(from: &mut impl Read) -> Option<Frame> {
        let mut tag = [0];
        if from.read(&mut tag).ok()? == 0 {
            return None;
        }
        assert_eq!(tag[0] & 0xf8, 0xa0, "no frame begins with {:02x}", tag[0]);
        let mut byte = [0];
        from.read_exact(&mut byte).ok()?;
        let [flags] = byte;
        let (dst, src) = (number(from)? as u32, number(from)? as u32);
        let auth = if flags & 2 != 0 { number(from)? as u32 } else { src };
        let handle = number(from)? as u32;
        let reply_to = if flags & 4 != 0 { Some(number(from)? as u32) } else { None };
        let part = match flags & 24 {
            0 => Part::Whole,
            8 => Part::First(number(from)?),
            _ => Part::Next,
        };
        let mut payload = vec![0; number(from)? as usize];
        from.read_exact(&mut payload).ok()?;
        let (kind, bulk) = (tag[0] & 7, flags & 1 != 0);
        Some(Frame { kind, bulk, dst, src, auth, handle, reply_to, part, payload })
    }
}

/// A number of a stream.
fn number(from: &mut impl Read) -> Option<u64> {
    let (mut value, mut shift) = (0, 0);
    loop {
        let mut byte = [0];
        from.read_exact(&mut byte).ok()?;
        value |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
    }
}

/// A number, seven bits to a byte.
pub fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while 0x80 <= value {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Numbers, one behind the other.
pub fn numbers(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| varint(*value)).collect()
}

/// A death that nobody is said to have seen, without exit and tail.
pub fn death(cause: u8, context: Option<u32>) -> Vec<u8> {
    let mut bytes = vec![cause];
    bytes.push(u8::from(context.is_some()));
    bytes.extend(context.iter().flat_map(|id| varint((*id).into())));
    bytes.extend([0, 0, 0]);
    bytes
}

/// Takes values from a body.
pub struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    pub fn number(&mut self) -> u64 {
        number(&mut self.0).expect("a number")
    }

    pub fn bytes(&mut self) -> Vec<u8> {
        let len = self.number() as usize;
        let (head, rest) = self.0.split_at(len);
        self.0 = rest;
        head.to_vec()
    }

    /// A collection of numbers.
    pub fn numbers(&mut self) -> Vec<u64> {
        (0..self.number()).map(|_| self.number()).collect()
    }
}

#[test]
fn the_example_of_the_page_is_what_we_say() {
    let (dst, src, auth) = (5, 0, 0);
    let (handle, reply_to, payload) = (1, Some(256), b"abc".to_vec());
    let call = Frame { dst, src, auth, handle, reply_to, payload, ..Frame::default() };
    let bytes = [0xa0, 0x04, 5, 0, 1, 0x80, 2, 3, b'a', b'b', b'c'];
    assert_eq!(call.bytes(), bytes);
    assert_eq!(Frame::read(&mut &bytes[..]), Some(call));
    for (value, bytes) in [(0, &[0][..]), (127, &[0x7f]), (128, &[0x80, 1]), (300, &[0xac, 2])] {
        assert_eq!(varint(value), bytes);
    }
}
