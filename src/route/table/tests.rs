//! Tests of the route table, case by case; `table_tests.rs` has its model.

use super::*;

const LEASE: Lease = Lease { first: 100, count: 10 };

fn table() -> (Table<&'static str>, LinkId, LinkId, LinkId) {
    let mut table = Table::default();
    let parent = table.add_parent("parent");
    let a = table.add_child(ContextId(7), LEASE, "a");
    let b = table.add_child(ContextId(8), Lease { first: 200, count: 10 }, "b");
    (table, parent, a, b)
}

#[test]
fn messages_go_down_where_the_context_lives_and_else_up() {
    let (mut table, parent, a, b) = table();
    assert_eq!(table.add_route(a, ContextId(100), ContextId(7)), Ok(true));
    assert_eq!(table.way_to(ContextId(100), None), Some("a"));
    assert_eq!(table.way_to(ContextId(100), Some(b)), Some("a"));
    assert_eq!(table.way_to(ContextId(7), Some(parent)), Some("a"));
    assert_eq!(table.way_to(ContextId(0), Some(a)), Some("parent"));
}

#[test]
fn nothing_goes_back_where_it_came_from() {
    let (mut table, parent, a, _) = table();
    assert_eq!(table.way_to(ContextId(55), Some(parent)), None);
    assert_eq!(table.way_to(ContextId(7), Some(a)), None);
}

#[test]
fn what_could_only_live_below_does_not_go_up() {
    let (mut table, _, _, b) = table();
    assert_eq!(table.way_to(ContextId(105), Some(b)), None);
}

#[test]
fn a_child_speaks_for_itself_and_its_lease_alone() {
    let (table, parent, a, _) = table();
    assert!(table.may_speak_for(a, ContextId(7)) && table.may_speak_for(a, ContextId(109)));
    for other in [0, 8, 110, 200] {
        assert!(!table.may_speak_for(a, ContextId(other)), "{other}");
        assert!(table.may_speak_for(parent, ContextId(other)), "{other}");
    }
}

#[test]
fn routes_outside_the_lease_or_of_another_are_refused() {
    let (mut table, _, a, b) = table();
    assert!(table.add_route(a, ContextId(200), ContextId(7)).is_err());
    assert_eq!(table.add_route(a, ContextId(100), ContextId(7)), Ok(true));
    assert_eq!(table.add_route(a, ContextId(100), ContextId(7)), Ok(false));
    assert!(table.add_route(b, ContextId(100), ContextId(8)).is_err());
    assert!(table.remove_route(b, ContextId(100)).is_none());
    assert!(table.remove_route(a, ContextId(7)).is_none(), "its own end is its link's");
}

#[test]
fn a_context_is_the_child_of_one_that_lives_behind_the_same_link() {
    let (mut table, _, a, _) = table();
    let (child, below) = (ContextId(7), ContextId(100));
    for stranger in [8, 101, 0, 200] {
        assert!(table.add_route(a, below, ContextId(stranger)).is_err(), "{stranger}");
    }
    assert_eq!(table.add_route(a, below, child), Ok(true));
    assert_eq!(table.add_route(a, ContextId(101), below), Ok(true));
    let parents = [7, 100, 101, 102].map(|id| table.parent_of(ContextId(id)));
    assert_eq!(parents, [Some(None), Some(Some(child)), Some(Some(below)), None]);
}

#[test]
fn a_grant_ends_with_its_context_and_is_no_more_than_there_may_be() {
    let (mut table, parent, a, _) = table();
    table.add_route(a, ContextId(100), ContextId(7)).unwrap();
    for id in [7, 100, 55, 56, 55] {
        assert!(table.grant(ContextId(id)));
    }
    table.revoke(ContextId(56));
    table.remove_link(a);
    let granted = |table: &Table<_>| [7, 100, 55, 56].map(|id| table.is_granted(ContextId(id)));
    assert_eq!(granted(&table), [false, false, true, false]);
    table.remove_route(parent, ContextId(55));
    assert_eq!(granted(&table), [false; 4]);
    for id in 0..GRANTS_MAX as u32 {
        assert!(table.grant(ContextId(1000 + id)));
    }
    assert!(!table.grant(ContextId(1)) && table.grant(ContextId(1000)));
}

