//! The shell's part in bringing an agent up: the lines that we say to it, and the marks by which it
//! and the agent answer. All of it is plain POSIX shell, and leaves nothing behind.

use crate::limits::{LINE_BYTES_MAX, TITLE_BYTES_MAX};
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
    /// The shell is there; then what `uname -sm` says, then where gzip is.
    Shell,
    /// The agent is there; then its protocol.
    Agent,
    /// The terminal between us and the shell is raw now.
    Raw,
    /// No directory will do; then those that were tried, each with the reason.
    Nowhere,
}

/// What a target is, as its `uname` and its shell say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The operating system, as `std::env::consts::OS` names it.
    pub os: &'static str,
    /// The processor, as `std::env::consts::ARCH` names it.
    pub cpu: &'static str,
    /// Whether an image may be sent compressed.
    pub gzip: bool,
}

/// What a second line is made for.
pub struct Push<'a> {
    /// The nonce of the first line, for the shell's answers.
    pub nonce: u64,
    /// The nonce that the agent is to answer with.
    pub answer_nonce: u64,
    /// Bytes that follow the line.
    pub sent_bytes: u64,
    /// Whether they are gzip's output.
    pub gzipped: bool,
    /// What `ps` is to show.
    pub title: &'a str,
    /// The directory to try before all others.
    pub directory: Option<&'a [u8]>,
    /// What executes the agent: a command and its arguments, to which the agent's are added.
    pub wrapper: &'a [Vec<u8>],
}

impl Target {
    /// Reads what follows the shell's mark.
    pub fn parse(answer: &[u8]) -> Option<Target> {
        let mut words = answer.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let os = target::system(words.next()?)?;
        let cpu = target::processor(words.next()?)?;
        Some(Target { os, cpu, gzip: words.next().is_some() })
    }

    /// The name of its images: `<os>-<cpu>`.
    pub fn name(&self) -> String {
        [self.os, "-", self.cpu].concat()
    }
}

