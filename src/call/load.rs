//! What has come by one link and waits in queues of this context, all together: each context behind
//! it has its room in each queue, and a child can speak for as many as it likes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use crate::ids::ContextId;
use crate::limits::MESSAGE_COST_BYTES;
use crate::limits::{ASSEMBLED_MESSAGES_MAX, FRAGMENT_BYTES, LINK_QUEUED_BYTES_MAX};
use crate::lock::Lock;
use crate::route::node::Node;

/// Of all links to children by which something waits. The parent may do what it likes.
#[derive(Default)]
pub(crate) struct Loads(Lock<Vec<(ContextId, Weak<Link>)>>);

/// Of one link, in bytes.
#[derive(Default)]
pub(crate) struct Link {
    /// Messages of one frame.
    small: AtomicUsize,
    /// Those that came in fragments.
    large: AtomicUsize,
}

/// What one message adds, until this is dropped.
pub(crate) struct Load {
    link: Option<Arc<Link>>,
    bytes: usize,
    is_large: bool,
}

impl Loads {
    /// That of the link by which `src` is reached; none of one that is trusted.
    pub(crate) fn link_to(&self, node: &Node, src: ContextId) -> Option<Arc<Link>> {
        let child = node.child_towards(src)?;
        let mut all = self.0.lock();
        let found = all.binary_search_by_key(&child, |(id, _)| *id);
        if let Some(link) = found.ok().and_then(|at| all[at].1.upgrade()) {
            return Some(link);
        }
        all.retain(|(_, link)| 0 < link.strong_count());
        let (at, link) = (all.partition_point(|(id, _)| *id < child), Arc::default());
        all.insert(at, (child, Arc::downgrade(&link)));
        Some(link)
    }
}

impl Load {
    /// That of a message of so many bytes that came by `link`, if there is room for it.
    pub(crate) fn of(
        link: Option<&Arc<Link>>,
        bytes: usize,
        message_bytes_max: u64,
    ) -> Option<Load> {
        let (link, is_large) = (link.cloned(), FRAGMENT_BYTES < bytes);
        let load = Load { link, bytes: bytes + MESSAGE_COST_BYTES, is_large };
        let Some(count) = load.count() else { return Some(load) };
        let large_max = message_bytes_max.saturating_mul(ASSEMBLED_MESSAGES_MAX);
        let large_max = usize::try_from(large_max).unwrap_or(usize::MAX);
        let max =
            if is_large { large_max.max(LINK_QUEUED_BYTES_MAX) } else { LINK_QUEUED_BYTES_MAX };
        let before = count.fetch_add(load.bytes, Ordering::Relaxed);
        // What has no room is taken off again as it is dropped.
        (before + load.bytes <= max).then_some(load)
    }

    fn count(&self) -> Option<&AtomicUsize> {
        let link = self.link.as_ref()?;
        Some(if self.is_large { &link.large } else { &link.small })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(count) = self.count() {
            count.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MESSAGE_BYTES_MIN;

    #[test]
    fn what_waits_of_one_link_has_a_limit_until_it_is_taken() {
        let (link, other) = (Arc::default(), Arc::default());
        for (bytes, count) in [(0, 1 << 20), (1000, (64 << 20) / 1064), (100_000, 670)] {
            let add = |link| Load::of(Some(link), bytes, MESSAGE_BYTES_MIN);
            let mut all: Vec<Load> = std::iter::from_fn(|| add(&link)).collect();
            assert_eq!(all.len(), count, "{bytes}");
            assert!(add(&other).is_some() && Load::of(None, bytes, 0).is_some());
            all.pop();
            assert!(add(&link).is_some() && Load::of(Some(&link), bytes, 1 << 30).is_some());
        }
        assert_eq!(link.small.load(Ordering::Relaxed), 0);
    }
}
