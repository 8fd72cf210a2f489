//! Another context, as this one sees it, and the calls that are sent there.

use std::any::TypeId;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::call::arguments::Arguments;
use crate::call::function::{Function, Signature};
use crate::call::manner::Manner;
use crate::call::pending::{Call, Discard, Pending, Unawaited, discard};
use crate::call::queue::fingerprint_in;
use crate::call::reply::Reply;
use crate::call::router::Router;
use crate::call::scope::{Given, Scope};
use crate::error::{CallFailure, Error, Result};
use crate::ids::{ContextId, Handle};
use crate::limits::NAME_BYTES_MAX;
use crate::route::node::Outgoing;
use crate::trace;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Shape, Writer};
use crate::wire::frame::FrameBuf;
use crate::wire::header::Kind;

/// Another context of the tree. Cheap to clone; travels as an argument or a result.
///
/// Dropping one ends nothing: a context lives until its connection ends or it is shut down.
#[derive(Clone)]
pub struct Context {
    router: Router,
    id: ContextId,
    name: Arc<str>,
    /// Under whose authority what is sent through it acts.
    auth: ContextId,
    /// What else its calls keep to.
    manner: Option<Arc<Manner>>,
}

impl Context {
    pub(crate) fn new(router: &Router, id: ContextId, name: &str, auth: ContextId) -> Context {
        Context { router: router.clone(), id, name: name.into(), auth, manner: None }
    }

    /// Its id.
    pub fn context_id(&self) -> ContextId {
        self.id
    }

    /// Its name: the address of its path unless it was given one; may be empty if only its id is
    /// known here.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The router through which it is reached.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// Under whose authority what is sent through it acts.
    pub(crate) fn authority(&self) -> ContextId {
        self.auth
    }

    pub(crate) fn manner(&self) -> Option<&Manner> {
        self.manner.as_deref()
    }

    pub(crate) fn with(&self, manner: Manner) -> Context {
        Context { manner: Some(Arc::new(manner)), ..self.clone() }
    }

    /// The same context, for calls that have this long from now on, all together.
    ///
    /// At that time whoever waits for one gets [`ErrorKind::Timeout`](crate::error::ErrorKind),
    /// however stuck the other side is. What is left of the time travels with each call: one that
    /// has not begun by then never does, and one that runs is
    /// [cancelled](crate::CallContext::is_cancelled). Of two limits the sooner counts. Clocks are
    /// not compared: the way there is not counted.
    ///
    /// ```
    /// # use mitogen::{Program, Result, error::ErrorKind};
    /// # use std::time::Duration;
    /// fn nap(time: Duration) {
    ///     std::thread::sleep(time);
    /// }
    /// # fn main() -> Result<()> {
    /// let router = Program::new().function(nap).router()?;
    /// let hasty = router.in_process()?.within(Duration::from_millis(50));
    /// let error = hasty.call(nap, Duration::from_secs(2)).unwrap_err();
    /// assert_eq!(*error.kind(), ErrorKind::Timeout);
    /// # Ok(()) }
    /// ```
    pub fn within(&self, time: Duration) -> Context {
        self.by(Instant::now().checked_add(time))
    }

    pub(crate) fn by(&self, until: Option<Instant>) -> Context {
        let manner = self.manner().cloned().unwrap_or_default();
        self.with(manner.by(until))
    }

    /// Calls a function there and waits for its value, however long that takes. A context runs one
    /// function at a time, in the order they were sent; unless it has more
    /// [threads](crate::Connect::threads).
    ///
    /// # Errors
    /// [`ErrorKind::Call`](crate::error::ErrorKind) if the function fails there or is not known
    /// there, `Closed` if the context is gone, `Usage` if the function is not registered here,
    /// `TooLarge` if the arguments have more than [128 MiB](crate::Program::message_bytes_max),
    /// `Interrupted` after a signal, and `Timeout` where there is a [limit](Context::within).
    pub fn call<F, M>(&self, function: F, args: impl Arguments<F::Args>) -> Result<F::Output>
    where
        F: Signature<M> + Function<M>,
    {
        self.call_async(function, args).get()
    }

    /// Calls a function there, and returns what to wait for. Whatever goes wrong comes out of that.
    /// Dropping it cancels the call. Sleeps only while 4 MiB of calls to that context are
    /// unanswered.
    pub fn call_async<F, M>(&self, function: F, args: impl Arguments<F::Args>) -> Call<F::Output>
    where
        F: Signature<M> + Function<M>,
    {
        let _ = function;
        Call::new(self.begin(TypeId::of::<F>(), &|w| args.encode_args(w), discard::<F::Output>))
    }