impl Mark {
    fn digit(self) -> u8 {
        match self {
            Mark::Shell => b'0',
            Mark::Agent => b'1',
            Mark::Raw => b'2',
            Mark::Nowhere => b'3',
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
    fn say(self, nonce: u64) -> Vec<u8> {
        [b"echo MGN\"", &[self.digit()][..], b"\"-", &hex(nonce)].concat()
    }
}

/// The script of the first stage, to be an argument of `sh -c`. It ends at the end of its input.
pub fn first_script(nonce: u64) -> Vec<u8> {
    let answer = Mark::Shell.say(nonce);
    let uname: &[u8] = b" `uname -sm` `command -v gzip`;while read -r s;do eval \"$s\";done";
    [b"echo;", &answer[..], uname].concat()
}

/// The first stage as one command of a login shell: sh, csh and fish all understand it.
pub fn first_command(nonce: u64) -> Vec<u8> {
    [b"exec sh -c '", &first_script(nonce)[..], b"'"].concat()
}

/// The line that makes a terminal between us and the shell raw.
pub fn raw_line(nonce: u64) -> Vec<u8> {
    [b"stty raw -echo;", &Mark::Raw.say(nonce)[..], b"\n"].concat()
}

impl Push<'_> {
    /// The line that receives the image and becomes the agent.
    ///
    /// It tries directories by executing a script there, before a byte of the image is taken. With
    /// /proc the file has no name any more when its first byte arrives.
    pub fn line(&self) -> Vec<u8> {
        let nowhere = Mark::Nowhere.say(self.nonce);
        let count = decimal(self.sent_bytes);
        // The image is open for writing in one process only, which the shell waits for: whatever
        // else had it open (a copy that mksh keeps, a `head` that ksh does not wait for) would make
        // it busy, and a busy file cannot be executed.
        let sink: &[u8] = if self.gzipped { b"|gzip -dc >\"$x\"" } else { b" >\"$x\"" };
        let mut line = Vec::with_capacity(LINE_BYTES_MAX);
        let mut add = |part: &[u8]| line.extend_from_slice(part);
        add(b"set -f;n=.mgn-");
        add(&hex(self.answer_nonce));
        add(b";p=$n;e=;k=;trap 'rm -f \"$p/a\" 2>/dev/null;rmdir \"$p\" 2>/dev/null' 0;");
        add(b"trap 'exit 1' 1 2 15;for d in ");
        add(&self.directory.map_or(Vec::new(), quote));
        add(b" /dev/shm \"$XDG_RUNTIME_DIR\" /var/tmp /tmp \"$HOME/.cache\" \"$HOME\" .;do ");
        add(b"[ \"$d\" ]||continue;p=$d/$n;");
        add(b"if m=$({ umask 077;mkdir \"$p\"&&echo :>\"$p/a\"&&chmod 700 \"$p/a\"&&\"$p/a\"");
        add(b";} 2>&1 </dev/null);then k=1;break;fi;");
        add(b"{ rm -f \"$p/a\";rmdir \"$p\";} 2>/dev/null;e=\"$e $d: ${m##*: };\";done;");
        add(b"[ $k ]||{ ");
        add(&nowhere);
        add(b" $e;exit 1;};r=$p;x=$p/a;exec 4<\"$x\";");
        add(b"if [ -x /proc/self/fd/4 ];then rm -f \"$x\";rmdir \"$p\";trap - 0;r=;");
        add(b"x=/proc/self/fd/4;fi;");
        add(b"c='head -c ");
        add(&count);
        add(b"';command -v head >/dev/null||c='dd bs=1 count=");
        add(&count);
        add(b"';$c 2>/dev/null");
        add(sink);
        add(b"||{ ");
        add(&nowhere);
        add(b" $d: the image does not fit;exit 1;};exec ");
        for word in self.wrapper {
            add(&quote(word));
            add(b" ");
        }
        add(b"\"$x\" ");
        add(&agent_arg(self.answer_nonce));
        add(b" ");
        add(&quote(title_head(self.title)));
        add(b" \"$r\" 4<&4\n");
        line
    }
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

fn decimal(mut number: u64) -> Vec<u8> {
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
fn quote(word: &[u8]) -> Vec<u8> {
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
fn title_head(title: &str) -> &[u8] {
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

    const PUSH: Push<'static> = Push {
        nonce: 1,
        answer_nonce: 2,
        sent_bytes: u64::MAX,
        gzipped: true,
        title: "it's me",
        directory: Some(b"/it's here"),
        wrapper: &[],
    };

    #[test]
    fn no_line_holds_the_mark_that_it_asks_for() {
        let nonce = 0x0123_4567_89ab_cdef;
        let line = Push { nonce, answer_nonce: nonce, ..PUSH }.line();
        for text in [first_command(nonce), raw_line(nonce), line] {
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
    fn the_second_line_is_one_short_line() {
        let directory = [b'd'; crate::limits::DIRECTORY_BYTES_MAX];
        let title = "t".repeat(4096);
        let line = Push { title: &title, directory: Some(&directory), ..PUSH }.line();
        assert!(line.len() < 4000, "{}", line.len());
        assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
        assert!(PUSH.line().len() < 1200, "{}", PUSH.line().len());
    }

    #[test]
    fn a_wrapper_stands_before_the_agent_as_it_was_given() {
        let wrapper = ["env", "A=it's $x", "-"].map(|word| word.as_bytes().to_vec());
        let line = String::from_utf8(Push { wrapper: &wrapper, ..PUSH }.line()).unwrap();
        assert!(line.contains("exec 'env' 'A=it'\\''s $x' '-' \"$x\" mitogen-agent-"), "{line}");
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
        for (says, name, gzip) in [
            ("Linux x86_64", "linux-x86_64", false),
            ("Linux aarch64 /bin/gzip", "linux-aarch64", true),
            ("FreeBSD amd64 ", "freebsd-x86_64", false),
            (" Darwin  arm64\t/usr/bin/gzip", "macos-aarch64", true),
            ("Linux i686", "linux-x86", false),
        ] {
            let target = Target::parse(says.as_bytes()).unwrap();
            assert_eq!((target.name().as_str(), target.gzip), (name, gzip));
        }
        for says in ["", "Linux", "x86_64 Linux", "Linux pdp11", "junk junk", "linux x86_64"] {
            assert_eq!(Target::parse(says.as_bytes()), None, "{says}");
        }
    }

    #[test]
    fn titles_are_cut_between_characters() {
        assert_eq!(title_head("a\nb"), b"a");
        assert_eq!(title_head(&"é".repeat(100)).len(), 128);
        assert_eq!(title_head(&("x".to_owned() + &"é".repeat(100))).len(), 127);
    }
}
