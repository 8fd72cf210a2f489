//! Samples and their statistics, what the kernel says of processes, and pinning to one core.
#![allow(unsafe_code)]

use std::error::Error;
use std::time::{Duration, Instant};
use std::{fs, io, mem, thread};

/// What the parts of the bench return: a failed row is told, it does not end the others.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// Measured values of one thing, in the order taken.
#[derive(Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds one value.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Adds a value that took some doing.
    pub fn take(&mut self, value: Outcome<f64>) -> Outcome<()> {
        value.map(|value| self.push(value))
    }

    /// Runs `work` once and adds the time it took, in milliseconds.
    pub fn time_ms(&mut self, work: impl FnOnce() -> Outcome<()>) -> Outcome<()> {
        let start = Instant::now();
        work()?;
        self.push(start.elapsed().as_secs_f64() * 1e3);
        Ok(())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The middle value; NaN if there is none.
    pub fn median(&self) -> f64 {
        self.percentile(50)
    }

    /// The smallest value; NaN if there is none.
    pub fn min(&self) -> f64 {
        self.percentile(0)
    }

    /// The value that `percent` of the others do not exceed; NaN if there is none.
    pub fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted.get((sorted.len() * percent / 100).min(last)).copied().unwrap_or(f64::NAN)
    }
}

/// Takes one sample of each in turn, `rounds` times after one that is thrown away: the speed of a
/// shared machine drifts by half within minutes, so only neighbours can be compared.
pub fn in_turn(
    rounds: usize,
    mut floor: impl FnMut(&mut Samples) -> Outcome<()>,
    mut subject: impl FnMut(&mut Samples) -> Outcome<()>,
) -> Outcome<(Samples, Samples)> {
    let mut taken = (Samples::default(), Samples::default());
    floor(&mut Samples::default())?;
    subject(&mut Samples::default())?;
    for _ in 0..rounds {
        floor(&mut taken.0)?;
        subject(&mut taken.1)?;
    }
    Ok(taken)
}

/// Latency of something repeated, with the wake-ups and the processor time it took in `pids`.
#[derive(Default)]
pub struct Track {
    /// Microseconds, one value per repetition.
    pub samples_us: Samples,
    wakeups: u64,
    cpu_us: f64,
}

impl Track {
    /// Repeats `work`, `count` times.
    pub fn block(
        &mut self,
        pids: &[u32],
        count: usize,
        mut work: impl FnMut() -> Outcome<()>,
    ) -> Outcome<()> {
        let before = usage(pids)?;
        for _ in 0..count {
            let start = Instant::now();
            work()?;
            self.samples_us.push(start.elapsed().as_secs_f64() * 1e6);
        }
        let after = usage(pids)?;
        // One of them is the nap that `usage` takes.
        self.wakeups += (after.wakeups - before.wakeups).saturating_sub(1);
        self.cpu_us += after.cpu_us - before.cpu_us;
        Ok(())
    }

    /// Times a thread went to sleep and was woken, per repetition, in all the processes together.
    pub fn wakeups(&self) -> f64 {
        self.wakeups as f64 / self.samples_us.count() as f64
    }

    /// Processor time per repetition, in all the processes together.
    pub fn cpu_us(&self) -> f64 {
        self.cpu_us / self.samples_us.count() as f64
    }
}

/// What the live threads of some processes have used since they started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Voluntary context switches.
    pub wakeups: u64,
    /// Processor time.
    pub cpu_us: f64,
}

/// Adds up the live threads of `pids`. Naps first: the kernel brings a thread's processor time up
/// to date when the thread goes to sleep.
pub fn usage(pids: &[u32]) -> Outcome<Usage> {
    thread::sleep(Duration::from_millis(1));
    let mut sum = Usage::default();
    for &pid in pids {
        for tid in threads(pid)? {
            sum.add(thread_usage(pid, tid)?);
        }
    }
    Ok(sum)
}

/// The same, but without one thread: the one that measures.
pub fn usage_without(pids: &[u32], bystander: u32) -> Outcome<Usage> {
    let mut sum = Usage::default();
    for &pid in pids {
        for tid in threads(pid)?.into_iter().filter(|&tid| tid != bystander) {
            sum.add(thread_usage(pid, tid)?);
        }
    }
    Ok(sum)
}

