//! The ladder: the places of a target where the image may be executed, in their order, and the
//! lines of shell that try them. All of it is plain POSIX shell, and leaves nothing behind.
//!
//! A name that the target exports would go on to the agent with our value: ours begin with `_`.

use crate::connect::stage::{AGENT_WORD, Mark, Target, decimal, hex, line_end, listen};
use crate::connect::stage::{quote, title_head};
use crate::limits::LINE_BYTES_MAX;

/// Directories to be tried, as words of shell; the one that the caller chose comes before them.
const DIRECTORIES: [&[u8]; 7] = [
    b"/dev/shm",
    b"\"$XDG_RUNTIME_DIR\"",
    b"/var/tmp",
    b"/tmp",
    b"\"${HOME:+$HOME/.cache}\"",
    b"\"$HOME\"",
    b".",
];
/// How many of them come before the file in memory.
const BEFORE_MEMORY: usize = 2;

/// The next place to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// The chosen directory, if there is one, and those of the first two behind it.
    Chosen,
    /// The directories from this one on, up to the file in memory, or to the last.
    Directory(usize),
    /// A file in memory, which perl or python3 makes.
    Memory,
    /// None is left.
    End,
}

impl Rung {
    /// The directories that one line tries from here on: their places in the list.
    fn batch(self) -> std::ops::Range<usize> {
        match self {
            Rung::Chosen => 0..BEFORE_MEMORY,
            Rung::Directory(from) if from < BEFORE_MEMORY => from..BEFORE_MEMORY,
            Rung::Directory(from) => from..DIRECTORIES.len(),
            Rung::Memory | Rung::End => 0..0,
        }
    }

    /// What comes next where a line that began here left this many untried. None if it cannot be.
    pub fn after(self, untried: usize) -> Option<Rung> {
        let batch = self.batch();
        let most = match self {
            Rung::Chosen => batch.len(),
            Rung::Directory(_) => batch.len().checked_sub(1)?,
            Rung::Memory => 0,
            Rung::End => return None,
        };
        match self {
            _ if most < untried => None,
            Rung::Memory => Some(Rung::Directory(BEFORE_MEMORY)),
            _ if 0 < untried => Some(Rung::Directory(batch.end - untried)),
            _ if batch.end == BEFORE_MEMORY => Some(Rung::Memory),
            _ => Some(Rung::End),
        }
    }
}

/// What a line is made for that receives the image.
pub struct Push<'a> {
    /// Where it goes.
    pub target: Target,
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
    /// Where to begin.
    pub rung: Rung,
    /// The directory to try before all others.
    pub directory: Option<&'a [u8]>,
    /// What executes the agent: a command and its arguments, to which the agent's are added.
    pub wrapper: &'a [Vec<u8>],
}

/// Finds a directory. A script is executed there, before a byte of the image is taken; with /proc
/// it also removes the directory and itself, so that the file has no name any more when the first
/// byte arrives. `_y` is that file then, `_x` is what to execute, `_p` is still to be removed.
///
/// What fails is done again, to learn why: so the good case needs no process that listens.
const FIND: &[u8] = b"for _d do shift;[ \"$_d\" ]||continue;_p=$_d/.mgn-$_n;\
    if _t 2>/dev/null;then _z=$_g;_x=$_p/a;[ $_y ]&&{ _x=$_y;_p=;trap - 0;};\
    _e=\"$_e $_d: no room;\";break;fi;\
    rm -rf \"$_p\";_m=$(_t 2>&1);_m=${_m%: $_p/a};rm -rf \"$_p\";_p=;\
    _e=\"$_e $_d: ${_m##*: };\";done;";
/// What FIND needs: what to execute and how, a trap that removes what is left, and `_t`, which
/// tries the directory `$_p`. In a trap nothing may be waited for: mksh would wait for ever.
const PREPARE: &[u8] = b";_y=;_z=cat;_x=/dev/null;_c=:;\
    [ -x /proc/self/fd ]&&{ _y=/proc/self/fd/4;_c='exec rm -r \"$1\"';};\
    trap 'exec rm -rf \"$_p\"' 0 1 2 15;\
    _t(){ mkdir -m 700 \"$_p\"&&echo \"$_c\">\"$_p/a\"&&chmod 700 \"$_p/a\"\
    &&exec 4<\"$_p/a\"&&\"$_p/a\" \"$_p\";} </dev/null;set --";

