//! Processes of a program's own, watched beside those of the library.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use mitogen::{CallContext, Latch, Program, Result, stock};

use crate::support::*;

mitogen::test_agent!(program());

const LIMIT: Duration = Duration::from_secs(10);

fn program() -> Program {
    Program::new().function(watch)
}

/// How a command of this context ended.
fn watch(cx: &CallContext, line: &str) -> Result<String> {
    let ended = Arc::new(Latch::new());
    let own = ended.clone();
    let Ok(child) = Command::new("sh").args(["-c", line]).spawn() else {
        return Ok("no shell".to_owned());
    };
    cx.router().broker().watch_process(child, move |status| drop(own.put(status)));
    Ok(match ended.get_timeout(LIMIT)? {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    })
}

#[test]
fn ends_are_told_in_the_master_and_in_a_child_while_contexts_come_and_go() {
    leaves_nothing(&[], || {
        let router = mitogen_test_program().router().unwrap();
        let child = router.local().connect().unwrap();
        let cx = CallContext::local(&router);
        for i in 0..20 {
            let line = format!("exit {i}");
            let call = child.call_async(watch, line.as_str());
            let other = router.local().connect().unwrap();
            let here = watch(&cx, &line).unwrap();
            assert_eq!(here, format!("exit status: {i}"));
            assert_eq!(call.get().unwrap(), here);
            other.call(stock::ping, ()).unwrap();
            other.shutdown().unwrap();
        }
        assert!(child.call(watch, "kill -9 $$").unwrap().contains("9"));
        let descriptors = own_descriptors().len();
        (0..50).for_each(|_| assert!(watch(&cx, "exit 0").unwrap().contains("0")));
        assert!(own_descriptors().len() <= descriptors + 1, "{:?}", own_descriptors());
    });
}