impl Usage {
    fn add(&mut self, other: Usage) {
        self.wakeups += other.wakeups;
        self.cpu_us += other.cpu_us;
    }
}

fn thread_usage(pid: u32, tid: u32) -> Outcome<Usage> {
    let task = format!("/proc/{pid}/task/{tid}");
    let status = fs::read_to_string(format!("{task}/status"))?;
    let scheduled = fs::read_to_string(format!("{task}/schedstat"))?;
    let cpu_ns: f64 = scheduled.split(' ').next().unwrap_or("").parse()?;
    Ok(Usage { wakeups: field(&status, "voluntary_ctxt_switches:")?, cpu_us: cpu_ns / 1e3 })
}

fn threads(pid: u32) -> Outcome<Vec<u32>> {
    let mut tids = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        tids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(tids)
}

/// Proportional set size of a process, in KiB: its share of what it has in memory.
pub fn pss_kib(pid: u32) -> Outcome<u64> {
    field(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?, "Pss:")
}

/// The most that a process ever had in memory, in KiB.
pub fn peak_kib(pid: u32) -> Outcome<u64> {
    field(&fs::read_to_string(format!("/proc/{pid}/status"))?, "VmHWM:")
}

fn field(text: &str, name: &str) -> Outcome<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    Ok(number.ok_or_else(|| format!("/proc has no {name}"))?.parse()?)
}

/// Processor time of this process and of the children that it has waited for, in milliseconds.
pub fn cpu_with_children_ms() -> f64 {
    [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN].into_iter().map(rusage_ms).sum()
}

fn rusage_ms(who: libc::c_int) -> f64 {
    // SAFETY: rusage is integers only, for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: the pointer is to a live rusage, which getrusage only writes.
    unsafe { libc::getrusage(who, &raw mut usage) };
    let ms = |time: libc::timeval| time.tv_sec as f64 * 1e3 + time.tv_usec as f64 / 1e3;
    ms(usage.ru_utime) + ms(usage.ru_stime)
}

/// While it lives, all threads of some processes run on one core.
pub struct Pinned {
    pids: Vec<u32>,
    before: libc::cpu_set_t,
}

impl Pinned {
    /// Pins them to the first core that this thread may use; new threads and children inherit it.
    pub fn new(pids: &[u32]) -> Outcome<Pinned> {
        let before = affinity()?;
        let core = (0..libc::CPU_SETSIZE as usize).find(|&core| {
            // SAFETY: `core` is below CPU_SETSIZE, the size of the set.
            unsafe { libc::CPU_ISSET(core, &before) }
        });
        let mut one = no_cores();
        // SAFETY: the core was found in a set, so it is below CPU_SETSIZE.
        unsafe { libc::CPU_SET(core.ok_or("no core to run on")?, &mut one) };
        set_affinity(pids, &one)?;
        Ok(Pinned { pids: pids.to_vec(), before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        for pid in &self.pids {
            // A process that has ended meanwhile needs no cores.
            let _ = set_affinity(&[*pid], &self.before);
        }
    }
}

fn no_cores() -> libc::cpu_set_t {
    // SAFETY: a set of cores is an array of integers: all zeroes is the empty set.
    unsafe { mem::zeroed() }
}

fn affinity() -> io::Result<libc::cpu_set_t> {
    let mut set = no_cores();
    // SAFETY: the pointer is to a live set of the size that is named.
    let status = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    if status == 0 { Ok(set) } else { Err(io::Error::last_os_error()) }
}

fn set_affinity(pids: &[u32], set: &libc::cpu_set_t) -> Outcome<()> {
    for &pid in pids {
        for tid in threads(pid)? {
            // SAFETY: the pointer is to a live set of the size that is named.
            let status =
                unsafe { libc::sched_setaffinity(tid as libc::pid_t, size_of_val(set), set) };
            if status != 0 {
                return Err(io::Error::last_os_error().into());
            }
        }
    }
    Ok(())
}
