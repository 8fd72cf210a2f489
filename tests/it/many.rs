//! Many connects at once: they take no thread, keep to their limits, share what they have in
//! common, and do not hold each other up. Clients that pose as ssh play the servers.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mitogen::error::{ConnectError, ConnectFailure, ErrorKind};
use mitogen::{Address, Context, Error, Program, Result, Router, stock};
use tempfile::TempDir;

use crate::support::*;

const SECOND: Duration = Duration::from_secs(1);
/// Connects to one server that are under way at a time.
const LOGINS: usize = 10;
/// Tells a test that it runs in a process of its own.
const AGAIN: &str = "MANY_AGAIN";

fn router() -> Router {
    Program::new().image(stock_image()).router().unwrap()
}

/// Runs a test of this file in a process of its own, where [`is_again`] holds, with this many
/// descriptors at first.
#[track_caller]
fn with_descriptors(limit: &str, test: &str) {
    let line = format!("ulimit -S -n {limit} && exec \"$0\" --exact many::{test} --nocapture");
    let mut sh = Command::new("sh");
    sh.args(["-c", &line]).arg(std::env::current_exe().unwrap()).env(AGAIN, "1");
    let output = sh.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
}

fn is_again() -> bool {
    std::env::var_os(AGAIN).is_some()
}

#[track_caller]
fn connect_error(error: &Error) -> ConnectError {
    let ErrorKind::Connect(error) = error.kind() else { panic!("{error}") };
    error.clone()
}

/// The highest descriptor of this process.
fn highest_descriptor() -> u32 {
    let names = fs::read_dir("/proc/self/fd").unwrap().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).max().unwrap()
}

#[test]
fn twelve_hundred_connects_take_no_thread_and_all_of_them_answer() {
    const COUNT: usize = 1200;
    if !is_again() {
        return leaves_nothing(&[], || {
            let test = "twelve_hundred_connects_take_no_thread_and_all_of_them_answer";
            with_descriptors("1000", test);
        });
    }
    mitogen::raise_descriptor_limit().unwrap();
    let router = router();
    let threads = own_threads().len();
    let (tell, told) = mpsc::channel();
    for _ in 0..COUNT {
        let tell = tell.clone();
        router.local().start().then(move |outcome| tell.send(outcome).unwrap());
    }
    let mut children: Vec<Context> = Vec::new();
    while children.len() < COUNT {
        if children.len() % 50 == 0 {
            // One for callbacks, once there are any.
            assert!(own_threads().len() <= threads + 1, "{:?}", own_threads());
        }
        children.push(told.recv().unwrap().unwrap());
    }
    assert!(1023 < highest_descriptor());
    let calls: Vec<_> = children.iter().map(|c| c.call_async(stock::identify, ())).collect();
    let mut pids: Vec<u32> = calls.into_iter().map(|call| call.get().unwrap().pid).collect();
    pids.sort();
    pids.dedup();
    assert_eq!(pids.len(), COUNT);
    assert_eq!(own_threads().len(), threads + 1);
    let held = own_descriptors().len();
    assert!(held <= 3 * COUNT + 20, "{held} descriptors");
    router.shutdown();
}

#[test]
fn children_get_back_the_limit_on_descriptors_that_was_raised() {
    if !is_again() {
        let _company = beside_others();
        let test = "children_get_back_the_limit_on_descriptors_that_was_raised";
        return with_descriptors("77", test);
    }
    mitogen::raise_descriptor_limit().unwrap();
    let router = router();
    let folder = tempfile::tempdir().unwrap();
    let client = script(folder.path(), "client", "for last do :; done; exec sh -c \"$last\"");
    let own = router.local().connect().unwrap();
    let shell = router.ssh("web").ssh_path(client).connect().unwrap();
    let below = router.local().via(&own).connect().unwrap();
    for context in [own, shell, below] {
        let output = router.receiver::<stock::Output>();
        let argv = ["sh", "-c", "ulimit -S -n"].map(Into::into).to_vec();
        let call = context.call_async(stock::run, (stock::Command { argv }, output.to_sender()));
        let said = output.map(|piece| match piece.unwrap() {
            stock::Output::Stdout(bytes) | stock::Output::Stderr(bytes) => bytes,
        });
        assert_eq!(said.flatten().collect::<Vec<u8>>(), b"77\n", "{context}");
        call.get().unwrap();
    }
}

