//! The two lines of shell, run by every POSIX shell of this machine, with a script as the image.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::connect::stage::{Push, first_command, first_script, hex};

const SHELLS: [&str; 6] = ["dash", "bash", "busybox ash", "mksh", "ksh", "zsh --emulate sh"];
const OUTER_SHELLS: [&str; 9] =
    ["dash", "bash", "busybox ash", "mksh", "ksh", "zsh", "tcsh", "csh", "fish"];

/// A home of its own, an empty environment, and nonces that no other test has.
struct Target {
    home: tempfile::TempDir,
    nonce: u64,
}

impl Target {
    fn new() -> Target {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let nonce = u64::from(std::process::id()) << 32 | serial;
        Target { home: tempfile::tempdir().unwrap(), nonce }
    }

    fn directory(&self, name: &str) -> PathBuf {
        let path = self.home.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn command(&self, words: &[&str]) -> Command {
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

    /// A shell in a mount namespace of its own, in which `prepare` was run.
    fn boxed_shell(&self, prepare: &str) -> Option<Child> {
        let works = Command::new("unshare").args(["-m", "true"]).status();
        if !works.is_ok_and(|status| status.success()) {
            eprintln!("skipped: unshare -m does not work here");
            return None;
        }
        let script = String::from_utf8(first_script(self.nonce)).unwrap();
        let prepare = format!("{prepare}\nexec sh -c \"$0\"");
        Some(self.command(&["unshare", "-m", "sh", "-ec", &prepare, &script]).spawn().unwrap())
    }

    fn push<'a>(&self, sent: &[u8], gzipped: bool, directory: Option<&'a Path>) -> Push<'a> {
        Push {
            nonce: self.nonce,
            answer_nonce: self.nonce,
            sent_bytes: sent.len() as u64,
            gzipped,
            title: "it's \"$HOME\" \\",
            directory: directory.map(|path| path.as_os_str().as_encoded_bytes()),
            wrapper: &[],
        }
    }

    #[track_caller]
    fn assert_clean(&self) {
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

/// Runs `words` or says that it cannot.
fn have(words: &str) -> bool {
    let name = words.split(' ').next().unwrap();
    let found = ["/usr/bin", "/bin"].iter().any(|dir| Path::new(dir).join(name).exists());
    if !found {
        eprintln!("skipped: no {name} on this machine");
    }
    found
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
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

/// A script that shows its arguments, what is left on its standard input, and all of itself.
fn image() -> Vec<u8> {
    let mut image = b"#!/bin/sh\nprintf '%s|' \"$1\" \"$2\" \"$3\"\ncat;cat <&4\nexit 0\n".to_vec();
    let mut state = 1u64;
    while image.len() < 100_000 {
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

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned()
}

/// The head that a good agent's output has: the shell's answer, then the agent's arguments.
fn expected_head(target: &Target, directory: &str) -> String {
    let nonce = String::from_utf8(hex(target.nonce).to_vec()).unwrap();
    format!("mitogen-agent-{nonce}|it's \"$HOME\" \\|{directory}|")
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
        for count in [0, 1, 50_000] {
            let target = Target::new();
            let sent = gzip(&image());
            let line = target.push(&sent, true, None).line();
            let output = talk(target.shell(shell), &[&line, &sent[..count]]);
            assert!(!output.status.success(), "{shell}: {}", text(&output.stdout));
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
    for name in ["sh", "mkdir", "chmod", "rm", "rmdir", "dd", "cat", "uname"] {
        std::os::unix::fs::symlink(Path::new("/bin").join(name), bin.join(name)).unwrap();
    }
    let image = image();
    let script = String::from_utf8(first_script(target.nonce)).unwrap();
    let child = target.command(&["/bin/dash", "-c", &script]).env("PATH", bin).spawn().unwrap();
    let line = target.push(&image, false, None).line();
    let output = talk(child, &[&line, &image]);
    assert_arrived(&target, &output, &image);
    assert!(!text(&output.stdout).lines().nth(1).unwrap().contains("gzip"));
    target.assert_clean();
}

#[test]
fn rungs_that_cannot_execute_are_passed_by_and_named() {
    let target = Target::new();
    let home = target.directory("it's home");
    let prepare = format!(
        "for d in /dev/shm /tmp /var/tmp;do mount -t tmpfs -o noexec none $d;done\n\
         mkdir -p '{0}'; cd /tmp",
        home.display().to_string().replace('\'', "'\\''")
    );
    let Some(child) = target.boxed_shell(&prepare) else { return };
    let image = image();
    let line = target.push(&image, false, Some(Path::new("/proc/no\\where"))).line();
    let output = talk(child, &[&line, &image]);
    let mark = format!("MGN3-{}", String::from_utf8(hex(target.nonce).to_vec()).unwrap());
    let stdout = text(&output.stdout);
    let tried = stdout.lines().find(|line| line.starts_with(&mark)).unwrap();
    for rung in ["/dev/shm", "/var/tmp", "/tmp", "."] {
        assert!(tried.contains(&format!(" {rung}: Permission denied;")), "{tried}");
    }
    for rung in ["/proc/no\\where", "/.cache"] {
        assert!(tried.contains(&format!("{rung}: No such file or directory;")), "{tried}");
    }
    assert!(!output.status.success());
    target.assert_clean();
}

#[test]
fn a_later_rung_is_taken_where_the_first_ones_will_not_do() {
    let target = Target::new();
    let prepare = "mount -t tmpfs -o noexec none /dev/shm; mount -t tmpfs -o ro none /var/tmp";
    let Some(child) = target.boxed_shell(prepare) else { return };
    let image = image();
    let line = target.push(&image, false, Some(Path::new("/nowhere"))).line();
    let output = talk(child, &[&line, &image]);
    assert_arrived(&target, &output, &image);
    target.assert_clean();
}

#[test]
fn an_image_that_does_not_fit_is_told() {
    let target = Target::new();
    let prepare = "mount -t tmpfs -o size=64k none /mnt";
    let Some(child) = target.boxed_shell(prepare) else { return };
    let image = image();
    let line = target.push(&image, false, Some(Path::new("/mnt"))).line();
    let output = talk(child, &[&line, &image]);
    let stdout = text(&output.stdout);
    assert!(stdout.contains(" /mnt: the image does not fit"), "{stdout}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn without_proc_the_agent_is_told_what_to_remove() {
    let target = Target::new();
    let chosen = target.directory("it's chosen");
    let Some(child) = target.boxed_shell("while umount -l /proc 2>/dev/null;do :;done") else {
        return;
    };
    let image = image();
    let line = target.push(&image, false, Some(&chosen)).line();
    let output = talk(child, &[&line, &image]);
    let name = format!(".mgn-{}", String::from_utf8(hex(target.nonce).to_vec()).unwrap());
    let left = chosen.join(name);
    let head = expected_head(&target, left.to_str().unwrap());
    let stdout = text(&output.stdout);
    assert!(stdout.contains(&head), "{stdout}\n{}", text(&output.stderr));
    let entries: Vec<_> = fs::read_dir(&left).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(entries, [super::stage::IMAGE_FILE]);
}

#[test]
fn a_cooked_terminal_is_made_raw_and_says_so() {
    if !have("script") {
        return;
    }
    let target = Target::new();
    let line = String::from_utf8(super::stage::raw_line(target.nonce)).unwrap();
    let mut child = target.command(&["script", "-qc", "sh", "/dev/null"]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(line.as_bytes()).unwrap();
    let mark = format!("MGN2-{}\n", String::from_utf8(hex(target.nonce).to_vec()).unwrap());
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
