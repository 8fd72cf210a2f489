//! What calls keep to that are more than plain ones: a time limit, the call that they are part of,
//! a chain.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::call::chain::Links;
use crate::call::queue::{CHAINED, TIMED};
use crate::call::token::Token;
use crate::error::{Cause, Error, ErrorKind, Result};
use crate::wire::codec::{Encode, Writer};

/// Of all calls through one [`Context`](crate::Context).
#[derive(Clone, Default)]
pub(crate) struct Manner {
    /// When their time is up.
    pub(crate) until: Option<Instant>,
    /// Of the call that they are part of.
    pub(crate) token: Option<Arc<Token>>,
    /// The chain that they are links of.
    pub(crate) chain: Option<Arc<Links>>,
}

impl Manner {
    /// With this limit, too; the sooner counts.
    pub(crate) fn by(self, until: Option<Instant>) -> Manner {
        Manner { until: sooner(self.until, until), ..self }
    }

    /// Fails where a call must not be sent any more.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(chain) = &self.chain {
            chain.check()?;
        }
        if self.token.as_ref().is_some_and(|token| token.is_cancelled()) {
            return Err(Error::closed(Cause::Cancelled));
        }
        if self.until.is_some_and(|until| until <= Instant::now()) {
            return Err(Error::new(ErrorKind::Timeout));
        }
        Ok(())
    }

    /// A call was not sent.
    pub(crate) fn failed(&self, error: &Error) {
        if let Some(chain) = &self.chain {
            chain.fail(error);
        }
    }

    /// Appends what stands between a call's fingerprint and its arguments.
    pub(crate) fn put(&self, w: &mut Writer<'_>) {
        let timed = if self.until.is_some() { TIMED } else { 0 };
        let chained = if self.chain.is_some() { CHAINED } else { 0 };
        w.put_u8(timed | chained);
        if let Some(until) = self.until {
            let left = until.saturating_duration_since(Instant::now());
            // Not less than there is: it is over here first.
            let left_ms = left.saturating_add(Duration::from_nanos(999_999)).as_millis();
            w.put_varint(u64::try_from(left_ms).unwrap_or(u64::MAX));
        }
        if let Some(chain) = &self.chain {
            chain.id().encode(w);
        }
    }
}

/// The sooner of two limits.
pub(crate) fn sooner(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
