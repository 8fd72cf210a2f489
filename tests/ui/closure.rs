//! A closure that captures what is not `Copy` is refused by the compiler.
mod standin;
use standin::Program;
fn main() {
    let text = String::new();
    Program::new().function(move || text.len()); //~ the trait bound `String: Copy` is not satisfied
}
