//! Our rows: each next to its floor, floor and subject in turn.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{fs, process, thread};

use mitogen::{Connecting, Context, HostKeys, Image, Program, Result, Router, Sender, Ssh, stock};

use crate::floors::{self, BLOCK_BYTES, Echo, SUDO_TRUE, TRUE};
use crate::measure::{self, Outcome, Pinned, Samples, Track};
use crate::report::Report;
use crate::rounds;
use crate::sshd::Sshd;
use crate::talk;

/// Calls in flight in the pipelined row.
const WINDOW: usize = 256;
/// What flows through one Sender.
const BULK_MIB: usize = 512;
/// What comes as one value.
const VALUE_MIB: usize = 64;
/// Children of the fan-out.
const FAN_OUT: usize = 200;
/// Connects at a time.
const THOUSAND: usize = 1000;
/// After that a tree is idle: a timer of 500 ms follows the end of a context of the row before.
const SETTLED: Duration = Duration::from_secs(1);
/// How long the idle tree is watched.
const IDLE: Duration = Duration::from_secs(5);

/// Costs nothing but the call.
pub fn empty() {}

/// Which process this is, so that its memory and wake-ups can be read.
pub fn pid() -> u32 {
    process::id()
}

/// Sends `count` blocks of random bytes.
fn pour(count: u64, out: Sender<Vec<u8>>) -> Result<()> {
    let block = floors::random_bytes(BLOCK_BYTES);
    for _ in 0..count {
        out.send(&block)?;
    }
    Ok(())
}

/// What `take_value` gives away: making it is no part of sending it.
static VALUE: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Makes the value that `take_value` returns.
fn make_value(mib: u64) -> std::result::Result<(), &'static str> {
    *VALUE.lock().map_err(|_| "a call panicked")? = floors::random_bytes((mib as usize) << 20);
    Ok(())
}

/// Returns the value, uncopied.
fn take_value() -> std::result::Result<Vec<u8>, &'static str> {
    Ok(std::mem::take(&mut *VALUE.lock().map_err(|_| "a call panicked")?))
}

/// The program that the bench is: in a child it never returns, so `master` is not run there.
pub fn run(master: impl FnOnce(&dyn Fn(&mut Report)) -> Outcome<()>) -> Outcome<()> {
    crate::lent::add_to(Program::new())
        .function(empty)
        .function(pid)
        .function(pour)
        .function(make_value)
        .function(take_value)
        .function(talk::pour_on)
        .function(talk::nap)
        .run(|router| -> Outcome<()> { master(&|report| rows(router, report)) })
}

/// A router whose contexts are stock agents, as the command's are.
fn stock_router() -> Outcome<Router> {
    let packed =
        fs::read(STOCK_GZ).map_err(|error| format!("run `make agents` first ({error})"))?;
    // Once, for the life of the process.
    let packed = Image::embedded("linux-x86_64", Vec::leak(packed));
    Ok(Program::new().image(packed).image(Image::file(STOCK)?).router()?)
}

/// The stock image, as `make agents` leaves it.
const STOCK: &str = "target/agents/linux-x86_64";
const STOCK_GZ: &str = "target/agents/linux-x86_64.gz";

fn rows(router: &Router, report: &mut Report) {
    report.try_rows("local connect", |report| local_connect(&stock_router()?, report));
    report.try_rows("ssh connect", |report| ssh_connect(&stock_router()?, report));
    report.try_rows("sudo connect", |report| sudo_connect(&stock_router()?, report));
    report.try_rows("bytes pushed", |report| bytes_pushed(&stock_router()?, report));
    for cores in ["one core", "scheduler free"] {
        let kinds = ["round trip", "further hop", "wake-ups per", "processor time per call"];
        if let Some(kind) = kinds.into_iter().find(|kind| report.wants(kind)) {
            report.try_rows(kind, |report| calls(router, report, cores));
        }
    }
    report.try_rows("pipelined", |report| pipelined(router, report));
    report.try_rows("bulk", |report| bulk(router, report));
    report.try_rows("one 64 MiB", |report| one_value(router, report));
    report.try_rows("latch round trip", talk::latches);
    report.try_rows("small call beside", |report| talk::beside_bulk(router, report));
    report.try_rows("wake-ups of a call pending", |report| talk::pending_wakeups(router, report));
    report.try_rows("stock image", stock_image);
    report.try_rows("memory of one idle", |report| idle_memory(&stock_router()?, report));
    report.try_rows("wake-ups of an idle", |report| idle_wakeups(router, report));
    report.try_rows("processor time per context", |report| fan_out(&stock_router()?, report));
    report.try_rows("1,000 local connects", thousand);
    report.try_rows("200 connects to one sshd", one_server);
    report.try_rows("lent", crate::lent::rows);
    report.try_rows("silent", |report| crate::silent::rows(router, report));
}

