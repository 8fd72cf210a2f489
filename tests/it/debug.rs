//! Debug files: each process writes what is logged in it to a file of its own, which nobody can
//! have it write elsewhere; what it cannot write is no reason not to live.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;
use std::{env, fs, process, thread};

use mitogen::error::ErrorKind;
use mitogen::{Address, Context, Level, Program, Router, stock};

use crate::support::*;

mitogen::test_agent!(program());

const LIMIT: Duration = Duration::from_secs(20);
/// Says that this process is to be a master.
const MASTER: &str = "MITOGEN_TEST_DEBUG_MASTER";
/// What nobody may find in a file.
const CANARY: &str = "canary-161803";

fn program() -> Program {
    Program::new().function(pid).function(echo)
}

fn pid() -> u32 {
    process::id()
}

fn echo(text: String) -> String {
    text
}

fn router() -> Router {
    mitogen_test_program().router().unwrap()
}

fn file_of(folder: &Path, pid: u32) -> PathBuf {
    folder.join(format!("mitogen.{pid}.log"))
}

fn text(folder: &Path) -> &str {
    folder.to_str().unwrap()
}

/// The file of a context, once this is in it.
#[track_caller]
fn wait_for(folder: &Path, context: &Context, what: &str) -> String {
    let path = file_of(folder, context.call(pid, ()).unwrap());
    let read = || fs::read_to_string(&path).ok().filter(|text| text.contains(what));
    until(LIMIT, read).unwrap_or_else(|| panic!("{what:?} is not in {path:?}"))
}

/// Fails unless every line is a time, a level, and who says what.
#[track_caller]
fn assert_lines(text: &str) {
    assert!(text.ends_with('\n'), "{text:?}");
    for line in text.lines() {
        let mut words = line.split(' ');
        let time_us: u64 = words.next().unwrap().parse().unwrap();
        assert!((1_500_000_000_000_000..9_000_000_000_000_000).contains(&time_us), "{line}");
        let level = words.next().unwrap();
        assert!(["error", "warn", "info", "debug", "io"].contains(&level), "{line}");
        assert!(line.contains(" mitogen: "), "{line}");
    }
}

/// Plays a test in a process of its own, since a file is a whole process's.
#[track_caller]
fn in_a_master(play: impl FnOnce()) {
    if env::var_os(MASTER).is_some() {
        return play();
    }
    let name = thread::current().name().expect("tests have names").to_owned();
    leaves_nothing(&[], || {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", &*name, "--nocapture", "--test-threads=1"]).env(MASTER, "1");
        run(&mut command);
    });
}

#[test]
fn a_context_and_those_below_it_write_files_of_their_own() {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let router = router();
        let child = router.local().debug(text(folder.path()), Level::Io).connect().unwrap();
        let below = router.local().via(&child).connect().unwrap();
        let beside = router.local().connect().unwrap();
        assert_lines(&wait_for(folder.path(), &child, "mitogen: a context is up: "));
        assert_lines(&wait_for(folder.path(), &below, " io mitogen: frame in "));
        let pids = [&child, &below].map(|context| context.call(pid, ()).unwrap());
        beside.call(pid, ()).unwrap();
        for pid in pids {
            let mode = fs::metadata(file_of(folder.path(), pid)).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o600);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        let other = tempfile::tempdir().unwrap();
        let told = router.local().via(&child).debug(text(other.path()), Level::Io);
        wait_for(other.path(), &told.connect().unwrap(), "frame in");
    });
}

#[test]
fn an_idle_context_adds_nothing_to_its_file() {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let router = router();
        let child = router.local().debug(text(folder.path()), Level::Io).connect().unwrap();
        let below = router.local().via(&child).connect().unwrap();
        let pids = [&child, &below].map(|context| context.call(pid, ()).unwrap());
        let sizes = || pids.map(|pid| fs::metadata(file_of(folder.path(), pid)).unwrap().len());
        // What the last call leaves to be done is done soon.
        let still = until(LIMIT, || {
            let before = sizes();
            thread::sleep(Duration::from_secs(1));
            (sizes() == before).then_some(())
        });
        assert!(still.is_some());
    });
}

