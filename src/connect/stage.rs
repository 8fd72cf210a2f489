//! The first words of a shell and of an agent: the script that listens to us, the marks by which
//! both answer, and the arguments that make a process an agent.

use crate::limits::TITLE_BYTES_MAX;
use crate::module::target;

/// A process is an agent if and only if its argv\[1\] is this, a dash, and a nonce.
///
/// The agent's argv\[2\] is its title. Its argv\[3\], unless absent or empty, is the directory that
/// holds nothing but its image, named [`IMAGE_FILE`], both to be removed at once. Descriptor 4,
/// where a shell started it, is its image.
pub const AGENT_WORD: &str = "mitogen-agent";
/// The image's name in its directory.
pub const IMAGE_FILE: &str = "a";

/// The marks that begin a line of an answer; a dash and a nonce follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The shell is there; then where head and gzip are, then what `uname -sm` says.
    Shell,
    /// The agent is there; then its protocol.
    Agent,
    /// The terminal between us and the shell is raw now.
    Raw,
    /// No place of a line will do; then how many of them were not tried, then those that were, each
    /// with the reason.
    Nowhere,
    /// The image arrived, but it is not what was sent.
    Damaged,
    /// The shell's input has ended, or does not wait for us.
    Deaf,
    /// The shell holds a file in memory, for the image.
    Memory,
}

/// What a target is, as its `uname` and its shell say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The operating system, as `std::env::consts::OS` names it.
    pub os: &'static str,
    /// The processor, as `std::env::consts::ARCH` names it.
    pub cpu: &'static str,
    /// Whether an image may be sent compressed.
    pub gzip: bool,
    /// Whether its `head` can take a number of bytes.
    pub head: bool,
}

impl Target {
    /// Reads what follows the shell's mark; fails with what `uname` said.
    pub fn parse(answer: &[u8]) -> Result<Target, &[u8]> {
        let (mut rest, mut gzip, mut head) = (answer.trim_ascii(), false, false);
        loop {
            let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
            let (word, behind) = rest.split_at(end);
            match word {
                [.., b'g', b'z', b'i', b'p'] => gzip = true,
                [.., b'h', b'e', b'a', b'd'] => head = true,
                _ => break,
            }
            rest = behind.trim_ascii_start();
        }
        let mut words = rest.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let os = words.next().and_then(target::system);
        let cpu = words.next().and_then(target::processor);
        match (os, cpu) {
            (Some(os), Some(cpu)) => Ok(Target { os, cpu, gzip, head }),
            _ => Err(rest),
        }
    }

    /// The name of its images: `<os>-<cpu>`.
    pub fn name(&self) -> String {
        self.os.to_owned() + "-" + self.cpu
    }
}

impl Mark {
    fn digit(self) -> u8 {
        match self {
            Mark::Shell => b'0',
            Mark::Agent => b'1',
            Mark::Raw => b'2',
            Mark::Nowhere => b'3',
            Mark::Damaged => b'4',
            Mark::Deaf => b'5',
            Mark::Memory => b'6',
        }
    }

    /// What follows this mark in `line`, if it is a line with this mark and nonce.
    pub fn find(self, nonce: u64, line: &[u8]) -> Option<&[u8]> {
        let rest = line.strip_prefix(b"MGN")?.strip_prefix(&[self.digit()])?;
        let rest = rest.strip_prefix(b"-")?.strip_prefix(&hex(nonce))?;
        match rest {
            [] => Some(rest),
            [b' ', rest @ ..] => Some(rest),
            _ => None,
        }
    }

    /// How the shell is told to say it; the quotes keep it out of an echo of the command.
    pub(super) fn say(self) -> [u8; 15] {
        let mut words = *b"echo MGN\"_\"-$_q";
        words[9] = self.digit();
        words
    }
}

/// The script of the first stage, to be an argument of `sh -c`. It obeys lines that end with the
/// nonce, and ends at the end of its input.
pub fn first_script(nonce: u64) -> Vec<u8> {
    let tools: &[u8] = b" `command -v head;command -v gzip;uname -sm`;";
    let (hello, listen) = (Mark::Shell.say(), listen());
    // A pipe that somebody set not to block is opened anew, which is another description of it.
    let block: &[u8] =
        b"[ -p /proc/self/fd/0 ]&&{ command exec </proc/self/fd/0;} 2>/dev/null;echo;";
    [b"_q=", &hex(nonce)[..], b";", block, &hello, tools, &listen].concat()
}

/// The loop that obeys our lines; there is no function around it, since mksh goes on behind the
/// function when an `exec` in it fails.
pub(super) fn listen() -> Vec<u8> {
    let listen: &[u8] = b"while read -r _s;do case $_s in *$_q)eval \"$_s\";esac;done;";
    [listen, &Mark::Deaf.say()].concat()
}

/// The first stage as one command of a login shell: sh, csh and fish all understand it.
pub fn first_command(nonce: u64) -> Vec<u8> {
    [b"exec sh -c '", &first_script(nonce)[..], b"'"].concat()
}

/// The line that makes a terminal between us and the shell raw.
pub fn raw_line(nonce: u64) -> Vec<u8> {
    [b"stty raw -echo;", &Mark::Raw.say()[..], &line_end(nonce)].concat()
}

/// What ends each of our lines, and is a comment to the shell.
pub(super) fn line_end(nonce: u64) -> Vec<u8> {
    [b" #", &hex(nonce)[..], b"\n"].concat()
}

/// The argv\[1\] of an agent.
pub fn agent_arg(answer_nonce: u64) -> Vec<u8> {
    [AGENT_WORD.as_bytes(), b"-", &hex(answer_nonce)].concat()
}

