//! The log of a tree at its master: what its contexts log arrives there, and nobody waits for it.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{env, fs};

use mitogen::error::ErrorKind;
use mitogen::{CallContext, Context, ContextId, Level, Program, Result, Router, stock};
use mitogen::{flush_log, log_at, log_to, log_to_file};

use crate::support::{beside_others, leaves_nothing, three_hops, told, until};

mitogen::test_agent!(program());

const LIMIT: Duration = Duration::from_secs(20);

fn program() -> Program {
    Program::new().function(talk).function(detail).function(chatter).function(nested)
}

/// Says something at each level.
fn talk(text: &str) {
    mitogen::error!("error {text}");
    mitogen::warn!("warn {text}");
    mitogen::info!("info {text}");
    mitogen::debug!("debug {text}");
}

fn detail(text: &str) {
    mitogen::debug!("{text}");
}

/// Says so many things.
fn chatter(count: u64) {
    (0..count).for_each(|number| mitogen::info!("{number}"));
}

/// A tree of a function's own, whose context says something.
fn nested(cx: &CallContext, text: &str) -> Result<()> {
    let router = mitogen_test_program().router()?;
    let child = router.local().connect()?;
    mitogen::info!("in {}", cx.context_id());
    child.call(talk, text)?;
    router.shutdown();
    Ok(())
}

/// One record, as the sink had it.
#[derive(Clone, Debug, PartialEq)]
struct Heard {
    level: Level,
    tree: u32,
    context: Option<ContextId>,
    name: String,
    target: String,
    text: String,
}

/// All that the sink has had, until this is dropped.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<Heard>>>);

impl Ear {
    fn new(level: Level) -> Ear {
        let ear = Ear::default();
        let to = ear.clone();
        log_to(level, Box::new(move |record| to.note(record)));
        ear
    }

    fn note(&self, record: &mitogen::Record<'_>) {
        let heard = Heard {
            level: record.level,
            tree: record.tree,
            context: record.context,
            name: record.name.to_owned(),
            target: record.target.to_owned(),
            text: [record.what, record.text].concat(),
        };
        self.0.lock().unwrap().push(heard);
    }

    /// What the functions here have said by now.
    fn said(&self) -> Vec<Heard> {
        assert!(flush_log(LIMIT));
        let all = self.0.lock().unwrap();
        all.iter().filter(|heard| heard.target.ends_with(module_path!())).cloned().collect()
    }

    /// The texts of one context's.
    fn texts_of(&self, context: &Context) -> Vec<String> {
        let id = Some(context.context_id());
        self.said()
            .into_iter()
            .filter(|heard| heard.context == id)
            .map(|heard| heard.text)
            .collect()
    }
}

/// Until something has arrived.
#[track_caller]
fn arrives(found: impl Fn() -> bool) {
    assert!(until(LIMIT, || found().then_some(())).is_some(), "it never came");
}

fn silence() {
    log_at(None);
    log_to(Level::Error, Box::new(|_| ()));
    log_at(None);
}

fn tree() -> (Router, [Context; 3]) {
    three_hops(mitogen_test_program())
}

#[test]
fn what_is_logged_three_hops_down_arrives_with_its_name_target_level_and_id() {
    leaves_nothing(&[], || {
        let ear = Ear::new(Level::Info);
        let (router, contexts) = tree();
        let [_, _, third] = &contexts;
        third.call(talk, "here").unwrap();
        arrives(|| ear.texts_of(third).len() == 3);
        let all = ear.said();
        let texts: Vec<_> = all.iter().map(|heard| (heard.level, heard.text.as_str())).collect();
        let (error, warn, info) = (Level::Error, Level::Warn, Level::Info);
        assert_eq!(texts, [(error, "error here"), (warn, "warn here"), (info, "info here")]);
        for heard in &all {
            assert_eq!(heard.context, Some(third.context_id()));
            assert_eq!(heard.name, third.name());
            assert_eq!(heard.target, module_path!());
            assert_ne!(heard.tree, 0);
        }
        router.shutdown();
        silence();
    });
}

#[test]
fn a_hop_that_an_address_leads_through_logs_under_its_name() {
    leaves_nothing(&[], || {
        let ear = Ear::new(Level::Info);
        let router = mitogen_test_program().router().unwrap();
        let last = router.connect(&"local/local".parse().unwrap()).unwrap();
        let first = router.children().pop().unwrap();
        assert_eq!((first.name(), last.name()), ("local", "local/local"));
        first.call(talk, "here").unwrap();
        arrives(|| ear.texts_of(&first).len() == 3);
        assert!(ear.said().iter().all(|heard| heard.name == "local"), "{:?}", ear.said());
        router.shutdown();
        silence();
    });
}

