//! What is borrowed lives for one call: neither `'static` nor a generic function over a borrow.
mod standin;
use standin::Program;
use std::path::Path;
fn forever(_: &'static str) {}
fn main() {
    Program::new().function(forever); //~ not general enough
    Program::new().function(std::fs::read_to_string::<&Path>); //~ `FnOnce` is not general enough
}