#[test]
fn who_talks_to_ever_more_contexts_takes_no_more_memory() {
    let (mut table, parent, a, _) = table();
    for id in 0..2 * ROUTES_PER_CHILD_MAX as u32 {
        table.way_to(ContextId(1000 + id), Some(a));
    }
    assert_eq!(table.link(a).unwrap().talked.capacity(), 0);
    // Yet it is told of every end: none of its waits is to last for ever.
    let lost = table.remove_route(parent, ContextId(1 << 30)).unwrap();
    assert_eq!(lost.tell.iter().map(|tell| tell.way).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn an_end_is_told_to_the_parent_and_to_who_talked_to_the_lost() {
    let (mut table, _, a, b) = table();
    table.add_route(a, ContextId(100), ContextId(7)).unwrap();
    table.way_to(ContextId(100), Some(b));
    let lost = table.remove_link(a).unwrap();
    assert_eq!(lost.contexts, [ContextId(7), ContextId(100)]);
    let tell = |gone, child, way| Tell { gone: ContextId(gone), child, way };
    let talker = tell(100, Some(ContextId(8)), "b");
    assert_eq!(lost.tell, [tell(7, None, "parent"), tell(100, None, "parent"), talker]);
    assert_eq!(table.way_to(ContextId(7), Some(b)), Some("parent"));
    assert!(table.remove_link(a).is_none());
}

#[test]
fn a_child_cannot_use_up_what_its_parent_may_have() {
    for depth in 1..12 {
        let own_max = routes_max(depth - 1);
        let mut table = Table::at_depth(depth);
        let link = table.add_child(ContextId(1), Lease { first: 10, count: 1 << 20 }, "bad");
        let other = table.add_child(ContextId(2), Lease { first: 5, count: 2 }, "good");
        let announced = (10..1 << 20)
            .take_while(|id| table.add_route(link, ContextId(*id), ContextId(1)).is_ok());
        let announced = announced.count();
        assert!(announced + 3 <= own_max, "{depth}: {announced}");
        let room = announced + 3 < own_max;
        assert_eq!(table.add_route(other, ContextId(5), ContextId(2)).is_ok(), room);
        assert_eq!(table.is_full(), !room);
        // In which hops there is room enough for others.
        assert!(room || 3 < depth, "{depth}");
    }
}

#[test]
fn a_child_is_leased_what_leaves_some_for_its_parent() {
    for depth in 0..12 {
        let mut table: Table<&str> = Table::at_depth(depth);
        let (mut leased, mut count) = (Lease::default(), 0);
        for child in 1..20 {
            let link = table.add_child(ContextId(child), Lease::default(), "bad");
            while table.may_lease(link, 256) {
                (leased.first, leased.count, count) = (leased.first + 256, 256, count + 256);
                table.add_lease(link, leased);
            }
            assert!(child != 1 || count == ids_max(depth) || 1 < depth, "{depth}: {count}");
        }
        assert!(depth == 0 || count <= ids_max(depth - 1) / 4 * 3, "{depth}: {count}");
    }
}

#[test]
fn a_child_announces_no_more_contexts_than_it_has_ids_also_if_they_come_and_go() {
    let (mut table, parent, a, _) = table();
    let (id, by) = (ContextId(100), ContextId(7));
    let ids = table.link(a).unwrap().leases.count();
    for _ in 0..ids {
        assert_eq!(table.add_route(a, id, by), Ok(true));
        assert_eq!(table.add_route(a, id, by), Ok(false));
        let lost = table.remove_route(a, id).unwrap();
        assert_eq!(lost.contexts, [id]);
    }
    assert_eq!(table.add_route(a, id, by), Err("announced too many contexts"));
    assert_eq!(table.way_to(id, Some(parent)), None);
    table.add_lease(a, Lease { first: 1000, count: 1 });
    assert_eq!(table.add_route(a, ContextId(1000), by), Ok(true));
}

#[test]
fn ids_that_the_parent_is_asked_for_count_until_it_answers() {
    let mut table = Table::at_depth(1);
    let link = table.add_child(ContextId(1), Lease::default(), "bad");
    let mut count = 0;
    while table.may_lease(link, 64) {
        table.ask(link, 64);
        count += 64;
    }
    assert_eq!(count, ids_max(1));
    table.asked(link, 64);
    assert!(table.may_lease(link, 64) && !table.may_lease(link, 65));
    table.remove_link(link);
    table.asked(link, 64);
    assert!(!table.may_lease(link, 1));
}
