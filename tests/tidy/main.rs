//! The rules of style, executed. Each is a function, and is itself tested with what it must find.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![cfg(test)]

mod floors;
mod rules;
mod source;
mod tree;

#[track_caller]
fn assert_nothing(found: Vec<String>) {
    assert!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_file_keeps_the_rules() {
    let sources = tree::sources();
    assert!(10 < sources.len(), "the sources were not found");
    assert_nothing(sources.iter().flat_map(|s| rules::ALL.map(|rule| rule(s))).flatten().collect());
}

#[test]
fn code_uses_only_floors_below_its_own() {
    assert_nothing(floors::findings(&tree::sources()));
}

#[test]
fn every_file_is_reached() {
    assert_nothing(tree::unreached(&tree::sources(), &tree::read("Cargo.toml")));
}

#[test]
fn every_page_of_the_manual_is_included() {
    assert_nothing(tree::pages_left_out(&tree::pages(), &tree::sources()));
}

#[test]
fn the_document_of_the_wire_quotes_its_hash() {
    let Some(page) = tree::pages().into_iter().find(|(path, _)| path.ends_with("/wire.md")) else {
        return;
    };
    assert_nothing(tree::wire_hash_findings(&page.1, &tree::sources()));
}

#[test]
fn the_library_depends_on_what_is_listed() {
    assert_eq!(tree::dependencies(&[]), tree::read("tests/dependencies.txt"));
}

#[test]
fn three_crates_are_direct_dependencies() {
    let direct = tree::dependencies(&["--depth", "1"]);
    let names: Vec<&str> = direct.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["libc", "polling", "tempfile"]);
}
