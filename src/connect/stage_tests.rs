//! The lines of shell, run by every POSIX shell, with a tiny program as the image.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::connect::push::{Push, Rung, memory_line};
use crate::connect::stage::{self, first_command, first_script, hex};
use crate::wire::PROTOCOL;

pub(super) const SHELLS: [&str; 6] =
    ["dash", "bash", "busybox ash", "mksh", "ksh93", "zsh --emulate sh"];
const OUTER_SHELLS: [&str; 9] =
    ["dash", "bash", "busybox ash", "mksh", "ksh93", "zsh", "tcsh", "bsd-csh", "fish"];

pub(super) const TITLE: &str = "it's \"$HOME\" \\";
pub(super) const LINUX: stage::Target =
    stage::Target { os: "linux", cpu: std::env::consts::ARCH, gzip: true, head: true };

/// A home of its own, an empty environment, and nonces that no other test has.
pub(super) struct Target {
    pub(super) home: tempfile::TempDir,
    pub(super) nonce: u64,
}

impl Target {
    pub(super) fn new() -> Target {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let nonce = u64::from(std::process::id()) << 32 | serial;
        Target { home: tempfile::tempdir().unwrap(), nonce }
    }

    pub(super) fn directory(&self, name: &str) -> PathBuf {
        let path = self.home.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub(super) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env_clear().current_dir(self.directory("it's cwd"));
        command.env("HOME", self.directory("it's home")).env("PATH", "/usr/bin:/bin:/sbin");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn shell(&self, shell: &str) -> Child {
        let script = String::from_utf8(first_script(self.nonce)).unwrap();
        let words: Vec<&str> = shell.split(' ').chain(["-c", &script]).collect();
        self.command(&words).spawn().unwrap()
    }

    fn push<'a>(&self, sent: &[u8], gzipped: bool, directory: Option<&'a Path>) -> Push<'a> {
        Push {
            target: LINUX,
            rung: Rung::Chosen,
            nonce: self.nonce,
            answer_nonce: self.nonce,
            sent_bytes: sent.len() as u64,
            gzipped,
            title: TITLE,
            directory: directory.map(|path| path.as_os_str().as_encoded_bytes()),
            wrapper: &[],
        }
    }

    #[track_caller]
    pub(super) fn assert_clean(&self) {
        let name = format!(".mgn-{}", String::from_utf8(hex(self.nonce).to_vec()).unwrap());
        let mut rungs: Vec<PathBuf> =
            ["/dev/shm", "/tmp", "/var/tmp", "/"].iter().map(PathBuf::from).collect();
        for entry in fs::read_dir(self.home.path()).unwrap() {
            rungs.push(entry.unwrap().path());
        }
        for rung in rungs {
            assert!(!rung.join(&name).exists(), "left in {}", rung.display());
        }
    }
}

/// Whether this shell is here: in CI it must be, elsewhere it is left out, aloud.
pub(super) fn have(words: &str) -> bool {
    let name = words.split(' ').next().unwrap();
    let found = ["/usr/bin", "/bin"].iter().any(|dir| Path::new(dir).join(name).exists());
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(found || !in_ci, "CI lacks {name}: `make setup` installs it");
    if !found {
        eprintln!("left out: no {name} on this machine");
    }
    found
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new("gzip")
        .arg("-nc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.stdout
}

/// Shows its arguments, what is left on its standard input, and all of descriptor 4.
const AGENT: &str = r#"
#include <stdio.h>
#include <unistd.h>
static void copy(int from) {
    char bytes[4096];
    ssize_t count;
    while ((count = read(from, bytes, sizeof bytes)) > 0) fwrite(bytes, 1, count, stdout);
}
int main(int count, char **words) {
    printf("\nMGN1-%s %d\n", words[1] + sizeof "mitogen-agent", PROTOCOL);
    fflush(stdout);
    for (int i = 1; i < 4; i++) printf("%s|", words[i]);
    copy(0);
    copy(4);
    return 0;
}
"#;

/// An executable that does not compress too well.
pub(super) fn image() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(compile).clone()
}

fn compile() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("a.c"), folder.path().join("a"));
    fs::write(&source, AGENT).unwrap();
    let mut cc = Command::new("cc");
    cc.arg(format!("-DPROTOCOL={PROTOCOL}")).arg("-Os").arg(&source).arg("-o").arg(&program);
    assert!(cc.status().unwrap().success());
    let mut image = fs::read(program).unwrap();
    let mut state = 1u64;
    for _ in 0..30_000 {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        image.extend_from_slice(&state.to_be_bytes()[..3]);
    }
    image
}

