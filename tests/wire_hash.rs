//! The page on the wire quotes a hash of `src/wire`: who changes the code must look at the page.

use std::fs;
use std::path::{Path, PathBuf};

/// The sources below `folder`.
fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}

/// FNV-1a of the contents of all sources below `folder`, in the order of their paths.
fn hash_of(folder: &Path) -> u64 {
    let mut paths = Vec::new();
    sources(folder, &mut paths);
    paths.sort();
    let contents = paths.iter().flat_map(|path| fs::read(path).unwrap());
    contents.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[test]
fn the_page_on_the_wire_quotes_the_hash_of_its_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("src/manual/wire.md")).unwrap();
    let line = format!("wire hash: {:016x}", hash_of(&root.join("src/wire")));
    assert!(
        page.lines().last() == Some(&line),
        "src/wire has changed: see that src/manual/wire.md is still true, then end it with\n{line}"
    );
}
