//! The end of one of those that a loop serves, and of the loop itself. An agent, which ends with
//! its process, links none of this.

use std::sync::Arc;
use std::time::Instant;

use super::{End, Key, Protocol, Tenant, Turn};
use crate::error::{Cause, Death};
use crate::io::broker::end_loop;
use crate::io::census::{List, Role};
use crate::io::promise::Promise;
use crate::limits::SHUTDOWN_GRACE;
use crate::wire::codec::{Malformed, Writer};

impl Turn {
    /// Has `end` called before this tenant or the loop ends, with the reason; by a panic too.
    pub fn at_end(&mut self, tenant: Tenant, end: End) {
        self.ends.push((tenant, end));
    }

    /// Ends what is a tenant's: closes its streams; lets go of `gone` when every process that it
    /// watched has ended, or in time.
    pub fn leave(&mut self, tenant: Tenant, gone: Promise<()>) {
        let why = Death::of(Cause::Shutdown);
        self.tell_ends_of(tenant, &why);
        self.close_streams(Some(tenant), &why);
        let gone = Arc::new(gone);
        for stream in self.streams.iter_mut().filter(|stream| stream.tenant == tenant) {
            let inner = stream.protocol.take();
            let last = inner.map(|inner| Last { inner, _gone: gone.clone() });
            stream.protocol = last.map(|last| Box::new(last) as Box<dyn Protocol>);
        }
        if 1 < Arc::strong_count(&gone) {
            let now = Instant::now();
            let late = move |turn: &mut Turn| turn.end_late(tenant);
            self.timer(now.checked_add(SHUTDOWN_GRACE).unwrap_or(now), Box::new(late));
        }
    }

    /// Calls what a tenant's end begins with.
    pub(in crate::io) fn tell_ends_of(&mut self, tenant: Tenant, why: &Death) {
        while let Some(at) = self.ends.iter().rposition(|(of, _)| *of == tenant) {
            let (_, end) = self.ends.remove(at);
            end(self, why);
        }
    }

    /// Has the end of the loop not be that of the process, which goes on without its parent.
    pub fn live_on(&mut self) {
        self.over = end_loop;
    }

    /// Closes every stream, then ends the loop when every watched process has ended, or in time.
    pub fn stop(&mut self) {
        if !self.stopping {
            self.stopping = true;
            let at = Instant::now() + SHUTDOWN_GRACE;
            self.timer(at, Box::new(|turn| turn.is_late = true));
        }
        let why = Death::of(Cause::Shutdown);
        self.tell_ends(&why);
        self.close_streams(None, &why);
    }

    /// Closes what is left of a tenant whose time is over.
    fn end_late(&mut self, tenant: Tenant) {
        while let Some(at) = self.streams.iter().position(|stream| stream.tenant == tenant) {
            let stream = self.streams.remove(at);
            self.let_go(stream, &Death::of(Cause::Shutdown));
        }
    }

    /// Closes all streams but those that outlive this: of one tenant, or all. Of those that are
    /// being called the end is noted, and comes when they return.
    fn close_streams(&mut self, of: Option<Tenant>, why: &Death) {
        while let Some(stream) = self.streams.iter().find(|stream| {
            let is_meant = of.is_none_or(|tenant| tenant == stream.tenant);
            is_meant && !stream.outlives && stream.closing.is_none()
        }) {
            let key = stream.key;
            self.close(key, why);
        }
    }
}

/// One of the last streams of a tenant: all of them are gone when all of these are.
struct Last {
    inner: Box<dyn Protocol>,
    _gone: Arc<Promise<()>>,
}

impl Protocol for Last {
    fn input(&mut self, turn: &mut Turn, key: Key, bytes: &[u8]) -> Result<(), Malformed> {
        self.inner.input(turn, key, bytes)
    }

    fn ended(&mut self, turn: &mut Turn, key: Key) {
        self.inner.ended(turn, key);
    }

    fn reminded(&mut self, turn: &mut Turn, key: Key) {
        self.inner.reminded(turn, key);
    }

    fn closed(&mut self, turn: &mut Turn, why: &Death) {
        self.inner.closed(turn, why);
    }

    fn role(&self) -> Role {
        self.inner.role()
    }

    fn describe(&self, is_starting: bool, list: &mut List, w: &mut Writer<'_>) {
        self.inner.describe(is_starting, list, w);
    }
}
