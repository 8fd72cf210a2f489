//! `mitogen tree`: connects, and prints the contexts that there are then.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mitogen::stock::{self, Identity};
use mitogen::{Address, Context, ContextId, Cost, Result, Router};

use super::args::Place;
use super::json::Object;
use super::run::{UNREACHABLE, reason};
use super::status::{Status, Tally};
use super::{columns, text, units};

/// Round trips of which the middle one counts.
const PINGS: usize = 11;
/// Contexts that are measured at a time.
const THREADS: usize = 64;
/// Time for a context that is up to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Faster round trips are measured one context at a time, since they would slow each other.
const FAST: Duration = Duration::from_millis(10);

/// A context of the tree.
struct Node {
    id: ContextId,
    /// None of the master.
    parent: Option<ContextId>,
    name: String,
    depth: usize,
    identity: Identity,
    cost: Option<Cost>,
    round_trip: Option<Duration>,
}

/// Connects all, prints the tree. An address that fails is an error and no row.
pub fn tree(router: &Router, json: bool, places: &[Place]) -> Result<ExitCode> {
    let (connected, all_reached) = connect(router, json, places);
    let nodes = Mutex::new(vec![master(router)]);
    let fast = Mutex::new(());
    let all_answered = on_each(&connected, |(context, parent, address)| {
        let node = measure(router, context, *parent, address, &fast);
        node.map(|node| nodes.lock().unwrap_or_else(PoisonError::into_inner).push(node))
            .map_err(|error| text::complain(&[context.name(), ": ", &error.to_string()].concat()))
            .is_ok()
    });
    let nodes = nodes.into_inner().unwrap_or_else(PoisonError::into_inner);
    let nodes = in_order(nodes);
    let shown = text::show(&if json { objects(&nodes) } else { table(&nodes) });
    let all = all_reached && all_answered;
    Ok(if all { shown } else { ExitCode::from(UNREACHABLE) })
}

/// Does something for all, for many at a time. Whether all of it went well.
fn on_each<T: Sync>(all: &[T], act: impl Fn(&T) -> bool + Sync) -> bool {
    let (next, well) = (AtomicUsize::new(0), AtomicBool::new(true));
    let work = || {
        while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            well.fetch_and(act(one), Ordering::Relaxed);
        }
    };
    thread::scope(|scope| (0..all.len().min(THREADS)).for_each(|_| drop(scope.spawn(work))));
    well.into_inner()
}

/// A context, its parent, and its address.
type Connected = (Context, ContextId, Address);

/// Connects every hop of every address. Those that are up, by their ids; and whether all are.
fn connect(router: &Router, json: bool, places: &[Place]) -> (Vec<Connected>, bool) {
    let mut prefixes: Vec<Address> = Vec::new();
    for prefix in places.iter().flat_map(|place| place.address.prefixes()) {
        if !prefixes.contains(&prefix) {
            prefixes.push(prefix);
        }
    }
    let (tell, told) = mpsc::channel();
    for (at, prefix) in prefixes.iter().enumerate() {
        let tell = tell.clone();
        // Whoever is told waits for all of them.
        router.start(prefix).then(move |outcome| drop(tell.send((at, outcome))));
    }
    drop(tell);
    let outcomes = gather(&told, prefixes.len(), json);
    let reached = |address: &Address| {
        let at = prefixes.iter().position(|prefix| prefix == address)?;
        outcomes[at].as_ref()
    };
    let mut all = true;
    for place in places {
        if let Some(Err(error)) = reached(&place.address) {
            text::complain(&[&place.label, ": ", &reason(place, error)].concat());
            all = false;
        }
    }
    let up = prefixes.iter().filter_map(|prefix| {
        let context = reached(prefix)?.as_ref().ok()?;
        let above = prefix.prefixes().zip(prefix.prefixes().skip(1)).last();
        let parent = above.and_then(|(above, _)| reached(&above)?.as_ref().ok());
        let parent = parent.map_or(router.context_id(), Context::context_id);
        Some((context.clone(), parent, prefix.clone()))
    });
    let mut up: Vec<Connected> = up.collect();
    up.sort_by_key(|(context, _, _)| context.context_id());
    (up, all)
}

