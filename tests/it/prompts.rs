//! Questions of tools, of which some are foreseen and some are not; and that no password is seen
//! where it should not be.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mitogen::error::ConnectFailure;
use mitogen::{Context, Error, Level, Program, Router, Secret, Sudo, flush_log, log_to};

use crate::support::*;

/// A sudo that asks for a code at its terminal, and then does what it is told.
const ASKS: &str = "printf 'Welcome.\\nVerification code: ' >/dev/tty
    read -r code </dev/tty
    printf '\\n' >/dev/tty
    [ \"$code\" = 314159 ] || { echo 'wrong code' >&2; exit 1; }
    while [ \"$1\" != -- ]; do shift; done
    shift
    exec \"$@\"";

/// Runs a test with that sudo, directly and from another context.
#[track_caller]
fn with_code(test: impl Fn(&Router, &dyn Fn() -> Sudo) + Send + Sync) {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let tool = script(folder.path(), "sudo", ASKS);
        let router = Program::new().image(stock_image()).router().unwrap();
        test(&router, &|| router.sudo().sudo_path(&tool).password(PASSWORD));
        let child = router.local().connect().unwrap();
        test(&router, &|| router.sudo().sudo_path(&tool).password(PASSWORD).via(&child));
    });
}

#[test]
fn an_unknown_question_ends_the_attempt_at_once_and_is_quoted() {
    with_code(|_, sudo| {
        let begun = Instant::now();
        let question = ConnectFailure::UnknownPrompt("Verification code:".to_owned());
        let error = assert_refused(sudo().connect(), question);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert!(error.to_string().contains("`Verification code:`"), "{error}");
    });
}

#[test]
fn a_program_answers_what_nobody_foresaw() {
    with_code(|_, sudo| {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        let answered = sudo().on_prompt(move |question| {
            heard.lock().unwrap().push(question.text.clone());
            Some(Secret::from("314159"))
        });
        assert_eq!(who(&answered.connect().unwrap()), "root");
        assert_eq!(*asked.lock().unwrap(), ["Verification code:"]);
        let wrong = sudo().on_prompt(|_| Some(Secret::from("271828"))).connect();
        let error = assert_refused(wrong, ConnectFailure::Ended);
        assert!(error.tail.contains("wrong code") && !error.tail.contains("271828"), "{error}");
        let none = sudo().on_prompt(|_| None).connect();
        assert_refused(none, ConnectFailure::UnknownPrompt("Verification code:".to_owned()));
    });
}

#[test]
fn a_program_gives_the_password_that_it_was_not_given_before() {
    let rule = |user: &TestUser| Sudoers::install(&format!("{} ALL=(root) ALL", user.name));
    as_user(&[Need::Sudo], rule, |account| {
        let question = format!("password for {}:", account.user.name);
        let give = |password: &'static str| {
            let question = question.clone();
            let sudo = account.router.sudo().via(account.context);
            sudo.on_prompt(move |asked| (asked.text == question).then(|| password.into())).connect()
        };
        assert_eq!(who(&give(PASSWORD).unwrap()), "root");
        assert_refused(give("wrong horse"), ConnectFailure::PasswordWrong);
    });
}

/// What must be seen nowhere.
const CANARY: &str = "canary-5uZ7horse";

/// Every process's arguments and environment that have the canary, as long as `go_on` says.
fn watch(go_on: &AtomicBool) -> Vec<String> {
    let mut seen = Vec::new();
    while go_on.load(Ordering::Relaxed) {
        for process in processes() {
            for file in ["cmdline", "environ"] {
                let bytes = fs::read(format!("/proc/{}/{file}", process.pid)).unwrap_or_default();
                if String::from_utf8_lossy(&bytes).contains(CANARY) {
                    seen.push(format!("{file} of {process:?}"));
                }
            }
        }
    }
    seen
}

/// Runs a test with everything logged and every process watched; the canary is in neither, nor in
/// what the test tells.
#[track_caller]
fn assert_unseen(test: impl FnOnce() -> Vec<String>) {
    let logged = Arc::new(Mutex::new(Vec::new()));
    let to = logged.clone();
    log_to(Level::Io, Box::new(move |record| to.lock().unwrap().push(record.to_string())));
    let go_on = AtomicBool::new(true);
    let (told, seen) = thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&go_on));
        let told = catch_unwind(AssertUnwindSafe(test));
        go_on.store(false, Ordering::Relaxed);
        (told.unwrap_or_else(|panic| resume_unwind(panic)), watching.join().unwrap())
    });
    assert!(flush_log(Duration::from_secs(10)));
    log_to(Level::Error, Box::new(|_| ()));
    let logged = std::mem::take(&mut *logged.lock().unwrap());
    assert!(!logged.is_empty() && !told.is_empty());
    for text in logged.iter().chain(&told).chain(&seen) {
        assert!(!text.contains(CANARY), "{text}");
    }
    assert_eq!(seen, [""; 0]);
}

/// All that a program may print of an attempt.
fn told(outcome: Result<Context, Error>) -> String {
    match outcome {
        Ok(context) => format!("{context:?} {} {}", context.name(), who(&context)),
        Err(error) => format!("{error} {error:?} {:?}", error.kind()),
    }
}

#[test]
fn a_password_is_in_no_log_argument_environment_or_error() {
    let other = TestUser::create(Some(CANARY));
    let prepare = |user: &TestUser| {
        let name = &user.name;
        run(Command::new("usermod").args(["-s", "/bin/bash", name]));
        let sudo = format!("{name} ALL=(ALL) ALL\nDefaults:{name} targetpw, pwfeedback");
        (Sudoers::install(&sudo), DoasConf::install(&format!("permit {name} as root")))
    };
    as_user(&[Need::Sudo, Need::Doas], prepare, |account| {
        let Account { router, context, .. } = account;
        let name = &other.name;
        assert_unseen(|| {
            let path = format!("su:{}/su:{name}?password={CANARY}", account.user.name);
            vec![
                told(router.su().username(name).password(CANARY).via(context).connect()),
                told(router.su().username("root").password(CANARY).via(context).connect()),
                told(router.sudo().username(name).password(CANARY).via(context).connect()),
                told(router.sudo().username("root").password(CANARY).via(context).connect()),
                told(router.doas().password(CANARY).via(context).connect()),
                told(router.su().username("no-such").password(CANARY).via(context).connect()),
                told(router.su().su_path("no-such").password(CANARY).via(context).connect()),
                told(router.connect(&path.parse().unwrap())),
                path.parse::<mitogen::Address>().unwrap().to_string(),
            ]
        });
    });
}

#[test]
fn a_tool_that_shows_the_password_does_not_show_it_to_us() {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let echoes = "printf 'Password: ' >/dev/tty; read -r word </dev/tty; echo >/dev/tty
            echo \"you said $word\" >&2; echo \"really: $word$word\"; printf %s \"$word\"; exit 3";
        let tool = script(folder.path(), "doas", echoes);
        let router = Program::new().image(stock_image()).router().unwrap();
        assert_unseen(|| {
            let doas = || router.doas().doas_path(&tool);
            let error = assert_refused(doas().password(CANARY).connect(), ConnectFailure::Ended);
            assert!(error.tail.contains("you said ***"), "{error}");
            let asked = doas().on_prompt(|_| Some(CANARY.into())).connect();
            let other = assert_refused(asked, ConnectFailure::Ended);
            assert!(other.tail.contains("you said ***"), "{other}");
            vec![format!("{error} {error:?}"), format!("{other} {other:?}")]
        });
    });
}
