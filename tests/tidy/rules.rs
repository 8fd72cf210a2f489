//! The rules that look at one file alone.

use crate::source::{Source, closing, words};

const COLUMNS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 500;

/// A rule: what it finds wrong with a file.
pub type Rule = fn(&Source) -> Vec<String>;

/// Every rule of this file.
pub const ALL: [Rule; 10] = [
    says_what_it_is,
    fits_in_columns,
    has_short_functions,
    is_short,
    unwraps_with_a_reason,
    leaves_nothing_undone,
    documents_what_is_public,
    leaves_the_system_to_sys,
    asks_for_no_system_but_in_sys,
    keeps_wire_pure,
];

fn says_what_it_is(source: &Source) -> Vec<String> {
    let first = source.text.lines().next().unwrap_or("");
    match first.strip_prefix("//! ") {
        Some(text) if !text.trim().is_empty() => vec![],
        _ => vec![source.finding(1, "the first line is no `//!` that says what the file is")],
    }
}

fn fits_in_columns(source: &Source) -> Vec<String> {
    let long = source.lines().filter(|(_, text, _)| COLUMNS_MAX < text.chars().count());
    long.map(|(line, ..)| source.finding(line, "longer than 100 columns")).collect()
}

fn has_short_functions(source: &Source) -> Vec<String> {
    let mut found = vec![];
    for at in words(&source.code, "fn") {
        let Some(open) = body_of(&source.code, at) else { continue };
        let first = source.line_of(at);
        let lines = source.line_of(closing(&source.code, open) - 1) + 1 - first;
        if FUNCTION_LINES_MAX < lines {
            found.push(source.finding(first, &format!("a function of {lines} lines")));
        }
    }
    found
}

/// Where the body of the function at `at` opens; none for a declaration or a type.
fn body_of(code: &str, at: usize) -> Option<usize> {
    let bytes = code.as_bytes();
    let mut here = at + "fn ".len();
    if bytes.get(here - 1) != Some(&b' ') {
        return None;
    }
    while here < bytes.len() {
        match bytes[here] {
            b'{' => return Some(here),
            b';' | b'}' => return None,
            b'(' | b'[' => here = closing(code, here),
            b'-' => here += 2,
            b'<' => here = generics_end(bytes, here),
            _ => here += 1,
        }
    }
    None
}

fn generics_end(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0;
    for here in open..bytes.len() {
        match bytes[here] {
            b'<' => depth += 1,
            b'>' if bytes[here - 1] != b'-' => depth -= 1,
            _ => (),
        }
        if depth == 0 {
            return here + 1;
        }
    }
    bytes.len()
}

fn is_short(source: &Source) -> Vec<String> {
    match source.text.lines().count() {
        lines if FILE_LINES_MAX < lines => vec![source.finding(lines, "more than 500 lines")],
        _ => vec![],
    }
}

fn unwraps_with_a_reason(source: &Source) -> Vec<String> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut found = vec![];
    for (line, _, code) in source.lines() {
        let unwraps = [".unwrap()", ".expect(", ".unwrap_err()"].iter().any(|w| code.contains(w));
        if unwraps && !source.is_test(line) && !has_comment_above(&lines, line - 1) {
            found.push(source.finding(line, "an unwrap, and no comment above says why it holds"));
        }
    }
    found
}

/// Whether a comment stands above the statement: attributes and the chain's lines are passed over.
fn has_comment_above(lines: &[&str], mut at: usize) -> bool {
    while 0 < at {
        let (here, above) = (lines[at].trim_start(), lines[at - 1].trim_start());
        if above.starts_with("// ") {
            return true;
        }
        if !above.starts_with("#[") && !here.starts_with('.') && !here.starts_with("#[") {
            return false;
        }
        at -= 1;
    }
    false
}

fn leaves_nothing_undone(source: &Source) -> Vec<String> {
    let mut found = vec![];
    for (line, text, code) in source.lines() {
        for word in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")] {
            if words(text, word).next().is_some() {
                found.push(source.finding(line, word));
            }
        }
        for macro_name in ["dbg!", "todo!", "unimplemented!"] {
            if code.contains(macro_name) {
                found.push(source.finding(line, macro_name));
            }
        }
    }
    found
}

fn documents_what_is_public(source: &Source) -> Vec<String> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut found = vec![];
    for (line, _, code) in source.lines() {
        if !source.is_test(line) && is_public_item(code) && !is_documented(&lines, line - 1) {
            found.push(source.finding(line, "public, and not documented"));
        }
    }
    found
}

fn is_public_item(code: &str) -> bool {
    let Some(rest) = code.trim_start().strip_prefix("pub ") else { return false };
    let mut rest = rest.split_whitespace().skip_while(|word| matches!(*word, "unsafe" | "extern"));
    let kinds = ["fn", "struct", "enum", "trait", "const", "static", "type", "union", "async"];
    rest.next().is_some_and(|kind| kinds.contains(&kind))
}

fn is_documented(lines: &[&str], item: usize) -> bool {
    let mut inside_attribute = false;
    for line in lines[..item].iter().rev().map(|line| line.trim()) {
        if line.starts_with("///") || line.starts_with("#[doc") || line.starts_with("$(#[") {
            return true;
        }
        let starts = line.starts_with("#[");
        if !starts && !inside_attribute && !line.ends_with(")]") && !line.starts_with("//") {
            return false;
        }
        inside_attribute = !starts && (inside_attribute || line.ends_with(")]"));
    }
    false
}

fn leaves_the_system_to_sys(source: &Source) -> Vec<String> {
    if !source.path.starts_with("src/") || source.floor_name() == "sys" {
        return vec![];
    }
    let names = ["unsafe", "libc", "polling"];
    let uses = names.iter().flat_map(|name| words(&source.code, name).map(move |at| (at, name)));
    uses.map(|(at, name)| source.finding(source.line_of(at), &format!("{name} outside sys")))
        .collect()
}