    /// Calls a function there and waits for nothing; a failure is logged, here and there, and ends
    /// the streams whose Senders it was given.
    ///
    /// # Errors
    /// Those of sending, as for [`Context::call`].
    pub fn call_no_reply<F, M>(&self, function: F, args: impl Arguments<F::Args>) -> Result<()>
    where
        F: Signature<M> + Function<M>,
    {
        let _ = function;
        self.begin_unawaited(TypeId::of::<F>(), &|w| args.encode_args(w), discard::<F::Output>)
    }

    fn begin(
        &self,
        function: TypeId,
        args: &dyn Fn(&mut Writer<'_>),
        discard: Discard,
    ) -> Result<Pending> {
        self.keep_to_manner(|| {
            let (payload, given) = self.encode_call(function, args)?;
            let pending = Pending::new(self, function, given, discard, payload.payload())?;
            let out = self.outgoing(pending.handle());
            match self.router.node().send_until(&out, payload, self.until()) {
                Ok(()) => Ok(pending),
                Err(error) => {
                    pending.unsent();
                    Err(error)
                }
            }
        })
    }

    fn begin_unawaited(
        &self,
        function: TypeId,
        args: &dyn Fn(&mut Writer<'_>),
        discard: Discard,
    ) -> Result<()> {
        self.keep_to_manner(|| {
            let (payload, given) = self.encode_call(function, args)?;
            let (router, body) = (self.router.downgrade(), payload.payload());
            let (bytes, fingerprint) = (body.len(), fingerprint_in(body));
            let unawaited = Arc::new(Unawaited { router, given, discard, fingerprint });
            let (node, until) = (self.router.node(), self.until());
            let handle = node.listen_for_call(self.id, bytes, unawaited.clone(), until);
            let handle = handle.inspect_err(|_| unawaited.given.take_back(None))?;
            let sent = node.send_until(&self.outgoing(handle), payload, until);
            if sent.is_err() {
                node.unlisten(handle);
                unawaited.given.take_back(None);
            }
            sent
        })
    }

    /// When its calls are over.
    fn until(&self) -> Option<Instant> {
        self.manner().and_then(|manner| manner.until)
    }

    fn keep_to_manner<T>(&self, begin: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.manner() {
            None => begin(),
            Some(manner) => {
                manner.check()?;
                begin().inspect_err(|error| manner.failed(error))
            }
        }
    }

    fn encode_call(
        &self,
        function: TypeId,
        args: &dyn Fn(&mut Writer<'_>),
    ) -> Result<(FrameBuf, Given)> {
        let Some(entry) = self.router.registry().find_local(function) else {
            return Err(Error::usage(
                "this function is not registered: add it to the program with Program::function",
            ));
        };
        self.router.broker().forbid_own_thread()?;
        let scope = Scope::to(&self.router, self.id);
        let payload = FrameBuf::encode(Some(&scope), |w| {
            w.put(&entry.fingerprint().to_le_bytes());
            match self.manner() {
                None => w.put_u8(0),
                Some(manner) => manner.put(w),
            }
            args(w);
        });
        let given = scope.given();
        match payload {
            Ok(payload) => Ok((payload, given)),
            Err(Malformed(why)) => {
                given.take_back(None);
                Err(Error::usage(why))
            }
        }
    }

    fn outgoing(&self, reply_to: Handle) -> Outgoing {
        let (dst, auth, handle) = (self.id, self.auth, Handle::CALL);
        Outgoing { kind: Kind::Call, dst, auth, handle, reply_to: Some(reply_to) }
    }
}

/// Contexts are equal if they are the same context of the same tree.
impl PartialEq for Context {
    fn eq(&self, other: &Context) -> bool {
        self.id == other.id && self.router.same_tree(&other.router)
    }
}

impl Eq for Context {}

impl Hash for Context {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({}, {})", self.id, trace::Printable(&self.name))
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        trace::Printable(&self.name).fmt(f)
    }
}

impl Encode for Context {
    fn encode(&self, w: &mut Writer<'_>) {
        match w.scope::<Scope>() {
            Some(scope) if scope.router.same_tree(&self.router) => {
                self.id.encode(w);
                w.put_bytes(self.name.as_bytes());
            }
            Some(_) => w.fail("a Context of another tree cannot be sent through this one"),
            None => w.fail("a Context travels only in calls and channels"),
        }
    }
}

impl Decode for Context {
    fn decode(r: &mut Reader<'_>) -> Result<Context, Malformed> {
        let scope = r.scope::<Scope>().ok_or(Malformed("a Context outside a call or channel"))?;
        let id = ContextId::decode(r)?;
        let name = std::str::from_utf8(r.take_bytes()?).map_err(|_| Malformed("not UTF-8"))?;
        if NAME_BYTES_MAX < name.len() {
            return Err(Malformed("a name that is too long"));
        }
        Ok(Context::new(&scope.router, id, name, scope.auth))
    }

    fn shape(s: &mut Shape) {
        s.word("context");
    }
}

impl Reply for Context {
    type Value = Self;

    fn into_reply(self) -> Result<Self, CallFailure> {
        Ok(self)
    }
}