/// The arguments of an agent that is executed directly, argv\[0\] included.
pub fn agent_argv(answer_nonce: u64, title: &str) -> Vec<Vec<u8>> {
    vec![b"mitogen".to_vec(), agent_arg(answer_nonce), title_head(title).to_vec()]
}

/// The nonce, if `argument` is the argv\[1\] of an agent.
pub fn parse_agent_arg(argument: &[u8]) -> Option<u64> {
    let digits = argument.strip_prefix(AGENT_WORD.as_bytes())?.strip_prefix(b"-")?;
    if digits.len() != 16 {
        return None;
    }
    digits.iter().try_fold(0, |nonce, digit| {
        let value = HEX.iter().position(|hex| hex == digit)?;
        Some(nonce << 4 | value as u64)
    })
}

/// What an agent prints before all else. The line feed in front ends what others printed before.
pub fn answer_line(answer_nonce: u64, protocol: u32) -> Vec<u8> {
    let protocol = decimal(u64::from(protocol));
    [b"\nMGN1-", &hex(answer_nonce)[..], b" ", &protocol, b"\n"].concat()
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// A nonce as it is written everywhere: sixteen digits.
pub fn hex(nonce: u64) -> [u8; 16] {
    std::array::from_fn(|i| HEX[(nonce >> (60 - 4 * i)) as usize & 15])
}

pub(super) fn decimal(mut number: u64) -> Vec<u8> {
    let mut digits = Vec::new();
    loop {
        digits.push(b'0' + (number % 10) as u8);
        number /= 10;
        if number == 0 {
            digits.reverse();
            return digits;
        }
    }
}

/// One word of a POSIX shell.
pub(super) fn quote(word: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for byte in word {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            _ => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

/// As much of a title as there is room for: no control characters, no half character.
pub(super) fn title_head(title: &str) -> &[u8] {
    let printable = title.find(char::is_control).unwrap_or(title.len());
    let mut end = printable.min(TITLE_BYTES_MAX);
    while !title.is_char_boundary(end) {
        end -= 1;
    }
    &title.as_bytes()[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_holds_the_mark_that_it_asks_for() {
        let nonce = 0x0123_4567_89ab_cdef;
        for text in [first_command(nonce), raw_line(nonce)] {
            let text = String::from_utf8(text).unwrap();
            for digit in 0..10 {
                assert!(!text.contains(&format!("MGN{digit}")), "{text}");
            }
        }
    }

    #[test]
    fn the_first_command_has_nothing_that_csh_or_fish_take_apart() {
        let text = String::from_utf8(first_command(u64::MAX)).unwrap();
        assert_eq!(text.matches('\'').count(), 2);
        assert!(!text.contains(['\\', '!', '\n']), "{text}");
        let script = text.strip_prefix("exec sh -c '").unwrap().strip_suffix('\'').unwrap();
        assert_eq!(script.as_bytes(), first_script(u64::MAX));
    }

    #[test]
    fn an_agent_is_known_by_its_argument_alone() {
        for nonce in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            assert_eq!(parse_agent_arg(&agent_arg(nonce)), Some(nonce));
        }
        for other in ["", "mitogen-agent", "mitogen-agent-", "mitogen-agent-12", "run"] {
            assert_eq!(parse_agent_arg(other.as_bytes()), None, "{other}");
        }
        assert_eq!(parse_agent_arg(b"mitogen-agent-000000000000000g"), None);
        assert_eq!(parse_agent_arg(b"mitogen-agent-00000000000000000"), None);
    }

    #[test]
    fn a_mark_counts_with_its_own_nonce_and_as_a_whole_word() {
        let line = answer_line(0xab, 12);
        let line = line.trim_ascii();
        assert_eq!(Mark::Agent.find(0xab, line), Some(&b"12"[..]));
        assert_eq!(Mark::Agent.find(0xac, line), None);
        assert_eq!(Mark::Shell.find(0xab, line), None);
        assert_eq!(Mark::Agent.find(0xab, b"MGN1-00000000000000ab1 12"), None);
        assert_eq!(Mark::Agent.find(0xab, b"x MGN1-00000000000000ab 12"), None);
        assert_eq!(Mark::Raw.find(0xab, b"MGN2-00000000000000ab"), Some(&b""[..]));
    }

    #[test]
    fn uname_tells_the_target() {
        for (says, name, tools) in [
            ("Linux x86_64", "linux-x86_64", "--"),
            ("/bin/gzip Linux aarch64", "linux-aarch64", "-z"),
            ("FreeBSD amd64 ", "freebsd-x86_64", "--"),
            ("head /usr/bin/gzip Darwin  arm64\t", "macos-aarch64", "hz"),
            ("/bin/head Linux i686", "linux-x86", "h-"),
        ] {
            let target = Target::parse(says.as_bytes()).unwrap();
            let head = if target.head { "h" } else { "-" };
            let gzip = if target.gzip { "z" } else { "-" };
            assert_eq!((target.name().as_str(), [head, gzip].concat()), (name, tools.to_owned()));
        }
        for says in ["", "Linux", "x86_64 Linux", "Linux pdp11", "junk junk", "linux x86_64"] {
            assert_eq!(Target::parse(says.as_bytes()), Err(says.as_bytes()), "{says}");
            let with_tools = ["/bin/head gzip ", says].concat();
            assert_eq!(Target::parse(with_tools.as_bytes()), Err(says.as_bytes()), "{says}");
        }
    }

    #[test]
    fn titles_are_cut_between_characters() {
        assert_eq!(title_head("a\nb"), b"a");
        assert_eq!(title_head(&"é".repeat(100)).len(), 128);
        assert_eq!(title_head(&("x".to_owned() + &"é".repeat(100))).len(), 127);
    }
}
