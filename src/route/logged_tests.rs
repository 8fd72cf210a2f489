//! What a log says of a neighbour that does not keep to the rules.

use std::sync::{Arc, Mutex, PoisonError};

use super::policy;
use super::testing::{BAD, GOOD, Inbox, header, tree_with};
use crate::ids::{ContextId, Handle};
use crate::limits::LOGGED_REFUSALS_MAX;
use crate::trace::{self, Level};
use crate::wire::header::{Header, Kind, Lane, Part};

/// Other tests log, too: what is looked for here has numbers that they do not use.
const MARK: u32 = 0x5eed;

#[test]
fn each_refusal_names_its_rule_and_only_so_many_of_a_link_are_logged() {
    let _alone = trace::SINKS.lock().unwrap_or_else(PoisonError::into_inner);
    let records = Arc::new(Mutex::new(Vec::new()));
    let to = records.clone();
    let sink = move |record: &trace::Record<'_>| {
        to.lock().unwrap().push((record.level, record.what.to_owned(), record.about.to_vec()));
    };
    trace::hear(Level::Debug, sink);
    let mut tree = tree_with(true);
    let (guarded, elsewhere) = (Handle::well_known(MARK), ContextId(MARK));
    let policy = policy::has_parent_authority;
    tree.root.listen(guarded, Kind::Call, policy, Arc::new(Inbox::default())).unwrap();
    let (asked_of_good, _) = tree.pending(GOOD);
    let (open, _) = tree.receiver();
    let (guess, nowhere) = (Handle::random(MARK), Handle::well_known(MARK + 1));
    let data = header(Kind::Data, guess);
    let fragment = Part::First(1 << 30);
    for said in [
        Header { dst: elsewhere, src: GOOD, auth: GOOD, ..data },
        Header { dst: elsewhere, ..data },
        data,
        header(Kind::Call, nowhere),
        header(Kind::Call, guarded),
        header(Kind::Data, guarded),
        header(Kind::Reply, asked_of_good),
        Header { part: fragment, lane: Lane::Bulk, ..header(Kind::Data, open) },
    ] {
        let payload = vec![0; if said.part == fragment { 16 * 1024 } else { 0 }];
        tree.say(&said, &payload);
    }
    tree.settle();
    let bad = u64::from(BAD.0);
    let number = |handle: Handle| u64::from(handle.0);
    let heard = |level, rule: &str, about: &[u64]| {
        let all = records.lock().unwrap();
        let found = all
            .iter()
            .filter(|(l, what, numbers)| *l == level && what.contains(rule) && numbers == about);
        found.count()
    };
    for (level, rule, about) in [
        (Level::Warn, "forged source", [1, 1, u64::from(MARK)]),
        (Level::Warn, "never given out", [bad, bad, number(guess)]),
        (Level::Debug, "nothing listens", [bad, bad, number(nowhere)]),
        (Level::Warn, "policy", [bad, bad, number(guarded)]),
        (Level::Warn, "kind", [bad, bad, number(guarded)]),
        (Level::Warn, "another was asked", [bad, bad, number(asked_of_good)]),
        (Level::Warn, "too large", [bad, number(open), 1 << 30]),
    ] {
        assert_eq!(heard(level, rule, &about), 1, "{rule}");
    }
    assert_eq!(heard(Level::Error, "unidirectional", &[bad, u64::from(MARK)]), 1);
    for _ in 0..2 * LOGGED_REFUSALS_MAX {
        tree.say(&header(Kind::Call, guarded), b"");
    }
    tree.settle();
    let logged = heard(Level::Warn, "policy", &[bad, bad, number(guarded)]);
    assert!((90..LOGGED_REFUSALS_MAX as usize).contains(&logged), "{logged}");
    // Once by this link, and by those of tests beside this one.
    assert!((1..50).contains(&heard(Level::Warn, "not logged", &[bad])));
}
