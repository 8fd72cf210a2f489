//! Questions that no option foresees, and those who answer them. The client that asks is a stub: it
//! poses as ssh, asks on its terminal, and runs the command that it was given.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mitogen::error::{ConnectError, ConnectFailure, ErrorKind};
use mitogen::{Address, Context, Error, Program, Question, Router, Secret, stock};

use crate::support::*;

const CODE: &str = "canary-271828";

/// Lets in who knows the code, at the second try at the latest.
const STUB: &str = r#"
ask() { printf 'Verification code%s: ' "$1" >/dev/tty; read -r code </dev/tty; }
ask; [ "$code" = canary-271828 ] || ask ' again'; [ "$code" = canary-271828 ] || exit 5
for last do :; done
exec sh -c "$last""#;

fn router() -> Router {
    Program::new().image(stock_image()).router().unwrap()
}

fn client(folder: &Path) -> String {
    script(folder, "ssh", STUB)
}

#[track_caller]
fn failed(outcome: Result<Context, Error>) -> ConnectError {
    let error = outcome.map(|_| "a context").unwrap_err();
    assert!(!error.to_string().contains(CODE), "{error}");
    let ErrorKind::Connect(error) = error.kind() else { panic!("{error}") };
    error.clone()
}

#[test]
fn a_question_is_answered_here_whoever_makes_the_connection() {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let path = client(folder.path());
        let router = router();
        let hop = router.local().connect().unwrap();
        for via in [None, Some(hop.clone()), Some(router.local().via(&hop).connect().unwrap())] {
            let heard = Arc::new(Mutex::new(Vec::new()));
            let told = heard.clone();
            let ssh = router.ssh("x").ssh_path(&path).name("it").on_prompt(move |question| {
                told.lock().unwrap().push(question.clone());
                Some(Secret::new(if told.lock().unwrap().len() == 1 { "nonsense" } else { CODE }))
            });
            let ssh = match via {
                Some(via) => ssh.via(&via),
                None => ssh,
            };
            ssh.connect().unwrap().call(stock::ping, ()).unwrap();
            let question = |text: &str| Question { name: "it".to_owned(), text: text.to_owned() };
            let asked = ["Verification code:", "Verification code again:"].map(question);
            assert_eq!(*heard.lock().unwrap(), asked);
        }
    });
}

#[test]
fn a_router_answers_for_addresses_and_for_who_has_no_answer_of_its_own() {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let path = client(folder.path());
        let router = router();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        router.on_prompt(move |question| {
            assert!(question.name.contains("ssh:x"), "{}", question.name);
            count.fetch_add(1, Ordering::SeqCst);
            Some(CODE.into())
        });
        let address: Address = format!("local/ssh:x?ssh_path={path}").parse().unwrap();
        router.connect(&address).unwrap().call(stock::ping, ()).unwrap();
        router.ssh("x").ssh_path(&path).connect().unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        let own = router.ssh("x").ssh_path(&path).on_prompt(|_| None);
        assert!(matches!(failed(own.connect()).failure, ConnectFailure::UnknownPrompt(_)));
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn no_answer_and_a_panic_in_place_of_one_give_the_connect_up_with_the_question() {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let path = client(folder.path());
        let router = router();
        let hop = router.local().connect().unwrap();
        let answers: [fn(&Question) -> Option<Secret>; 2] = [|_| None, |_| panic!("on purpose")];
        for answer in answers {
            for via in [None, Some(&hop)] {
                let ssh = router.ssh("x").ssh_path(&path).on_prompt(answer);
                let ssh = via.map_or(ssh.clone(), |via| ssh.via(via));
                let error = failed(ssh.connect());
                let question = ConnectFailure::UnknownPrompt("Verification code:".to_owned());
                assert_eq!(error.failure, question, "{error}");
            }
        }
    });
}

#[test]
fn wrong_answers_are_the_clients_to_refuse() {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let path = client(folder.path());
        let router = router();
        let ssh = router.ssh("x").ssh_path(&path).on_prompt(|_| Some("31415".into()));
        let error = failed(ssh.connect());
        assert_eq!(error.exit, Some(mitogen::error::Exit::Code(5)), "{error}");
        assert!(!error.to_string().contains("31415"), "{error}");
    });
}

#[test]
fn what_a_tool_shows_of_an_answer_is_not_in_the_contexts_last_words() {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let shows = "printf 'Let in by %s.\\n' \"$code\" >/dev/tty\nfor last";
        let path = script(folder.path(), "ssh", &STUB.replace("for last", shows));
        let router = router();
        let ssh = router.ssh("x").ssh_path(&path).on_prompt(|_| Some(CODE.into()));
        let context = ssh.connect().unwrap();
        let output = router.receiver::<stock::Output>();
        let argv = ["sh", "-c", "kill -9 $PPID"].map(Into::into).to_vec();
        let call = context.call(stock::run, (stock::Command { argv }, output.to_sender()));
        let error = call.map(|_| "alive").unwrap_err();
        let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
        assert_eq!(death.tail, "Let in by ***.\n");
    });
}

#[test]
fn who_takes_too_long_to_answer_is_not_waited_for() {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let path = client(folder.path());
        let router = router();
        let hop = router.local().connect().unwrap();
        for via in [None, Some(&hop)] {
            let ssh = router.ssh("x").ssh_path(&path).connect_timeout(Duration::from_millis(300));
            let ssh = via.map_or(ssh.clone(), |via| ssh.clone().via(via));
            let begun = Instant::now();
            let ssh = ssh.on_prompt(|_| {
                std::thread::sleep(Duration::from_millis(2000));
                Some(CODE.into())
            });
            let error = failed(ssh.connect());
            assert_eq!(error.failure, ConnectFailure::Timeout, "{error}");
            assert!(begun.elapsed() < Duration::from_millis(1900), "{:?}", begun.elapsed());
            hop.call(stock::ping, ()).unwrap();
        }
        // Both answers come now, and find nobody.
        std::thread::sleep(Duration::from_millis(2000));
        hop.call(stock::ping, ()).unwrap();
    });
}

#[test]
fn a_context_may_be_connected_while_a_question_is_open() {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let path = client(folder.path());
        let router = router();
        let inner = router.clone();
        let ssh = router.ssh("x").ssh_path(&path).on_prompt(move |_| {
            inner.local().connect().unwrap().call(stock::ping, ()).unwrap();
            Some(CODE.into())
        });
        ssh.connect().unwrap().call(stock::ping, ()).unwrap();
        router.shutdown();
    });
}
