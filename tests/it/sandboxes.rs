//! Hostile targets: the stock agent in sandboxes of `unshare`, behind a client that starts a shell
//! there. Each comes up, or fails with the list of all that was tried; and leaves nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use mitogen::error::{ConnectFailure, ErrorKind};
use mitogen::{Address, Context, Error, Image, Program, Router, stock};

use crate::support::*;

const NEEDS: &[Need] = &[Need::Root];
const NO_MEMFD: &str = "echo 2 >/proc/sys/vm/memfd_noexec;";
const NO_SHM: &str = "mount -t tmpfs -o noexec none /dev/shm;";
const NO_TMP: &str = "for d in /tmp /var/tmp;do mount -t tmpfs -o noexec none $d;done;cd /tmp;";
/// Below the sandbox's own lies the host's; and `!` would have `set -e` pass over what fails.
const NO_PROC: &str = "while umount -l /proc 2>/dev/null;do :;done;[ ! -e /proc/self ]";
const NO_HOME: &str = "unset HOME XDG_RUNTIME_DIR;";

fn router() -> Router {
    Program::new().image(stock_image()).router().unwrap()
}

/// A client that runs the remote command in a sandbox that `prepare` has made.
fn client(folder: &Path, prepare: &str) -> String {
    let inner = script(folder, "inner", &format!("set -e\n{prepare}\nset +e\neval \"$1\""));
    let text = format!(
        "for last do :; done\n\
         exec unshare -m --pid --fork --kill-child --mount-proc {inner} \"$last\""
    );
    script(folder, "ssh", &text)
}

/// Connects into such a sandbox.
fn enter(router: &Router, prepare: &str) -> Result<Context, Error> {
    let folder = tempfile::tempdir_in("/opt").unwrap();
    router.ssh("box").ssh_path(client(folder.path(), prepare)).connect()
}

#[track_caller]
fn comes_up(prepare: &str) {
    leaves_nothing(NEEDS, || {
        let router = router();
        let context = enter(&router, prepare).unwrap_or_else(|error| panic!("{error}"));
        assert_ne!(context.call(stock::identify, ()).unwrap().pid, std::process::id());
        // It starts children of its own, too.
        router.local().via(&context).connect().unwrap();
    });
}

#[track_caller]
fn finds_nowhere(prepare: &str, expected: &[&str]) {
    leaves_nothing(NEEDS, || {
        let router = router();
        let error = enter(&router, prepare).map(drop).unwrap_err();
        let ErrorKind::Connect(failed) = error.kind() else { panic!("{error}") };
        let ConnectFailure::NoDirectory(tried) = &failed.failure else { panic!("{error}") };
        let tried: Vec<&str> = tried.split_terminator(';').map(str::trim).collect();
        assert_eq!(tried, expected);
        let text = error.to_string();
        assert!(expected.iter().all(|reason| text.contains(reason)), "{text}");
    });
}

#[test]
fn nothing_but_a_shell() {
    comes_up("true");
}

#[test]
fn docker_s_noexec_shm() {
    comes_up(NO_SHM);
    comes_up(&[NO_SHM, NO_MEMFD].concat());
}

#[test]
fn a_read_only_root_without_a_home() {
    let read_only = "for d in /dev/shm /tmp /var/tmp;do mount -t tmpfs -o ro none $d;done;cd /;\
                     mount -o remount,ro,bind /;";
    comes_up(&[read_only, NO_HOME].concat());
}

#[test]
fn every_directory_noexec() {
    comes_up(&[NO_SHM, NO_TMP, NO_HOME].concat());
    let prepare = [NO_SHM, NO_TMP, NO_MEMFD, NO_HOME].concat();
    let denied = |place: &str| format!("{place}: Permission denied");
    let expected = ["/dev/shm", "memfd_create", "/var/tmp", "/tmp", "."].map(denied);
    finds_nowhere(&prepare, &expected.each_ref().map(|line| &line[..]));
}

#[test]
fn every_disk_full() {
    let full =
        "for d in /dev/shm /tmp /var/tmp;do mount -t tmpfs -o size=64k none $d;done;cd /tmp;";
    comes_up(&[full, NO_HOME].concat());
    let prepare = [full, NO_MEMFD, NO_HOME].concat();
    let expected = [
        "/dev/shm: no room",
        "memfd_create: Permission denied",
        "/var/tmp: no room",
        "/tmp: no room",
        ".: no room",
    ];
    finds_nowhere(&prepare, &expected);
}

