//! Use after the end: every public function says so, with a typed error, or does what it can do
//! without; none hangs. A function that is public and neither tried here nor known to need no
//! router fails the first test.

mod names;

use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mitogen::error::{Cause, ConnectFailure, ErrorKind};
use mitogen::{
    Address, Attached, Broker, Call, CallContext, Channel, Connecting, ContainerKind, Context,
    Ending, Error, ForkPromise, Handle, Handler, Message, Program, RawReceiver, Receiver, Router,
    Select, Sender, stock,
};

use crate::support::*;
use names::public_functions;

/// Longer than anything here may take.
const LIMIT: Duration = Duration::from_secs(20);

fn never(cx: &CallContext) {
    cx.router().broker().join();
}

static LENT: Mutex<Vec<Router>> = Mutex::new(Vec::new());

/// Leaves this context's router where the test finds it.
fn lend(cx: &CallContext) {
    LENT.lock().unwrap_or_else(PoisonError::into_inner).push(cx.router().clone());
}

fn program() -> Program {
    Program::new().function(never).function(lend).image(stock_image())
}

/// What is there before the end, and used behind it.
struct Setup {
    router: Router,
    context: Context,
    cx: CallContext,
    call: Call<()>,
    receiver: Receiver<u32>,
    sender: Sender<u32>,
    raw: RawReceiver,
    starting: Connecting,
    ending: Ending,
    /// Keeps a broker that others use, too; or the parent's router.
    _kept: (Option<Broker>, Option<Router>),
}

/// What ends.
#[derive(Clone, Copy, Debug)]
enum Way {
    Router,
    RouterOnSharedBroker,
    BrokerAlone,
    Child,
}

const WAYS: [Way; 4] = [Way::Router, Way::RouterOnSharedBroker, Way::BrokerAlone, Way::Child];

impl Setup {
    fn ended(way: Way) -> Setup {
        let broker = matches!(way, Way::RouterOnSharedBroker).then(|| Broker::new().unwrap());
        let program = match &broker {
            Some(broker) => program().broker(broker),
            None => program(),
        };
        let master = program.router().unwrap();
        let Way::Child = way else {
            let setup = Setup::of(master, (broker, None));
            match way {
                Way::BrokerAlone => {
                    setup.router.broker().shutdown();
                    setup.router.broker().join();
                }
                _ => setup.router.shutdown(),
            }
            return setup;
        };
        let child = master.in_process().unwrap();
        child.call(lend, ()).unwrap();
        let router = LENT.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap();
        let setup = Setup::of(router, (None, Some(master)));
        child.shutdown().unwrap();
        setup.router.broker().join();
        setup
    }

    fn of(router: Router, kept: (Option<Broker>, Option<Router>)) -> Setup {
        let (context, other) = (router.in_process().unwrap(), router.in_process().unwrap());
        let receiver = router.receiver();
        Setup {
            cx: CallContext::local(&router),
            call: context.call_async(never, ()),
            raw: router.raw_receiver().listen().unwrap(),
            sender: receiver.to_sender(),
            starting: router.command(["sh", "-c", "exec sleep 987654"]).start(),
            ending: other.shutdown_async().unwrap(),
            _kept: kept,
            receiver,
            context,
            router,
        }
    }
}

/// Fails unless this says that the router or its context has ended.
#[track_caller]
fn refused<T>(outcome: Result<T, Error>) {
    let Err(error) = outcome else { panic!("it works") };
    let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    assert!(matches!(death.cause, Cause::Shutdown | Cause::Disconnected), "{error}");
}

/// The same of a connect, which may have begun before.
#[track_caller]
fn given_up<T>(outcome: Result<T, Error>) {
    match outcome.as_ref().err().map(Error::kind) {
        Some(ErrorKind::Connect(failed)) => assert_eq!(failed.failure, ConnectFailure::Cancelled),
        _ => refused(outcome),
    }
}

