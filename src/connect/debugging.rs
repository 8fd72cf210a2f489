//! The debug files that contexts are to have which a router starts from now on.

use std::sync::Arc;

use crate::call::router::Router;
use crate::lock::Lock;
use crate::route::files::Files;
use crate::trace::Level;

/// Of one router: the level and the folder, if it was asked for any.
#[derive(Clone, Default)]
pub struct Debugging(Arc<Lock<Option<(Level, String)>>>);

impl Debugging {
    /// Those of a router.
    pub fn of(router: &Router) -> Debugging {
        (*router.kept(Debugging::default)).clone()
    }

    /// Has contexts that are started from now on have such files.
    pub fn set(&self, level: Level, folder: String) {
        *self.0.lock() = Some((level, folder));
    }

    /// Asks for one, unless something else is asked for, or the context that connects has another
    /// for its children.
    pub fn suggest(&self, files: &mut Files) {
        if let Some((level, folder)) = &*self.0.lock() {
            files.suggest(*level, folder);
        }
    }
}
