//! Links that are cut on purpose.

use crate::error::{Cause, Death};
use crate::ids::ContextId;
use crate::io::turn::Turn;
use crate::route::node::Node;

impl Node {
    /// Ends the link to a child, if it is one; whoever watches over it ends its process.
    pub fn cut_off(&self, turn: &mut Turn, child: ContextId) {
        let way = {
            let mut table = self.table();
            let is_child = table.is_child(child);
            is_child.then(|| table.way_to(child, None)).flatten()
        };
        if let Some(way) = way {
            turn.close(way.key, &Death::of(Cause::Shutdown).at(child));
        }
    }
}