#[test]
fn the_level_changes_while_the_tree_runs_and_holds_for_those_that_come_later() {
    leaves_nothing(&[], || {
        let ear = Ear::new(Level::Info);
        let (router, contexts) = tree();
        let [_, _, third] = &contexts;
        third.call(detail, "not yet").unwrap();
        log_at(Level::Debug);
        // Each hop passes it on.
        arrives(|| {
            third.call(detail, "now").unwrap();
            ear.texts_of(third).iter().any(|text| text == "now")
        });
        let later = router.local().via(third).connect().unwrap();
        later.call(detail, "from the start").unwrap();
        arrives(|| ear.texts_of(&later) == ["from the start"]);
        log_at(Level::Warn);
        let is_quiet = || {
            let before = ear.texts_of(&later).len();
            later.call(talk, "again").unwrap();
            arrives(|| 2 + before <= ear.texts_of(&later).len());
            ear.texts_of(&later)[before..] == ["error again", "warn again"]
        };
        arrives(is_quiet);
        let last = router.local().connect().unwrap();
        last.call(talk, "from the start").unwrap();
        arrives(|| 2 <= ear.texts_of(&last).len());
        assert_eq!(ear.texts_of(&last), ["error from the start", "warn from the start"]);
        assert!(!ear.said().iter().any(|heard| heard.text == "not yet"));
        router.shutdown();
        silence();
    });
}

#[test]
fn children_that_come_up_while_the_level_changes_have_the_new_one() {
    leaves_nothing(&[], || {
        let ear = Ear::new(Level::Warn);
        let router = mitogen_test_program().router().unwrap();
        let starting: Vec<_> = (0..12).map(|_| router.local().start()).collect();
        // At whatever moment of theirs.
        for turn in 0..200 {
            log_at(if turn % 2 == 0 { Level::Debug } else { Level::Warn });
            std::thread::yield_now();
        }
        log_at(Level::Debug);
        for connecting in starting {
            let context = connecting.wait().unwrap();
            arrives(|| {
                context.call(detail, "heard").unwrap();
                !ear.texts_of(&context).is_empty()
            });
        }
        router.shutdown();
        silence();
    });
}

#[test]
fn nothing_is_lost_that_was_logged_right_before_the_end() {
    const COUNT: u64 = 3000;
    leaves_nothing(&[], || {
        for by_drop in [false, true] {
            let ear = Ear::new(Level::Info);
            let (router, contexts) = tree();
            let ids = contexts.each_ref().map(|context| context.context_id());
            let calls = contexts.each_ref().map(|context| context.call_async(chatter, COUNT));
            calls.into_iter().for_each(|call| call.get().unwrap());
            if by_drop {
                drop((contexts, router));
            } else {
                router.shutdown();
            }
            // Without a flush: the end has seen to it.
            let all = std::mem::take(&mut *ear.0.lock().unwrap());
            let mut counts = HashMap::new();
            for heard in all.iter().filter(|heard| heard.target == module_path!()) {
                let next = counts.entry(heard.context.unwrap()).or_insert(0);
                assert_eq!(heard.text, next.to_string());
                *next += 1;
            }
            assert_eq!(ids.map(|id| counts.get(&id).copied()), [Some(COUNT); 3], "{by_drop}");
            silence();
        }
    });
}

#[test]
fn what_is_read_and_written_is_told_of_the_first_process_alone() {
    leaves_nothing(&[], || {
        let ear = Ear::new(Level::Io);
        let router = mitogen_test_program().router().unwrap();
        let child = router.local().connect().unwrap();
        (0..20).for_each(|_| child.call(detail, "heard").unwrap());
        arrives(|| ear.texts_of(&child).len() == 20);
        let all = ear.0.lock().unwrap().clone();
        let ours = |heard: &&Heard| heard.level == Level::Io;
        assert!(all.iter().any(|heard| ours(&heard)));
        // Sending it would be told of as well, and so on.
        let theirs = all.iter().filter(ours).find(|heard| heard.context.is_some());
        assert_eq!(theirs, None);
        router.shutdown();
        silence();
    });
}

#[test]
fn a_sink_that_is_slow_holds_up_no_call() {
    leaves_nothing(&[], || {
        let (held, taken) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let (waits, counts) = (held.clone(), taken.clone());
        log_to(
            Level::Debug,
            Box::new(move |_| {
                while waits.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                counts.fetch_add(1, Ordering::SeqCst);
            }),
        );
        let (router, contexts) = tree();
        let [first, _, third] = &contexts;
        for _ in 0..20 {
            third.call(talk, "anything").unwrap();
            first.call(talk, "anything").unwrap();
        }
        let begun = Instant::now();
        for context in &contexts {
            (0..100).for_each(|_| context.call(stock::ping, ()).unwrap());
        }
        let elapsed = begun.elapsed();
        assert!(elapsed < LIMIT / 4, "{elapsed:?}");
        assert_eq!(taken.load(Ordering::SeqCst), 0);
        held.store(false, Ordering::SeqCst);
        router.shutdown();
        assert!(40 * 3 <= taken.load(Ordering::SeqCst));
        silence();
    });
}

#[test]
fn a_sink_may_call_the_contexts_that_it_hears_of() {
    leaves_nothing(&[], || {
        let (router, contexts) = tree();
        let third = contexts[2].clone();
        let answers = Arc::new(AtomicUsize::new(0));
        let (calls, counts) = (third.clone(), answers.clone());
        log_to(
            Level::Info,
            Box::new(move |record| {
                if record.target == module_path!() {
                    // At the end there is none any more.
                    counts.fetch_add(calls.call(stock::ping, ()).is_ok().into(), Ordering::SeqCst);
                }
            }),
        );
        arrives(|| {
            third.call(talk, "call me").unwrap();
            3 <= answers.load(Ordering::SeqCst)
        });
        silence();
        assert!(flush_log(LIMIT));
        router.shutdown();
    });
}