/// What became of so many connects.
fn gather(
    told: &Receiver<(usize, Result<Context>)>,
    count: usize,
    json: bool,
) -> Vec<Option<Result<Context>>> {
    let mut outcomes = vec![None; count];
    let (mut status, mut tally) = (Status::new(!json), Tally::of(count));
    let mut due = status.due();
    loop {
        let next = match due {
            None => told.recv().map_err(RecvTimeoutError::from),
            Some(due) => told.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        match next {
            Err(RecvTimeoutError::Disconnected) => return outcomes,
            Err(RecvTimeoutError::Timeout) => due = None,
            Ok((at, outcome)) => {
                tally.add(outcome.is_ok());
                outcomes[at] = Some(outcome);
            }
        }
        status.show(tally);
    }
}

fn master(router: &Router) -> Node {
    Node {
        id: router.context_id(),
        parent: None,
        name: router.name().to_owned(),
        depth: 0,
        identity: stock::identify(),
        cost: None,
        round_trip: None,
    }
}

fn measure(
    router: &Router,
    context: &Context,
    parent: ContextId,
    address: &Address,
    fast: &Mutex<()>,
) -> Result<Node> {
    let identity = context.call_async(stock::identify, ()).get_timeout(ANSWER_TIMEOUT)?;
    let ping = || {
        let begun = Instant::now();
        let answer = context.call_async(stock::ping, ()).get_timeout(ANSWER_TIMEOUT);
        answer.map(|()| begun.elapsed())
    };
    let _turn = (ping()? < FAST).then(|| fast.lock().unwrap_or_else(PoisonError::into_inner));
    let mut times = (0..PINGS).map(|_| ping()).collect::<Result<Vec<_>>>()?;
    times.sort();
    Ok(Node {
        id: context.context_id(),
        parent: Some(parent),
        name: context.name().to_owned(),
        depth: address.prefixes().count(),
        identity,
        cost: router.cost(address),
        round_trip: Some(times[PINGS / 2]),
    })
}

/// Every context behind its parent, siblings by their ids.
fn in_order(mut nodes: Vec<Node>) -> Vec<Node> {
    nodes.sort_by_key(|node| node.id);
    let mut ordered = Vec::with_capacity(nodes.len());
    let mut next = vec![ContextId::MASTER];
    while let Some(id) = next.pop() {
        let children = nodes.iter().rev().filter(|node| node.parent == Some(id));
        next.extend(children.map(|node| node.id));
        ordered.extend(nodes.iter().position(|node| node.id == id));
    }
    let mut nodes: Vec<_> = nodes.into_iter().map(Some).collect();
    ordered.into_iter().filter_map(|at| nodes[at].take()).collect()
}

fn objects(nodes: &[Node]) -> String {
    let line = |node: &Node| {
        let Identity { user, host, os, cpu, pid } = &node.identity;
        Object::new()
            .number("id", node.id.0)
            .maybe("parent", node.parent.map(|id| id.0.into()))
            .text("name", &node.name)
            .text("user", user)
            .text("host", host)
            .text("os", os)
            .text("cpu", cpu)
            .number("pid", *pid)
            .number("depth", node.depth as u64)
            .maybe("pushed_bytes", node.cost.map(|cost| cost.pushed_bytes))
            .maybe("connect_us", node.cost.map(|cost| cost.elapsed_us))
            .maybe("round_trip_us", node.round_trip.map(|time| time.as_micros() as u64))
            .line()
    };
    nodes.iter().map(line).collect()
}

const COLUMNS: [&str; 9] =
    ["ID", "NAME", "USER@HOST", "OS-CPU", "PID", "DEPTH", "PUSHED", "CONNECT", "ROUND TRIP"];

/// The texts of a row. Names are indented by depth.
fn row(node: &Node) -> [String; 9] {
    let Identity { user, host, os, cpu, pid } = &node.identity;
    let (none, cost) = (|| "-".to_owned(), node.cost);
    [
        node.id.to_string(),
        ["  ".repeat(node.depth), text::word(&node.name)].concat(),
        text::word(&[user, "@", host].concat()),
        text::word(&[os, "-", cpu].concat()),
        pid.to_string(),
        node.depth.to_string(),
        cost.map_or_else(none, |cost| cost.pushed_bytes.to_string()),
        cost.map_or_else(none, |cost| units::time(Duration::from_micros(cost.elapsed_us))),
        node.round_trip.map_or_else(none, units::time),
    ]
}

fn table(nodes: &[Node]) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    rows.extend(nodes.iter().map(row));
    let mut widths = [0; 9];
    rows.iter().for_each(|row| columns::widen(&mut widths, row));
    // Texts to the left, numbers to the right.
    let line = |row: &[String; 9]| columns::row(row, &widths, |at| !matches!(at, 1..=3)) + "\n";
    rows.iter().map(line).collect()
}
