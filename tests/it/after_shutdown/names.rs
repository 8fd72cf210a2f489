//! The public functions that the library's sources name.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The functions of the types that `lib.rs` names, as `Type<T>::function`; and those that it names
/// themselves.
pub fn public_functions() -> BTreeSet<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let text = fs::read_to_string(source.join("lib.rs")).unwrap();
    let (shown, _) = text.split_once("pub mod __private").unwrap();
    let uses = shown.lines().filter_map(|line| line.strip_prefix("pub use ")?.strip_suffix(';'));
    let named = uses.flat_map(|path| {
        let names = path.rsplit("::").next().unwrap_or(path);
        let names = if path.contains('{') { path.split_once('{').unwrap().1 } else { names };
        names.trim_end_matches('}').split(", ").map(str::to_owned).collect::<Vec<_>>()
    });
    let (types, others): (BTreeSet<String>, BTreeSet<String>) =
        named.partition(|name| name.starts_with(char::is_uppercase));
    let modules = ["blocking", "function", "policy"];
    let mut found: BTreeSet<String> =
        others.into_iter().filter(|name| !modules.contains(&&**name)).collect();
    for file in rust_files(&source) {
        found.extend(functions_in(&fs::read_to_string(file).unwrap(), &types));
    }
    found
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    files
}

/// Those of inherent `impl` blocks of these types; rustfmt has seen to where what stands.
fn functions_in(text: &str, types: &BTreeSet<String>) -> Vec<String> {
    let (mut found, mut of, mut hidden) = (Vec::new(), None, false);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("impl") {
            let is_trait = rest.contains(" for ");
            let name = if rest.starts_with('<') { rest.split_once("> ").unwrap().1 } else { rest };
            let name = name.trim().trim_end_matches([' ', '{', '}']);
            let bare = name.split('<').next().unwrap_or(name);
            of = (!is_trait && types.contains(bare)).then(|| name.to_owned());
        } else if line.starts_with('}') {
            of = None;
        }
        let item = line.strip_prefix("    ").filter(|item| !item.starts_with(' '));
        let (Some(of), Some(item)) = (&of, item) else { continue };
        hidden |= item == "#[doc(hidden)]";
        let Some(item) = item.strip_prefix("pub ") else { continue };
        let item = item.strip_prefix("const ").unwrap_or(item);
        let item = item.strip_prefix("unsafe ").unwrap_or(item);
        let function = item.strip_prefix("fn ").filter(|_| !std::mem::take(&mut hidden));
        let name = function.and_then(|rest| rest.split(['(', '<']).next());
        found.extend(name.map(|name| format!("{of}::{name}")));
    }
    found
}