/// Sends all of it, and takes what comes back until the end.
fn talk(mut child: Child, parts: &[&[u8]]) -> Output {
    let mut stdin = child.stdin.take().unwrap();
    let sent = parts.concat();
    let writer = std::thread::spawn(move || stdin.write_all(&sent));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    output
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned()
}

/// The head that a good agent's output has: the shell's answer, then the agent's arguments.
pub(super) fn expected_head(target: &Target, directory: &str) -> String {
    let nonce = String::from_utf8(hex(target.nonce).to_vec()).unwrap();
    format!("\nMGN1-{nonce} {PROTOCOL}\nmitogen-agent-{nonce}|{TITLE}|{directory}|")
}

#[track_caller]
fn assert_arrived(target: &Target, output: &Output, image: &[u8]) {
    let mark = [b"\nMGN0-", &hex(target.nonce)[..], b" "].concat();
    let stderr = text(&output.stderr);
    assert!(output.stdout.starts_with(&mark), "{}\n{stderr}", text(&output.stdout));
    let behind = output.stdout[1..].iter().position(|byte| *byte == b'\n').unwrap() + 2;
    let head = expected_head(target, "");
    let got = &output.stdout[behind..];
    assert!(got.starts_with(head.as_bytes()), "{}\n{stderr}", text(got));
    assert!(&got[head.len()..] == image, "other bytes arrived: {}", text(&got[head.len()..]));
    assert_eq!(output.status.code(), Some(0), "{stderr}");
}

#[test]
fn the_image_arrives_whole_and_leaves_nothing_in_every_shell() {
    for shell in SHELLS.into_iter().filter(|shell| have(shell)) {
        for gzipped in [false, true] {
            let target = Target::new();
            let image = image();
            let sent = if gzipped { gzip(&image) } else { image.clone() };
            let chosen = target.directory("it's chosen");
            let directory = gzipped.then_some(&*chosen);
            let line = target.push(&sent, gzipped, directory).line();
            let output = talk(target.shell(shell), &[b"\n\n", &line, &sent]);
            eprintln!("{shell}");
            assert_arrived(&target, &output, &image);
            target.assert_clean();
        }
    }
}

#[test]
fn the_first_command_passes_every_login_shell() {
    for shell in OUTER_SHELLS.into_iter().filter(|shell| have(shell)) {
        let target = Target::new();
        let image = image();
        let command = String::from_utf8(first_command(target.nonce)).unwrap();
        let words: Vec<&str> = shell.split(' ').chain(["-c", &command]).collect();
        let child = target.command(&words).spawn().unwrap();
        let line = target.push(&image, false, None).line();
        let output = talk(child, &[&line, &image]);
        eprintln!("{shell}");
        assert_arrived(&target, &output, &image);
        target.assert_clean();
    }
}

#[test]
fn what_the_target_exports_reaches_the_agent_unchanged() {
    let names: Vec<String> = ('a'..='z').chain('A'..='Z').map(String::from).collect();
    let wrapper = ["sh", "-c", "env"].map(|word| word.as_bytes().to_vec());
    for shell in SHELLS.into_iter().filter(|shell| have(shell)) {
        for rung in [Rung::Chosen, Rung::Memory] {
            let target = Target::new();
            let image = image();
            let line = Push { rung, wrapper: &wrapper, ..target.push(&image, false, None) }.line();
            let memory = memory_line(LINUX, target.nonce).filter(|_| rung == Rung::Memory);
            let script = String::from_utf8(first_script(target.nonce)).unwrap();
            let words: Vec<&str> = shell.split(' ').chain(["-c", &script]).collect();
            let mut command = target.command(&words);
            command.envs(names.iter().map(|name| (name, "theirs")));
            let parts = [&memory.unwrap_or_default()[..], &line, &image];
            let says = text(&talk(command.spawn().unwrap(), &parts).stdout);
            for name in &names {
                let kept = says.lines().any(|line| line == format!("{name}=theirs"));
                assert!(kept, "{shell} {rung:?}: {name} in {says}");
            }
            target.assert_clean();
        }
    }
}

#[test]
fn what_reads_the_image_does_not_keep_it_busy() {
    for shell in SHELLS.into_iter().filter(|shell| have(shell)) {
        let target = Target::new();
        let bin = target.directory("bin");
        let slow = "#!/bin/sh\n/usr/bin/head \"$@\"\n(exec <&- >&- 2>&-; sleep 0.3) &\n";
        fs::write(bin.join("head"), slow).unwrap();
        fs::set_permissions(bin.join("head"), fs::Permissions::from_mode(0o755)).unwrap();
        let image = image();
        let sent = gzip(&image);
        let line = target.push(&sent, true, None).line();
        let script = String::from_utf8(first_script(target.nonce)).unwrap();
        let words: Vec<&str> = shell.split(' ').chain(["-c", &script]).collect();
        let path = format!("{}:/usr/bin:/bin", bin.display());
        let child = target.command(&words).env("PATH", path).spawn().unwrap();
        let output = talk(child, &[&line, &sent]);
        eprintln!("{shell}");
        assert_arrived(&target, &output, &image);
        target.assert_clean();
    }
}

