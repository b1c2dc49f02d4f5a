//! The node's clock: wall time to show, monotonic time to measure silence by.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// One instant on both clocks, in ms. Setting the wall clock never makes anyone fall silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Since 1970.
    pub(crate) wall: i64,
    /// Since the node started.
    pub(crate) mono: i64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeClock {
    started: Instant,
}

impl NodeClock {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now() }
    }

    pub(crate) fn now(&self) -> Moment {
        Moment { wall: wall_ms(), mono: self.started.elapsed().as_millis() as i64 }
    }
}

pub(crate) fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_millis() as i64)
}
