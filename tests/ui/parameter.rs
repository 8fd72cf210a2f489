//! A type that cannot arrive is named, also where it is inside another.
mod standin;
use mitogen::CallContext;
use standin::Program;
use std::fs::File;
struct Usage {
    bytes: u64,
}
fn third(_: &CallContext, _: u8, _: File) -> u64 {
    0
}
fn inside(_: Vec<Usage>) {}
fn deep(_: Option<(u8, Vec<Usage>)>) {}
fn borrowed(_: &Usage) {}
fn changed(_: &mut Vec<u8>) {}
fn main() {
    Program::new().function(third); //~ `File` cannot arrive from another context
    //~ `File` has no `Decode`
    //~ if the type is yours, put its definition in `mitogen::value! { .. }`
    //~ it may also borrow `&str`, `&[u8]`, `&Path`, and `&CallContext`
    Program::new().function(inside); //~ `Usage` cannot arrive from another context
    Program::new().function(deep); //~ the trait `Decode` is not implemented for `Usage`
    Program::new().function(borrowed); //~ `&Usage` cannot
    Program::new().function(changed); //~ `&mut Vec<u8>` cannot
}
