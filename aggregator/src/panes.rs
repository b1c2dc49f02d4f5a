//! Sliding windows of one site: what happened in each second, and distinct visitors of the last minutes.

use std::collections::{BTreeMap, HashMap};

use footfall_schemas::{
    EventKind,
    live::{ACTIVE_WINDOW_MS, MINUTES_SHOWN, SECONDS_SHOWN, SecondCounts},
    record::EventRef,
    time::{MINUTE_MS, SECOND_MS, minute_of},
};
use serde::{Deserialize, Serialize};

use crate::sample::{IdHash, Level};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Panes {
    /// By start, s.
    seconds: BTreeMap<i64, SecondCounts>,
    /// Which visitors are known one by one.
    level: Level,
    /// Second (s since 1970) of each visitor's newest event.
    last_seen: HashMap<u64, u32, IdHash>,
    /// Visitors by the second of their newest event, so that a window is a sum over seconds.
    seen_at: BTreeMap<u32, u64>,
}

/// Distinct visitors of the windows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Visitors {
    /// Of the last 5 minutes.
    pub(crate) active: u64,
    /// Of the last [`MINUTES_SHOWN`] minutes.
    pub(crate) shown: u64,
    /// One standard error of the larger; 0 while they are exact.
    pub(crate) error: u64,
}

/// First minute (ms) shown when the clock is at `clock`.
pub(crate) fn first_minute_shown(clock: i64) -> i64 {
    minute_of(clock) - (MINUTES_SHOWN - 1) * MINUTE_MS
}

impl Panes {
    /// Counts an event; at most `bound` visitors are known one by one.
    pub(crate) fn count(&mut self, event: &EventRef<'_>, bound: usize) {
        let second = event.event_time.div_euclid(SECOND_MS);
        let counts = self.seconds.entry(second).or_default();
        counts.events += 1;
        counts.views += u64::from(event.kind == EventKind::PageView);
        let visitor = event.visitor.0;
        if self.level.keeps(visitor) {
            // Times are refused beyond 2100.
            self.see(visitor, u32::try_from(second).unwrap_or(0));
            self.shrink(bound);
        }
    }

    fn see(&mut self, visitor: u64, second: u32) {
        match self.last_seen.get_mut(&visitor) {
            Some(before) if *before >= second => return,
            Some(before) => forget(&mut self.seen_at, std::mem::replace(before, second)),
            None => {
                self.last_seen.insert(visitor, second);
            }
        }
        *self.seen_at.entry(second).or_default() += 1;
    }

    pub(crate) fn shrink(&mut self, bound: usize) {
        let Self { level, last_seen, seen_at, .. } = self;
        while last_seen.len() > bound.max(1) {
            *level = level.next();
            last_seen.retain(|visitor, second| {
                let kept = level.keeps(*visitor);
                if !kept {
                    forget(seen_at, *second);
                }
                kept
            });
        }
    }

    /// The seconds of the chart.
    pub(crate) fn seconds(&self, clock: i64) -> BTreeMap<i64, SecondCounts> {
        let now = clock.div_euclid(SECOND_MS);
        self.seconds.range(now - SECONDS_SHOWN + 1..=now).map(|(second, counts)| (*second, *counts)).collect()
    }

    pub(crate) fn visitors(&self, clock: i64) -> Visitors {
        let now = clock.div_euclid(SECOND_MS);
        let kept = |window_ms: i64| {
            let first = u32::try_from(now - window_ms / SECOND_MS + 1).unwrap_or(0);
            self.seen_at.range(first..).map(|(_, n)| n).sum()
        };
        let (active, shown) = (kept(ACTIVE_WINDOW_MS), kept(MINUTES_SHOWN * MINUTE_MS));
        Visitors {
            active: self.level.estimate(active),
            shown: self.level.estimate(shown),
            error: self.level.error(shown),
        }
    }

