//! Several identities in one process: a master, contexts of other masters beside it, and an agent
//! that is the master of a tree of its own.

use std::fs;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::call::call_context::CallContext;
use crate::call::context::Context;
use crate::error::Result;
use crate::{Broker, Router, stock};

crate::test_agent!(
    crate::Program::new().function(add).function(master_there).function(keep_master).function(who)
);

fn add(a: u32, b: u32) -> u32 {
    a + b
}

/// The ids of this context and of its parents.
fn who(cx: &CallContext) -> (u32, Vec<u32>) {
    (cx.context_id().0, cx.router().parent_ids().iter().map(|id| id.0).collect())
}

/// Makes a tree of this process's own, beside the one that it is an agent of. Tells what processes
/// are in it, and who they say that they are.
fn master_there(cx: &CallContext) -> Result<Vec<(u32, u32)>> {
    assert!(!cx.router().is_master());
    let router = mitogen_test_program().router()?;
    assert!(router.is_master());
    let near = router.local().connect()?;
    let far = router.local().via(&near).connect()?;
    // Both trees at once, one of them through the other's function.
    let own = cx.router().local().connect()?;
    assert_eq!((near.call(add, (1, 2))?, own.call(add, (3, 4))?), (3, 7));
    assert_eq!(far.call(who, ())?, (far.context_id().0, vec![near.context_id().0, 0]));
    let ids = cx.router().parent_ids().len();
    assert_eq!(own.call(who, ())?.1.len(), 1 + ids);
    [&near, &far, &own].into_iter().map(|it| Ok((pid(it)?, it.context_id().0))).collect()
}

static KEPT: Mutex<Vec<(Router, Context)>> = Mutex::new(Vec::new());

/// Makes such a tree, and leaves it.
fn keep_master() -> Result<u32> {
    let router = mitogen_test_program().router()?;
    let near = router.local().connect()?;
    let pid = pid(&near)?;
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).push((router, near));
    Ok(pid)
}

fn pid(context: &Context) -> Result<u32> {
    Ok(context.call(stock::identify, ())?.pid)
}

/// Whether a process is there, and not only for init to reap it.
fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with("Z 1 "))
}

#[track_caller]
fn soon_gone(pid: u32) {
    let begun = Instant::now();
    while lives(pid) {
        assert!(begun.elapsed() < Duration::from_secs(1), "{pid} is left");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_agent_is_the_master_of_a_tree_of_its_own_at_the_same_time() {
    let router = mitogen_test_program().router().unwrap();
    let agent = router.local().connect().unwrap();
    for _ in 0..3 {
        let tree = agent.call(master_there, ()).unwrap();
        // The function's router is gone with it, but what the agent itself started is not.
        soon_gone(tree[0].0);
        soon_gone(tree[1].0);
        assert!(lives(tree[2].0));
        assert_eq!(agent.call(add, (1, 2)).unwrap(), 3);
    }
}

#[test]
fn a_tree_that_an_agent_is_the_master_of_ends_with_the_agent() {
    let router = mitogen_test_program().router().unwrap();
    let agents = [(); 3].map(|()| router.local().connect().unwrap());
    let pids = agents.each_ref().map(|agent| agent.call(keep_master, ()).unwrap());
    let [asked, killed, _left] = agents;
    asked.shutdown().unwrap();
    soon_gone(pids[0]);
    let number = pid(&killed).unwrap().to_string();
    assert!(Command::new("kill").args(["-9", &number]).status().unwrap().success());
    soon_gone(pids[1]);
    router.shutdown();
    soon_gone(pids[2]);
}

#[test]
fn a_master_and_contexts_of_several_others_are_in_one_process() {
    let broker = Broker::new().unwrap();
    let on = |shared: bool| {
        let program = mitogen_test_program();
        if shared { program.broker(&broker) } else { program }.router().unwrap()
    };
    let routers = [on(true), on(true), on(false), on(false)];
    let near = routers.each_ref().map(|router| router.in_process().unwrap());
    let below = near.each_ref().map(|near| near.router().local().via(near).connect().unwrap());
    for (near, below) in near.iter().zip(&below) {
        assert_eq!(near.call(who, ()).unwrap(), (1, vec![0]));
        assert_eq!(below.call(who, ()).unwrap().1, [1, 0]);
    }
    let [first, second, third, fourth] = routers;
    first.shutdown();
    third.shutdown();
    assert!(near[0].call(add, (1, 2)).is_err() && below[2].call(add, (1, 2)).is_err());
    for i in [1, 3] {
        assert_eq!(
            (near[i].call(add, (1, 2)).unwrap(), below[i].call(add, (3, 4)).unwrap()),
            (3, 7)
        );
    }
    drop((second, fourth));
}
