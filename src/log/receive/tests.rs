//! Tests of what has arrived.