#[test]
fn too_few_descriptors_are_told_at_once_and_those_that_are_up_stay() {
    if !is_again() {
        let _company = beside_others();
        let test = "too_few_descriptors_are_told_at_once_and_those_that_are_up_stay";
        return with_descriptors("40", test);
    }
    let router = router();
    let begun = Instant::now();
    let starting: Vec<_> = (0..50).map(|_| router.local().start()).collect();
    let outcomes: Vec<Result<Context>> = starting.into_iter().map(|one| one.wait()).collect();
    assert!(begun.elapsed() < 5 * SECOND);
    let up: Vec<&Context> = outcomes.iter().flatten().collect();
    assert!((1..14).contains(&up.len()), "{}", up.len());
    for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        // EMFILE
        assert_eq!(connect_error(error).failure, ConnectFailure::Spawn(24), "{error}");
        assert!(error.to_string().contains("Too many open files"), "{error}");
    }
    // Those that failed have given back what they had.
    for context in up {
        context.call(stock::ping, ()).unwrap();
    }
}

/// A folder with clients that pose as ssh, each with a number that stands in its processes' names.
struct Clients(TempDir, u32);

impl Clients {
    fn new() -> Clients {
        Clients(tempfile::tempdir().unwrap(), rand())
    }

    /// A client that does this; it is `$0`.
    fn client(&self, name: &str, text: &str) -> String {
        let prologue = format!("echo x >>\"$0.runs\"; mark={}; for last do :; done", self.1);
        script(self.0.path(), name, &format!("{prologue}\n{text}"))
    }

    /// A client that says nothing.
    fn silent(&self) -> String {
        self.client("silent", "exec sleep $mark")
    }

    /// A client whose target is a shell here, once `text` has been run.
    fn shell(&self, text: &str) -> String {
        self.client("shell", &format!("{text}\nexec sh -c \"$last\""))
    }

    /// How often a client was run.
    fn runs(&self, client: &str) -> usize {
        fs::read(format!("{client}.runs")).map_or(0, |bytes| bytes.len() / 2)
    }

    /// How many silent clients there are.
    fn sleeping(&self) -> usize {
        let command = format!("sleep {} ", self.1);
        processes().iter().filter(|process| process.command == command).count()
    }
}

/// A number of seconds for which nobody else sleeps.
fn rand() -> u32 {
    let unique = unique();
    1_000_000 + unique.bytes().fold(0_u32, |sum, byte| (31 * sum + u32::from(byte)) % 1_000_000)
}

#[track_caller]
fn soon(what: impl Fn() -> bool) {
    assert!(until(5 * SECOND, || what().then_some(())).is_some());
}

#[test]
fn a_server_that_does_not_answer_holds_up_nobody_else() {
    leaves_nothing(&[], || {
        let (router, clients) = (router(), Clients::new());
        let silent = clients.silent();
        let ssh = |host: &str| router.ssh(host).ssh_path(&silent).start();
        let waiting: Vec<_> = (0..3 * LOGINS).map(|_| ssh("web")).collect();
        soon(|| clients.sleeping() == LOGINS);
        let begun = Instant::now();
        router.local().connect().unwrap();
        let others = [ssh("other"), ssh("another")];
        soon(|| clients.sleeping() == LOGINS + 2);
        assert!(begun.elapsed() < 3 * SECOND);
        assert_eq!(clients.runs(&silent), LOGINS + 2);
        // Whoever leaves makes room for one.
        drop(others);
        let mut waiting = waiting.into_iter();
        drop(waiting.next());
        soon(|| clients.runs(&silent) == LOGINS + 3 && clients.sleeping() == LOGINS);
    });
}