type Trial = (&'static str, fn(Setup));

const TRIALS: &[Trial] = &[
    // Who one is, is known for ever.
    ("Router::context_id", |it| assert_eq!(it.router.context_id(), it.cx.context_id())),
    ("Router::parent_id", |it| assert_eq!(it.router.parent_id().is_none(), it.router.is_master())),
    ("Router::parent_ids", |it| drop(it.router.parent_ids().to_vec())),
    ("Router::is_master", |it| {
        assert_eq!(it.router.is_master(), it.router.parent_ids().is_empty())
    }),
    ("Router::name", |it| assert_ne!(it.router.name(), "")),
    ("Router::broker", |it| it.router.broker().shutdown()),
    ("Router::children", |it| assert_eq!(it.router.children(), [])),
    ("Router::context_by_id", |it| {
        refused(it.router.context_by_id(it.context.context_id()).call(stock::ping, ()))
    }),
    ("Router::receiver", |it| refused(it.router.receiver::<u32>().get())),
    ("Router::shutdown", |it| it.router.shutdown()),
    ("Router::disconnect", |it| refused(it.router.disconnect(&it.context))),
    ("Router::disconnect_all", |it| refused(it.router.disconnect_all())),
    ("Router::myself", |it| refused(it.router.myself().call(stock::ping, ()))),
    ("Router::parent", |it| assert_eq!(it.router.parent().is_none(), it.router.is_master())),
    ("Router::allocate_id", |it| refused(it.router.allocate_id())),
    ("Router::add_handler", |it| refused(it.router.add_handler(Handler::new(|_, _| ())))),
    ("Router::del_handler", |it| refused(it.router.del_handler(Handle::well_known(1)))),
    ("Router::route", |it| {
        let handle = Handle::well_known(1);
        refused(it.router.route(Message::to(it.router.context_id(), handle)));
        refused(it.router.route(Message::to(it.context.context_id(), handle)));
    }),
    ("Router::reply", |it| {
        let asks = Message::to(it.router.context_id(), Handle::well_known(1));
        refused(it.router.reply(&asks.reply_to(Handle::well_known(2)), "x"))
    }),
    ("Router::raw_receiver", |it| refused(it.router.raw_receiver().listen())),
    ("RawOptions::at", |it| refused(it.router.raw_receiver().at(Handle::well_known(1)).listen())),
    ("RawOptions::once", |it| refused(it.router.raw_receiver().once().listen())),
    ("RawOptions::from", |it| {
        refused(it.router.raw_receiver().from(&it.context).listen());
        refused(it.router.raw_receiver().from(&it.context).once().listen());
    }),
    ("RawOptions::policy", |it| {
        refused(it.router.raw_receiver().policy(mitogen::policy::anyone).listen())
    }),
    ("RawOptions::listen", |it| refused(it.router.raw_receiver().listen())),
    ("RawReceiver::handle", |it| assert_ne!(it.raw.handle(), Handle::CALL)),
    ("RawReceiver::get", |it| refused(it.raw.get())),
    ("RawReceiver::get_timeout", |it| refused(it.raw.get_timeout(LIMIT))),
    ("RawReceiver::try_get", |it| refused(it.raw.try_get())),
    ("RawReceiver::is_empty", |it| assert!(!it.raw.is_empty(), "its end is there")),
    ("RawReceiver::close", |it| {
        it.raw.close();
        assert!(it.raw.get().is_err());
    }),
    ("RawReceiver as Iterator", |mut it| {
        refused(it.raw.next().unwrap());
        assert!(it.raw.next().is_none());
    }),
    ("Context::send", |it| refused(it.context.send(question()))),
    ("Context::send_async", |it| refused(it.context.send_async(question()))),
    ("Context::send_async_persist", |it| refused(it.context.send_async_persist(question()))),
    ("Context::send_await", |it| refused(it.context.send_await(question(), None))),
    ("Router::on_disconnect", |it| refused(it.router.on_disconnect(|_, _| ()))),
    ("Router::on_shutdown", |it| refused(it.router.on_shutdown(|_| ()))),
    ("Context::on_disconnect", |it| refused(it.context.on_disconnect(|_| ()))),
    ("Router::in_process", |it| refused(it.router.in_process())),
    ("Router::on_prompt", |it| it.router.on_prompt(|_| None)),
    ("Router::cost", |it| assert_eq!(it.router.cost(&address()), None)),
    ("Router::connect", |it| refused(it.router.connect(&address()))),
    ("Router::start", |it| refused(it.router.start(&address()).wait())),
    ("Router::fork", |it| refused(it.router.fork(promise()).connect())),
    ("Router::local", |it| refused(it.router.local().connect())),
    ("Router::ssh", |it| refused(it.router.ssh("x").connect())),
    ("Router::sudo", |it| refused(it.router.sudo().connect())),
    ("Router::su", |it| refused(it.router.su().connect())),
    ("Router::doas", |it| refused(it.router.doas().connect())),
    ("Router::docker", |it| refused(it.router.docker("x").connect())),
    ("Router::docker_image", |it| refused(it.router.docker_image("x").connect())),
    ("Router::podman", |it| refused(it.router.podman("x").connect())),
    ("Router::podman_image", |it| refused(it.router.podman_image("x").connect())),
    ("Router::buildah", |it| refused(it.router.buildah("x").connect())),
    ("Router::kubectl", |it| refused(it.router.kubectl("x").connect())),
    ("Router::lxc", |it| refused(it.router.lxc("x").connect())),
    ("Router::lxd", |it| refused(it.router.lxd("x").connect())),
    ("Router::incus", |it| refused(it.router.incus("x").connect())),
    ("Router::jail", |it| refused(it.router.jail("x").connect())),
    ("Router::setns", |it| refused(it.router.setns(ContainerKind::Docker, "x").connect())),
    ("Router::command", |it| refused(it.router.command(["x"]).connect())),
    ("Connect<M>::connect", |it| refused(it.router.local().via(&it.context).connect())),
    ("Connect<M>::start", |it| refused(it.router.local().via(&it.context).start().wait())),
    ("Context::context_id", |it| assert_ne!(it.context.context_id(), it.router.context_id())),
    ("Context::name", |it| assert_ne!(it.context.name(), "")),
    ("Context::router", |it| assert_eq!(it.context.router().name(), it.router.name())),
    ("Context::call", |it| refused(it.context.call(stock::ping, ()))),
    ("Context::call_async", |it| refused(it.context.call_async(stock::ping, ()).get())),
    ("Context::call_no_reply", |it| refused(it.context.call_no_reply(stock::ping, ()))),
    ("Context::within", |it| refused(it.context.within(LIMIT).call(stock::ping, ()))),
    ("Context::chain", |it| refused(it.context.chain().call(stock::ping, ()))),
    ("Chain::call", |it| refused(it.context.chain().call(stock::ping, ()))),
    ("Chain::call_async", |it| refused(it.context.chain().call_async(stock::ping, ()).get())),
    ("Chain::call_no_reply", |it| refused(it.context.chain().call_no_reply(stock::ping, ()))),
    ("Context::inspect", |it| refused(it.context.inspect(LIMIT))),
    ("Router::inspect", |it| refused(it.router.inspect())),
    ("Router::inspect_tree", |it| {
        let tree = it.router.inspect_tree(LIMIT);
        assert!(tree.entries.iter().all(|entry| entry.outcome.is_err()), "{tree}");
    }),
    ("Context::shutdown", |it| refused(it.context.shutdown())),
    ("Context::shutdown_async", |it| refused(it.context.shutdown_async())),
    ("Context::grant", |it| refused(it.context.grant(&it.context))),
    ("Context::revoke", |it| refused(it.context.revoke(&it.context))),
    // It had ended before.
    ("Ending::wait", |it| drop(it.ending.wait())),
    ("Ending::wait_timeout", |it| drop(it.ending.wait_timeout(LIMIT))),
    ("CallContext::local", |it| drop(CallContext::local(&it.router))),
    ("CallContext::context_id", |it| assert_eq!(it.cx.context_id(), it.router.context_id())),
    ("CallContext::caller_id", |it| assert_eq!(it.cx.caller_id(), it.router.context_id())),
    // There is nothing to leave, whether it has ended or not.
    ("CallContext::detach", |it| drop(it.cx.detach().unwrap_err())),
    ("CallContext::caller", |it| refused(it.cx.caller().call(stock::ping, ()))),
    ("CallContext::parent", |it| assert_eq!(it.cx.parent().is_none(), it.router.is_master())),
    ("CallContext::broker", |it| it.cx.broker().shutdown()),
    ("CallContext::is_cancelled", |it| assert!(!it.cx.is_cancelled())),
    ("CallContext::deadline", |it| assert_eq!(it.cx.deadline(), None)),
    ("CallContext::sleep", |it| refused(it.cx.sleep(10 * LIMIT))),
    ("CallContext::cancelled", |it| assert_eq!(it.cx.cancelled().try_get().unwrap(), None)),
    ("CallContext::on", |it| refused(it.cx.on(&it.context).call(stock::ping, ()))),
    ("CallContext::router", |it| refused(it.cx.router().in_process())),
    ("Call<R>::get", |it| refused(it.call.get())),
    ("Call<R>::get_timeout", |it| refused(it.call.get_timeout(LIMIT))),
    ("Receiver<T>::get", |it| refused(it.receiver.get())),
    ("Receiver<T>::get_timeout", |it| refused(it.receiver.get_timeout(LIMIT))),
    ("Receiver<T>::try_get", |it| refused(it.receiver.try_get())),
    ("Receiver<T>::to_sender", |it| refused(it.receiver.to_sender().send(1))),
    ("Receiver<T>::close", |it| {
        it.receiver.close();
        assert!(it.receiver.get().is_err());
    }),
    ("Sender<T>::send", |it| refused(it.sender.send(1))),
    ("Sender<T>::send_timeout", |it| refused(it.sender.send_timeout(1, LIMIT))),
    ("Sender<T>::try_send", |it| refused(it.sender.try_send(1))),
    ("Sender<T>::fail", |it| it.sender.fail("over")),
    ("Connecting::wait", |it| given_up(it.starting.wait())),
    ("Connecting::wait_and_tell", |it| given_up(it.starting.wait_and_tell())),
    ("Connecting::cancel", |it| it.starting.cancel()),
    ("Connecting::then", |it| {
        let (tell, told) = mpsc::channel();
        it.starting.then(move |outcome| tell.send(outcome).unwrap());
        given_up(told.recv_timeout(LIMIT).unwrap());
    }),
    ("Broker::new", |_| drop(Broker::new().unwrap())),
    ("Broker::shutdown", |it| it.router.broker().shutdown()),
    ("Broker::join", |it| {
        it.router.broker().shutdown();
        it.router.broker().join();
    }),
    ("Broker::join_timeout", |it| {
        assert!(!it.router.broker().join_timeout(Duration::ZERO) || it._kept.0.is_none())
    }),
    ("Broker::run", |it| ended(it, |broker| broker.run(|| ()))),
    ("Broker::run_sync", |it| ended(it, |broker| broker.run_sync(|| ()))),
    ("Broker::attach", |it| ended(it, |broker| broker.attach(pair().0, |_, _| ()))),
    ("Broker::attach_pair", |it| {
        ended(it, |broker| broker.attach_pair(pair().0, pair().1, |_, _| ()))
    }),
    ("Attached::send", |it| attached(it, |it| it.send(b"x"))),
    ("Attached::try_send", |it| attached(it, |it| it.try_send(b"x").map(drop))),
    ("Attached::close", |it| {
        attached(it, |it| {
            it.close();
            it.send(b"x")
        })
    }),
    ("Broker::watch_process", |it| {
        it.router.broker().shutdown();
        let (tell, told) = mpsc::channel();
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        it.router.broker().watch_process(child, move |status| tell.send(status).unwrap());
        drop(told.recv_timeout(LIMIT).unwrap());
    }),
    ("Receiver<T>::is_empty", |it| assert!(!it.receiver.is_empty())),
    ("Receiver<T>::keep_open", |it| refused(it.receiver.keep_open().get())),
    ("Channel as a pair", |it| refused(Channel::<u32, u32>::pair(&it.router).0.get())),
    ("Select<'_, ()>::all", |it| refused(Select::all([&it.receiver]))),
    ("Select<'_, ()>::in_order", |it| refused(Select::in_order([it.call]))),
    // Not by these names, but by traits.
    ("Select<'a, E> as Iterator", |it| {
        let mut events: Select<'_, _> = [((), it.call)].into_iter().collect();
        refused(Iterator::next(&mut events).unwrap().1);
        events.add(&it.receiver, |value| ((), value.map(drop))).unwrap();
        refused(events.next_timeout(LIMIT).unwrap().unwrap().1);
        assert!(Iterator::next(&mut events).is_none());
    }),
    ("Receiver<T> as Iterator", |mut it| {
        refused(it.receiver.next().unwrap());
        assert!(it.receiver.next().is_none());
    }),
];

/// What no end of a router changes; a name that ends in `::` is that of all behind it.
const NEED_NONE: &[(&str, &str)] = &[
    ("Router::enable_debug", "a file of the process, which goes on"),
    ("Program::", "there is no router yet"),
    ("Image::", "is for a program"),
    ("Address::", "a text"),
    ("Error::", "a value"),
    ("Handle::", "a number"),
    ("Handler::", "is noted for add_handler"),
    ("Message::", "a value"),
    ("Secret::", "a value"),
    ("Side::", "a descriptor"),
    ("Latch<T>::", "a queue of its own"),
    ("Channel<S, R>::", "as a Receiver or a Sender, once there is a pair"),
    ("ChannelEnd<S, R>::", "makes a Receiver"),
    ("Select<'a, E>::", "it has what its sources have"),
    ("ForkPromise::", "a promise"),
];

/// Options of a connect: they note what it is to do.
fn is_option(name: &str) -> bool {
    let is_of_method = name.starts_with("Connect<") && !name.starts_with("Connect<M>::");
    let common =
        name.strip_prefix("Connect<M>::").is_some_and(|it| !["connect", "start"].contains(&it));
    is_of_method || common || name.starts_with("Fork::")
}

#[allow(unsafe_code)]
fn promise() -> ForkPromise {
    // SAFETY: the fork is refused, and nothing is copied.
    unsafe { ForkPromise::new() }
}

/// Asks the broker when it has ended, whoever else had used it.
#[track_caller]
fn ended<T>(it: Setup, ask: impl FnOnce(&Broker) -> Result<T, Error>) {
    it.router.broker().shutdown();
    it.router.broker().join();
    refused(ask(it.router.broker()));
}

/// The same of a stream that is the program's own.
#[track_caller]
fn attached(it: Setup, ask: impl FnOnce(&Attached) -> Result<(), Error>) {
    let broker = it._kept.0.clone().unwrap_or_else(|| Broker::new().unwrap());
    let (ours, theirs) = pair();
    let attached = broker.attach(ours, |_, _| ()).unwrap();
    broker.shutdown();
    broker.join();
    refused(ask(&attached));
    drop(theirs);
}

fn pair() -> (UnixStream, UnixStream) {
    UnixStream::pair().unwrap()
}

fn question() -> Message {
    Message::at(Handle::well_known(1))
}

fn address() -> Address {
    "local/local".parse().unwrap()
}

#[test]
fn after_the_end_all_fails_with_the_reason_or_does_nothing() {
    leaves_nothing(&[], || {
        for way in WAYS {
            for (name, trial) in TRIALS {
                let (tell, told) = mpsc::channel();
                let trying = thread::spawn(move || {
                    trial(Setup::ended(way));
                    // A trial that panics drops it.
                    let _ = tell.send(());
                });
                let hangs = told.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout);
                assert!(!hangs, "{name} hangs after {way:?}");
                assert!(trying.join().is_ok(), "{name} after {way:?}");
            }
        }
    });
}