impl Push<'_> {
    /// The line that receives the image and becomes the agent.
    ///
    /// Where that fails, the answer is [`Mark::Nowhere`], and the shell waits for another line.
    /// What is left of the image then is passed over, for it has no line that ends as ours do.
    #[inline(never)] // a frame of its own: smaller code
    pub fn line(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(LINE_BYTES_MAX);
        if self.rung != Rung::Chosen {
            // Ends what may be left of the last image.
            line.push(b'\n');
        }
        if let Rung::Directory(_) = self.rung {
            // What was tried before still takes room.
            line.extend_from_slice(b"exec 4<&-;");
        }
        let unpack: &[u8] = if self.gzipped { b"'gzip -dc'" } else { b"cat" };
        let mut add = |part: &[u8]| line.extend_from_slice(part);
        add(b"set -f;_n=");
        add(&hex(self.answer_nonce));
        add(b";_e=;_p=;_g=");
        add(unpack);
        if self.rung == Rung::Memory {
            add(b";_z=$_g;_y=/proc/self/fd/4;_x=$_y;set --;");
            add(b"_e=' memfd_create: no room;';");
        } else {
            add(PREPARE);
            if let (Rung::Chosen, Some(directory)) = (self.rung, self.directory) {
                add(b" ");
                add(&quote(directory));
            }
            for directory in &DIRECTORIES[self.rung.batch()] {
                add(b" ");
                add(directory);
            }
            add(b";");
            add(FIND);
        }
        self.receive(&mut line);
        line
    }

    /// Takes the image into `$_x` by `$_z`, and executes it: if it is all there, and an executable,
    /// for some shells would run anything else as a script. It is open for writing in one process
    /// only, which the shell waits for: a busy file cannot be executed.
    fn receive(&self, line: &mut Vec<u8>) {
        let mut add = |part: &[u8]| line.extend_from_slice(part);
        let count = decimal(self.sent_bytes);
        add(if self.target.head { b"head -c " } else { b"2>/dev/null dd bs=1 count=" });
        add(&count);
        add(b"|$_z >\"$_x\"&&[ -f \"$_x\" ]&&{ ");
        if !self.gzipped {
            add(b"[ $(wc -c <\"$_x\") = ");
            add(&count);
            add(b" ]&&");
        }
        add(b"read -r _m <\"$_x\";case $_m in ");
        add(if self.target.os == "macos" { b"*" } else { b"?ELF*" });
        // Without /proc the shell stays, to remove the image if it does not execute.
        add(b")${_y:+exec} ");
        for word in self.wrapper {
            add(&quote(word));
            add(b" ");
        }
        add(b"\"$_x\" ");
        add(AGENT_WORD.as_bytes());
        add(b"-$_n ");
        add(&quote(title_head(self.title)));
        add(b" \"$_p\" 4<&4;exit;esac;");
        add(&Mark::Damaged.say());
        add(b";};rm -rf \"$_p\";");
        add(&Mark::Nowhere.say());
        add(b" $# $_e");
        add(&line_end(self.nonce));
    }
}

/// The number of the system call `memfd_create`.
fn memfd_call(cpu: &str) -> Option<u64> {
    Some(match cpu {
        "x86_64" => 319,
        "x86" => 356,
        "arm" => 385,
        "s390x" => 350,
        "powerpc64le" => 360,
        "aarch64" | "riscv64" | "loongarch64" => 279,
        _ => return None,
    })
}

/// Makes the file by perl, whose system call has this number, or by python3; up to the nonce.
const MEMORY_BEGIN: &[u8] = b"\nset -f;_m='no perl or python3';for _h in perl python3;do \
    case $_h in perl)set -- perl -e '$n=\"mitogen-agent\";$f=syscall ";
const MEMORY: &[u8] = b",$n,$ARGV[0]+0;$f<0&&die\"$!\\n\";\
    exec\"sh\",\"-c\",$ARGV[1],$f';;*)set -- python3 -c '\
    import os,sys;a=sys.argv;os.execvp(\"sh\",[\"sh\",\"-c\",a[2],\
    str(os.memfd_create(\"mitogen-agent\",int(a[1])))])';esac;\
    command -v $_h >/dev/null||continue;for _f in 16 0;do \
    _m=$(\"$@\" $_f 'echo :>/proc/self/fd/$0;/proc/self/fd/$0' 2>&1 </dev/null)&&\
    exec \"$@\" $_f 'exec 4</proc/self/fd/$0;_q=";

