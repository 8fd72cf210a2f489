//! What becomes of what contexts send of their logs, between nodes in memory.

use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;
use crate::call::load::Loads;
use crate::limits::{FRAGMENT_BYTES, LINK_QUEUED_BYTES_MAX, MESSAGE_BYTES_MIN, WINDOW_BYTES};
use crate::route::node::Outgoing;
use crate::wire::codec::Writer;
use crate::wire::frame::FrameBuf;
use crate::{CallContext, Context, Program, flush_log, log_at, log_to};

const LIMIT: Duration = Duration::from_secs(10);

/// Sends this to the master as what was logged here.
fn forward(cx: &CallContext, batch: &[u8]) -> crate::Result<()> {
    let node = cx.router().node();
    let (kind, dst, auth, handle) = (Kind::Data, ContextId::MASTER, node.id(), Handle::FORWARD_LOG);
    let payload = FrameBuf::encode(None, |w| batch.iter().for_each(|byte| w.put_u8(*byte)));
    node.send(&Outgoing { kind, dst, auth, handle, reply_to: None }, payload.unwrap_or_default())
}

/// Records of this level, one of each text, by a context that says it is called so.
fn batch(level: Level, name: &str, texts: &[&str]) -> Vec<u8> {
    let mut w = Writer::new(Vec::new(), None);
    for text in texts {
        record::put(&Record { name, text, ..Record::now(level, "by a test of receiving") }, &mut w);
    }
    w.finish().unwrap()
}

/// What the sink has heard of a record.
type Heard = (u32, Option<ContextId>, String, String);

fn listen(level: Level) -> Receiver<Heard> {
    let (tell, told) = channel();
    log_to(
        level,
        Box::new(move |record| {
            let is_ours = record.target == "by a test of receiving";
            if is_ours || record.what.contains("sends") {
                let said = [record.what, record.text].concat();
                // Who does not look any more does not care.
                let _ = tell.send((record.tree, record.context, record.name.to_owned(), said));
            }
        }),
    );
    told
}

fn tree() -> (Router, Context) {
    let router = Program::new().function(forward).router().unwrap();
    let child = router.in_process().unwrap();
    (router, child)
}

#[test]
fn records_have_their_source_its_name_and_their_tree_and_those_not_wanted_are_dropped() {
    let _alone = trace::SINKS.lock().unwrap_or_else(PoisonError::into_inner);
    let told = listen(Level::Info);
    let trees = [tree(), tree()];
    for (_, child) in &trees {
        child.call(forward, &batch(Level::Info, "somebody else", &["a", "b"])[..]).unwrap();
        child.call(forward, &batch(Level::Debug, "", &["not wanted"])[..]).unwrap();
    }
    assert!(flush_log(LIMIT));
    let all: Vec<Heard> = told.try_iter().collect();
    for (at, (router, child)) in trees.iter().enumerate() {
        let tree = router.node().identity().tree;
        let name = child.name().to_owned();
        let heard = |text: &str| (tree, Some(child.context_id()), name.clone(), text.to_owned());
        assert_eq!(all[2 * at..2 * at + 2], [heard("a"), heard("b")]);
    }
    assert_ne!(all[0].0, all[2].0, "two trees' lines look alike");
    assert_eq!(all.len(), 4);
    log_at(None);
}

#[test]
fn room_is_given_back_when_the_sink_has_taken_it_and_at_once_if_nobody_listens() {
    let _alone = trace::SINKS.lock().unwrap_or_else(PoisonError::into_inner);
    log_at(None);
    let (_router, child) = tree();
    let large = batch(Level::Info, "", &[&"x".repeat(8000), &"y".repeat(8000)]);
    assert!(large.len() <= FRAGMENT_BYTES);
    let rounds = 3 * WINDOW_BYTES / large.len();
    let send_all = || {
        for _ in 0..rounds {
            child.call_async(forward, &large[..]).get_timeout(LIMIT).unwrap();
        }
    };
    send_all();
    let (go_on, wait) = channel::<()>();
    log_to(
        Level::Info,
        Box::new(move |record| {
            if record.target == "by a test of receiving" {
                // Until it is let go, then at once.
                let _ = wait.recv();
            }
        }),
    );
    let mut sent = 0;
    while child.call_async(forward, &large[..]).get_timeout(LIMIT / 20).is_ok() {
        sent += large.len();
    }
    assert!((WINDOW_BYTES - large.len()..=WINDOW_BYTES).contains(&sent), "{sent}");
    drop(go_on);
    assert!(flush_log(LIMIT));
    send_all();
    log_at(None);
}

#[test]
fn what_is_malformed_is_told_once_and_the_rest_is_heard() {
    let _alone = trace::SINKS.lock().unwrap_or_else(PoisonError::into_inner);
    let told = listen(Level::Info);
    let (_router, child) = tree();
    let good = batch(Level::Info, "", &["good"]);
    for bad in [&[0xff; 40][..], &good[..good.len() - 1], &[good.clone(), vec![1]].concat()] {
        child.call(forward, bad).unwrap();
    }
    child.call(forward, &good[..]).unwrap();
    assert!(flush_log(LIMIT));
    let all: Vec<String> = told.try_iter().map(|(.., text)| text).collect();
    let complaints = all.iter().filter(|text| text.starts_with("sends what is no record")).count();
    let heard = all.iter().filter(|text| *text == "good").count();
    assert_eq!((complaints, heard), (1, 2), "{all:?}");
    log_at(None);
}

#[test]
fn a_name_that_is_claimed_is_below_one_that_is_known() {
    let source =
        |near: &str| Source { id: ContextId(5), near: near.into(), is_odd: AtomicBool::new(false) };
    assert_eq!(source("master/web").name_claimed("master/web/sudo:root"), "master/web/sudo:root");
    assert_eq!(source("master/web").name_claimed("master/db"), "master/web/master/db");
    assert_eq!(source("web").name_claimed("web2"), "web/web2");
    let long = source("web").name_claimed(&"é".repeat(NAME_BYTES_MAX));
    assert!(NAME_BYTES_MAX - 2 < long.len() && long.len() <= NAME_BYTES_MAX, "{}", long.len());
}

#[test]
fn a_context_behind_a_link_by_which_too_much_waits_loses_records_and_no_room() {
    let _alone = trace::SINKS.lock().unwrap_or_else(PoisonError::into_inner);
    let told = listen(Level::Info);
    let (router, child) = tree();
    let link = router.kept(Loads::default).link_to(router.node(), child.context_id());
    let fill = |_| Load::of(link.as_ref(), FRAGMENT_BYTES, MESSAGE_BYTES_MIN);
    let others: Vec<Load> = (0..LINK_QUEUED_BYTES_MAX).map_while(fill).collect();
    let large = batch(Level::Info, "", &[&"x".repeat(8000), &"y".repeat(8000)]);
    for _ in 0..3 * WINDOW_BYTES / large.len() {
        child.call_async(forward, &large[..]).get_timeout(LIMIT).unwrap();
    }
    drop(others);
    child.call(forward, &batch(Level::Info, "", &["after"])[..]).unwrap();
    assert!(flush_log(LIMIT));
    let said: Vec<String> = told.try_iter().map(|(.., said)| said).collect();
    assert!(said.iter().any(|said| said == "after"), "{said:?}");
    log_at(None);
}
