//! The package as a whole: its files, who includes whom, its dependencies.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs, process::Command};

use crate::source::{Source, words};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the package, by its path inside.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every Rust file of ours.
pub fn sources() -> Vec<Source> {
    let files = files(&["src", "tests", "bench", "fuzz"], "rs");
    let mut sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
    mark_tests(&mut sources);
    sources
}

/// Takes the files behind `#[cfg(test)] mod NAME;` for tests.
fn mark_tests(sources: &mut [Source]) {
    let of_tests = |source: &Source| -> Vec<String> {
        modules(source).filter(|(line, _)| source.is_test(*line)).map(|(_, path)| path).collect()
    };
    let tests: Vec<String> = sources.iter().flat_map(of_tests).collect();
    sources.iter_mut().filter(|s| tests.contains(&s.path)).for_each(Source::mark_as_test);
}

/// Every page of the manual, path and text.
pub fn pages() -> Vec<(String, String)> {
    files(&["src"], "md")
}

fn files(folders: &[&str], extension: &str) -> Vec<(String, String)> {
    let mut found = vec![];
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == extension) {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_string();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Files that no `mod` line and no `path` of the manifest leads to.
pub fn unreached(sources: &[Source], manifest: &str) -> Vec<String> {
    let is_root = |path: &str| {
        let target =
            path.strip_prefix("tests/").is_some_and(|inside| match inside.split_once('/') {
                None => true,
                Some((_, name)) => name == "main.rs",
            });
        path == "src/lib.rs" || target || manifest.contains(&format!("path = \"{path}\""))
    };
    let mut reached: BTreeSet<String> = BTreeSet::new();
    let mut next: Vec<&Source> = sources.iter().filter(|source| is_root(&source.path)).collect();
    while let Some(source) = next.pop() {
        if reached.insert(source.path.clone()) {
            let inside: Vec<String> = modules(source).map(|(_, path)| path).collect();
            next.extend(sources.iter().filter(|source| inside.contains(&source.path)));
        }
    }
    let unreached = sources.iter().filter(|source| !reached.contains(&source.path));
    // A workspace of its own, and snippets that a test hands to the compiler.
    let elsewhere = |path: &str| {
        ["fuzz/", "tests/ui/", "tests/model/"].iter().any(|folder| path.starts_with(folder))
    };
    unreached
        .filter(|s| !elsewhere(&s.path))
        .map(|s| s.finding(1, "no mod line leads here"))
        .collect()
}

/// The lines `mod NAME;` of a file, and the paths at which each looks.
fn modules(source: &Source) -> impl Iterator<Item = (usize, String)> {
    let path = Path::new(&source.path);
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("");
    let folder = path.parent().unwrap_or(path);
    let folder = match stem {
        "mod" | "lib" | "main" => folder.to_path_buf(),
        _ => folder.join(stem),
    };
    let names = words(&source.code, "mod").filter_map(|at| {
        let rest = &source.code[at + "mod".len()..];
        let name = rest.split_once(';')?.0.trim();
        (!name.contains('{')).then(|| (source.line_of(at), name))
    });
    names.flat_map(move |(line, name)| {
        [folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")]
            .map(|path| (line, path.display().to_string()))
    })
}

/// Pages that no source includes.
pub fn pages_left_out(pages: &[(String, String)], sources: &[Source]) -> Vec<String> {
    let is_included = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        sources.iter().any(|source| source.text.contains(name) && source.path.starts_with("src/"))
    };
    let left_out = pages.iter().filter(|(path, _)| !is_included(path));
    left_out.map(|(path, _)| format!("{path}: no source includes it")).collect()
}

/// A document that does not quote the hash of the wire's code as it is.
pub fn wire_hash_findings(page: &str, sources: &[Source]) -> Vec<String> {
    let hash = wire_hash(sources);
    let quoted = page.contains(&hash);
    let what = format!("src/manual/wire.md does not quote {hash}: read it again, then write it in");
    if quoted { vec![] } else { vec![what] }
}

/// FNV-1a over the code of `src/wire`, without comments, tests and the width of blanks.
fn wire_hash(sources: &[Source]) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for source in sources.iter().filter(|source| source.path.starts_with("src/wire/")) {
        for (line, text, code) in source.lines() {
            // The code says where a comment starts, the text what the strings say.
            let kept = &text[..code.trim_end().len().min(text.len())];
            let blanks = source.is_test(line) || code.trim().is_empty();
            let bytes = if blanks { "" } else { kept };
            for byte in bytes.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    format!("{hash:016x}")
}

/// What the library links, one `name vVERSION` a line, in order.
pub fn dependencies(arguments: &[&str]) -> String {
    let output = Command::new(env::var("CARGO").unwrap_or("cargo".into()))
        .current_dir(root())
        .args(["tree", "--locked", "--offline", "-e", "normal", "--prefix", "none"])
        .args(["--target", "x86_64-unknown-linux-gnu", "--no-dedupe"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let others: BTreeSet<&str> =
        text.lines().filter(|line| !line.starts_with("mitogen ")).collect();
    others.into_iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_file_that_nothing_leads_to_is_found() {
    let file = Source::new;
    let sources = [
        file("src/lib.rs", "mod a;\n// mod c;\nmod e { }"),
        file("src/a/mod.rs", "pub mod b;"),
        file("src/a/b.rs", "mod d;"),
        file("src/a/b/d.rs", ""),
        file("src/c.rs", ""),
        file("src/bin/tool.rs", ""),
        file("tests/it/main.rs", ""),
        file("tests/it/lost.rs", ""),
    ];
    let found = unreached(&sources, "[[bin]]\npath = \"src/bin/tool.rs\"");
    let lost = ["src/c.rs:1: no mod line leads here", "tests/it/lost.rs:1: no mod line leads here"];
    assert_eq!(found, lost);
}

#[test]
fn a_file_of_tests_is_known_by_its_mod_line() {
    let lib = Source::new("src/lib.rs", "#[cfg(test)]\nmod a;\nmod b;");
    let mut sources = vec![lib, Source::new("src/a.rs", "x"), Source::new("src/b.rs", "x")];
    mark_tests(&mut sources);
    assert!(sources[1].is_test(1) && !sources[2].is_test(1));
}

#[test]
fn a_page_that_is_not_included_is_found() {
    let pages = [("src/manual/wire.md".into(), String::new())];
    let with = [Source::new("src/manual/mod.rs", "#![doc = include_str!(\"wire.md\")]")];
    assert_eq!(pages_left_out(&pages, &with), [""; 0]);
    assert_eq!(pages_left_out(&pages, &[]).len(), 1);
}

#[test]
fn the_hash_follows_the_code_and_not_the_comments() {
    let hash = |text: &str| wire_hash(&[Source::new("src/wire/a.rs", text)]);
    assert_eq!(hash("const A: u8 = 1; // one\n"), hash("//! A.\nconst A: u8  = 1;\n"));
    assert_eq!(hash("const A: &str = \"1\";"), hash("const A: &str = \"1\";\n"));
    assert_ne!(hash("const A: u8 = 1;"), hash("const A: u8 = 2;"));
    assert_ne!(hash("const A: &str = \"1\";"), hash("const A: &str = \"2\";"));
    let sources = [Source::new("src/wire/a.rs", "const A: u8 = 1;")];
    assert_eq!(wire_hash_findings("Hash: none", &sources).len(), 1);
    assert_eq!(wire_hash_findings(&wire_hash(&sources), &sources), [""; 0]);
}