/// Connects, calls once, and shuts down outside the time that is taken.
fn connect_and_call(taken: &mut Samples, connect: impl FnOnce() -> Result<Context>) -> Outcome<()> {
    let mut made = None;
    taken.time_ms(|| {
        let context = connect()?;
        context.call(stock::ping, ())?;
        made = Some(context);
        Ok(())
    })?;
    if let Some(context) = made {
        context.shutdown()?;
    }
    Ok(())
}

fn local_connect(router: &Router, report: &mut Report) -> Outcome<()> {
    let (floor, ours) = measure::in_turn(
        rounds(50),
        |taken| taken.time_ms(|| floors::spawn_and_wait(&TRUE)),
        |taken| connect_and_call(taken, || router.local().connect()),
    )?;
    report.samples("local connect and first call", &floor, &ours)
}

fn ssh_to(router: &Router, sshd: &Sshd) -> Ssh {
    let ssh = router.ssh("127.0.0.1").port(sshd.port).username(&sshd.username);
    ssh.identity_file(sshd.key()).check_host_keys(HostKeys::Ignore)
}

fn ssh_connect(router: &Router, report: &mut Report) -> Outcome<()> {
    let sshd = Sshd::start()?;
    let connect = || ssh_to(router, &sshd).connect();
    let (floor, ours) = measure::in_turn(
        rounds(8),
        |taken| taken.time_ms(|| sshd.ssh_true()),
        |taken| connect_and_call(taken, connect),
    )?;
    report.samples("ssh connect and first call", &floor, &ours)
}

fn sudo_connect(router: &Router, report: &mut Report) -> Outcome<()> {
    let (floor, ours) = measure::in_turn(
        rounds(20),
        |taken| taken.time_ms(|| floors::spawn_and_wait(&SUDO_TRUE)),
        |taken| connect_and_call(taken, || router.sudo().username("root").connect()),
    )?;
    report.samples("sudo connect and first call", &floor, &ours)
}

/// What a connect through a shell writes beside the image: the line of shell, and who the agent is.
fn bytes_pushed(router: &Router, report: &mut Report) -> Outcome<()> {
    let (context, cost) = router.sudo().username("root").start().wait_and_tell()?;
    context.call(stock::ping, ())?;
    let image_bytes = fs::metadata(STOCK_GZ)?.len();
    report.value("bytes pushed by a connect", image_bytes as f64, cost.pushed_bytes as f64)?;
    end(vec![context])
}

/// Round trips over one, two and four hops, next to the ping-pong: time, wake-ups, processor.
fn calls(router: &Router, report: &mut Report, cores: &str) -> Outcome<()> {
    let chain = chain(router, 4)?;
    let mut echo = Echo::start()?;
    let mut pids = Vec::from(echo.pids());
    for context in &chain {
        pids.push(context.call(pid, ())?);
    }
    let _pinned = if cores == "one core" { Some(Pinned::new(&pids)?) } else { None };
    let [me, echo_pid, child] = [pids[0], pids[1], pids[2]];
    let mut floor = Track::default();
    let mut hops = [Track::default(), Track::default(), Track::default()];
    for _ in 0..rounds(5) {
        floor.block(&[me, echo_pid], 1000, || echo.ping())?;
        for (track, depth) in hops.iter_mut().zip([1, 2, 4]) {
            let context = &chain[depth - 1];
            track.block(&[me, child], 1000, || Ok(context.call(empty, ())?))?;
        }
    }
    let [one, two, four] = &hops;
    let ping_us = floor.samples_us.median();
    let [one_us, two_us, four_us] = [one, two, four].map(|track| track.samples_us.median());
    report.samples(&format!("round trip, {cores}"), &floor.samples_us, &one.samples_us)?;
    report.value(&format!("further hop of 2, {cores}"), ping_us, two_us - one_us)?;
    report.value(&format!("further hop of 4, {cores}"), ping_us, (four_us - one_us) / 3.0)?;
    report.value(&format!("wake-ups per call, {cores}"), floor.wakeups(), one.wakeups())?;
    report.value(&format!("processor time per call, {cores}"), floor.cpu_us(), one.cpu_us())?;
    end(chain)
}

