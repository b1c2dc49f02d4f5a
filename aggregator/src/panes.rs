//! Sliding windows of one site: seconds, distinct visitors of the last minutes, top lists of the last half hour.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use footfall_schemas::{
    Dimension, EventKind, EventRecord,
    live::{ACTIVE_WINDOW_MS, MINUTES_SHOWN, SECONDS_SHOWN, SecondCounts},
    time::{MINUTE_MS, SECOND_MS, minute_of},
};
use serde::{Deserialize, Serialize};

use crate::minute::Minute;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Panes {
    /// By start, s.
    seconds: BTreeMap<i64, SecondCounts>,
    /// Second (s) of each visitor's newest event.
    last_seen: HashMap<u64, i64>,
    /// Visitors by the second of their newest event, so that a window is a sum over seconds.
    seen_at: BTreeMap<i64, u64>,
    /// Sums over the minutes shown; built from them when the window has moved.
    #[serde(skip)]
    tops: Tops,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Tops {
    /// First minute (ms) in the sums.
    from: Option<i64>,
    counts: BTreeMap<Dimension, HashMap<String, u64>>,
    cut: BTreeSet<Dimension>,
}

/// First minute (ms) shown when the clock is at `clock`.
pub(crate) fn first_minute_shown(clock: i64) -> i64 {
    minute_of(clock) - (MINUTES_SHOWN - 1) * MINUTE_MS
}

impl Panes {
    pub(crate) fn count(&mut self, event: &EventRecord) {
        let second = event.event_time.div_euclid(SECOND_MS);
        let counts = self.seconds.entry(second).or_default();
        counts.events += 1;
        counts.views += u64::from(event.kind == EventKind::PageView);

        let before = self.last_seen.insert(event.visitor.0, second);
        if let Some(before) = before {
            if before >= second {
                self.last_seen.insert(event.visitor.0, before);
                return;
            }
            if let Some(count) = self.seen_at.get_mut(&before) {
                *count -= 1;
                if *count == 0 {
                    self.seen_at.remove(&before);
                }
            }
        }
        *self.seen_at.entry(second).or_default() += 1;
    }

    /// Adds an event to the top lists, unless they are to be built anew or its minute is not shown.
    pub(crate) fn count_tops(&mut self, event: &EventRecord) {
        if self.tops.from.is_none_or(|from| event.event_time < from) {
            return;
        }
        for dimension in Dimension::ALL.iter().filter(|dimension| **dimension != Dimension::Total) {
            let counted = *dimension == Dimension::Event || event.kind == EventKind::PageView;
            if let (true, Some(value)) = (counted, dimension.value_of(event)) {
                let counts = self.tops.counts.entry(*dimension).or_default();
                match counts.get_mut(value) {
                    Some(count) => *count += 1,
                    None => {
                        counts.insert(value.to_owned(), 1);
                    }
                }
            }
        }
    }

    /// The seconds of the chart.
    pub(crate) fn seconds(&self, clock: i64) -> BTreeMap<i64, SecondCounts> {
        let now = clock.div_euclid(SECOND_MS);
        self.seconds.range(now - SECONDS_SHOWN + 1..=now).map(|(second, counts)| (*second, *counts)).collect()
    }

    /// Distinct visitors of the last 5 and of the last [`MINUTES_SHOWN`] minutes.
    pub(crate) fn visitors(&self, clock: i64) -> (u64, u64) {
        let now = clock.div_euclid(SECOND_MS);
        let since =
            |window_ms: i64| self.seen_at.range(now - window_ms / SECOND_MS + 1..).map(|(_, n)| n).sum();
        (since(ACTIVE_WINDOW_MS), since(MINUTES_SHOWN * MINUTE_MS))
    }

    /// The `longest` most counted values of each dimension, and which lists are cut.
    pub(crate) fn tops(
        &mut self,
        clock: i64,
        minutes: &BTreeMap<i64, Minute>,
        longest: usize,
    ) -> (BTreeMap<Dimension, BTreeMap<String, u64>>, BTreeSet<Dimension>) {
        let from = first_minute_shown(clock);
        if self.tops.from != Some(from) {
            self.tops = Tops { from: Some(from), ..Tops::default() };
            for minute in minutes.range(from..).map(|(_, minute)| minute) {
                for (dimension, value, count) in minute.tops().filter(|(_, _, count)| *count > 0) {
                    let counts = self.tops.counts.entry(dimension).or_default();
                    match counts.get_mut(value) {
                        Some(sum) => *sum += count,
                        None => {
                            counts.insert(value.to_owned(), count);
                        }
                    }
                }
            }
        }
        let mut cut: BTreeSet<Dimension> =
            minutes.range(from..).flat_map(|(_, minute)| minute.full()).copied().collect();
        let mut told = BTreeMap::new();
        for (dimension, counts) in &self.tops.counts {
            let mut values: Vec<(&String, u64)> =
                counts.iter().map(|(value, count)| (value, *count)).collect();
            if values.len() > longest {
                cut.insert(*dimension);
                values.select_nth_unstable_by(longest, |a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
                values.truncate(longest);
            }
            told.insert(
                *dimension,
                values.into_iter().map(|(value, count)| (value.clone(), count)).collect(),
            );
        }
        (told, cut)
    }

    /// Forgets what no window will show again.
    pub(crate) fn sweep(&mut self, clock: i64) {
        let now = clock.div_euclid(SECOND_MS);
        self.seconds = self.seconds.split_off(&(now - SECONDS_SHOWN + 1));
        let oldest = now - MINUTES_SHOWN * MINUTE_MS / SECOND_MS + 1;
        if self.seen_at.first_key_value().is_some_and(|(first, _)| *first < oldest) {
            let kept = self.seen_at.split_off(&oldest);
            let gone: u64 = std::mem::replace(&mut self.seen_at, kept).values().sum();
            // The scan over all visitors is paid for by many that leave, or by few being left.
            if gone > 0 && self.last_seen.len() as u64 > 2 * self.seen_at.values().sum::<u64>() {
                self.last_seen.retain(|_, second| *second >= oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use footfall_schemas::VisitorId;

    const NOW: i64 = 1_800_000_000_000;

    fn event(visitor: u64, at: i64, path: &str) -> EventRecord {
        let golden = include_str!("../../schemas/golden/event_record.json");
        let golden: EventRecord = serde_json::from_str(golden).unwrap();
        EventRecord {
            visitor: VisitorId(visitor),
            event_time: at,
            path: path.into(),
            kind: EventKind::PageView,
            ..golden
        }
    }

    #[test]
    fn a_visitor_is_active_for_five_minutes_and_counted_for_thirty() {
        let mut panes = Panes::default();
        panes.count(&event(1, NOW, "/"));
        panes.count(&event(2, NOW, "/"));
        panes.count(&event(2, NOW - 60_000, "/"));
        assert_eq!(panes.visitors(NOW), (2, 2));
        panes.count(&event(2, NOW + 2 * MINUTE_MS, "/"));
        assert_eq!(panes.visitors(NOW + 5 * MINUTE_MS - 1_000), (2, 2));
        assert_eq!(panes.visitors(NOW + 5 * MINUTE_MS), (1, 2));
        assert_eq!(panes.visitors(NOW + 30 * MINUTE_MS), (0, 1));
        panes.sweep(NOW + 30 * MINUTE_MS);
        assert_eq!(panes.visitors(NOW + 30 * MINUTE_MS), (0, 1));
        assert_eq!(panes.visitors(NOW + 32 * MINUTE_MS), (0, 0));
    }

    #[test]
    fn a_visitor_who_returns_after_being_forgotten_counts_once() {
        let mut panes = Panes::default();
        panes.count(&event(1, NOW, "/"));
        panes.sweep(NOW + 60 * MINUTE_MS);
        panes.count(&event(1, NOW + 60 * MINUTE_MS, "/"));
        assert_eq!(panes.visitors(NOW + 60 * MINUTE_MS), (1, 1));
    }

    #[test]
    fn a_long_list_keeps_its_head_and_says_that_it_is_cut() {
        let (mut panes, mut minutes) = (Panes::default(), BTreeMap::<i64, Minute>::new());
        for (path, views) in [("/a", 3), ("/b", 2), ("/c", 1)] {
            for _ in 0..views {
                minutes.entry(minute_of(NOW)).or_default().count(&event(1, NOW, path), false, 10);
            }
        }
        let (tops, cut) = panes.tops(NOW, &minutes, 2);
        assert_eq!(tops[&Dimension::Page], BTreeMap::from([("/a".into(), 3), ("/b".into(), 2)]));
        assert!(cut.contains(&Dimension::Page));
        let (tops, cut) = panes.tops(NOW + 30 * MINUTE_MS, &minutes, 2);
        assert!(tops.is_empty() && cut.is_empty(), "the list is whole again when the minute has left");
    }

    #[test]
    fn counting_on_gives_the_list_that_the_minutes_give() {
        let (mut panes, mut minutes) = (Panes::default(), BTreeMap::<i64, Minute>::new());
        panes.tops(NOW, &minutes, 10);
        for at in [NOW, NOW - 29 * MINUTE_MS, NOW - 30 * MINUTE_MS] {
            let event = event(1, at, "/a");
            minutes.entry(minute_of(at)).or_default().count(&event, false, 10);
            panes.count_tops(&event);
        }
        let counted = panes.tops(NOW, &minutes, 10);
        panes.tops.from = None;
        assert_eq!(counted, panes.tops(NOW, &minutes, 10));
        assert_eq!(counted.0[&Dimension::Page]["/a"], 2);
    }
}
