//! What the compiler says to a user: the snippets of `ui/` are put through it.
//! A comment `//~ phrase` is what its message must contain; after code, it must name that line.
//! A snippet without one must compile. `//@ build` asks for more than a check.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The library that this test was built with.
fn library(deps: &Path) -> PathBuf {
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("libmitogen-") && name.ends_with(".rlib")
    };
    let files = fs::read_dir(deps).unwrap().map(|entry| entry.unwrap().path());
    files.filter(is_ours).max_by_key(|path| path.metadata().unwrap().modified().unwrap()).unwrap()
}

/// What the compiler says, or nothing if it is content.
fn compile(snippet: &Path, text: &str) -> Option<String> {
    let test = env::current_exe().unwrap();
    let deps = test.parent().unwrap();
    let (kind, emit) =
        if text.contains("//@ build") { ("bin", "obj") } else { ("lib", "metadata") };
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(snippet.file_name().unwrap());
    let output = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition", "2024", "--cap-lints", "allow", "--color", "never"])
        .args(["--crate-name", "tool", "--crate-type", kind, "--emit", emit, "-o"])
        .arg(out.with_extension(emit))
        .arg("--extern")
        .arg(format!("mitogen={}", library(deps).display()))
        .arg("-L")
        .arg(format!("dependency={}", deps.display()))
        .arg(snippet)
        .output()
        .unwrap();
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What is wrong with what the compiler said.
fn complaints(text: &str, said: Option<&str>) -> Vec<String> {
    let mut complaints = Vec::new();
    if said.is_some() != text.contains("//~ ") {
        complaints.push(format!("compiles: {}", said.is_none()));
    }
    let said = said.unwrap_or_default();
    for (index, line) in text.lines().enumerate() {
        let Some((code, phrase)) = line.split_once("//~ ") else { continue };
        if !said.contains(phrase) {
            complaints.push(format!("not said: {phrase}"));
        }
        let place = format!(".rs:{}:", index + 1);
        if !code.trim().is_empty() && !said.contains(&place) {
            complaints.push(format!("line {} not named", index + 1));
        }
    }
    complaints
}

#[test]
fn the_compiler_says_what_is_wrong_and_where() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
    let mut failures = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let snippet = entry.unwrap().path();
        let text = fs::read_to_string(&snippet).unwrap();
        let said = compile(&snippet, &text);
        let complaints = complaints(&text, said.as_deref());
        if !complaints.is_empty() {
            failures += 1;
            let said = said.unwrap_or_default();
            println!("{}: {complaints:#?}\n{said}", snippet.display());
        }
    }
    assert_eq!(failures, 0, "snippets about which the compiler says something else");
}