/// Executes the agent behind this command of a shell, which may use `$$`, the agent's own number.
fn behind(script: &str) -> [String; 4] {
    ["sh", "-c", &format!("{script}; exec \"$@\""), "sh"].map(str::to_owned)
}

#[test]
fn a_link_or_a_file_that_has_the_name_is_left_alone() {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let at = text(folder.path());
        fs::write(folder.path().join("precious"), "kept").unwrap();
        let plant = format!(
            "ln -s {at}/precious {at}/mitogen.$$.log; ln -s {at}/nowhere {at}/mitogen.$$.log.1; \
             echo older >{at}/mitogen.$$.log.2"
        );
        let router = Program::new().image(stock_image()).router().unwrap();
        let start = router.local().wrapper(behind(&plant)).debug(at, Level::Io);
        let child = start.connect().unwrap();
        child.call(stock::ping, ()).unwrap();
        let files = || fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let third = files().find(|path| path.to_str().unwrap().ends_with(".log.3")).unwrap();
        assert!(fs::read_to_string(&third).unwrap().contains("frame in"));
        let second = third.with_extension("2");
        assert_eq!(fs::read_to_string(second).unwrap(), "older\n");
        assert_eq!(fs::read_to_string(folder.path().join("precious")).unwrap(), "kept");
        assert!(!folder.path().join("nowhere").exists());
    });
}

