//! What is no plain `fn` is refused.
mod standin;
use standin::{Context, Program};
extern "C" fn foreign() {}
unsafe fn risky() {}
fn plain() -> u8 {
    0
}
fn eight(_: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8) {}
fn main() {
    Program::new().function(foreign); //~ cannot be called from another context
    Program::new().function(risky); //~ expected a plain `fn` of at most six arguments
    Program::new().function(plain()); //~ `u8` cannot be called from another context
    //~ name the `fn` itself: not its result, not a `fn` pointer, not an `unsafe` or `extern` one
    Program::new().function(eight); //~ `fn(u8, u8, u8, u8, u8, u8, u8, u8) {eight}` cannot be
    //~ more than six arguments: pass a struct or a tuple
    let _ = Context.call(plain(), ()); //~ cannot be called
}
