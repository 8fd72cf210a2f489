//! A hostile agent: a process that a real router connects to, which plays the shell of the first
//! stage, then the agent, and then says whatever a test wants. It knows the wire from its page.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;

use super::wire::{self, CALL, CONTROL, DATA, Fields, Frame, REPLY};

/// Says which attack this process is to be.
pub const HOSTILE: &str = "MITOGEN_TEST_HOSTILE";

/// What a hostile agent does with a call of its parent.
pub type Attack = fn(&mut Evil, &Frame);

/// The agent's end of its connection, and who it is.
pub struct Evil {
    input: BufReader<File>,
    output: File,
    pub id: u32,
    pub parents: Vec<u32>,
    /// Ids that it may give to children.
    pub ids: Vec<u32>,
    /// Everything that its parent has sent, but for calls, if it is to be looked at.
    pub heard: Vec<Frame>,
}

impl Evil {
    /// Takes the image and throws it away, and learns who it is.
    pub fn begin() -> Evil {
        let [input, output] = [0, 1].map(|number| {
            let standard = match number {
                0 => std::io::stdin().as_fd().try_clone_to_owned(),
                _ => std::io::stdout().as_fd().try_clone_to_owned(),
            };
            File::from(standard.unwrap())
        });
        let mut evil = Evil {
            input: BufReader::new(input),
            output,
            id: 0,
            parents: Vec::new(),
            ids: Vec::new(),
            heard: Vec::new(),
        };
        let script = std::env::args().next_back().unwrap();
        let nonce = behind(&script, "_q=", 16);
        evil.say(format!("\nMGN0-{nonce} head Linux {}\n", std::env::consts::ARCH).as_bytes());
        let mut line = String::new();
        while !line.contains("head -c ") {
            line.clear();
            evil.input.read_line(&mut line).unwrap();
        }
        let (answer, length) = (behind(&line, "_n=", 16), behind(&line, "head -c ", 20));
        let length: u64 = length.split('|').next().unwrap().trim().parse().unwrap();
        let mut image = (&mut evil.input).take(length);
        std::io::copy(&mut image, &mut std::io::sink()).unwrap();
        evil.say(format!("\nMGN1-{answer} 1\n").as_bytes());
        let configure = Frame::read(&mut evil.input).unwrap();
        let mut fields = Fields(&configure.payload);
        evil.id = fields.number() as u32;
        evil.parents = fields.numbers().into_iter().map(|id| id as u32).collect();
        let (_name, _bytes_max) = (fields.bytes(), fields.number());
        let _terms = [fields.number(), fields.number(), fields.number(), fields.number()];
        let (_log_level, _debug, _profiling) = (fields.number(), fields.bytes(), fields.bytes());
        let first = fields.number() as u32;
        evil.ids = (first..first + fields.number() as u32).collect();
        evil
    }

    /// Does this for every call and every connect that is asked for, until it is asked to end.
    pub fn play(mut self, attack: Attack) -> ! {
        while let Some(frame) = self.hear() {
            if (frame.kind, frame.handle) == (CONTROL, 5) {
                break;
            }
            if frame.kind == CALL || (frame.kind, frame.handle) == (CONTROL, 6) {
                attack(&mut self, &frame);
            }
        }
        std::process::exit(0)
    }

    /// Writes bytes; ends with the connection.
    pub fn say(&mut self, bytes: &[u8]) {
        if self.output.write_all(bytes).is_err() {
            std::process::exit(0);
        }
    }

    /// Writes frames, many at a time.
    pub fn send(&mut self, frames: impl IntoIterator<Item = Frame>) {
        let mut bytes = Vec::new();
        for frame in frames {
            bytes.extend(frame.bytes());
            if 65_536 < bytes.len() {
                self.say(&bytes);
                bytes.clear();
            }
        }
        self.say(&bytes);
    }

    /// The next frame of the parent; none at the end.
    pub fn hear(&mut self) -> Option<Frame> {
        Frame::read(&mut self.input)
    }

    /// Waits for a frame; what comes before it is kept in `heard`.
    pub fn hear_until(&mut self, is_it: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let Some(frame) = self.hear() else { std::process::exit(0) };
            if is_it(&frame) {
                return frame;
            }
            self.heard.push(frame);
        }
    }

    /// A frame of its own to the parent, as an honest one begins.
    pub fn frame(&self, kind: u8, handle: u32, payload: &[u8]) -> Frame {
        let (src, dst) = (self.id, self.parents[0]);
        Frame { kind, handle, src, auth: src, dst, payload: payload.to_vec(), ..Frame::default() }
    }

    /// A frame of its own to some other context.
    pub fn frame_to(&self, dst: u32, kind: u8, handle: u32, payload: &[u8]) -> Frame {
        Frame { dst, ..self.frame(kind, handle, payload) }
    }

    /// Answers a call with this value.
    pub fn answer(&mut self, call: &Frame, value: &[u8]) {
        let payload = [&[0], value].concat();
        let frame = self.frame_to(call.src, REPLY, call.reply_to.unwrap(), &payload);
        self.send([frame]);
    }

    /// Answers a call with a number.
    pub fn answer_number(&mut self, call: &Frame, number: u64) {
        self.answer(call, &wire::varint(number));
    }

    /// Waits until the parent has taken all that was sent: it answers what nobody listens to.
    pub fn settle(&mut self) {
        let handle = 0x3fff_fff0;
        let (kind, reply_to) = (CALL, Some(handle));
        self.send([Frame { reply_to, ..self.frame(kind, 99, b"") }]);
        self.hear_until(|frame| frame.handle == handle);
    }
}

/// Where the arguments of a plain call begin: behind its fingerprint and a byte of flags.
pub const ARGUMENTS_AT: usize = 9;

/// The numbers of a call to one of the tests' functions, all of which take a `Vec<u32>`.
pub fn arguments(call: &Frame) -> Vec<u32> {
    Fields(&call.payload[ARGUMENTS_AT..])
        .numbers()
        .into_iter()
        .map(|number| number as u32)
        .collect()
}

/// The context and the handle of the Sender that such a call has behind its numbers.
pub fn sender_in(call: &Frame) -> (u32, u32) {
    let mut fields = Fields(&call.payload[ARGUMENTS_AT..]);
    fields.numbers();
    (fields.number() as u32, fields.number() as u32)
}

/// An item for a receiver of numbers.
pub fn item(evil: &Evil, (owner, handle): (u32, u32), number: u64) -> Frame {
    evil.frame_to(owner, DATA, handle, &wire::varint(number))
}

/// As many characters of `text` as that, behind this.
fn behind<'a>(text: &'a str, mark: &str, count: usize) -> &'a str {
    let at = text.find(mark).unwrap_or_else(|| panic!("no {mark} in {text}")) + mark.len();
    &text[at..text.len().min(at + count)]
}
