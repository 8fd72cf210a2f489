//! What a panic in a function says, and where it was: what unwinds carries no place, so a hook
//! notes it. A stock agent, which aborts, links none of this.

use std::any::Any;
use std::cell::Cell;
use std::panic;
use std::sync::Once;

use crate::trace::panic_text;

thread_local! {
    /// Where this thread has panicked last.
    static PLACE: Cell<Option<String>> = const { Cell::new(None) };
}

/// Has the places of panics noted from now on, before the hook that there is does what it does.
pub(crate) fn note_places() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if let Some(place) = info.location() {
                // A thread that ends keeps it no more.
                let _ = PLACE.try_with(|last| last.set(Some(place.to_string())));
            }
            before(info);
        }));
    });
}

/// What a panic that this thread has caught says, and its place if that was noted.
pub(crate) fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic_text(panic);
    match PLACE.take() {
        Some(place) => [&text, ", at ", &place].concat(),
        None => text,
    }
}