/// Code above sys is the same on every system; what differs is behind a function of sys.
fn asks_for_no_system_but_in_sys(source: &Source) -> Vec<String> {
    if !source.path.starts_with("src/") || source.floor_name() == "sys" {
        return vec![];
    }
    let names = ["target_os", "target_vendor", "target_env"];
    let uses = names.iter().flat_map(|name| words(&source.code, name).map(move |at| (at, name)));
    uses.map(|(at, name)| source.finding(source.line_of(at), &format!("{name} outside sys")))
        .collect()
}

fn keeps_wire_pure(source: &Source) -> Vec<String> {
    if source.floor_name() != "wire" || !source.path.starts_with("src/") {
        return vec![];
    }
    let mut found = vec![];
    for (line, path) in crate::floors::paths(source) {
        let impure = ["fs", "io", "net", "os", "process", "thread", "time"].iter().any(|name| {
            path == format!("std::{name}") || path.starts_with(&format!("std::{name}::"))
        });
        if impure && !source.is_test(line) {
            found.push(source.finding(line, &format!("wire knows no {path}")));
        }
    }
    found
}

/// Asserts that the rule finds something in `bad`, and nothing in `good`.
#[cfg(test)]
#[track_caller]
fn tells_apart(rule: Rule, bad: &str, good: &str) {
    tells_apart_at("src/io/stream.rs", rule, bad, good);
}

#[cfg(test)]
#[track_caller]
fn tells_apart_at(path: &str, rule: Rule, bad: &str, good: &str) {
    assert_ne!(rule(&Source::new(path, bad)), [""; 0], "not found in {bad:?}");
    assert_eq!(rule(&Source::new(path, good)), [""; 0], "found in {good:?}");
}

#[test]
fn a_file_without_header_is_found() {
    tells_apart(says_what_it_is, "use a;\n", "//! A thing.\n");
    tells_apart(says_what_it_is, "//!\n", "//! A thing.\n");
}

#[test]
fn long_lines_functions_and_files_are_found() {
    tells_apart(fits_in_columns, &"é".repeat(101), &"é".repeat(100));
    let function =
        |lines| format!("fn f<A: Fn(u8) -> u8>(a: [u8; 2]) -> A {{\n{}}}", "\n".repeat(lines));
    tells_apart(has_short_functions, &function(69), &function(68));
    let declared = format!("type A = fn(u8);\nfn f();\nstruct A {{{}}}", "\n".repeat(90));
    tells_apart(has_short_functions, &function(69), &declared);
    tells_apart(is_short, &"\n".repeat(501), &"\n".repeat(500));
}

#[test]
fn an_unwrap_without_reason_is_found() {
    let rule = unwraps_with_a_reason;
    tells_apart(rule, "fn f() {\n    a.unwrap();\n}", "// A holds b.\n#[allow(x)]\na.unwrap();");
    tells_apart(rule, "let b = 1;\na.expect(\"b\");", "// Why.\na\n    .b()\n    .expect(\"b\");");
    tells_apart(rule, "a.unwrap();", "a.unwrap_or(1); // b.unwrap()\n");
    tells_apart(rule, "a.unwrap();", "#[cfg(test)]\nmod tests {\n    a.unwrap();\n}");
}

#[test]
fn what_is_left_undone_is_found() {
    let undone = concat!("// TO", "DO: more");
    tells_apart(leaves_nothing_undone, undone, "// All is done.");
    tells_apart(leaves_nothing_undone, concat!("db", "g!(a)"), "debug!(a)");
}

#[test]
fn a_public_item_without_text_is_found() {
    let rule = documents_what_is_public;
    tells_apart(rule, "pub fn a() {}", "/// A.\n#[inline]\npub fn a() {}");
    tells_apart(rule, "x\n#[derive(A)]\npub struct A;", "pub(crate) fn a() {}\npub use b;");
    tells_apart(rule, "#[a(\n  b\n)]\npub trait A {}", "/// A.\n#[a(\n  b\n)]\npub trait A {}");
    tells_apart(rule, "pub unsafe fn a() {}", "/// A.\npub unsafe fn a() {}");
}

#[test]
fn the_system_outside_sys_is_found() {
    let rule = leaves_the_system_to_sys;
    tells_apart(rule, "let a = unsafe { b() };", "#![deny(unsafe_code)] // unsafe");
    tells_apart(rule, "use libc::c_int;", "let calibcate = 1;");
    tells_apart(rule, "polling::Poller::new()", "let polling_ms = 1;");
    assert_eq!(rule(&Source::new("src/sys/fd.rs", "unsafe { a() }")), [""; 0]);
}

#[test]
fn a_question_for_the_system_outside_sys_is_found() {
    let rule = asks_for_no_system_but_in_sys;
    tells_apart(rule, "#[cfg(target_os = \"linux\")]\nfn f() {}", "#[cfg(test)]\nfn f() {}");
    tells_apart(rule, "if cfg!(target_vendor = \"apple\") {}", "let own_target_os = 1;");
    assert_eq!(rule(&Source::new("src/sys/fd.rs", "#[cfg(target_os = \"linux\")]")), [""; 0]);
}

#[test]
fn an_impure_wire_is_found() {
    let pure = "use std::{fmt, collections::VecDeque};";
    for bad in ["use std::{fmt, io::Read};", "fn a() { std::time::Instant::now() }", "use std::fs;"]
    {
        tells_apart_at("src/wire/header.rs", keeps_wire_pure, bad, pure);
    }
    assert_eq!(keeps_wire_pure(&Source::new("src/io/side.rs", "use std::io;")), [""; 0]);
}
