//! Floors: what a file names of its own crate stands below it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::source::{Source, closing, is_word, words};

/// Every floor, from the ground up.
const FLOORS: [&[&str]; 9] = [
    &["error", "limits", "ids", "lock", "trace"],
    &["sys"],
    &["wire"],
    &["io"],
    &["route"],
    &["call", "module", "log"],
    &["connect"],
    &["program", "agent", "inspect", "fakessh", "stock"],
    &["lib", "bin"],
];

fn floor(name: &str) -> Option<usize> {
    FLOORS.iter().position(|names| names.contains(&name))
}

/// What uses what is not below it, and what neighbours on one floor use each other in a circle.
pub fn findings(sources: &[Source]) -> Vec<String> {
    let exported = exports(sources);
    let mut found = vec![];
    let mut neighbours = BTreeSet::new();
    for source in sources.iter().filter(|source| source.path.starts_with("src/")) {
        let own = source.floor_name();
        let Some(own_floor) = floor(own) else {
            if !source.path.starts_with("src/manual/") {
                found.push(source.finding(1, &format!("{own} is on no floor")));
            }
            continue;
        };
        for (line, name) in crate_names(source) {
            let name = exported.get(&name).unwrap_or(&name);
            let used = floor(name);
            if name == own || source.is_test(line) {
                continue;
            }
            if used == Some(own_floor) {
                neighbours.insert((own.to_string(), name.clone()));
            } else if used.is_none_or(|used| own_floor < used) {
                found.push(source.finding(line, &format!("{own} uses {name}, not below it")));
            }
        }
    }
    found.extend(circles(&neighbours));
    found
}

/// Pairs of neighbours that reach each other.
fn circles(uses: &BTreeSet<(String, String)>) -> Vec<String> {
    let mut reach = uses.clone();
    loop {
        let further: Vec<_> = reach
            .iter()
            .flat_map(|(a, b)| {
                uses.iter().filter(move |(c, _)| b == c).map(|(_, d)| (a.clone(), d.clone()))
            })
            .filter(|pair| !reach.contains(pair))
            .collect();
        if further.is_empty() {
            break;
        }
        reach.extend(further);
    }
    let circular = reach.iter().filter(|(a, b)| a == b);
    circular.map(|(a, _)| format!("src/{a} uses itself through a neighbour")).collect()
}

/// The public names of lib.rs, and the module that each is from.
fn exports(sources: &[Source]) -> BTreeMap<String, String> {
    let lib = sources.iter().find(|source| source.path == "src/lib.rs");
    let mut map = BTreeMap::new();
    for (_, path) in lib.map(paths).unwrap_or_default() {
        let path = path.strip_prefix("crate::").unwrap_or(&path).to_string();
        if let (Some(module), Some(name)) = (path.split("::").next(), path.rsplit("::").next()) {
            if floor(module).is_some() && floor(name).is_none() {
                map.insert(name.to_string(), module.to_string());
            }
        }
    }
    map
}

/// The name after `crate::` of every path, with its line. Macros and hidden names are passed over.
fn crate_names(source: &Source) -> Vec<(usize, String)> {
    let depth = source.path.matches('/').count() - usize::from(source.path.ends_with("/mod.rs"));
    let inline = inline_modules(source);
    let mut names = vec![];
    for (line, path) in paths(source) {
        let inner_depth = inline.iter().filter(|lines| lines.contains(&line)).count();
        let climb = "super::".repeat(depth + inner_depth);
        let inner = path.strip_prefix("crate::").or_else(|| path.strip_prefix(&climb));
        let Some(inner) = inner.filter(|_| !climb.is_empty() || path.starts_with("crate::")) else {
            continue;
        };
        let name = inner.split("::").next().unwrap_or(inner);
        let is_module_or_type = !name.starts_with("__") && !name.ends_with('!') && name != "*";
        if is_module_or_type && (name != "self") {
            names.push((line, name.to_string()));
        }
    }
    names
}

/// The lines of each `mod NAME { .. }`.
fn inline_modules(source: &Source) -> Vec<RangeInclusive<usize>> {
    let code = &source.code;
    let opened = words(code, "mod").filter_map(|at| {
        let open = at + code[at..].find(['{', ';'])?;
        (code.as_bytes()[open] == b'{').then(|| (at, closing(code, open) - 1))
    });
    opened.map(|(from, to)| source.line_of(from)..=source.line_of(to)).collect()
}