#[test]
fn a_router_may_end_in_the_sink() {
    leaves_nothing(&[], || {
        let ear = Ear::default();
        let (router, _contexts) = tree();
        let (ends, notes, ended) = (router.clone(), ear.clone(), Arc::new(AtomicBool::new(false)));
        let is_ended = ended.clone();
        log_to(
            Level::Info,
            Box::new(move |record| {
                notes.note(record);
                if record.target == module_path!() {
                    ends.shutdown();
                    is_ended.store(true, Ordering::SeqCst);
                }
            }),
        );
        mitogen::info!("end it");
        arrives(|| ended.load(Ordering::SeqCst));
        assert!(router.local().connect().is_err());
        silence();
        assert!(flush_log(LIMIT));
    });
}

#[test]
fn two_trees_in_one_process_are_told_apart() {
    leaves_nothing(&[], || {
        let ear = Ear::new(Level::Info);
        let routers = [(); 2].map(|()| mitogen_test_program().router().unwrap());
        let children = routers.each_ref().map(|router| router.local().connect().unwrap());
        children.iter().for_each(|child| child.call(talk, "x").unwrap());
        routers.iter().for_each(Router::shutdown);
        let all = ear.0.lock().unwrap().clone();
        assert_eq!(children[0].context_id(), children[1].context_id());
        let trees = |text: &str| {
            let mut trees: Vec<u32> =
                all.iter().filter(|one| one.text.contains(text)).map(|one| one.tree).collect();
            trees.sort();
            trees
        };
        for text in ["error x", "a context is up", "a context is gone"] {
            let trees = trees(text);
            assert!(trees.len() == 2 && 0 < trees[0] && trees[0] < trees[1], "{text} {trees:?}");
        }
        silence();
    });
}

#[test]
fn a_file_has_a_line_for_each_record_and_a_variable_of_the_environment_says_from_which_level_on() {
    const FILE: &str = "MITOGEN_TEST_LOG_FILE";
    if let Some(path) = env::var_os(FILE) {
        log_to_file(path, Level::Warn).unwrap();
        let router = mitogen_test_program().router().unwrap();
        router.local().connect().unwrap().call(talk, "a\nb\x1b[2J").unwrap();
        router.shutdown();
        return;
    }
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        for (level, expected) in
            [(None, 2), (Some("Debug"), 4), (Some("loud"), 2), (Some("none"), 0)]
        {
            let file = folder.path().join(level.unwrap_or("without"));
            let mut again = Command::new(env::current_exe().unwrap());
            let name = std::thread::current().name().unwrap().to_owned();
            again.args(["--exact", &name, "--test-threads=1"]).env(FILE, &file);
            again.envs(level.map(|level| ("MITOGEN_LOG_LEVEL", level)));
            let output = again.output().unwrap();
            assert!(output.status.success(), "{}", told(&output));
            let mode = file.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let text = fs::read_to_string(&file).unwrap();
            let said = |line: &&str| line.ends_with(r" a\nb\x1b[2J");
            assert_eq!(text.lines().filter(said).count(), expected, "{text}");
            assert!(text.lines().all(|line| line.as_bytes()[26] == b'Z'), "{text}");
            assert_eq!(text.contains("no level"), level == Some("loud"), "{text}");
            assert_eq!(text.contains(" ERROR local it::logs: error "), 0 < expected, "{text}");
        }
        let nowhere = folder.path().join("no/such/folder");
        let error = log_to_file(nowhere, Level::Warn).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::System { errno: 2, .. }), "{error}");
    });
}

#[test]
fn a_clean_run_at_the_default_level_prints_nothing_of_ours() {
    let _company = beside_others();
    for example in ["hello", "in_process"] {
        let mut cargo = Command::new(env::var("CARGO").unwrap_or("cargo".to_owned()));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.args(["run", "--quiet", "--locked", "--offline", "--example", example]);
        // Only who logs looks at it.
        let output = cargo.env("MITOGEN_LOG_LEVEL", "io").output().unwrap();
        assert!(output.status.success(), "{}", told(&output));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{example}");
    }
}

#[test]
fn the_tree_of_a_function_logs_through_that_functions_context() {
    leaves_nothing(&[], || {
        let ear = Ear::new(Level::Info);
        let router = mitogen_test_program().router().unwrap();
        let child = router.local().connect().unwrap();
        child.call(nested, "below").unwrap();
        router.shutdown();
        let texts = ear.texts_of(&child);
        for text in ["in 1", "error below", "warn below", "info below"] {
            assert!(texts.iter().any(|one| one == text), "{text} is not in {texts:?}");
        }
        let below: Vec<_> = ear.said().into_iter().filter(|h| h.text == "info below").collect();
        assert!(below[0].target.starts_with("local "), "{below:?}");
        silence();
    });
}
