//! What a user may write.
mod standin;
use mitogen::CallContext;
use mitogen::function::{Arguments, Function, Signature};
use standin::{Context, Program};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

mitogen::value! {
    /// What was found.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Usage { /** Below this. */ pub path: PathBuf, bytes: u64 }
    pub struct Meters(pub u32, String);
    struct Marker;
    struct Page<T> { items: Vec<T>, next: Option<u64> }
    #[derive(Default)]
    enum Event<T> { #[default] Started, Line(String), Two(u8, T), Done { code: i32 } }
    enum Tree { Leaf(u32), Node(Vec<Tree>) }
    #[repr(u8)] enum Level { Low = 3, High = 7 }
}

enum Tag {}
const SHADOWED: Option<Tag> = None;

fn disk_usage(_: &Path) -> std::io::Result<u64> {
    Ok(0)
}
fn who_called(_: &CallContext) -> String {
    String::new()
}
fn page(_: Page<Event<Usage>>, _: Tree) -> Result<Page<Meters>, Box<dyn std::error::Error>> {
    Err("none".into())
}
fn add(a: u32, b: u32) -> u32 {
    a + b
}
fn map(_: BTreeMap<String, Vec<Option<u8>>>) -> Option<Level> {
    None
}
fn on_all<F, M, A>(hosts: &[Context], f: F, a: A) -> Vec<Result<F::Output, String>>
where
    F: Signature<M> + Function<M>,
    A: Arguments<F::Args> + Copy,
{
    hosts.iter().map(|host| host.call(f, a)).collect()
}
fn main() -> Result<(), String> {
    Program::new().function(disk_usage).function(who_called).function(page).function(map);
    let root = Context;
    let _: u64 = root.call(disk_usage, "/var/log")?;
    let _: u64 = root.call(disk_usage, Path::new("/var/log"))?;
    let _: u64 = root.call(disk_usage, format!("/var/{}", 1))?;
    let _: u32 = root.call(add, (1, 2))?;
    let _: String = root.call(who_called, ())?;
    let _ = root.call(map, BTreeMap::from([("a".into(), vec![None, Some(1)])]))?;
    let _ = root.call(page, (Page { items: vec![], next: None }, Tree::Node(vec![Tree::Leaf(1)])))?;
    let _: Vec<Result<u32, String>> = on_all(&[root], add, (1, 2));
    Ok(())
}
