//! The end of one of those that a loop serves, and of the loop itself.

use std::time::Instant;

use super::{End, Tenant, Turn};
use crate::error::{Cause, Death};
use crate::io::latch::Promise;
use crate::limits::SHUTDOWN_GRACE;

/// A tenant that was to end, and whose processes have not all ended.
pub(super) struct Leaving {
    tenant: Tenant,
    /// When they have had long enough.
    by: Option<Instant>,
    /// Let go of when nothing is left.
    _gone: Promise<()>,
}

impl Turn {
    /// Has `end` called before this tenant or the loop ends, with the reason; by a panic too.
    pub fn at_end(&mut self, tenant: Tenant, end: End) {
        self.ends.push((tenant, end));
    }

    /// Ends what is a tenant's: closes its streams; lets go of `gone` when every process that it
    /// watched has ended, or in time.
    pub fn leave(&mut self, tenant: Tenant, gone: Promise<()>) {
        let why = Death::of(Cause::Shutdown);
        self.tell_ends(Some(tenant), &why);
        self.close_streams(Some(tenant), &why);
        let by = Instant::now().checked_add(SHUTDOWN_GRACE);
        self.leaving.push(Leaving { tenant, by, _gone: gone });
    }

    /// Closes every stream, then ends the loop when every watched process has ended, or in time.
    pub fn stop(&mut self) {
        if self.stopping.is_none() {
            self.stopping = Instant::now().checked_add(SHUTDOWN_GRACE);
        }
        let why = Death::of(Cause::Shutdown);
        self.tell_ends(None, &why);
        self.close_streams(None, &why);
    }

    /// Lets those go of whom nothing is left, or whose time is over.
    pub(super) fn let_leave(&mut self) {
        let mut at = 0;
        while let Some(&Leaving { tenant, by, .. }) = self.leaving.get(at) {
            let is_late = by.is_some_and(|by| by <= Instant::now());
            match self.streams.iter().position(|stream| stream.tenant == tenant) {
                Some(late) if is_late => {
                    let stream = self.streams.remove(late);
                    self.let_go(stream, &Death::of(Cause::Shutdown));
                }
                Some(_) => at += 1,
                None => drop(self.leaving.remove(at)),
            }
        }
    }

    /// When the first of those who leave has had long enough.
    pub(super) fn late_at(&self) -> Option<Instant> {
        self.leaving.iter().filter_map(|leaving| leaving.by).chain(self.stopping).min()
    }

    /// Calls what each end begins with: one tenant's, or all.
    pub(in crate::io) fn tell_ends(&mut self, of: Option<Tenant>, why: &Death) {
        let is_meant = |(tenant, _): &(Tenant, End)| of.is_none_or(|of| of == *tenant);
        while let Some(at) = self.ends.iter().rposition(is_meant) {
            let (_, end) = self.ends.remove(at);
            end(self, why);
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