/// The line that becomes a shell with a file in memory, which can be executed, as descriptor 4;
/// then it answers [`Mark::Memory`], else [`Mark::Nowhere`]. None where there is no such thing.
///
/// Such files are asked for as executable ones, and, where that is not understood, as any.
#[inline(never)] // a frame of its own: smaller code
pub fn memory_line(target: Target, nonce: u64) -> Option<Vec<u8>> {
    let call = memfd_call(target.cpu).filter(|_| target.os == "linux")?;
    let mut line = Vec::with_capacity(LINE_BYTES_MAX);
    let mut add = |part: &[u8]| line.extend_from_slice(part);
    add(MEMORY_BEGIN);
    add(&decimal(call));
    add(MEMORY);
    add(&hex(nonce));
    add(b";");
    add(&Mark::Memory.say());
    add(b";");
    add(&listen());
    add(b"';done;done;");
    add(&Mark::Nowhere.say());
    add(b" 0 \"memfd_create: ${_m##*: };\"");
    add(&line_end(nonce));
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target = Target { os: "linux", cpu: "x86_64", gzip: true, head: true };

    const PUSH: Push<'static> = Push {
        target: TARGET,
        nonce: 1,
        answer_nonce: 2,
        sent_bytes: u64::MAX,
        gzipped: true,
        rung: Rung::Chosen,
        title: "it's me",
        directory: Some(b"/it's here"),
        wrapper: &[],
    };

    #[test]
    fn no_line_holds_the_mark_that_it_asks_for() {
        for rung in [Rung::Chosen, Rung::Directory(2), Rung::Memory] {
            let text = String::from_utf8(Push { rung, ..PUSH }.line()).unwrap();
            assert!(!text.contains("MGN0") && !text.contains("MGN3"), "{text}");
        }
        let text = String::from_utf8(memory_line(TARGET, 7).unwrap()).unwrap();
        assert!(!text.contains("MGN3") && !text.contains("MGN6"), "{text}");
    }

    #[test]
    fn each_line_is_one_short_line() {
        let directory = [b'd'; crate::limits::DIRECTORY_BYTES_MAX];
        let title = "t".repeat(4096);
        let longest = Push { title: &title, directory: Some(&directory), ..PUSH }.line();
        let memory = memory_line(TARGET, 7).unwrap();
        for line in [&longest[..], memory.trim_ascii_start()] {
            assert!(line.len() < 4000, "{}", line.len());
            assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
        }
        assert!(PUSH.line().len() < 900, "{}", PUSH.line().len());
    }

    #[test]
    fn a_wrapper_stands_before_the_agent_as_it_was_given() {
        let wrapper = ["env", "A=it's $x", "-"].map(|word| word.as_bytes().to_vec());
        let line = String::from_utf8(Push { wrapper: &wrapper, ..PUSH }.line()).unwrap();
        assert!(
            line.contains("exec} 'env' 'A=it'\\''s $x' '-' \"$_x\" mitogen-agent-$_n "),
            "{line}"
        );
    }

    #[test]
    fn the_ladder_has_an_end_whatever_the_target_says() {
        use Rung::*;
        for (rung, untried, next) in [
            (Chosen, 2, Some(Directory(0))),
            (Chosen, 1, Some(Directory(1))),
            (Chosen, 0, Some(Memory)),
            (Chosen, 3, None),
            (Directory(0), 1, Some(Directory(1))),
            (Directory(0), 2, None),
            (Directory(1), 0, Some(Memory)),
            (Memory, 0, Some(Directory(2))),
            (Memory, 1, None),
            (Directory(2), 4, Some(Directory(3))),
            (Directory(2), 5, None),
            (Directory(2), 0, Some(End)),
            (Directory(6), 0, Some(End)),
            (Directory(6), 1, None),
            (End, 0, None),
        ] {
            assert_eq!(rung.after(untried), next, "{rung:?} {untried}");
        }
    }
}
