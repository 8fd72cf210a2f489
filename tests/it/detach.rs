//! Contexts that leave their tree live on, behind real tools, whatever becomes of who started them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mitogen::error::ErrorKind;
use mitogen::{CallContext, Program, Result};

use crate::support::*;

const SECOND: Duration = Duration::from_secs(1);

/// A program of which a context has left, and what that has told.
struct Leaver {
    program: Child,
    folder: tempfile::TempDir,
    facts: Vec<String>,
    pid: u32,
    child: u32,
}

impl Leaver {
    #[track_caller]
    fn of(executable: &Path, address: &str) -> Leaver {
        let folder = tempfile::tempdir().unwrap();
        // Another user is to write there.
        run(Command::new("chmod").arg("777").arg(folder.path()));
        let mut program = Command::new(executable);
        program.arg(address).arg(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut program = program.spawn().unwrap();
        let lines = BufReader::new(program.stdout.take().unwrap()).lines();
        let said: Vec<String> = lines.take(4).map(|line| line.unwrap()).collect();
        let [bytes, left, child, held] = &said[..] else { panic!("{said:?}") };
        assert_eq!([&**bytes, child, held], ["bytes true", "child false", "held true"]);
        assert!(left.starts_with("left true ") && left.contains("it has detached"), "{left}");
        let left = folder.path().join("left");
        let facts = until(10 * SECOND, || fs::read_to_string(&left).ok()).unwrap();
        let facts: Vec<String> = facts.lines().map(str::to_owned).collect();
        let number = |name: &str| {
            let line = facts.iter().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse().unwrap()
        };
        let (pid, child) = (number("pid "), number("child pid "));
        Leaver { program, folder, facts, pid, child }
    }

    /// Its process, its child's, and what their functions started.
    fn living(&self) -> usize {
        let is_its = |one: &Process| one.pid == self.pid || one.pid == self.child;
        processes().into_iter().filter(is_its).count() + all_sleepers().len()
    }

    #[track_caller]
    fn assert_lives(&self) {
        std::thread::sleep(SECOND);
        assert_eq!(self.living(), 4);
    }

    /// Has the function return.
    #[track_caller]
    fn stop(&self) {
        fs::write(self.folder.path().join("stop"), "").unwrap();
        self.assert_ends();
    }

    #[track_caller]
    fn assert_ends(&self) {
        let gone = until(SECOND, || (self.living() == 0).then_some(()));
        assert!(gone.is_some(), "{} are left", self.living());
    }

    /// Lets the program end.
    #[track_caller]
    fn end_program(&mut self) {
        drop(self.program.stdin.take());
        let ended = until(SECOND, || self.program.try_wait().unwrap());
        assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
    }
}

#[track_caller]
fn start(address: &str) -> Leaver {
    Leaver::of(leaver(), address)
}

impl Drop for Leaver {
    fn drop(&mut self) {
        let _ = (self.program.kill(), self.program.wait());
        signal(self.pid, "KILL");
        all_sleepers().into_iter().for_each(|pid| signal(pid, "KILL"));
    }
}

/// What the functions have started.
fn sleepers(seconds: &str) -> Vec<u32> {
    let command = format!("sleep {seconds}");
    let all = processes().into_iter().filter(|one| one.command.trim() == command);
    all.map(|process| process.pid).collect()
}

/// The context's and its child's.
fn all_sleepers() -> Vec<u32> {
    [sleepers("100007"), sleepers("100008")].concat()
}

/// What a context that has left says of itself, wherever it is.
#[track_caller]
fn assert_alone(leaver: &Leaver) {
    let detached = "context 1: it has detached itself and goes on alone, seen by context 1";
    let nowhere = "context 0: no route leads there";
    let expected = [
        "parents false",
        "master false",
        &format!("receiver {detached}"),
        &format!("sender {detached}"),
        &format!("call {nowhere}"),
        "again the first context of a tree has nothing to detach from",
        "child ",
        "other ",
    ];
    assert_eq!(leaver.facts[1..9], expected);
    let census = census(leaver.pid);
    let standard = census.descriptors.iter().take_while(|(number, _)| *number < 3);
    assert!(standard.clone().all(|(_, what)| what == "/dev/null"), "{:?}", census.descriptors);
    assert_eq!((standard.count(), census.session), (3, leaver.pid));
}

#[test]
fn a_subprocess_lives_on_without_its_program_and_ends_with_its_function() {
    leaves_nothing(&[], || {
        for killed in [false, true] {
            let mut leaver = start("local");
            assert_alone(&leaver);
            if killed {
                leaver.program.kill().unwrap();
                leaver.program.wait().unwrap();
            } else {
                leaver.end_program();
            }
            leaver.assert_lives();
            leaver.stop();
        }
    });
}

#[test]
fn a_subprocess_that_ends_before_its_program_is_reaped() {
    leaves_nothing(&[], || {
        for by_signal in ["", "TERM", "KILL"] {
            let mut leaver = start("local");
            leaver.assert_lives();
            if !by_signal.is_empty() {
                signal(leaver.pid, by_signal);
                // What its function started is its function's; its child's ends with that.
                let rest = || leaver.living() == 1 && sleepers("100007").len() == 1;
                assert!(until(SECOND, || rest().then_some(())).is_some());
            } else {
                leaver.stop();
            }
            // Its zombie would be its program's.
            let children = census(leaver.program.id()).children;
            assert!(children.is_empty(), "{children:?}");
            leaver.end_program();
        }
    });
}

#[test]
fn one_further_down_leaves_the_tree_alone() {
    leaves_nothing(&[], || {
        let leaver = start("local/local");
        leaver.stop();
    });
}

#[test]
fn what_ssh_and_sudo_led_to_lives_on_without_them() {
    leaves_nothing(&[Need::Root, Need::Sshd, Need::Sudo], || {
        let (sshd, user) = (Sshd::start(), TestUser::create(None));
        let _rules = Sudoers::install(&format!("{} ALL=(root) NOPASSWD: ALL", user.name));
        let ssh = sshd.address(&user);
        for address in [ssh.clone(), "sudo".to_owned(), format!("{ssh}/sudo")] {
            let mut leaver = start(&address);
            leaver.end_program();
            leaver.assert_lives();
            leaver.stop();
            let mut leaver = start(&address);
            leaver.stop();
            leaver.end_program();
        }
    });
}

#[test]
fn what_docker_led_to_lives_on_without_its_client() {
    leaves_nothing(&[Need::Root, Need::Docker], || {
        let docker = Docker::shared();
        let client = docker.client().replace('/', "%2F");
        let address = format!("docker:{}?docker_path={client}", docker.container());
        // Neither its number nor its files are those of this machine.
        let mut program = Command::new(leaver());
        program.args([&*address, "/"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut program = program.spawn().unwrap();
        let lines = BufReader::new(program.stdout.take().unwrap()).lines();
        let said: Vec<String> = lines.take(4).map(|line| line.unwrap()).collect();
        assert!(said.len() == 4 && said[1].starts_with("left true "), "{said:?}");
        drop(program.stdin.take());
        assert!(program.wait().unwrap().success());
        std::thread::sleep(SECOND);
        // The context, and two children of its own.
        let sleeps = sleepers("100007");
        assert_eq!((sleeps.len(), processes_of_ours().len()), (1, 3));
        signal(parent_of(sleeps[0]), "TERM");
        assert!(until(SECOND, || processes_of_ours().is_empty().then_some(())).is_some());
        signal(sleeps[0], "KILL");
    });
}

fn parent_of(pid: u32) -> u32 {
    processes().into_iter().find(|process| process.pid == pid).unwrap().parent
}

mitogen::test_agent!(Program::new().function(try_to_leave));

fn try_to_leave(cx: &CallContext) -> Result<()> {
    cx.detach()
}

#[test]
fn who_has_no_process_or_no_parent_cannot_leave() {
    let _company = beside_others();
    let router = mitogen_test_program().router().unwrap();
    let error = CallContext::local(&router).detach().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Usage(_)), "{error}");
    let context = router.in_process().unwrap();
    let error = context.call(try_to_leave, ()).unwrap_err();
    assert!(error.to_string().contains("in the process of another"), "{error}");
    context.call(mitogen::stock::ping, ()).unwrap();
}
