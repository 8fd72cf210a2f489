//! A connect that nobody wants any more leaves nothing, however far it has come.

use std::fs;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mitogen::error::{Cause, ConnectFailure, ErrorKind};
use mitogen::{Address, Connecting, Context, Error, Program, Router, stock};

use crate::support::*;

const SECOND: Duration = Duration::from_secs(1);

fn router() -> Router {
    Program::new().image(stock_image()).router().unwrap()
}

#[track_caller]
fn soon(what: impl Fn() -> bool) {
    let happened = until(5 * SECOND, || what().then_some(())).is_some();
    assert!(happened, "{:#?}", processes());
}

/// Where a client that poses as ssh stops: `sleep 987654` is what it does then.
fn stuck(folder: &std::path::Path, place: &str) -> String {
    let sleep = "exec sleep 987654";
    let shell = "for last do :; done; exec sh -c \"$last\"";
    match place {
        "login" => script(folder, "login", sleep),
        // What would take the image off the pipe takes nothing.
        "push" => {
            for tool in ["head", "dd", "gzip"] {
                script(folder, tool, sleep);
            }
            let path = format!("export PATH={}:$PATH\n{shell}", folder.display());
            script(folder, "push", &path)
        }
        _ => panic!("{place}"),
    }
}

fn is_stuck() -> bool {
    processes().iter().any(|process| process.command.starts_with("sleep 987654"))
}

/// How a test gives up.
type GiveUp = fn(Connecting);
const WAYS: [GiveUp; 2] = [drop, Connecting::cancel];

#[test]
fn one_that_is_queued_never_starts() {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let silent = stuck(folder.path(), "login");
        let mark = folder.path().join("started");
        let text = format!("touch {}; exit 1", mark.display());
        let marks = script(folder.path(), "marks", &text);
        for give_up in WAYS {
            let program = Program::new().image(stock_image()).connects_at_once(1);
            let router = program.router().unwrap();
            let first = router.ssh("web").ssh_path(&silent).start();
            let queued = router.ssh("other").ssh_path(&marks).start();
            soon(is_stuck);
            give_up(queued);
            give_up(first);
            soon(|| !is_stuck());
            // Behind both, and thus after them.
            router.local().connect().unwrap();
            assert!(!mark.exists());
        }
    });
}

#[test]
fn one_that_has_started_a_process_ends_it() {
    leaves_nothing(&[], || {
        for place in ["login", "push"] {
            for give_up in WAYS {
                let folder = tempfile::tempdir().unwrap();
                let (router, client) = (router(), stuck(folder.path(), place));
                let near = router.local().connect().unwrap();
                for via in [None, Some(&near)] {
                    let ssh = router.ssh("web").ssh_path(&client);
                    let starting = via.map_or(ssh.clone(), |via| ssh.via(via)).start();
                    soon(is_stuck);
                    let given_up = Instant::now();
                    give_up(starting);
                    soon(|| !is_stuck());
                    // Its time would be over 30 seconds later.
                    assert!(given_up.elapsed() < 3 * SECOND, "{place}: {:?}", given_up.elapsed());
                    assert_eq!(files_of_ours(), [""; 0].map(std::path::PathBuf::from));
                }
                near.call(stock::ping, ()).unwrap();
                assert_eq!(router.children(), [near]);
            }
        }
    });
}

#[test]
fn one_that_is_just_starting_leaves_nothing() {
    leaves_nothing(&[], || {
        let router = router();
        let near = router.local().connect().unwrap();
        for round in 0..60 {
            let ways = [router.local().start(), router.local().via(&near).start()];
            let by_address = router.start(&"local/local".parse().unwrap());
            std::thread::sleep(Duration::from_micros(150 * round));
            drop((ways, by_address));
        }
        soon(|| router.children().len() == 1 && processes_of_ours().len() == 1);
        near.call(stock::ping, ()).unwrap();
    });
}

#[test]
fn one_that_is_up_and_was_not_taken_is_ended() {
    leaves_nothing(&[], || {
        let router = router();
        let address: Address = "local/local".parse().unwrap();
        for give_up in WAYS {
            let starting = [router.local().start(), router.start(&address)];
            soon(|| processes_of_ours().len() == 3);
            // All is told when another one is.
            router.local().connect().unwrap().shutdown().unwrap();
            starting.into_iter().for_each(give_up);
            soon(|| router.children().is_empty());
            assert_nothing_is_left();
        }
    });
}

#[test]
fn what_others_wait_for_or_have_stays() {
    leaves_nothing(&[], || {
        let router = router();
        let address = |text: &str| text.parse::<Address>().unwrap();
        let dropped = router.start(&address("local/local"));
        let wanted = router.start(&address("local/local"));
        let near = router.start(&address("local"));
        drop(dropped);
        let far = wanted.wait().unwrap();
        drop(near);
        router.local().connect().unwrap().shutdown().unwrap();
        far.call(stock::ping, ()).unwrap();
        assert_eq!(router.connect(&address("local")).unwrap(), router.children()[0]);
        drop(router.start(&address("local/local")));
        router.local().connect().unwrap().shutdown().unwrap();
        assert_eq!(router.connect(&address("local/local")).unwrap(), far);
    });
}

