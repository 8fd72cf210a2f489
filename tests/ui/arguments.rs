//! Arguments that do not match are told with what was expected.
mod standin;
use standin::Context;
fn disk_usage(_: &str) -> u64 {
    0
}
fn add(_: u32, _: u32) -> u32 {
    0
}
fn wide(_: u64) {}
fn none() {}
fn list(_: Vec<String>) {}
fn perhaps(_: Option<String>) {}
fn main() {
    let c = Context;
    let small = 1u32;
    let _ = c.call(disk_usage, 5); //~ does not match the function's arguments `(String,)`
    //~ expected `(String,)`, found
    //~ one argument is passed as it is, several as a tuple, none as `()`
    let _ = c.call(add, (1, "x")); //~ the function takes `u32` here, not `&str`
    //~ expected something that is sent as `u32`, found `&str`
    let _ = c.call(disk_usage, ("x",)); //~ `(&str,)` does not match the function's arguments
    let _ = c.call(add, 1); //~ does not match the function's arguments `(u32, u32)`
    let _ = c.call(add, (1, 2, 3)); //~ does not match the function's arguments `(u32, u32)`
    let _ = c.call(none, 1); //~ does not match the function's arguments `()`
    let _ = c.call(wide, small); //~ `u32` does not match the function's arguments `(u64,)`
    let _ = c.call(list, vec!["a"]); //~ `Vec<&str>` does not match
    let _ = c.call(perhaps, Some("a")); //~ `Option<&str>` does not match
}
