//! Which attempt goes next: at most so many at a time, fewer to one server, and else in the order
//! they came. It knows no clock, process or context.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::ids::ContextId;
use crate::limits::{CONNECTS_MAX, LOGINS_MAX};

/// A server that lets only so many log in at a time: who connects, and the host and port.
pub type Server = Arc<(ContextId, String, String)>;

/// The attempts that are under way, by number, and those that wait for that.
pub struct Places {
    limit: usize,
    /// At most `limit`.
    flying: usize,
    waiting: VecDeque<Waiting>,
    /// Sorted; how many hold a place at each, pausing ones too: 1 to `LOGINS_MAX`.
    servers: Vec<(Server, usize)>,
}

struct Waiting {
    id: u64,
    server: Option<Server>,
    /// Whether it holds its place at the server already.
    holds: bool,
}

impl Default for Places {
    fn default() -> Places {
        let (waiting, servers) = (VecDeque::new(), Vec::new());
        Places { limit: CONNECTS_MAX, flying: 0, waiting, servers }
    }
}

impl Places {
    /// Lets so many go at a time, at least one.
    pub fn limit(&mut self, limit: usize) {
        self.limit = limit.max(1);
    }

    /// An attempt waits for its turn, behind all others.
    pub fn enter(&mut self, id: u64, server: Option<Server>) {
        self.waiting.push_back(Waiting { id, server, holds: false });
    }

    /// The attempt whose turn it is; it is under way now.
    pub fn next(&mut self) -> Option<u64> {
        if self.limit <= self.flying {
            return None;
        }
        let may_go = |w: &Waiting| w.holds || w.server.as_ref().is_none_or(|s| self.has_room(s));
        let at = self.waiting.iter().position(may_go)?;
        let Waiting { id, server, holds } = self.waiting.remove(at)?;
        self.flying += 1;
        if let (Some(server), false) = (server, holds) {
            self.hold(server);
        }
        Some(id)
    }

    /// An attempt that was under way is over.
    pub fn leave(&mut self, server: Option<&Server>) {
        self.flying -= 1;
        self.let_go(server);
    }

    /// An attempt that was under way pauses. Its place at the server it keeps: who turned it away
    /// for being busy is to be asked by fewer, not by others.
    pub fn pause(&mut self) {
        self.flying -= 1;
    }

    /// The pause is over: the attempt is the next to go.
    pub fn resume(&mut self, id: u64, server: Option<Server>) {
        self.waiting.push_front(Waiting { id, server, holds: true });
    }

    /// An attempt that pauses will not go on.
    pub fn let_go(&mut self, server: Option<&Server>) {
        let Some(at) = server.and_then(|server| self.find(server).ok()) else { return };
        self.servers[at].1 -= 1;
        if self.servers[at].1 == 0 {
            self.servers.remove(at);
        }
    }

    /// An attempt that waits will not go.
    pub fn forget(&mut self, id: u64) {
        let Some(at) = self.waiting.iter().position(|waiting| waiting.id == id) else { return };
        if let Some(Waiting { server, holds: true, .. }) = self.waiting.remove(at) {
            self.let_go(server.as_ref());
        }
    }

    fn has_room(&self, server: &Server) -> bool {
        self.find(server).map_or(0, |at| self.servers[at].1) < LOGINS_MAX
    }

    fn hold(&mut self, server: Server) {
        match self.find(&server) {
            Ok(at) => self.servers[at].1 += 1,
            Err(at) => self.servers.insert(at, (server, 1)),
        }
    }

    fn find(&self, server: &Server) -> Result<usize, usize> {
        self.servers.binary_search_by(|(other, _)| other.cmp(server))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(host: &str) -> Option<Server> {
        Some(Arc::new((ContextId::MASTER, host.to_owned(), String::new())))
    }

    fn all_next(places: &mut Places) -> Vec<u64> {
        std::iter::from_fn(|| places.next()).collect()
    }

    #[test]
    fn no_more_than_the_limit_go_and_in_the_order_they_came() {
        let mut places = Places::default();
        places.limit(3);
        (0..7).for_each(|id| places.enter(id, None));
        assert_eq!(all_next(&mut places), [0, 1, 2]);
        places.leave(None);
        places.leave(None);
        assert_eq!(all_next(&mut places), [3, 4]);
        places.limit(0);
        assert!(all_next(&mut places).is_empty());
        (0..3).for_each(|_| places.leave(None));
        assert_eq!(all_next(&mut places), [5]);
    }

    #[test]
    fn a_full_server_does_not_hold_up_who_goes_elsewhere() {
        let mut places = Places::default();
        let max = LOGINS_MAX as u64;
        (0..2 * max).for_each(|id| places.enter(id, server("full")));
        places.enter(100, server("other"));
        places.enter(101, None);
        let first: Vec<u64> = (0..max).chain([100, 101]).collect();
        assert_eq!(all_next(&mut places), first);
        places.leave(server("other").as_ref());
        assert!(all_next(&mut places).is_empty());
        places.leave(server("full").as_ref());
        assert_eq!(all_next(&mut places), [max]);
    }

    #[test]
    fn who_pauses_keeps_its_place_at_the_server_and_no_other() {
        let mut places = Places::default();
        places.limit(LOGINS_MAX);
        let max = LOGINS_MAX as u64;
        (0..=max).for_each(|id| places.enter(id, server("busy")));
        places.enter(100, None);
        assert_eq!(all_next(&mut places), (0..max).collect::<Vec<_>>());
        places.pause();
        assert_eq!(all_next(&mut places), [100]);
        // Back in front of all, once there is room at all.
        places.resume(0, server("busy"));
        assert!(all_next(&mut places).is_empty());
        places.leave(None);
        assert_eq!(all_next(&mut places), [0]);
        places.pause();
        places.let_go(server("busy").as_ref());
        assert_eq!(all_next(&mut places), [max]);
    }

    #[test]
    fn who_is_forgotten_does_not_go_and_frees_what_it_held() {
        let mut places = Places::default();
        places.enter(1, None);
        places.forget(1);
        places.forget(1);
        assert!(all_next(&mut places).is_empty());
        places.enter(2, server("host"));
        assert_eq!(all_next(&mut places), [2]);
        places.pause();
        places.resume(2, server("host"));
        places.forget(2);
        assert!(places.servers.is_empty() && places.flying == 0);
    }
}
