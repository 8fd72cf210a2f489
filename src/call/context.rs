//! Another context, as this one sees it; and what a function sees of its call.

/// Another context. Cheap to clone.
#[derive(Clone)]
pub struct Context {}

/// The surroundings of a call, for a function that names it as a parameter.
pub struct CallContext {}
