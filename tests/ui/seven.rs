//! Six arguments and a context are seven parameters; seven arguments are too many.
mod standin;
use mitogen::CallContext;
use standin::Program;
fn six(_: u8, _: u8, _: u8, _: &CallContext, _: u8, _: u8, _: u8) {}
fn seven(_: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8) {}
fn main() {
    Program::new().function(six);
    Program::new().function(seven); //~ a remote function takes at most six arguments
    //~ more than six arguments: pass a struct or a tuple
}