/// Every path of two or more names, `use` trees spread out, with its line.
pub fn paths(source: &Source) -> Vec<(usize, String)> {
    let code = &source.code;
    let mut found = vec![];
    let mut uses = vec![];
    for at in words(code, "use") {
        let end = code[at..].find(';').map_or(code.len(), |offset| at + offset);
        let mut spread = vec![];
        spread_tree("", &code[at + "use".len()..end], &mut spread);
        found.extend(spread.into_iter().map(|path| (source.line_of(at), path)));
        uses.push(at..end);
    }
    let mut next = 0;
    for (at, _) in code.match_indices("::") {
        if at < next || uses.iter().any(|range| range.contains(&at)) {
            continue;
        }
        let is_name = |byte: &u8| is_word(*byte) || *byte == b':' || *byte == b'!';
        let start = code[..at].bytes().rev().take_while(|byte| is_word(*byte)).count();
        next = at + code[at..].bytes().take_while(is_name).count();
        let path = code[at - start..next].trim_end_matches(':');
        found.push((source.line_of(at), path.to_string()));
    }
    found
}

fn spread_tree(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree).trim();
        let path = format!("{prefix}{path}");
        found.push(
            path.strip_suffix("::self").unwrap_or(&path).trim_start_matches("::").to_string(),
        );
        return;
    };
    let prefix = format!("{prefix}{}", tree[..open].trim());
    let inside = &tree[open + 1..closing(tree, open) - 1];
    let mut start = 0;
    let mut at = 0;
    while at < inside.len() {
        match inside.as_bytes()[at] {
            b'{' => at = closing(inside, at),
            b',' => {
                spread_tree(&prefix, &inside[start..at], found);
                at += 1;
                start = at;
            }
            _ => at += 1,
        }
    }
    if !inside[start..].trim().is_empty() {
        spread_tree(&prefix, &inside[start..], found);
    }
}

#[cfg(test)]
fn found_in(files: &[(&str, &str)]) -> Vec<String> {
    let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
    findings(&sources)
}

#[cfg(test)]
#[track_caller]
fn is_refused(path: &str, text: &str) {
    assert_eq!(found_in(&[(path, text)]).len(), 1, "{path}: {text}");
}

#[cfg(test)]
#[track_caller]
fn is_allowed(path: &str, text: &str) {
    assert_eq!(found_in(&[(path, text)]), [""; 0], "{path}: {text}");
}

#[test]
fn a_use_of_a_higher_floor_is_found() {
    is_refused(
        "src/wire/header.rs",
        "use crate::{error::Error, io::{Side, self}};".replace(", self", "").as_str(),
    );
    is_refused("src/wire/header.rs", "fn a() { crate::route::b() }");
    is_refused("src/sys/fd.rs", "use super::super::wire::Frame;");
    is_refused("src/sys/mod.rs", "use super::wire::Frame;");
    is_refused("src/ids.rs", "use crate::call::Context;");
    is_refused("src/strange.rs", "fn a() {}");
    is_refused("src/io/side.rs", "use crate::unheard_of::A;");
}

#[test]
fn a_use_of_a_lower_floor_or_of_the_own_one_is_allowed() {
    is_allowed(
        "src/wire/header.rs",
        "use crate::{error::Error, wire::varint};\nuse super::varint;",
    );
    is_allowed("src/sys/spawn.rs", "mod linux {\nuse super::super::errno::check;\n}");
    is_allowed("src/bin/mitogen.rs", "use crate::connect::Address;");
    is_allowed("src/io/side.rs", "//! Unlike crate::route.\n#[cfg(test)]\nuse crate::route::A;");
    is_allowed("src/io/side.rs", "crate::debug!(a); $crate::__private::b()");
}

#[test]
fn a_public_name_stands_where_its_module_stands() {
    let lib = ("src/lib.rs", "pub use error::Error;\npub use crate::call::Context;");
    assert_eq!(found_in(&[lib, ("src/wire/a.rs", "use crate::Error;")]), [""; 0]);
    assert_eq!(found_in(&[lib, ("src/wire/a.rs", "use crate::Context;")]).len(), 1);
}

#[test]
fn neighbours_that_use_each_other_are_found() {
    let one_way = [("src/error.rs", "use crate::ids::A;"), ("src/ids.rs", "use crate::limits::B;")];
    assert_eq!(found_in(&one_way), [""; 0]);
    let circle = [one_way[0], one_way[1], ("src/limits.rs", "use crate::error::Error;")];
    assert_ne!(found_in(&circle), [""; 0]);
}