/// Fails unless the connect was given up.
#[track_caller]
fn assert_cancelled(error: &Error) {
    let ErrorKind::Connect(failed) = error.kind() else { panic!("{error}") };
    assert_eq!(failed.failure, ConnectFailure::Cancelled, "{error}");
    assert!(!failed.hop.is_empty());
}

#[test]
fn the_shutdown_cancels_what_is_queued_flies_or_pauses() {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let silent = stuck(folder.path(), "login");
        let says = "echo x >>\"$0.runs\"; \
            echo kex_exchange_identification: Connection closed by remote host >&2; exit 255";
        let busy = script(folder.path(), "busy", says);
        let ends: [fn(&Router); 2] = [Router::shutdown, |router| {
            router.broker().shutdown();
            router.broker().join();
        }];
        for end in ends {
            let program = Program::new().image(stock_image()).connects_at_once(2);
            let router = program.router().unwrap();
            let pausing = router.ssh("busy").ssh_path(&busy).start();
            soon(|| fs::exists(format!("{busy}.runs")).unwrap());
            let flying = [(); 2].map(|()| router.ssh("web").ssh_path(&silent).start());
            let queued = [(); 20].map(|()| router.local().start());
            let by_address = router.start(&"local/local".parse().unwrap());
            soon(is_stuck);
            let begun = Instant::now();
            end(&router);
            let all = flying.into_iter().chain(queued).chain([pausing, by_address]);
            for one in all {
                assert_cancelled(&one.wait().unwrap_err());
            }
            assert!(begun.elapsed() < 2 * SECOND, "{:?}", begun.elapsed());
            soon(|| !is_stuck());
            let error = router.local().start().wait().unwrap_err();
            let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
            assert_eq!(death.cause, Cause::Shutdown);
            fs::remove_file(format!("{busy}.runs")).unwrap();
        }
    });
}

#[test]
fn one_that_pauses_ends_with_the_loop() {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let says = "echo x >>\"$0.runs\"; \
            echo kex_exchange_identification: Connection closed by remote host >&2; exit 255";
        let busy = script(folder.path(), "busy", says);
        let router = router();
        let pausing = router.ssh("busy").ssh_path(&busy).start();
        soon(|| fs::exists(format!("{busy}.runs")).unwrap() && processes_of_ours().is_empty());
        router.broker().shutdown();
        router.broker().join();
        assert_cancelled(&pausing.wait().unwrap_err());
    });
}

#[test]
fn who_is_to_be_called_is_called_once_whatever_happens() {
    leaves_nothing(&[], || {
        let router = router();
        let (tell, told) = mpsc::channel();
        let own = tell.clone();
        let then = move |name: &'static str| {
            let tell = own.clone();
            move |outcome: mitogen::Result<Context>| tell.send((name, outcome)).unwrap()
        };
        // One that is up already, one that will be, one that cannot be.
        let up = router.local().start();
        soon(|| router.children().len() == 1);
        router.local().connect().unwrap();
        up.then(then("up"));
        let (name, outcome) = told.recv().unwrap();
        assert_eq!((name, outcome.unwrap().call(stock::ping, ()).is_ok()), ("up", true));
        router.ssh("web").ssh_path("/nonexistent").start().then(then("fails"));
        let (name, outcome) = told.recv().unwrap();
        assert_eq!((name, outcome.is_err()), ("fails", true));
        // It may call, connect, wait, and start another one.
        let (again, next) = (router.clone(), then("next"));
        router.local().start().then(move |outcome| {
            outcome.unwrap().call(stock::ping, ()).unwrap();
            again.local().connect().unwrap();
            again.local().start().then(next);
        });
        assert_eq!(told.recv().unwrap().0, "next");
        // A panic of one is nothing to the others.
        router.local().start().then(|_| panic!("on purpose"));
        router.local().start().then(then("after the panic"));
        assert!(told.recv().unwrap().1.is_ok());
        // A shutdown tells all.
        let folder = tempfile::tempdir().unwrap();
        let silent = stuck(folder.path(), "login");
        (0..20).for_each(|_| router.ssh("web").ssh_path(&silent).start().then(then("silent")));
        soon(is_stuck);
        router.shutdown();
        router.local().start().then(then("late"));
        drop((then, tell, router));
        let outcomes: Vec<_> = told.iter().collect();
        assert_eq!(outcomes.len(), 21);
        assert!(outcomes.iter().all(|(_, outcome)| outcome.is_err()));
    });
}
