//! Thousands of connects and disconnects, a million calls, of all sorts that there are: afterwards
//! the master, a child and a hop that outlived them have what they had before. `make test` does a
//! tenth of it, `make soak` all.

use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{env, io};

use self::bed::Bed;
use crate::support::*;
use mitogen::error::{ConnectFailure, ErrorKind};
use mitogen::{Broker, CallContext, Connecting, Context, Image, Program, Result, Sender, stock};

mod bed;

mitogen::test_agent!(program());

/// All of it, and not a tenth.
const ALL: &str = "MITOGEN_SOAK";
/// Tells a test that it runs in a process of its own, which nobody else allocates in.
const AGAIN: &str = "MITOGEN_SOAK_AGAIN";
const SECOND: Duration = Duration::from_secs(1);
/// Bytes of an argument that travels in pieces.
const LARGE_BYTES: usize = 300_000;

fn program() -> Program {
    Program::new()
        .function(add)
        .function(allocated)
        .function(count)
        .function(echo)
        .function(exit)
        .function(fail)
        .function(give_back)
        .function(hold)
        .function(keep)
        .function(panic)
        .function(relay)
        .function(reverse)
}

fn add(a: u64, b: u64) -> u64 {
    a + b
}

/// Bytes and blocks of the heap of whoever runs it.
fn allocated() -> (i64, i64) {
    heap()
}

fn count(to: u32, out: Sender<u32>) -> Result<()> {
    (0..to).try_for_each(|i| out.send(i))
}

