//! How functions are tested: `cargo test --example in_process` runs the tests below,
//! `cargo run --example in_process` the program.

use std::io;
use std::path::Path;

use mitogen::{CallContext, Program, Result, Sender};

/// Bytes of a file.
fn size(path: &Path) -> io::Result<u64> {
    Ok(path.metadata()?.len())
}

/// Sends the numbers below `to`.
fn count(to: u32, out: Sender<u32>) -> Result<()> {
    (0..to).try_for_each(|n| out.send(n))
}

/// Where it runs, and for whom.
fn place(cx: &CallContext) -> String {
    format!("{} for {}", cx.context_id(), cx.caller_id())
}

/// What `main` and the tests have in common.
fn program() -> Program {
    Program::new().function(size).function(count).function(place)
}

fn main() -> Result<()> {
    program().run(|router| {
        // Encoded, routed and run like anywhere else, on a thread of this process.
        let context = router.in_process()?;
        println!(
            "{} bytes, in context {}",
            context.call(size, "/etc/passwd")?,
            context.call(place, ())?
        );
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Lets this test binary start copies of itself: `local` works below.
    mitogen::test_agent!(program());

    #[test]
    fn a_function_is_called_as_any_other() {
        assert!(size(Path::new("/nowhere")).is_err());
        let router = program().router().unwrap();
        assert_eq!(place(&CallContext::local(&router)), "0 for 0");
    }

    #[test]
    fn a_context_in_this_process_needs_no_agent() {
        let router = program().router().unwrap();
        let context = router.in_process().unwrap();
        let error = context.call(size, "/nowhere").unwrap_err();
        assert!(error.to_string().contains("No such file"), "{error}");
        let numbers = router.receiver();
        context.call_no_reply(count, (3, numbers.to_sender())).unwrap();
        assert_eq!(numbers.into_iter().collect::<Result<Vec<u32>>>().unwrap(), [0, 1, 2]);
    }

    #[test]
    fn a_copy_of_the_test_binary_serves_too() {
        let router = mitogen_test_program().router().unwrap();
        let child = router.local().connect().unwrap();
        assert_eq!(child.call(place, ()).unwrap(), format!("{} for 0", child.context_id()));
    }
}
