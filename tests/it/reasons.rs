//! Why a context died is told apart at the master, through three hops, to whoever waits for it or
//! for those below it.

use std::time::Duration;

use mitogen::error::{Cause, Death, ErrorKind, Exit};
use mitogen::{Error, Program, stock};

use crate::support::*;

mitogen::test_agent!(program());

fn program() -> Program {
    Program::new().function(sleep).function(end)
}

fn sleep(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

/// The ways to end that are told apart.
const ENDS: [&str; 6] = ["exit", "kill", "abort", "hang up", "babble", "cut"];

/// Ends this context in one of these ways.
#[allow(unsafe_code, clippy::multiple_unsafe_ops_per_block)]
fn end(how: &str) {
    let link = own_link();
    // SAFETY: numbers, and a text that lives as long as the call.
    unsafe {
        match how {
            "exit" => libc::exit(3),
            "kill" => libc::kill(libc::getpid(), libc::SIGKILL),
            "abort" => libc::abort(),
            "hang up" => libc::shutdown(link, libc::SHUT_WR),
            _ => libc::send(link, "babble".as_ptr().cast(), 6, 0) as i32,
        }
    };
    sleep(1000);
}

/// The socket to the parent: the first that an agent has.
fn own_link() -> i32 {
    let all = census(std::process::id()).descriptors;
    all.into_iter().find(|(_, what)| what.starts_with("socket:")).map_or(-1, |(n, _)| n as i32)
}

const SECOND: Duration = Duration::from_secs(1);

#[track_caller]
fn death(error: &Error) -> &Death {
    let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    death
}

#[test]
fn each_way_to_die_is_told_apart_through_three_hops() {
    leaves_nothing(&[], || {
        let mut texts = Vec::new();
        for how in ENDS {
            let router = mitogen_test_program().router().unwrap();
            let mut chain = vec![router.local().connect().unwrap()];
            for _ in 0..3 {
                let next = router.local().via(chain.last().unwrap()).connect().unwrap();
                chain.push(next);
            }
            // One that waits for the one that dies, and one for who lives below it.
            let below = chain[3].call_async(sleep, 1000);
            let call = match how {
                "cut" => chain[2].call_async(sleep, 1000),
                _ => chain[2].call_async(end, how),
            };
            if how == "cut" {
                router.disconnect(&chain[2]).unwrap();
            }
            let errors = [call, below].map(|call| call.get_timeout(SECOND).unwrap_err());
            let (cause, exit) = match how {
                "exit" => (Cause::Exited, Some(Exit::Code(3))),
                "kill" => (Cause::Exited, Some(Exit::Signal(9))),
                "abort" => (Cause::Exited, Some(Exit::Signal(6))),
                "hang up" => (Cause::Disconnected, None),
                "babble" => (Cause::Protocol, None),
                _ => (Cause::Shutdown, None),
            };
            for error in &errors {
                let death = death(error);
                assert_eq!((death.cause, death.exit), (cause, exit), "{how}: {error}");
                assert_eq!(death.context, Some(chain[2].context_id()), "{how}: {error}");
                assert_eq!(death.seen_by, Some(chain[1].context_id()), "{how}: {error}");
                assert_eq!(how == "kill", error.to_string().contains("memory"), "{error}");
            }
            let text = errors[0].to_string();
            assert!(!texts.contains(&text), "{text}");
            texts.push(text);
            chain[1].call(stock::ping, ()).unwrap();
        }
    });
}