fn echo(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

fn exit(status: i32) {
    std::process::exit(status)
}

/// Holds up the calls behind it.
fn hold() {
    std::thread::sleep(SECOND / 2);
}

fn fail() -> io::Result<()> {
    Err(io::Error::other("on purpose"))
}

fn give_back(out: Sender<u32>) -> Sender<u32> {
    out
}

/// Holds on to a Sender, and lets go of the one before.
fn keep(out: Sender<u32>) {
    static KEPT: Mutex<Option<Sender<u32>>> = Mutex::new(None);
    let before = KEPT.lock().unwrap().replace(out);
    drop(before);
}

/// Without a word, which a hook would write.
fn panic() {
    std::panic::resume_unwind(Box::new("on purpose"));
}

/// Calls another context from here.
fn relay(other: Context, out: Sender<u32>) -> Result<u64> {
    other.call_no_reply(count, (3, out))?;
    other.call(add, (1, 2))
}

/// Makes a receiver here, hands its Sender out, and sums up what comes.
fn reverse(cx: &CallContext, to: Sender<Sender<u32>>) -> Result<u32> {
    let numbers = cx.router().receiver();
    to.send(numbers.to_sender())?;
    drop(to);
    numbers.into_iter().sum::<Result<u32>>()
}

/// Not registered anywhere.
fn unknown() {}

/// Does rounds of something until it was done so often, and looks at what all have, again and
/// again: a fifth of the way is for warming up.
fn soak(count: usize, round: impl Fn(&Bed, usize) -> usize) {
    let count = if env::var_os(ALL).is_some() { count } else { count / 10 };
    let (bed, begun) = (Bed::new(), Instant::now());
    bed.fill_tables();
    let (mut done, mut rounds, mut first) = (0, 0, None);
    for part in 1..=5 {
        while done < count * part / 5 {
            done += round(&bed, rounds);
            rounds += 1;
        }
        let now = quiet(&bed, first.as_ref());
        eprintln!("soak: {done} of {count} in {:.1?}", begun.elapsed());
        for (process, sizes) in bed.processes.iter().zip(&now) {
            eprintln!("soak: {:>9}: {sizes}", process.name);
        }
        first.get_or_insert(now);
    }
    let (first, now) = (first.unwrap(), bed.sizes());
    for ((process, before), now) in bed.processes.iter().zip(&first).zip(&now) {
        assert!(now.is_no_more_than(before), "{} grows: {before} {now}", process.name);
    }
}

/// What all have once it is no more than before, or two seconds have passed: what was given up may
/// still be on its way.
fn quiet(bed: &Bed, before: Option<&Vec<Sizes>>) -> Vec<Sizes> {
    if before.is_none() {
        std::thread::sleep(SECOND);
    }
    let is_flat = |now: &[Sizes]| {
        let all = bed.processes.iter().zip(before.into_iter().flatten()).zip(now);
        all.clone().all(|((_, before), now)| now.is_no_more_than(before))
    };
    let settled = until(2 * SECOND, || Some(bed.sizes()).filter(|now| is_flat(now)));
    settled.unwrap_or_else(|| bed.sizes())
}

/// Runs a test of this file in a process of its own, where [`AGAIN`] is set.
#[track_caller]
fn in_own_process(test: &str) {
    leaves_nothing(&[], || {
        let mut own = Command::new(env::current_exe().unwrap());
        own.args(["--exact", &format!("soak::{test}"), "--nocapture"]).env(AGAIN, "1");
        own.env("RUST_BACKTRACE", "0");
        let output = own.output().unwrap();
        assert!(output.status.success(), "{}", told(&output));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
    });
}

#[test]
fn ten_thousand_connects_and_disconnects_leave_nothing() {
    if env::var_os(AGAIN).is_none() {
        return in_own_process("ten_thousand_connects_and_disconnects_leave_nothing");
    }
    soak(10_000, |bed, round| {
        let ways = [shut_down, cut_off, kill, let_go, fail_to_connect, give_up];
        ways.iter().map(|way| way(bed, round)).sum()
    });
}

/// An address that no other round has.
fn unique_hop(round: usize) -> String {
    format!("local?connect_timeout={}", 1000 + round)
}

/// Contexts that are asked to end, or end by themselves.
fn shut_down(bed: &Bed, round: usize) -> usize {
    let Bed { router, hop, stock, stock_hop, .. } = bed;
    let starting = [
        router.local().start(),
        router.local().name(format!("soak-{round}")).via(hop).start(),
        stock.local().start(),
        stock.local().via(stock_hop).start(),
    ];
    for context in starting.map(|one| one.wait().unwrap()) {
        context.call(stock::ping, ()).unwrap();
        context.shutdown().unwrap();
    }
    let near = unique_hop(round);
    let far = router.connect(&format!("{near}/local").parse().unwrap()).unwrap();
    far.call(add, (1, 2)).unwrap();
    let near = router.connect(&near.parse().unwrap()).unwrap();
    near.shutdown().unwrap();
    let inner = router.in_process().unwrap();
    inner.call(add, (1, 2)).unwrap();
    inner.shutdown().unwrap();
    let status = router.local().connect().unwrap().call(exit, 3).unwrap_err();
    assert!(matches!(status.kind(), ErrorKind::Closed(_)), "{status}");
    8
}

/// Contexts that are disconnected, one with another behind it, and two that were let call each
/// other.
fn cut_off(bed: &Bed, _: usize) -> usize {
    let Bed { router, child, hop, stock, stock_hop, .. } = bed;
    let starting = [
        router.local().start(),
        router.local().via(hop).start(),
        stock.local().via(stock_hop).start(),
    ];
    let contexts = starting.map(|one| one.wait().unwrap());
    let behind = router.local().via(&contexts[0]).connect().unwrap();
    behind.grant(&contexts[1]).unwrap();
    child.grant(&contexts[1]).unwrap();
    let numbers = router.receiver();
    assert_eq!(contexts[1].call(relay, (&behind, numbers.to_sender())).unwrap(), 3);
    for context in &contexts {
        context.router().disconnect(context).unwrap();
    }
    for context in contexts.iter().chain([&behind]) {
        while context.call(stock::ping, ()).is_ok() {}
    }
    4
}

/// Contexts that are killed, one with another behind it, while they have a call.
fn kill(bed: &Bed, _: usize) -> usize {
    let Bed { router, hop, stock, stock_hop, .. } = bed;
    let starting = [
        router.local().start(),
        router.local().via(hop).start(),
        stock.local().start(),
        stock.local().via(stock_hop).start(),
    ];
    let contexts = starting.map(|one| one.wait().unwrap());
    let behind = router.local().via(&contexts[0]).connect().unwrap();
    let pids = contexts
        .each_ref()
        .map(|context| context.call(stock::identify, ()).unwrap().pid.to_string());
    let receivers = contexts.each_ref().map(|context| context.router().receiver());
    let sleep = ["sleep", "1000"].map(Into::into).to_vec();
    for (context, receiver) in contexts.iter().zip(&receivers).take(2) {
        let command = stock::Command { argv: sleep.clone() };
        context.call_no_reply(stock::run, (command, receiver.to_sender())).unwrap();
    }
    run(Command::new("kill").arg("-KILL").args(pids));
    for context in contexts.iter().chain([&behind]) {
        while context.call(stock::ping, ()).is_ok() {}
    }
    5
}

/// Trees whose last router is dropped, and outcomes that are told to a callback.
fn let_go(bed: &Bed, _: usize) -> usize {
    let broker = Broker::new().unwrap();
    let [own, other] =
        [(); 2].map(|()| program().image(stock_image()).broker(&broker).router().unwrap());
    let near = own.local().connect().unwrap();
    let far = own.local().via(&near).connect().unwrap();
    far.call(stock::ping, ()).unwrap();
    other.local().connect().unwrap().call(stock::ping, ()).unwrap();
    drop((own, near, far));
    drop((other, broker));
    let (tell, told) = std::sync::mpsc::channel();
    for via in [None, Some(&bed.hop)] {
        let local = bed.router.local();
        let starting = via.map_or(local.clone(), |via| local.via(via)).start();
        let tell = tell.clone();
        starting.then(move |outcome| tell.send(outcome).unwrap());
    }
    for context in told.into_iter().take(2) {
        context.unwrap().shutdown().unwrap();
    }
    5
}

/// Connects that fail at each step.
fn fail_to_connect(bed: &Bed, round: usize) -> usize {
    let Bed { router, hop, .. } = bed;
    let target = "for last do :; done; nonce=${last#*q=}; nonce=${nonce%%;*}";
    let marker = |says| format!("{target}; echo \"MGN0-$nonce {says}\"; exec cat >/dev/null");
    let clients = [
        "/no/such/ssh".to_owned(),
        bed.client("ends", "echo no >&2; exit 1"),
        bed.client("refuses", "echo 'ssh: connect: Connection refused' >&2; exit 255"),
        bed.client("plan9", &marker("Plan9 mips")),
        bed.client("silent", "exec sleep 987655"),
    ];
    let host = format!("host-{round}");
    let ssh = |client: &String| {
        let ssh = router.ssh(&host).ssh_path(client);
        if client.ends_with("silent") { ssh.connect_timeout(SECOND / 20) } else { ssh }
    };
    let mut starting: Vec<Connecting> = clients.iter().map(|path| ssh(path).start()).collect();
    starting.extend(clients.iter().map(|path| ssh(path).via(hop).start()));
    let address = format!("{}/ssh:web?ssh_path={}", unique_hop(round), clients[1]);
    starting.push(router.start(&address.parse().unwrap()));
    let gone = router.local().connect().unwrap();
    gone.shutdown().unwrap();
    starting.push(router.local().via(&gone).start());
    let no_agent = Program::new().image(Image::file("/bin/true").unwrap()).router().unwrap();
    starting.push(no_agent.local().start());
    let count = starting.len();
    for one in starting {
        let error = one.wait().map(|context| context.name().to_owned()).unwrap_err();
        let ErrorKind::Connect(error) = error.kind() else { panic!("{error}") };
        assert!(error.failure != ConnectFailure::Cancelled, "{error}");
    }
    count
}

/// Connects that nobody wants any more, wherever they are by then.
fn give_up(bed: &Bed, round: usize) -> usize {
    let Bed { router, hop, stock, stock_hop, .. } = bed;
    let silent = bed.client("silent", "exec sleep 987655");
    let starting = [
        router.local().start(),
        router.local().via(hop).start(),
        stock.local().via(stock_hop).start(),
        router.ssh("web").ssh_path(&silent).start(),
        router.ssh("web").ssh_path(&silent).via(hop).start(),
        router.start(&format!("{}/local", unique_hop(round)).parse().unwrap()),
    ];
    let count = starting.len();
    std::thread::sleep(Duration::from_micros(500) * (round % 10) as u32);
    for (place, one) in starting.into_iter().enumerate() {
        if (place + round) % 2 == 0 { drop(one) } else { one.cancel() }
    }
    count
}

#[test]
fn a_million_calls_leave_nothing() {
    if env::var_os(AGAIN).is_none() {
        return in_own_process("a_million_calls_leave_nothing");
    }
    soak(1_000_000, |bed, _| {
        let Bed { child, far, inner, .. } = bed;
        let all = [child, far, inner];
        [calls, give_up_calls, failing_calls, streams]
            .iter()
            .map(|way| all.iter().map(|context| way(bed, context)).sum::<usize>())
            .sum()
    });
}

/// Calls that succeed: awaited at once, awaited together, not awaited; with a large argument.
fn calls(bed: &Bed, context: &Context) -> usize {
    for i in 0..50 {
        assert_eq!(context.call(add, (i, 1)).unwrap(), i + 1);
        bed.stock_far.call(stock::ping, ()).unwrap();
    }
    let window: Vec<_> = (0..100).map(|i| context.call_async(add, (i, 1))).collect();
    for _ in 0..100 {
        context.call_no_reply(add, (1, 1)).unwrap();
        bed.stock_far.call_no_reply(stock::ping, ()).unwrap();
    }
    for (call, i) in window.into_iter().zip(1..) {
        assert_eq!(call.get().unwrap(), i);
    }
    let bytes = vec![7; LARGE_BYTES];
    assert_eq!(context.call(echo, &bytes).unwrap().len(), LARGE_BYTES);
    401
}

/// Calls that nobody waits for to the end.
fn give_up_calls(bed: &Bed, context: &Context) -> usize {
    for i in 0..50 {
        drop(context.call_async(add, (i, 1)));
        // It may have been quicker than we are.
        let _ = context.call_async(add, (i, 1)).get_timeout(Duration::ZERO);
        drop(bed.stock_far.call_async(stock::identify, ()));
    }
    drop(context.call_async(echo, vec![7; LARGE_BYTES]));
    151
}

fn failing_calls(bed: &Bed, context: &Context) -> usize {
    let gone = bed.router.context_by_id(mitogen::ContextId(0xffff_fff0));
    for i in 0..5 {
        context.call(fail, ()).unwrap_err();
        context.call(panic, ()).unwrap_err();
        context.call_no_reply(fail, ()).unwrap();
        context.call(unknown, ()).unwrap_err();
        bed.stock_far.call(add, (i, 1)).unwrap_err();
        bed.stock_far.call_no_reply(add, (i, 1)).unwrap();
        gone.call(add, (i, 1)).unwrap_err();
    }
    35
}

/// Calls with Senders: to the end; given back; kept there; with a receiver that is gone, or that
/// is over there.
fn streams(bed: &Bed, context: &Context) -> usize {
    let router = &bed.router;
    for _ in 0..5 {
        let numbers = router.receiver();
        context.call_no_reply(count, (5, numbers.to_sender())).unwrap();
        assert_eq!(numbers.into_iter().map(Result::unwrap).sum::<u32>(), 10);

        let numbers = router.receiver();
        let out = context.call(give_back, numbers.to_sender()).unwrap();
        out.send(1).unwrap();
        assert_eq!(numbers.get().unwrap(), 1);
        drop(context.call_async(give_back, out));

        context.call(keep, router.receiver().to_sender()).unwrap();
        // Its receiver is gone before the first number, or in the middle.
        let _ = context.call(count, (100, router.receiver().to_sender()));

        let senders = router.receiver::<Sender<u32>>();
        let sum = context.call_async(reverse, senders.to_sender());
        senders.get().unwrap().send(5).unwrap();
        assert_eq!(sum.get().unwrap(), 5);

        let numbers = router.receiver();
        assert_eq!(bed.hop.call(relay, (&bed.far, numbers.to_sender())).unwrap(), 3);
        assert_eq!(numbers.into_iter().map(Result::unwrap).sum::<u32>(), 3);
        let unread = router.receiver();
        context.call(count, (20, unread.to_sender())).unwrap();
        drop((unread.to_sender(), unread));
    }
    45
}
