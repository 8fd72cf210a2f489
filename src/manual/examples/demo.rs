//! The demo: a tree of contexts, and what a function of its own finds in each. `make demo` gives it
//! real targets; by itself it takes an address a line from MITOGEN_DEMO_ADDRESSES, a hop before
//! what lies behind it.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use mitogen::{Address, CallContext, Context, Cost, Program, Result, Router, stock};

/// Bytes of what `blocks` counts.
const BLOCK_BYTES: u64 = 512;

mitogen::value! {
    /// What lies below a folder.
    struct Usage {
        files: u64,
        /// As the file system allots them, a file of several names once.
        bytes: u64,
        /// Folders that its user may not look into.
        closed: u64,
        took: Duration,
    }
}

/// Sums up what is below `path`, there where it is called.
fn disk_usage(path: &Path) -> io::Result<Usage> {
    let (begun, mut seen) = (Instant::now(), HashSet::new());
    let bytes = path.metadata()?.blocks() * BLOCK_BYTES;
    let mut usage = Usage { files: 0, bytes, closed: 0, took: Duration::ZERO };
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            usage.closed += 1;
            continue;
        };
        for entry in entries.flatten() {
            let Ok(about) = entry.metadata() else { continue };
            if about.is_dir() {
                folders.push(entry.path());
            } else if 1 < about.nlink() && !seen.insert((about.dev(), about.ino())) {
                continue;
            } else {
                usage.files += 1;
            }
            usage.bytes += about.blocks() * BLOCK_BYTES;
        }
    }
    usage.took = begun.elapsed();
    Ok(usage)
}

/// How many hops lie between the first process and this one.
fn depth(cx: &CallContext) -> usize {
    cx.router().parent_ids().len()
}

/// A context of the tree.
struct Place {
    context: Context,
    address: String,
    cost: Option<Cost>,
}

fn main() -> Result<()> {
    Program::new().function(disk_usage).function(depth).run(|router| {
        let text = std::env::var("MITOGEN_DEMO_ADDRESSES");
        let text = text.unwrap_or("local\nlocal/local".to_owned());
        let begun = Instant::now();
        let places = connect_all(router, &text)?;
        println!("{} contexts connected in {} ms:\n", places.len(), begun.elapsed().as_millis());
        print_tree(&places)?;
        print_usage(&places, "/usr")
    })
}

/// Connects all addresses at once; each hop is made once.
fn connect_all(router: &Router, text: &str) -> Result<Vec<Place>> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    thread::scope(|scope| {
        let connect = |line: &str| {
            let address: Address = line.parse()?;
            let context = router.connect(&address)?;
            let cost = router.cost(&address);
            Ok(Place { context, address: line.to_owned(), cost })
        };
        let threads: Vec<_> = lines.iter().map(|line| scope.spawn(move || connect(line))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|why| resume_unwind(why)))
            .collect()
    })
}

fn print_tree(places: &[Place]) -> Result<()> {
    let own = stock::identify();
    println!(
        "{:>4}  {:<34} {:<22} {:>8} {:>10} {:>12}",
        "id", "hop", "who", "pid", "ms", "bytes pushed"
    );
    let who = format!("{}@{}", own.user, own.host);
    println!("{:>4}  {:<34} {who:<22} {:>8}", 0, "master", own.pid);
    for Place { context, address, cost } in places {
        let who = context.call(stock::identify, ())?;
        let hop = format!("{:1$}{2}", "", 2 * context.call(depth, ())?, last_hop(places, address));
        let (ms, bytes) = match cost {
            Some(cost) => (format!("{:.1}", cost.elapsed_us as f64 / 1e3), cost.pushed_bytes),
            None => (String::new(), 0),
        };
        let (id, user) = (context.context_id().0, format!("{}@{}", who.user, who.host));
        println!("{id:>4}  {hop:<34} {user:<22} {:>8} {ms:>10} {bytes:>12}", who.pid);
    }
    Ok(())
}

/// What an address has behind the longest other one, without its options.
fn last_hop<'a>(places: &[Place], address: &'a str) -> &'a str {
    let behind = |other: &Place| address.strip_prefix(&other.address)?.strip_prefix('/');
    let hop = places.iter().filter_map(behind).min_by_key(|hop| hop.len()).unwrap_or(address);
    hop.split('?').next().unwrap_or(hop)
}

/// Has all of them look at the same time, and waits for each.
fn print_usage(places: &[Place], path: &str) -> Result<()> {
    let begun = Instant::now();
    let path = PathBuf::from(path);
    let calls: Vec<_> =
        places.iter().map(|place| place.context.call_async(disk_usage, &path)).collect();
    println!("\n{:>4}  {:>14} {:>10} {:>8} {:>10}", "id", "bytes", "files", "closed", "ms");
    for (place, call) in places.iter().zip(calls) {
        let Usage { files, bytes, closed, took } = call.get()?;
        let (id, ms) = (place.context.context_id().0, took.as_millis());
        println!("{id:>4}  {bytes:>14} {files:>10} {closed:>8} {ms:>10}");
    }
    println!("\nall below {}, in {} ms", path.display(), begun.elapsed().as_millis());
    Ok(())
}
