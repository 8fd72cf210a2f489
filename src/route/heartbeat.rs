//! The signs of life of a link, where they were asked for.

/// How often a neighbour says that it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// Milliseconds between two; 0 is never.
    pub interval_ms: u32,
    /// Intervals of silence that end the connection.
    pub count: u32,
}
