//! What a process has and is, as the kernel tells it from outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Process, processes};

/// A process at one moment.
#[derive(Debug)]
pub struct Census {
    /// What is open, by number.
    pub descriptors: Vec<(u32, String)>,
    /// The names of its threads, sorted.
    pub threads: Vec<String>,
    pub blocked: u64,
    pub ignored: u64,
    pub caught: u64,
    pub umask: String,
    pub directory: PathBuf,
    /// The limits that count: descriptors, processes.
    pub files_max: String,
    pub processes_max: String,
    pub group: u32,
    pub session: u32,
    pub children: Vec<Process>,
}

/// The bit of a signal in the masks of a [`Census`].
pub const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// Looks at a process; panics if it is gone.
#[track_caller]
pub fn census(pid: u32) -> Census {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let read = |name: &str| read(&folder.join(name)).unwrap();
    let (status, limits, stat) = (read("status"), read("limits"), read("stat"));
    let field = |text: &str, name: &str, place: usize| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().nth(place).unwrap().to_owned()
    };
    let mask = |name| u64::from_str_radix(&field(&status, name, 0), 16).unwrap();
    let number = |place| stat_field(&stat, place).unwrap();
    Census {
        descriptors: descriptors(&folder),
        threads: threads(&folder),
        blocked: mask("SigBlk:"),
        ignored: mask("SigIgn:"),
        caught: mask("SigCgt:"),
        umask: field(&status, "Umask:", 0),
        directory: fs::read_link(folder.join("cwd")).unwrap(),
        files_max: field(&limits, "Max open files", 0),
        processes_max: field(&limits, "Max processes", 0),
        group: number(5) as u32,
        session: number(6) as u32,
        children: processes().into_iter().filter(|process| process.parent == pid).collect(),
    }
}

/// A file of `/proc`, in which names may be any bytes.
fn read(path: &Path) -> Option<String> {
    Some(String::from_utf8_lossy(&fs::read(path).ok()?).into_owned())
}

impl Census {
    /// What is open, without the numbers of pipes and sockets; sorted.
    pub fn kinds(&self) -> Vec<&str> {
        let known = ["pipe", "socket"];
        let mut kinds: Vec<&str> = self.descriptors.iter().map(|(_, what)| &**what).collect();
        for text in &mut kinds {
            *text = known.into_iter().find(|what| text.starts_with(*what)).unwrap_or(text);
        }
        kinds.sort();
        kinds
    }

    /// What is open as this number.
    pub fn descriptor(&self, number: u32) -> &str {
        self.descriptors.iter().find(|(n, _)| *n == number).map_or("", |(_, what)| what)
    }
}

fn descriptors(folder: &Path) -> Vec<(u32, String)> {
    let entries = fs::read_dir(folder.join("fd")).unwrap().flatten();
    let mut all: Vec<(u32, String)> = entries
        .filter_map(|entry| {
            let what = fs::read_link(entry.path()).ok()?.display().to_string();
            Some((entry.file_name().to_str()?.parse().ok()?, what))
        })
        .collect();
    all.sort();
    all
}

fn threads(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder.join("task")).unwrap().flatten();
    let names = entries.filter_map(|entry| read(&entry.path().join("comm")));
    let mut names: Vec<String> = names.map(|name| name.trim_end().to_owned()).collect();
    names.sort();
    names
}

/// A field of `/proc/<pid>/stat`, by its number in proc(5).
pub fn stat_field(stat: &str, number: usize) -> Option<u64> {
    let rest = stat.rsplit_once(") ")?.1;
    rest.split(' ').nth(number - 3)?.trim().parse().ok()
}

/// Processor time of a process and of the children that it has waited for; none if it is gone.
pub fn processor_time(pid: u32) -> Option<Duration> {
    let stat = read(format!("/proc/{pid}/stat").as_ref())?;
    let ticks: u64 = (14..=17).filter_map(|number| stat_field(&stat, number)).sum();
    // The kernel says it in hundredths of a second, everywhere.
    Some(Duration::from_millis(10 * ticks))
}

/// The processes of a group that have not ended.
pub fn group_members(group: u32) -> Vec<u32> {
    let pids = processes().into_iter().map(|process| process.pid);
    pids.filter(|pid| {
        let stat = read(format!("/proc/{pid}/stat").as_ref()).unwrap_or_default();
        let dead = stat.contains(") Z ") || stat.contains(") X ");
        !dead && stat_field(&stat, 5) == Some(u64::from(group))
    })
    .collect()
}
