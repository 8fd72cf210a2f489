//! The public face of one context's place in the tree.

/// Routes messages between this context, its children and its parent, and makes children.
#[derive(Clone)]
pub struct Router {}
