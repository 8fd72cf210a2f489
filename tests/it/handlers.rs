//! Handlers of a program's own, in and between real processes.

use std::sync::mpsc::channel;
use std::time::Duration;

use mitogen::error::{Cause, Death};
use mitogen::{CallContext, Context, Handle, Handler, Latch, Message, Program, Result, Router};
use mitogen::{policy, stock};
use std::sync::Arc;

use crate::support::*;

mitogen::test_agent!(program());

const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);
const ECHO: Handle = Handle::well_known(1);

fn program() -> Program {
    let program = Program::new().function(serve).function(ask).function(send);
    program.function(grandchild).function(id)
}

/// Answers whoever has authority here.
fn serve(cx: &CallContext) -> Result<()> {
    let echo = Handler::new(|router, message| {
        if let Ok(message) = message {
            router.reply(&message, message.data.clone()).unwrap();
        }
    });
    cx.router().add_handler(echo.at(ECHO).policy(policy::has_parent_authority)).map(drop)
}

/// What the echo of another context says, or why it says nothing.
fn ask(cx: &CallContext, there: Context, data: &[u8]) -> Result<String> {
    let answer = question(cx.router(), &there, data)?;
    Ok(match answer {
        Ok(data) => String::from_utf8_lossy(&data).into_owned(),
        Err(death) => format!("{:?}", death.cause),
    })
}

fn question(router: &Router, there: &Context, data: &[u8]) -> Result<Result<Vec<u8>, Death>> {
    let got = Arc::new(Latch::new());
    let own = got.clone();
    let answer = Handler::new(move |_, answer| {
        // Nobody closes it.
        let _ = own.put(answer.map(|message| message.data));
    });
    let answer = router.add_handler(answer.once().from(there))?;
    router.route(Message::to(there.context_id(), ECHO).with_data(data).reply_to(answer))?;
    got.get_timeout(LIMIT)
}

/// Sends so many messages to a handle of the caller's.
fn send(cx: &CallContext, handle: u32, count: u32, bytes: usize) -> Result<()> {
    for _ in 0..count {
        let message = Message::to(cx.caller_id(), Handle(handle));
        cx.router().route(message.with_data(vec![7; bytes]))?;
    }
    Ok(())
}

fn grandchild(cx: &CallContext) -> Result<Context> {
    cx.router().local().connect()
}

fn id(cx: &CallContext) -> Result<u32> {
    cx.router().allocate_id().map(|id| id.0)
}

fn router() -> Router {
    mitogen_test_program().router().unwrap()
}

#[test]
fn a_message_and_its_answer_cross_a_tree_and_policies_hold_on_the_way() {
    leaves_nothing(&[], || {
        let router = router();
        let (a, b) = (router.local().connect().unwrap(), router.local().connect().unwrap());
        let below = a.call(grandchild, ()).unwrap();
        below.call(serve, ()).unwrap();
        b.call(serve, ()).unwrap();
        // Down, from any ancestor; in the quick lane, and as fragments.
        for bytes in [5, 100_000] {
            let data = vec![b'x'; bytes];
            assert_eq!(question(&router, &below, &data).unwrap().unwrap(), data);
        }
        assert_eq!(a.call(ask, (&below, b"from a")).unwrap(), "from a");
        // A cousin has no authority there; where nothing listens, or nobody is, that is told.
        assert_eq!(below.call(ask, (&b, b"from below")).unwrap(), "Refused");
        assert_eq!(b.call(ask, (&a, b"from b")).unwrap(), "NoHandle");
        b.shutdown().unwrap();
        assert_eq!(below.call(ask, (&b, b"late")).unwrap(), "NoRoute");
        // Who dies in between is the answer, too.
        let (tell, told) = channel();
        let answer = Handler::new(move |_, answer| tell.send(answer).unwrap());
        let answer = router.add_handler(answer.once().from(&below)).unwrap();
        let pid = below.call(stock::identify, ()).unwrap().pid;
        signal(pid, "STOP");
        router.route(Message::to(below.context_id(), ECHO).reply_to(answer)).unwrap();
        assert!(told.recv_timeout(PAUSE).is_err());
        signal(pid, "KILL");
        let death = told.recv_timeout(LIMIT).unwrap().unwrap_err();
        assert_eq!((death.cause, death.context), (Cause::Exited, Some(below.context_id())));
    });
}

#[test]
fn ids_are_given_out_once_in_the_whole_tree() {
    leaves_nothing(&[], || {
        let router = router();
        let child = router.local().connect().unwrap();
        let below = child.call(grandchild, ()).unwrap();
        let mut ids: Vec<u32> = vec![child.context_id().0, below.context_id().0];
        for _ in 0..20 {
            ids.push(router.allocate_id().unwrap().0);
            ids.extend([child.call(id, ()).unwrap(), below.call(id, ()).unwrap()]);
        }
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
        assert_eq!(router.myself().context_id(), router.context_id());
        assert!(router.parent().is_none());
    });
}

#[test]
fn a_slow_handler_slows_a_process_down_and_takes_all_in_the_end() {
    leaves_nothing(&[], || {
        let router = router();
        let child = router.local().connect().unwrap();
        let (go, gate) = channel::<()>();
        let (tell, told) = channel();
        let handler = Handler::new(move |_, message| {
            let Ok(message) = message else { return };
            // The test lets each through, and then all.
            let _ = gate.recv();
            tell.send(message.data.len()).unwrap();
        });
        let handle = router.add_handler(handler.from(&child)).unwrap();
        let call = child.call_async(send, (handle.0, 10_000, 1_000));
        // Other handlers wait, but the loop does not.
        assert!(child.context_id() != router.context_id());
        assert!(told.recv_timeout(PAUSE).is_err());
        let before = resident_kib();
        (0..50).for_each(|_| go.send(()).unwrap());
        (0..50).for_each(|_| assert_eq!(told.recv_timeout(LIMIT).unwrap(), 1_000));
        assert!(told.recv_timeout(PAUSE).is_err());
        let grown = resident_kib().saturating_sub(before);
        assert!(grown < 5_000, "{grown} KiB of 10,000 wait here");
        drop(go);
        (50..10_000).for_each(|_| assert_eq!(told.recv_timeout(LIMIT).unwrap(), 1_000));
        call.get_timeout(LIMIT).unwrap();
        router.del_handler(handle).unwrap();
        child.call(send, (handle.0, 1_000, 1_000)).unwrap();
    });
}

/// What of this process is in memory.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
