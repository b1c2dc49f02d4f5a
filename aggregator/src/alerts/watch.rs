//! What one site's partitions tell, merged into the counts that rules are held against.

use std::collections::BTreeMap;

use footfall_schemas::{
    alert_rule::Subject,
    live::{LiveRecord, MinuteCounts},
    partition_view::{PartitionView, Taken},
    time::{MINUTE_MS, SECOND_MS},
};

use super::{growth::Growth, verdict::Series};

/// Partitions whose clocks lie further apart (ms) are not held against one another: one of them catches up.
const FURTHEST_APART: i64 = MINUTE_MS;

#[derive(Debug)]
pub(crate) struct Watch {
    /// Log time (ms) at which it began.
    since: i64,
    /// Of the rules, in their order.
    subjects: Vec<Subject>,
    partitions: BTreeMap<i32, Followed>,
}

#[derive(Debug)]
struct Followed {
    view: PartitionView,
    /// One for each subject.
    growths: Vec<Growth>,
}

impl Watch {
    pub(crate) fn new(since: i64, subjects: Vec<Subject>) -> Self {
        Self { since, subjects, partitions: BTreeMap::new() }
    }

    /// Follows these from now on. What is followed already goes on; the rest begins at `since` (log time, ms).
    pub(crate) fn turn_to(&mut self, subjects: Vec<Subject>, since: i64) {
        if subjects == self.subjects {
            return;
        }
        for followed in self.partitions.values_mut() {
            let before = &followed.growths;
            let growth = |subject| match self.subjects.iter().position(|known| known == subject) {
                Some(index) => before[index].clone(),
                None => Growth::new(since),
            };
            followed.growths = subjects.iter().map(growth).collect();
        }
        self.subjects = subjects;
    }

    /// `now_ms`: a monotonic clock, as below.
    pub(crate) fn take(&mut self, record: LiveRecord, now_ms: i64) {
        let followed = self.partitions.entry(record.partition).or_insert_with(|| Followed {
            view: PartitionView::new(record.epoch, now_ms),
            growths: self.subjects.iter().map(|_| Growth::new(self.since)).collect(),
        });
        if followed.view.take(record, now_ms) == Taken::Applied {
            let (state, clock) = (followed.view.state(), followed.view.clock());
            for (growth, subject) in followed.growths.iter_mut().zip(&self.subjects) {
                growth.take(subject, state, clock);
            }
        }
    }

    /// Log time (ms) up to which every partition has told; `None` while one is missing or catches up, so that its
    /// silence is not taken for the site's.
    pub(crate) fn clock(&self, now_ms: i64, silence_ms: i64) -> Option<i64> {
        let views = || self.partitions.values().map(|followed| &followed.view);
        if views().any(|view| view.is_silent(now_ms, silence_ms)) {
            return None;
        }
        let telling = || views().filter(|view| !view.is_idle()).map(PartitionView::clock);
        match (telling().min(), telling().max()) {
            (Some(first), Some(last)) => (last - first <= FURTHEST_APART).then_some(first),
            // Nothing is in any window, so nothing is told, and time goes on.
            _ => views().map(|view| view.clock_at(now_ms)).max(),
        }
    }

    /// The counts of the subject at `index`.
    pub(crate) fn series(&self, index: usize) -> Series {
        let mut series = Series { whole_from: i64::MIN, ..Series::default() };
        for Followed { view, growths } in self.partitions.values() {
            match &self.subjects[index] {
                Subject::Views => {
                    let views = |counts: &MinuteCounts| counts.views;
                    let newest = series.add_shown(view, views);
                    series.heard(newest);
                }
                Subject::Events => {
                    series.add_shown(view, |counts| counts.events);
                    series.heard((view.newest() > 0).then_some(view.newest()));
                }
                Subject::Page(_) | Subject::Event(_) => series.add_growth(&growths[index]),
            }
        }
        series
    }
}

impl Series {
    /// Adds the minutes shown. Returns the end of the newest that has some: more precise it is not told.
    fn add_shown(&mut self, view: &PartitionView, count: impl Fn(&MinuteCounts) -> u64) -> Option<i64> {
        let mut newest = None;
        for (minute, counts) in &view.state().minutes {
            let count = count(counts);
            if count > 0 {
                *self.minutes.entry(*minute).or_default() += count;
                self.half_hour += count;
                newest = Some(minute * SECOND_MS + MINUTE_MS - 1);
            }
        }
        newest
    }

    fn add_growth(&mut self, growth: &Growth) {
        for (minute, count) in growth.minutes() {
            *self.minutes.entry(*minute).or_default() += count;
        }
        self.half_hour += growth.half_hour();
        self.whole_from = self.whole_from.max(growth.from());
        self.heard(growth.newest());
    }

