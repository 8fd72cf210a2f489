//! A function in another process: `cargo run --example hello`.

use mitogen::{Program, Result};

/// Runs in whatever process it is called in.
fn greet(name: &str) -> String {
    format!("hello {name}, says process {}", std::process::id())
}

fn main() -> Result<()> {
    Program::new().function(greet).run(|router| {
        let child = router.local().connect()?;
        println!("{}", greet("from here"));
        println!("{}", child.call(greet, "from there")?);
        Ok(())
    })
}