#[test]
fn every_public_function_is_tried_here_or_needs_no_router() {
    let names = public_functions();
    let is_tried = |name: &str| TRIALS.iter().any(|(tried, _)| *tried == name);
    let needs_none = |name: &str| NEED_NONE.iter().any(|(prefix, _)| name.starts_with(prefix));
    let (functions, free): (Vec<&str>, Vec<&str>) =
        names.iter().map(|name| &**name).partition(|name| name.contains("::"));
    let untold = functions.iter().filter(|name| {
        let found = [is_tried(name), needs_none(name), is_option(name)];
        found.into_iter().filter(|found| *found).count() != 1
    });
    let untold: Vec<_> = untold.collect();
    assert!(untold.is_empty(), "to be tried after the end, or named with a reason: {untold:?}");
    for (name, _) in TRIALS.iter().filter(|(name, _)| !name.contains(" as ")) {
        assert!(functions.contains(name), "there is no {name}");
    }
    for (prefix, _) in NEED_NONE {
        assert!(functions.iter().any(|name| name.starts_with(prefix)), "there is no {prefix}");
    }
    // These know no router; stock functions run in another context.
    assert_eq!(
        free,
        [
            "flush_log",
            "log_at",
            "log_to",
            "log_to_crate",
            "log_to_file",
            "log_to_stderr",
            "minimize_image",
            "raise_descriptor_limit"
        ]
    );
}

#[test]
fn a_shutdown_ends_ten_thousand_waits_at_once_and_loses_none() {
    let _company = beside_others();
    const EACH: usize = 5_000;
    for broker in [None, Some(Broker::new().unwrap())] {
        let with = |broker: &Broker| program().broker(broker);
        let router = broker.as_ref().map_or_else(program, with).router().unwrap();
        let stuck = router.in_process().unwrap();
        let calls: Vec<_> = (0..EACH).map(|_| stuck.call_async(never, ())).collect();
        let receivers: Vec<_> = (0..EACH).map(|_| router.receiver::<u32>()).collect();
        let waiting = thread::spawn(move || {
            let begun = receivers.len();
            receivers.iter().for_each(|receiver| refused(receiver.get()));
            calls.into_iter().for_each(|call| refused(call.get()));
            begun
        });
        let begun = Instant::now();
        router.shutdown();
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        assert_eq!(waiting.join().unwrap(), EACH);
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }
}