    /// Forgets what no window will show again.
    pub(crate) fn sweep(&mut self, clock: i64) {
        let now = clock.div_euclid(SECOND_MS);
        self.seconds = self.seconds.split_off(&(now - SECONDS_SHOWN + 1));
        let oldest = u32::try_from(now - MINUTES_SHOWN * MINUTE_MS / SECOND_MS + 1).unwrap_or(0);
        if self.seen_at.first_key_value().is_some_and(|(first, _)| *first < oldest) {
            self.seen_at = self.seen_at.split_off(&oldest);
            let left: u64 = self.seen_at.values().sum();
            if left == 0 {
                // The next visitors are known one by one again.
                (self.last_seen, self.level) = (HashMap::default(), Level::default());
            } else if self.last_seen.len() as u64 > 2 * left {
                // The scan is paid for by as many who have left as there are still.
                self.last_seen.retain(|_, second| *second >= oldest);
            }
        }
    }

    /// Bytes held, about.
    pub(crate) fn bytes(&self) -> usize {
        self.last_seen.len() * (size_of::<(u64, u32)>() + 1) * 3 / 2 + 8 * 1024
    }
}

/// A visitor who was last seen then is seen later, or no longer known. What was swept is not counted any more.
fn forget(seen_at: &mut BTreeMap<u32, u64>, second: u32) {
    if let Some(count) = seen_at.get_mut(&second) {
        *count -= 1;
        if *count == 0 {
            seen_at.remove(&second);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use footfall_schemas::{EventRecord, VisitorId};

    const NOW: i64 = 1_800_000_000_000;
    const BOUND: usize = 1_000;

    fn event(visitor: u64, at: i64) -> EventRecord {
        let golden = include_str!("../../schemas/golden/event_record.json");
        let golden: EventRecord = serde_json::from_str(golden).unwrap();
        EventRecord { visitor: VisitorId(visitor), event_time: at, kind: EventKind::PageView, ..golden }
    }

    fn exact(active: u64, shown: u64) -> Visitors {
        Visitors { active, shown, error: 0 }
    }

    #[test]
    fn a_visitor_is_active_for_five_minutes_and_counted_for_thirty() {
        let mut panes = Panes::default();
        panes.count(&event(1, NOW).borrowed(), BOUND);
        panes.count(&event(2, NOW).borrowed(), BOUND);
        panes.count(&event(2, NOW - 60_000).borrowed(), BOUND);
        assert_eq!(panes.visitors(NOW), exact(2, 2));
        panes.count(&event(2, NOW + 2 * MINUTE_MS).borrowed(), BOUND);
        assert_eq!(panes.visitors(NOW + 5 * MINUTE_MS - 1_000), exact(2, 2));
        assert_eq!(panes.visitors(NOW + 5 * MINUTE_MS), exact(1, 2));
        assert_eq!(panes.visitors(NOW + 30 * MINUTE_MS), exact(0, 1));
        panes.sweep(NOW + 30 * MINUTE_MS);
        assert_eq!(panes.visitors(NOW + 30 * MINUTE_MS), exact(0, 1));
        assert_eq!(panes.visitors(NOW + 32 * MINUTE_MS), exact(0, 0));
    }

    #[test]
    fn a_visitor_who_returns_after_being_forgotten_counts_once() {
        let mut panes = Panes::default();
        panes.count(&event(1, NOW).borrowed(), BOUND);
        panes.sweep(NOW + 60 * MINUTE_MS);
        panes.count(&event(1, NOW + 60 * MINUTE_MS).borrowed(), BOUND);
        assert_eq!(panes.visitors(NOW + 60 * MINUTE_MS), exact(1, 1));
    }

    #[test]
    fn more_visitors_than_are_known_one_by_one_are_estimated_and_the_error_is_told() {
        let mut panes = Panes::default();
        for visitor in 0..40_000 {
            panes.count(&event(visitor, NOW - (visitor as i64 % 1_200) * SECOND_MS).borrowed(), BOUND);
        }
        assert!(panes.last_seen.len() <= BOUND);
        let Visitors { active, shown, error } = panes.visitors(NOW);
        assert!((1..40_000 / 20).contains(&error), "± {error}");
        assert!(shown.abs_diff(40_000) <= 4 * error, "{shown} ± {error}");
        // A quarter of them were seen in the last five minutes.
        assert!(active.abs_diff(10_000) <= 4 * error, "{active} ± {error}");
        panes.sweep(NOW + 90 * MINUTE_MS);
        panes.count(&event(7, NOW + 90 * MINUTE_MS).borrowed(), BOUND);
        assert_eq!(panes.visitors(NOW + 90 * MINUTE_MS), exact(1, 1), "exact again after they have left");
    }
}
