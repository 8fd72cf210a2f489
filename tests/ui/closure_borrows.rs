//! A closure that borrows is refused by the compiler.
mod standin;
use standin::Program;
fn main() {
    let number = 1u32;
    Program::new().function(|| number + 1); //~ closure may outlive
}
