//! A context that leaves its tree and lives on by itself.

use std::sync::Arc;
use std::time::Instant;

use super::LOOK_AGAIN;
use super::logs::{self, Logs};
use crate::call::call_context::CallContext;
use crate::error::{Cause, Death, Error, Result};
use crate::ids::ContextId;
use crate::io::latch::Latch;
use crate::io::promise::{Promise, promise};
use crate::io::turn::Turn;
use crate::limits::DETACH_WAIT;
use crate::log::forward::Forward;
use crate::log::level;
use crate::route::credit::was_interrupted;
use crate::route::node::Node;
use crate::route::pending::Deliver;
use crate::sys::leave;
use crate::wire::message::Message;

impl CallContext {
    /// Leaves the tree: this context outlives its connection and its parent, as nothing does that
    /// does not call this. It is the first of a tree of its own then: it has no parents, though
    /// [`Router::is_master`](crate::Router::is_master) is still false; its children stay; whatever
    /// here waits for another context fails, and whoever waits for this one learns
    /// [`Cause::Detached`]. No more calls are taken, and those that run are cancelled, this one
    /// included: nobody waits for them, so [`CallContext::sleep`] and calls through
    /// [`CallContext::on`] are of no use any more. Its process ends when the function that called
    /// this has returned, and with it all that it started; SIGTERM ends it before.
    ///
    /// Its standard output and error lead to `/dev/null` from then on, unless to a file. What led
    /// here (ssh, sudo) may stay as long as it does. It has a session of its own where its process
    /// leads no group yet. The program may end once it has been told: by the end of the call.
    ///
    /// ```no_run
    /// # use mitogen::{CallContext, Program, Result, error::{Cause, ErrorKind}};
    /// fn keep_watch(cx: &CallContext) -> Result<()> {
    ///     cx.detach()?;
    ///     loop {
    ///         std::thread::sleep(std::time::Duration::from_secs(60));
    ///     }
    /// }
    ///
    /// # fn main() -> Result<()> {
    /// Program::new().function(keep_watch).run(|router| {
    ///     let left = router.ssh("web1").connect()?.call(keep_watch, ()).unwrap_err();
    ///     let ErrorKind::Closed(death) = left.kind() else { return Err(left) };
    ///     assert_eq!(death.cause, Cause::Detached);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind) in the first context of a tree, and in one of
    /// another's process;
    /// `Timeout` if the parent does not answer within 2 seconds: the context stays then;
    /// `Closed` if the parent is gone.
    pub fn detach(&self) -> Result<()> {
        let node = self.router().node().clone();
        node.broker().forbid_own_thread()?;
        if node.parents().is_empty() {
            return Err(Error::usage("the first context of a tree has nothing to detach from"));
        }
        // What cannot be written out in time is lost.
        let _ = logs::flush_elsewhere();
        ask_parent(&node)?;
        leave::live_alone().map_err(|errno| Error::system("opening /dev/null", errno.0))?;
        let deadline = Instant::now() + DETACH_WAIT;
        let (promise, left) = promise();
        let (leaving, forward) = (node.clone(), Logs::of(self.router()));
        let leave =
            move |turn: &mut Turn| leave_when_told(leaving, forward, turn, deadline, promise);
        node.broker().defer(leave)?;
        through_signals(&|| node.broker().wait_for(&left))
    }
}

/// What is begun is not left half done for a signal.
fn through_signals<T>(wait: &dyn Fn() -> Result<T>) -> Result<T> {
    loop {
        match wait() {
            Err(error) if was_interrupted(&error) => (),
            done => return done,
        }
    }
}

/// Has the parent let this context go.
fn ask_parent(node: &Arc<Node>) -> Result<()> {
    let answer = Arc::new(Answer::default());
    let handle = node.ask_to_leave(answer.clone())?;
    let until = Instant::now() + DETACH_WAIT;
    let answered = through_signals(&|| answer.0.get_until(Some(until)));
    node.unlisten(handle);
    match answered? {
        None => Ok(()),
        Some(death) if death.cause == Cause::Refused => Err(Error::usage(
            "a context in the process of another cannot detach: it has none to live on in",
        )),
        Some(death) => Err(death.into()),
    }
}

/// Takes the parent's answer: nothing, or why not.
#[derive(Default)]
struct Answer(Latch<Option<Death>>);

impl Deliver for Answer {
    fn message(&self, _: &mut Turn, _: Message) {
        // Who gave up waiting needs none.
        let _ = self.0.put(None);
    }

    fn dead(&self, _: &mut Turn, _: ContextId, death: &Death) {
        // As above.
        let _ = self.0.put(Some(death.clone()));
    }
}

/// Cuts the link when what was queued is sent, or in time.
fn leave_when_told(
    node: Arc<Node>,
    logs: Option<Arc<Forward>>,
    turn: &mut Turn,
    deadline: Instant,
    left: Promise<()>,
) {
    let is_told = logs.as_ref().is_none_or(|logs| logs.finish(turn)) && node.has_told_parent();
    if is_told || deadline <= Instant::now() {
        if let Some(logs) = logs {
            logs.leave(turn);
        }
        level::tell_children(&node);
        node.leave(turn);
        return left.keep(());
    }
    let again = Instant::now() + LOOK_AGAIN;
    turn.timer(again, Box::new(move |turn| leave_when_told(node, logs, turn, deadline, left)));
}