#[test]
fn an_elf_file_runs_without_a_name() {
    let target = Target::new();
    let image = fs::read("/bin/true").unwrap();
    let line = target.push(&image, false, None).line();
    let output = talk(target.shell("dash"), &[&line, &image]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    target.assert_clean();
}

#[test]
fn the_shell_ends_with_its_input() {
    for shell in SHELLS.into_iter().filter(|shell| have(shell)) {
        let target = Target::new();
        let output = talk(target.shell(shell), &[]);
        assert!(output.status.code().is_some(), "{shell}");
    }
}

#[test]
fn a_stream_cut_in_the_image_leaves_nothing() {
    for shell in SHELLS.into_iter().filter(|shell| have(shell)) {
        for (gzipped, count) in [(true, 0), (true, 1), (true, 50_000), (false, 0), (false, 50_000)]
        {
            let target = Target::new();
            let sent = if gzipped { gzip(&image()) } else { image() };
            let line = target.push(&sent, gzipped, None).line();
            let output = talk(target.shell(shell), &[&line, &sent[..count]]);
            let (says, mark) = (text(&output.stdout), if gzipped { "\nMGN3-" } else { "\nMGN4-" });
            assert!(says.contains(mark) && !says.contains("mitogen-agent-"), "{shell}: {says}");
            target.assert_clean();
        }
    }
}

#[test]
fn a_shell_killed_in_the_image_leaves_nothing() {
    for shell in SHELLS.into_iter().filter(|shell| have(shell)) {
        let target = Target::new();
        let image = vec![b'x'; 1 << 20];
        let mut child = target.shell(shell);
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&target.push(&image, false, None).line()).unwrap();
        // More than a pipe holds: when it is written, the shell has begun to take it.
        stdin.write_all(&image[..image.len() / 2]).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        target.assert_clean();
    }
}

#[test]
fn a_file_of_another_cpu_does_not_run_and_leaves_nothing() {
    for shell in SHELLS.into_iter().filter(|shell| have(shell)) {
        let target = Target::new();
        let mut image = fs::read("/bin/true").unwrap();
        image[18..20].copy_from_slice(&[0xff, 0x7f]);
        let line = target.push(&image, false, None).line();
        let output = talk(target.shell(shell), &[&line, &image]);
        assert!(!output.status.success(), "{shell}");
        assert!(!output.stderr.is_empty(), "{shell}");
        target.assert_clean();
    }
}

#[test]
fn a_target_without_gzip_and_head_is_served_plain() {
    let target = Target::new();
    let bin = target.directory("bin");
    for name in ["sh", "mkdir", "chmod", "rm", "dd", "cat", "uname", "wc"] {
        std::os::unix::fs::symlink(Path::new("/bin").join(name), bin.join(name)).unwrap();
    }
    let image = image();
    let script = String::from_utf8(first_script(target.nonce)).unwrap();
    let child = target.command(&["/bin/dash", "-c", &script]).env("PATH", bin).spawn().unwrap();
    let without = stage::Target { gzip: false, head: false, ..LINUX };
    let line = Push { target: without, ..target.push(&image, false, None) }.line();
    let output = talk(child, &[&line, &image]);
    assert_arrived(&target, &output, &image);
    let says = text(&output.stdout);
    let says = says.lines().nth(1).unwrap().split_once(' ').unwrap().1;
    assert_eq!(stage::Target::parse(says.as_bytes()), Ok(without));
    target.assert_clean();
}

#[test]
fn a_cooked_terminal_is_made_raw_and_says_so() {
    if !have("script") {
        return;
    }
    let target = Target::new();
    let nonce = String::from_utf8(hex(target.nonce).to_vec()).unwrap();
    let line = String::from_utf8(stage::raw_line(target.nonce)).unwrap();
    let line = format!("_q={nonce};{line}");
    let mut child = target.command(&["script", "-qc", "sh", "/dev/null"]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(line.as_bytes()).unwrap();
    let mark = format!("MGN2-{nonce}\n");
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = Vec::new();
    while !text(&seen).contains(&mark) {
        let mut byte = [0];
        assert_eq!(stdout.read(&mut byte).unwrap(), 1, "{}", text(&seen));
        seen.push(byte[0]);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