#[test]
fn a_context_lives_without_the_file_that_it_cannot_make() {
    leaves_nothing(&[Need::Root], || {
        let folder = tempfile::tempdir().unwrap();
        let sealed = folder.path().join("a file; $(no) 'folder'");
        fs::write(&sealed, "").unwrap();
        let loops = folder.path().join("loops");
        symlink(&loops, &loops).unwrap();
        let router = router();
        for path in [Path::new("/nowhere/at/all"), Path::new("/proc"), &sealed, &loops] {
            let child = router.local().debug(text(path), Level::Io).connect().unwrap();
            let below = router.local().via(&child).connect().unwrap();
            assert_eq!(below.call(echo, "x".to_owned()).unwrap(), "x", "{path:?}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    });
}

#[test]
fn the_master_learns_of_files_that_a_context_cannot_make() {
    in_a_master(|| {
        let (tell, told) = mpsc::channel();
        let sink = move |record: &mitogen::Record<'_>| {
            if record.text.starts_with("/nowhere/") {
                tell.send(record.text.to_owned()).unwrap();
            }
        };
        mitogen::log_to(Level::Warn, Box::new(sink));
        let router = router();
        for _ in 0..20 {
            let start = router.local().debug("/nowhere/debug", Level::Io);
            let child = start.profiling("/nowhere/profiling").connect().unwrap();
            assert_eq!(told.recv_timeout(LIMIT).unwrap(), "/nowhere/debug");
            child.shutdown().unwrap();
            assert_eq!(told.recv_timeout(LIMIT).unwrap(), "/nowhere/profiling");
        }
    });
}

/// A file system of 64 KiB, until it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> SmallDisk {
        let folder = tempfile::tempdir().unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=64k", "none"];
        run(Command::new("mount").args(mount).arg(folder.path()));
        SmallDisk(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_context_goes_on_when_the_disk_is_full() {
    leaves_nothing(&[Need::Root], || {
        let disk = SmallDisk::mount();
        let folder = disk.0.path();
        let router = router();
        let child = router.local().debug(text(folder), Level::Io).connect().unwrap();
        let path = file_of(folder, child.call(pid, ()).unwrap());
        let is_full = || {
            child.call(echo, "x".to_owned()).unwrap();
            (60_000 < fs::metadata(&path).unwrap().len()).then_some(())
        };
        assert!(until(LIMIT, is_full).is_some());
        for _ in 0..200 {
            child.call(echo, "x".to_owned()).unwrap();
        }
        assert!(fs::metadata(&path).unwrap().len() <= 64 << 10);
        child.shutdown().unwrap();
    });
}

#[test]
fn no_payload_and_no_password_is_ever_in_a_trace() {
    in_a_master(|| {
        let folder = tempfile::tempdir().unwrap();
        let router = Program::new().image(stock_image()).router().unwrap();
        let own = router.enable_debug(text(folder.path()), Level::Io).unwrap();
        let asks = "printf 'Password: ' >/dev/tty; read -r word </dev/tty
            [ \"$word\" = canary-161803 ] || exit 1
            while [ \"$1\" != -- ]; do shift; done; shift; exec \"$@\"";
        let tool = script(folder.path(), "sudo", asks);
        let hop = router.local().connect().unwrap();
        for via in [None, Some(hop)] {
            let sudo = router.sudo().sudo_path(&tool).password(CANARY);
            let sudo = match &via {
                Some(via) => sudo.via(via),
                None => sudo,
            };
            let child = sudo.connect().unwrap();
            assert_eq!(prints(&router, &child, &format!("echo {CANARY}")), CANARY);
        }
        router.shutdown();
        let mut count = 0;
        for entry in fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "log") {
                let text = fs::read_to_string(&path).unwrap();
                assert_lines(&text);
                for what in ["read (descriptor, bytes): ", "wrote (", "frame in (", "frame out ("] {
                    assert!(text.contains(what), "{what} is not in {path:?}");
                }
                assert!(!text.contains("canary"), "{path:?}");
                count += 1;
            }
        }
        assert!(own.exists());
        assert_eq!(count, 4);
    });
}

#[test]
fn what_is_started_after_it_was_enabled_has_files_and_what_was_before_has_none() {
    in_a_master(|| {
        let folder = tempfile::tempdir().unwrap();
        let router = router();
        let older = router.local().connect().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let own = router.enable_debug(text(folder.path()), Level::Debug).unwrap();
        assert_eq!(own, file_of(folder.path(), process::id()));
        let child = router.local().connect().unwrap();
        let below = router.local().via(&child).connect().unwrap();
        let by_older = router.local().via(&older).connect().unwrap();
        let by_address = "local/local".parse::<Address>().unwrap();
        let far = router.connect(&by_address).unwrap();
        for context in [&child, &below, &by_older, &far] {
            assert!(file_of(folder.path(), context.call(pid, ()).unwrap()).exists());
        }
        assert!(!file_of(folder.path(), older.call(pid, ()).unwrap()).exists());
        let text = fs::read_to_string(&own).unwrap();
        assert_lines(&text);
        assert!(text.contains(" info ") && !text.contains(" io "), "{text}");
        for (folder, is_usage) in [("relative", true), ("", true), ("/nowhere/at/all", false)] {
            let error = router.enable_debug(folder, Level::Debug).unwrap_err();
            assert_eq!(matches!(error.kind(), ErrorKind::Usage(_)), is_usage, "{error}");
        }
        // It goes on with the file that it has; a second one has another name.
        let again = router.enable_debug(text_of(&own), Level::Io).unwrap();
        assert_eq!(again.to_str().unwrap(), format!("{}.1", own.display()));
    });
}

fn text_of(file: &Path) -> &str {
    file.parent().unwrap().to_str().unwrap()
}

#[test]
fn an_address_names_the_folder_and_what_is_wrong_with_it_is_told() {
    let _company = beside_others();
    for text in ["local?debug=/a&profiling=/b", "local?debug=/a&debug_level=io"] {
        assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
    }
    for text in ["local?debug=a", "local?debug_level=all", "local?profiling=", "local?debug=/a%0Ab"]
    {
        assert!(text.parse::<Address>().is_err(), "{text}");
    }
    let folder = tempfile::tempdir().unwrap();
    let router = router();
    let address = format!("local?debug={}&debug_level=io/local", text(folder.path()));
    let child = router.connect(&address.parse().unwrap()).unwrap();
    wait_for(folder.path(), &child, "frame in");
}