    fn heard(&mut self, at: Option<i64>) {
        self.newest = self.newest.max(at);
    }
}

#[cfg(test)]
mod tests {
    use footfall_schemas::{
        Dimension,
        live::{LiveState, Totals},
    };
    use rstest::rstest;

    use super::*;

    /// A full minute, in s.
    const START: i64 = 1_800_000_000;
    const SILENCE_MS: i64 = 10_000;

    fn record(partition: i32, seq: u64, second: i64, views: u64) -> LiveRecord {
        let counts = MinuteCounts { views, events: 2 * views, visitors: 1, sessions: 0 };
        let tops = [(Dimension::Page, [("/404".to_owned(), views)].into())].into();
        let state = LiveState {
            totals: Some(Totals { visitors: 1, ..Totals::default() }),
            minutes: [((START + second) / 60 * 60, counts)].into(),
            tops,
            ..LiveState::default()
        };
        LiveRecord {
            site: "demo".parse().unwrap(),
            partition,
            epoch: 1,
            seq,
            full: true,
            clock: (START + second) * 1_000,
            newest: (START + second) * 1_000 - 50,
            at: 0,
            state: if views > 0 { state } else { LiveState::default() },
        }
    }

    fn watch() -> Watch {
        let page = Subject::Page("/404".try_into().unwrap());
        Watch::new(START * 1_000, vec![Subject::Views, Subject::Events, page])
    }

    #[test]
    fn partitions_add_up() {
        let mut watch = watch();
        watch.take(record(0, 1, 0, 3), 0);
        watch.take(record(1, 1, 1, 4), 0);
        watch.take(record(1, 2, 61, 5), 0);
        let series = |index: usize| {
            let series = watch.series(index);
            let minutes: Vec<u64> = series.minutes.into_values().collect();
            (minutes, series.half_hour, series.newest.map(|at| at - START * 1_000))
        };
        // The second partition's full record replaces its first, whose minute is not in it.
        assert_eq!(series(0), (vec![3, 5], 8, Some(119_999)));
        assert_eq!(series(1), (vec![6, 10], 16, Some(60_950)));
        assert_eq!(series(2), (vec![7, 1], 8, Some(61_000)));
        assert_eq!(watch.clock(0, SILENCE_MS), None, "61 s apart");
        watch.take(record(0, 2, 5, 3), 0);
        assert_eq!(watch.clock(0, SILENCE_MS), Some((START + 5) * 1_000));
    }

    #[test]
    fn what_is_watched_already_goes_on_when_other_rules_come() {
        let mut watch = watch();
        watch.take(record(0, 1, 0, 3), 0);
        watch.take(record(0, 2, 1, 5), 0);
        let page = |path: &str| Subject::Page(path.try_into().unwrap());
        watch.turn_to(vec![page("/other"), page("/404"), Subject::Views], (START + 1) * 1_000);
        let half_hours = |watch: &Watch| [0, 1, 2].map(|index| watch.series(index).half_hour);
        assert_eq!(half_hours(&watch), [0, 5, 5]);
        watch.take(record(0, 3, 2, 7), 0);
        assert_eq!(half_hours(&watch), [0, 7, 7]);
    }

    #[test]
    fn a_partition_that_is_missing_stops_the_clock() {
        let mut watch = watch();
        assert_eq!(watch.clock(0, SILENCE_MS), None, "nothing is known");
        watch.take(record(0, 1, 0, 3), 0);
        watch.take(record(1, 1, 0, 3), 0);
        watch.take(record(0, 2, 10, 3), 10_000);
        assert_eq!(watch.clock(10_000, SILENCE_MS), Some(START * 1_000));
        assert_eq!(watch.clock(10_001, SILENCE_MS), None, "its aggregator may be gone");
        watch.take(LiveRecord { full: false, ..record(1, 3, 10, 1) }, 10_001);
        assert_eq!(watch.clock(10_001, SILENCE_MS), None, "a record is missing");
        watch.take(record(1, 4, 11, 1), 10_002);
        assert_eq!(watch.clock(10_002, SILENCE_MS), Some((START + 10) * 1_000));
    }

    #[rstest]
    #[case::one_still_has_some(&[(0, 0), (1, 3)], Some(0))]
    #[case::nobody_has_any(&[(0, 0), (1, 0)], Some(40))]
    fn an_empty_partition_need_not_tell(#[case] told: &[(i32, u64)], #[case] second: Option<i64>) {
        let mut watch = watch();
        for (partition, views) in told {
            watch.take(record(*partition, 1, 0, *views), 0);
        }
        let now_ms = if second == Some(0) { 1_000 } else { 40_000 };
        assert_eq!(watch.clock(now_ms, SILENCE_MS), second.map(|second| (START + second) * 1_000));
    }
}