/// Contexts of which each is the child of the one before.
fn chain(router: &Router, depth: usize) -> Outcome<Vec<Context>> {
    let mut chain: Vec<Context> = Vec::new();
    for _ in 0..depth {
        let connect = router.local();
        let context = match chain.last() {
            Some(parent) => connect.via(parent).connect()?,
            None => connect.connect()?,
        };
        context.call(empty, ())?;
        chain.push(context);
    }
    Ok(chain)
}

/// Shuts contexts down, the youngest first.
fn end(mut contexts: Vec<Context>) -> Outcome<()> {
    while let Some(context) = contexts.pop() {
        context.shutdown()?;
    }
    Ok(())
}

fn pipelined(router: &Router, report: &mut Report) -> Outcome<()> {
    let context = router.local().connect()?;
    let mut rates = Samples::default();
    for _ in 0..rounds(3) {
        let count = 200_000;
        let mut flight = VecDeque::with_capacity(WINDOW);
        let start = Instant::now();
        for _ in 0..count {
            if flight.len() == WINDOW {
                flight.pop_front().map_or(Ok(()), mitogen::Call::get)?;
            }
            flight.push_back(context.call_async(empty, ()));
        }
        for call in flight {
            call.get()?;
        }
        rates.push(f64::from(count) / start.elapsed().as_secs_f64());
    }
    report.samples("pipelined empty calls, window 256", &Samples::default(), &rates)?;
    end(vec![context])
}

fn bulk(router: &Router, report: &mut Report) -> Outcome<()> {
    let context = router.local().connect()?;
    let child = context.call(pid, ())?;
    let before_kib = measure::peak_kib(child)?;
    let (floor, ours) = measure::in_turn(
        rounds(3),
        |taken| taken.take(floors::bulk_mb_per_s(BULK_MIB)),
        |taken| taken.take(pour_mb_per_s(router, &context)),
    )?;
    report.samples("bulk through one Sender", &floor, &ours)?;
    let after_kib = measure::peak_kib(child)?;
    let what = "peak memory of a child after the bulk";
    report.value(what, before_kib as f64, after_kib as f64)?;
    end(vec![context])
}

fn pour_mb_per_s(router: &Router, context: &Context) -> Outcome<f64> {
    let blocks = router.receiver::<Vec<u8>>();
    let start = Instant::now();
    let count = ((BULK_MIB << 20) / BLOCK_BYTES) as u64;
    context.call_no_reply(pour, (count, blocks.to_sender()))?;
    let mut bytes = 0;
    for block in blocks {
        bytes += block?.len();
    }
    if bytes != BULK_MIB << 20 {
        return Err(format!("{bytes} bytes came").into());
    }
    Ok(bytes as f64 / 1e6 / start.elapsed().as_secs_f64())
}

fn one_value(router: &Router, report: &mut Report) -> Outcome<()> {
    let context = router.local().connect()?;
    let (floor, ours) = measure::in_turn(
        rounds(5),
        |taken| taken.take(floors::bulk_mb_per_s(VALUE_MIB)),
        |taken| {
            context.call(make_value, VALUE_MIB as u64)?;
            let start = Instant::now();
            let bytes = context.call(take_value, ())?.len();
            taken.push(bytes as f64 / 1e6 / start.elapsed().as_secs_f64());
            if bytes == VALUE_MIB << 20 { Ok(()) } else { Err("not the whole value came".into()) }
        },
    )?;
    report.samples("one 64 MiB value", &floor, &ours)?;
    end(vec![context])
}

