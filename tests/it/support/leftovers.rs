//! What a test may leave behind: nothing. Processes and files of ours on the whole machine;
//! descriptors and threads of this process.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use std::{env, fs, thread};

use super::{Need, requires, until};

/// Wake-up descriptors that the library keeps while no thread sleeps on them.
const IDLE_WAKES_MAX: usize = 4;

static COMPANY: RwLock<()> = RwLock::new(());

/// For a test that counts what is on the machine or in this process: no other runs meanwhile,
/// provided that every test that starts something holds [`beside_others`]. That no other run of
/// the tests is on the machine is what `.ci/make/alone` is for.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    COMPANY.write().unwrap_or_else(PoisonError::into_inner)
}

/// For a test that starts something and counts nothing.
pub fn beside_others() -> RwLockReadGuard<'static, ()> {
    COMPANY.read().unwrap_or_else(PoisonError::into_inner)
}

/// A process of this machine.
#[derive(Debug)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    pub uid: u32,
    /// Where its executable is or was; empty if we may not know.
    pub executable: String,
    /// Its arguments, with blanks between.
    pub command: String,
}

/// Every process, zombies included, but for those that wait for init to reap them.
pub fn processes() -> Vec<Process> {
    let names = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| process(name.parse().ok()?)).collect()
}

fn process(pid: u32) -> Option<Process> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    // A name may be any bytes.
    let status = fs::read(folder.join("status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let parent = field("PPid:")?;
    if parent == 1 && status.lines().any(|line| line.starts_with("State:\tZ")) {
        return None;
    }
    let words = fs::read(folder.join("cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&words).replace('\0', " ");
    let executable = fs::read_link(folder.join("exe")).unwrap_or_default();
    let executable = executable.display().to_string();
    Some(Process { pid, parent, uid: field("Uid:")?, executable, command })
}

impl Process {
    /// Whether it is an agent, by the name that agents take or by the file that they run from; or
    /// a tool or shell that is to bring one up, by our first words to it.
    pub fn is_ours(&self) -> bool {
        let is_gone = self.executable.ends_with(" (deleted)");
        let name = Path::new(&self.executable).file_name().unwrap_or_default();
        let is_named = is_our_name(&name.to_string_lossy());
        let in_memory = self.executable.starts_with("/memfd:m");
        let is_agent = self.command.starts_with("mitogen:") || in_memory;
        is_agent || self.command.contains("MGN\"0\"") || (is_gone && is_named)
    }
}

fn is_our_name(name: &str) -> bool {
    name.starts_with(".mgn-") || name.starts_with("mgn")
}

/// Every process of ours on this machine.
pub fn processes_of_ours() -> Vec<Process> {
    processes().into_iter().filter(Process::is_ours).collect()
}

/// Runs a test alone, on a thread of its own, and fails if it leaves something behind: processes
/// and files on the machine; descriptors and threads in this process. Where a need is not met, the
/// test is left out.
#[track_caller]
pub fn leaves_nothing(needs: &[Need], test: impl FnOnce() + Send) {
    let _alone = alone();
    if !requires(needs) {
        return;
    }
    assert_nothing_is_left();
    let (descriptors, threads) = (own_descriptors(), threads_of_ours());
    let ended = thread::scope(|scope| {
        let name = thread::current().name().unwrap_or("a test").to_owned();
        thread::Builder::new().name(name).spawn_scoped(scope, test).unwrap().join()
    });
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
    assert_nothing_is_left();
    // The last threads of other tests may still be closing theirs.
    let more = || {
        let now = own_descriptors().into_iter();
        let mut new: Vec<String> = now.filter(|one| !descriptors.contains(one)).collect();
        let is_wake = |one: &String| one.ends_with(" -> anon_inode:[eventfd]");
        // The thread of the log sleeps on one.
        let of_log = own_threads().iter().filter(|name| *name == "mitogen-log").count();
        if new.iter().filter(|one| is_wake(one)).count() <= IDLE_WAKES_MAX + of_log {
            new.retain(|one| !is_wake(one));
        }
        (!new.is_empty() || threads < threads_of_ours()).then(|| (new, own_threads()))
    };
    if until(Duration::from_secs(1), || more().is_none().then_some(())).is_none() {
        panic!("left behind: {:?}", more());
    }
}

/// How many threads the library has in this process, but for the one of the log, which stays.
fn threads_of_ours() -> usize {
    let is_ours = |name: &&String| name.starts_with("mitogen-") && *name != "mitogen-log";
    own_threads().iter().filter(is_ours).count()
}

/// Files and folders of first stages, wherever these look for a place.
pub fn files_of_ours() -> Vec<PathBuf> {
    let home = env::var("HOME").unwrap_or_default();
    let homes = fs::read_dir("/home").into_iter().flatten().flatten().map(|entry| entry.path());
    let places = ["/tmp", "/var/tmp", "/dev/shm", "/run", &home, &format!("{home}/.cache")];
    let folders = places.map(PathBuf::from).into_iter().chain(homes);
    let entries = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let ours = entries.filter(|entry| is_our_name(&entry.file_name().to_string_lossy()));
    ours.map(|entry| entry.path()).collect()
}

/// Fails unless, within a second, no process and no file of ours is left. Needs [`alone`].
#[track_caller]
pub fn assert_nothing_is_left() {
    let is_clean = || processes_of_ours().is_empty() && files_of_ours().is_empty();
    if until(Duration::from_secs(1), || is_clean().then_some(())).is_none() {
        panic!("left behind: {:?} {:?}", processes_of_ours(), files_of_ours());
    }
}

/// The descriptors of this process, as `number -> what`. Needs [`alone`].
pub fn own_descriptors() -> Vec<String> {
    let entries = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let named = entries.filter_map(|entry| {
        let what = fs::read_link(entry.path()).ok()?.display().to_string();
        // The folder that is being read is one itself.
        (!what.ends_with("/fd")).then(|| format!("{} -> {what}", entry.file_name().display()))
    });
    let mut all: Vec<String> = named.collect();
    all.sort();
    all
}

/// The names of this process's threads, sorted. Needs [`alone`].
pub fn own_threads() -> Vec<String> {
    let entries = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = entries.filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok());
    let mut all: Vec<String> = names.map(|name| name.trim().to_string()).collect();
    all.sort();
    all
}
