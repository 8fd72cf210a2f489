//! A result that cannot be sent back is named.
mod standin;
use standin::Program;
use std::fs::File;
struct NotAnError;
async fn later() -> u8 {
    0
}
fn text(text: &str) -> &str {
    text
}
fn file() -> File {
    panic!()
}
fn opened() -> std::io::Result<File> {
    panic!()
}
fn never() -> ! {
    panic!()
}
fn fails() -> Result<u8, NotAnError> {
    Ok(0)
}
fn shared() -> Result<u8, Box<dyn std::error::Error + Send + Sync>> {
    Ok(0)
}
fn main() {
    Program::new().function(later); //~ a remote function cannot return `impl Future<Output = u8>`
    Program::new().function(text); //~ a remote function cannot return `&str`
    Program::new().function(file); //~ a remote function cannot return `File`
    Program::new().function(opened); //~ `File` cannot arrive from another context
    Program::new().function(never); //~ a remote function cannot return `!`
    Program::new().function(fails); //~ `NotAnError` cannot be the error of a remote function
    //~ it may be any type with `std::error::Error`, `String`, `&str`, or `Box<dyn Error>`
    Program::new().function(shared); //~ cannot be the error of a remote function
    //~ for `Box<dyn Error + Send + Sync>` write `Box<dyn Error>`
}
