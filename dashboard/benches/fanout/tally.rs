//! What the client counts, over all subscribers of a kind; they live on one thread.

use std::cell::{Cell, RefCell};

use serde::{Deserialize, Serialize};

use crate::frames::{Stamp, wall};

#[derive(Debug, Default)]
pub struct Tally {
    pub subscribed: Cell<u32>,
    /// Connections that have ended.
    pub ended: Cell<u32>,
    counting: Cell<bool>,
    changes: Cell<u64>,
    bytes: Cell<u64>,
    missed: Cell<u64>,
    ages: RefCell<Vec<f32>>,
    /// Changes of one subscriber, when they are wanted.
    pub record: RefCell<Option<Vec<u8>>>,
}

/// What was counted in a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    pub seconds: f64,
    /// Changes that arrived, over all subscribers.
    pub changes: u64,
    /// Of the messages that brought them.
    pub bytes: u64,
    /// Changes that a subscriber did not get, got twice or in another order.
    pub missed: u64,
    /// Connections that have ended.
    pub ended: u32,
    /// From the time in a change until it was read, in ms.
    pub age_p50_ms: f64,
    pub age_p99_ms: f64,
    pub age_max_ms: f64,
}

impl Tally {
    pub fn begin(&self) {
        for count in [&self.changes, &self.bytes, &self.missed] {
            count.set(0);
        }
        self.ages.borrow_mut().clear();
        self.counting.set(true);
    }

    /// A change that came `bytes` long to a subscriber that had `before`.
    pub fn take(&self, before: Option<Stamp>, change: Stamp, bytes: usize) {
        if !self.counting.get() {
            return;
        }
        self.changes.set(self.changes.get() + 1);
        self.bytes.set(self.bytes.get() + bytes as u64);
        let gap = before.map_or(0, |before| change.seq.abs_diff(before.seq + 1));
        self.missed.set(self.missed.get() + gap);
        self.ages.borrow_mut().push((wall() - change.now as f64) as f32);
    }

    pub fn end(&self, seconds: f64) -> Counted {
        self.counting.set(false);
        let mut ages = self.ages.borrow_mut();
        ages.sort_unstable_by(f32::total_cmp);
        let quantile = |share: f64| {
            let at = (ages.len().saturating_sub(1) as f64 * share).round() as usize;
            ages.get(at).map_or(0.0, |age| f64::from(*age))
        };
        Counted {
            seconds,
            changes: self.changes.get(),
            bytes: self.bytes.get(),
            missed: self.missed.get(),
            ended: self.ended.get(),
            age_p50_ms: quantile(0.5),
            age_p99_ms: quantile(0.99),
            age_max_ms: quantile(1.0),
        }
    }
}