#[test]
fn no_proc() {
    leaves_nothing(NEEDS, || {
        let router = router();
        let context = enter(&router, NO_PROC).unwrap();
        assert!(context.call(stock::identify, ()).is_ok());
        // The agent has removed its file, which nobody else could.
        assert_eq!(files_of_ours(), Vec::<std::path::PathBuf>::new());
    });
}

#[test]
fn an_image_of_zeros() {
    leaves_nothing(NEEDS, || {
        let target = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
        let image = Image::embedded(&target, &[0; 100_000]);
        let router = Program::new().image(image).router().unwrap();
        let error = enter(&router, "true").map(drop).unwrap_err();
        assert!(error.to_string().contains("is no executable"), "{error}");
    });
}

/// Where the executable of a context is, or was.
fn executable(context: &Context) -> String {
    let pid = context.call(stock::identify, ()).unwrap().pid;
    std::fs::read_link(format!("/proc/{pid}/exe")).unwrap().display().to_string()
}

#[test]
fn without_files_in_memory_local_contexts_are_files_too() {
    leaves_nothing(NEEDS, || {
        let router = router();
        let from_file = router.local().memfd(false).connect().unwrap();
        assert!(executable(&from_file).starts_with("/dev/shm/.mgn-"), "{}", executable(&from_file));
        let address: Address = "local/local?memfd=no".parse().unwrap();
        let behind = router.connect(&address).unwrap();
        assert!(executable(&behind).starts_with("/dev/shm/.mgn-"), "{}", executable(&behind));
        assert!(executable(&router.local().connect().unwrap()).starts_with("/memfd:mitogen-agent"));
        // The ladder keeps to it: without memory nothing is left to try.
        let prepare = [NO_SHM, NO_TMP, NO_HOME].concat();
        let folder = tempfile::tempdir_in("/opt").unwrap();
        let path = client(folder.path(), &prepare);
        let error = router.ssh("box").ssh_path(path).memfd(false).connect().map(drop).unwrap_err();
        assert!(!error.to_string().contains("memfd_create"), "{error}");
        assert!(error.to_string().contains("/var/tmp: Permission denied"), "{error}");
    });
}

/// Runs the rest with a pipe as its input that holds 4 KiB and does not block, or a socket.
const ODD_INPUT: &str = r#"
import fcntl, os, socket, sys, time
def pump(source, sink):
    while True:
        data = os.read(source, 4096)
        if not data: break
        # Who does not wait finds nothing.
        time.sleep(0.3 if sys.argv[1] == "socket" else 0)
        while data: data = data[os.write(sink, data):]
    os.close(sink)
if sys.argv[1] == "pipe":
    theirs, ours = os.pipe()
    fcntl.fcntl(ours, 1031, 4096)
else:
    ours, theirs = [end.detach() for end in socket.socketpair()]
os.set_blocking(theirs, False)
if os.fork():
    os.dup2(theirs, 0)
    os.close(theirs); os.close(ours)
    os.execvp(sys.argv[2], sys.argv[2:])
os.close(theirs); os.close(1); os.close(2)
try: pump(0, ours)
except OSError: pass
"#;

/// A client that runs the remote command with such an input.
fn odd_client(folder: &Path, kind: &str) -> String {
    std::fs::write(folder.join("odd.py"), ODD_INPUT).unwrap();
    let program = folder.join("odd.py").display().to_string();
    let text = format!("for last do :; done\nexec python3 {program} {kind} sh -c \"$last\"");
    script(folder, "ssh", &text)
}

#[test]
fn a_small_pipe_that_does_not_block() {
    leaves_nothing(NEEDS, || {
        let (router, folder) = (router(), tempfile::tempdir().unwrap());
        let path = odd_client(folder.path(), "pipe");
        let context = router.ssh("box").ssh_path(path).connect().unwrap();
        assert!(context.call(stock::identify, ()).is_ok());
    });
}

#[test]
fn a_socket_that_does_not_block_is_told_at_once() {
    leaves_nothing(NEEDS, || {
        let (router, folder) = (router(), tempfile::tempdir().unwrap());
        let path = odd_client(folder.path(), "socket");
        let begun = Instant::now();
        let error = router.ssh("box").ssh_path(path).connect().map(drop).unwrap_err();
        let ErrorKind::Connect(failed) = error.kind() else { panic!("{error}") };
        assert_eq!(failed.failure, ConnectFailure::InputEnded, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(5));
    });
}
