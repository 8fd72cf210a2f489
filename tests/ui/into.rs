//! `into` as a whole argument is ambiguous, and the compiler says what to do.
mod standin;
use standin::Context;
fn disk_usage(_: &str) -> u64 {
    0
}
fn main() {
    let _ = Context.call(disk_usage, "x".into()); //~ type annotations needed
    //~ consider removing this method call
}