fn stock_image(report: &mut Report) -> Outcome<()> {
    let bytes =
        fs::metadata(STOCK_GZ).map_err(|error| format!("run `make agents` first ({error})"))?.len();
    report.value("stock image, gzip", f64::NAN, bytes as f64 / 1024.0)
}

/// A context that has answered once; what it holds afterwards is what it holds while idle.
fn idle_memory(router: &Router, report: &mut Report) -> Outcome<()> {
    let context = router.local().connect()?;
    let kib = measure::pss_kib(context.call(stock::identify, ())?.pid)?;
    report.value("memory of one idle child, PSS", f64::NAN, kib as f64)?;
    end(vec![context])
}

/// Three children, one of them behind another; this thread only sleeps and is not counted.
fn idle_wakeups(router: &Router, report: &mut Report) -> Outcome<()> {
    let mut contexts = chain(router, 2)?;
    contexts.insert(0, router.local().connect()?);
    let me = process::id();
    let mut pids = vec![me];
    for context in &contexts {
        pids.push(context.call(pid, ())?);
    }
    thread::sleep(SETTLED);
    let before = measure::usage_without(&pids, me)?;
    thread::sleep(IDLE);
    let after = measure::usage_without(&pids, me)?;
    let wakeups = after.wakeups - before.wakeups;
    report.value("wake-ups of an idle tree", 0.0, wakeups as f64)?;
    end(contexts)
}

/// Processor time of master and children together, from the first connect to the last answer, all
/// of them at a time.
fn fan_out(router: &Router, report: &mut Report) -> Outcome<()> {
    let floor_ms = floors::spawn_cpu_ms(FAN_OUT, &TRUE)?;
    let before_ms = measure::cpu_with_children_ms();
    let contexts = connect_many(FAN_OUT, || router.local().start())?;
    let master_ms = measure::cpu_with_children_ms() - before_ms;
    let mut pids = Vec::new();
    for context in &contexts {
        pids.push(context.call(stock::identify, ())?.pid);
    }
    let children_ms = measure::usage(&pids)?.cpu_us / 1e3;
    let each_ms = (master_ms + children_ms) / FAN_OUT as f64;
    report.value("processor time per context of a fan-out", floor_ms, each_ms)?;
    end(contexts)
}

/// Contexts that were started at a time, each of which has answered.
fn connect_many(count: usize, start: impl Fn() -> Connecting) -> Outcome<Vec<Context>> {
    let starting: Vec<Connecting> = (0..count).map(|_| start()).collect();
    let contexts: Result<Vec<Context>> = starting.into_iter().map(Connecting::wait).collect();
    let contexts = contexts?;
    let calls: Vec<_> = contexts.iter().map(|one| one.call_async(stock::ping, ())).collect();
    calls.into_iter().try_for_each(mitogen::Call::get)?;
    Ok(contexts)
}

/// A thousand at a time, next to as many spawns one behind the other.
fn thousand(report: &mut Report) -> Outcome<()> {
    mitogen::raise_descriptor_limit()?;
    let (floor, ours) = measure::in_turn(
        rounds(3),
        |taken| taken.time_ms(|| (0..THOUSAND).try_for_each(|_| floors::spawn_and_wait(&TRUE))),
        |taken| {
            // All end with it, outside the time that is taken.
            let router = stock_router()?;
            taken.time_ms(|| connect_many(THOUSAND, || router.local().start()).map(drop))
        },
    )?;
    report.samples("1,000 local connects and first calls", &floor, &ours)
}

/// Two hundred at a time to a server that turns some away, next to as many `ssh host true`.
fn one_server(report: &mut Report) -> Outcome<()> {
    mitogen::raise_descriptor_limit()?;
    let sshd = Sshd::with_limits()?;
    let (floor, ours) = measure::in_turn(
        rounds(2),
        |taken| taken.time_ms(|| sshd.many_ssh_true(FAN_OUT)),
        |taken| {
            // As above.
            let router = stock_router()?;
            let start = || ssh_to(&router, &sshd).start();
            taken.time_ms(|| connect_many(FAN_OUT, start).map(drop))
        },
    )?;
    report.samples("200 connects to one sshd and first calls", &floor, &ours)
}