#[test]
fn no_more_go_at_a_time_than_the_program_says_and_their_time_begins_when_they_go() {
    leaves_nothing(&[], || {
        let clients = Clients::new();
        let silent = clients.silent();
        let program = Program::new().image(stock_image()).connects_at_once(2);
        let router = program.router().unwrap();
        let start = |n: usize| {
            let ssh = router.ssh(format!("host-{n}")).ssh_path(&silent);
            ssh.connect_timeout(SECOND / 2).start()
        };
        let begun = Instant::now();
        let starting: Vec<_> = (0..6).map(start).collect();
        let local = router.local().start();
        for one in starting {
            let error = connect_error(&one.wait().unwrap_err());
            assert_eq!(error.failure, ConnectFailure::Timeout, "{error:?}");
            assert!(clients.sleeping() <= 2);
        }
        let elapsed = begun.elapsed();
        assert!(3 * SECOND / 2 <= elapsed && elapsed < 3 * SECOND, "{elapsed:?}");
        local.wait().unwrap();
    });
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

#[test]
fn what_many_ask_for_at_the_same_time_is_connected_once() {
    leaves_nothing(&[], || {
        let (router, clients) = (router(), Clients::new());
        let client = clients.shell("sleep 0.2");
        let host = format!("ssh:web?ssh_path={client}");
        let text = |n: u32| format!("{host}/local?connect_timeout={}", 30 + n % 3);
        let starting: Vec<_> = (0..12).map(|n| router.start(&address(&text(n)))).collect();
        let there = std::thread::scope(|scope| {
            let threads =
                [(); 4].map(|()| scope.spawn(|| router.connect(&address(&host)).unwrap()));
            threads.map(|thread| thread.join().unwrap())
        });
        assert!(there.iter().all(|context| *context == there[0]));
        let mut contexts: Vec<Context> =
            starting.into_iter().map(|one| one.wait().unwrap()).collect();
        contexts.sort_by_key(Context::context_id);
        contexts.dedup();
        assert_eq!((contexts.len(), clients.runs(&client)), (3, 1));
        assert!(router.cost(&address(&host)).is_some());
        // What is gone is connected anew.
        there[0].shutdown().unwrap();
        assert!(router.connect(&address(&text(0))).unwrap() != contexts[0]);
        assert_eq!(clients.runs(&client), 2);
    });
}

#[test]
fn a_prefix_that_fails_tells_all_and_is_forgotten() {
    leaves_nothing(&[], || {
        let (router, clients) = (router(), Clients::new());
        let client = clients.shell("test -e \"$0.works\" || { sleep 0.2; echo no >&2; exit 7; }");
        let text = |n: u32| format!("ssh:web?ssh_path={client}/local?connect_timeout={}", 30 + n);
        let starting: Vec<_> = (0..5).map(|n| router.start(&address(&text(n)))).collect();
        for one in starting {
            let error = connect_error(&one.wait().unwrap_err());
            assert_eq!(error.failure, ConnectFailure::Ended, "{error:?}");
            assert_eq!(error.hop, format!("ssh:web?ssh_path={client}"));
            assert!(error.tail.contains("no"), "{error:?}");
        }
        assert_eq!(clients.runs(&client), 1);
        fs::write(format!("{client}.works"), "").unwrap();
        router.connect(&address(&text(0))).unwrap();
        assert_eq!(clients.runs(&client), 2);
    });
}

#[test]
fn what_was_connected_for_a_hop_that_fails_is_ended_unless_others_have_it() {
    leaves_nothing(&[], || {
        let (router, folder) = (router(), tempfile::tempdir().unwrap());
        let broken = script(folder.path(), "broken", "exit 1");
        let text = format!("local/local/ssh:web?ssh_path={broken}");
        let error = router.connect(&address(&text)).unwrap_err();
        assert_eq!(connect_error(&error).hop, text);
        soon(|| router.children().is_empty());
        assert_nothing_is_left();

        let kept = router.connect(&address("local")).unwrap();
        router.connect(&address(&text)).unwrap_err();
        soon(|| processes_of_ours().len() == 1);
        kept.call(stock::ping, ()).unwrap();
        assert_eq!(router.connect(&address("local")).unwrap(), kept);
    });
}

/// What sshd's clients say when it lets nobody more log in.
const TURNED_AWAY: &str = "kex_exchange_identification: Connection closed by remote host";

#[test]
fn a_busy_server_is_asked_again_until_the_time_is_over() {
    leaves_nothing(&[], || {
        let (router, clients) = (router(), Clients::new());
        let says = format!("echo {TURNED_AWAY} >&2; exit 255");
        let twice = clients.shell(&format!("test 2 -lt $(wc -l <\"$0.runs\") || {{ {says}; }}"));
        let begun = Instant::now();
        router.ssh("web").ssh_path(&twice).connect().unwrap();
        assert_eq!(clients.runs(&twice), 3);
        // At least half of 0.4 and of 0.8 seconds.
        assert!(3 * SECOND / 5 <= begun.elapsed(), "{:?}", begun.elapsed());

        let always = clients.client("always", &says);
        let begun = Instant::now();
        let connect = router.ssh("web").ssh_path(&always).connect_timeout(SECOND);
        let error = connect_error(&connect.connect().unwrap_err());
        assert_eq!(error.failure, ConnectFailure::Busy, "{error:?}");
        assert!(error.tail.contains(TURNED_AWAY), "{error:?}");
        assert!(begun.elapsed() < 2 * SECOND, "{:?}", begun.elapsed());
        assert!(2 <= clients.runs(&always));
    });
}

#[test]
fn who_pauses_for_a_busy_server_holds_up_nobody_else() {
    leaves_nothing(&[], || {
        let clients = Clients::new();
        let busy = clients.client("busy", &format!("echo {TURNED_AWAY} >&2; exit 255"));
        let program = Program::new().image(stock_image()).connects_at_once(1);
        let router = program.router().unwrap();
        let pausing = router.ssh("web").ssh_path(&busy).connect_timeout(2 * SECOND).start();
        soon(|| clients.runs(&busy) == 1);
        let begun = Instant::now();
        router.local().connect().unwrap();
        assert!(begun.elapsed() < 2 * SECOND);
        // One that takes the only place until the time of the other is over.
        let silent = router.ssh("other").ssh_path(clients.silent()).start();
        let error = connect_error(&pausing.wait().unwrap_err());
        assert_eq!(error.failure, ConnectFailure::Busy, "{error:?}");
        assert!(begun.elapsed() < 3 * SECOND, "{:?}", begun.elapsed());
        drop(silent);
    });
}
