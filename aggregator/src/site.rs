//! What is counted of one site in one partition.

use std::collections::BTreeMap;

use footfall_schemas::{
    Dimension, SiteId,
    live::{LiveState, MinuteCounts, SecondCounts, Totals},
    record::EventRef,
    time::{MINUTE_MS, minute_of},
};
use serde::{Deserialize, Serialize};

use crate::{
    minute::{Bounds, Minute},
    panes::{Panes, first_minute_shown},
    session::Sessions,
    values::{DIMENSIONS, Top, Values},
};

/// How long after its end a minute knows its visitors by value. What comes later is counted by ClickHouse.
const PAIRS_KEPT_MS: i64 = 2 * MINUTE_MS;

/// What a site may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SiteBounds {
    pub(crate) minute: Bounds,
    /// Visitors of the windows known one by one.
    pub(crate) visitors: usize,
}

impl SiteBounds {
    /// Of a site that has been narrowed `times` times: half of everything each time.
    fn narrowed(self, times: u8) -> Self {
        let half = |bound: usize| (bound >> times).max(64);
        let Self { minute: Bounds { values, visitors, pairs }, visitors: windows } = self;
        let minute = Bounds { values: half(values), visitors: half(visitors), pairs: half(pairs) };
        Self { minute, visitors: half(windows) }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Site {
    pub(crate) id: SiteId,
    pub(crate) stored: u64,
    pub(crate) duplicate: u64,
    pub(crate) late: u64,
    pub(crate) poison: u64,
    /// Received-at of the newest event.
    pub(crate) newest: i64,
    pub(crate) sessions: Sessions,
    values: Values,
    /// By start, ms.
    minutes: BTreeMap<i64, Minute>,
    panes: Panes,
    /// First minute (ms) in the top lists.
    shown_from: i64,
    /// How often its bounds were halved, so that it leaves room to others.
    narrowed: u8,
}

/// A site's windows at a clock.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Windows {
    pub(crate) totals: Totals,
    pub(crate) seconds: BTreeMap<i64, SecondCounts>,
    /// By start, s.
    pub(crate) minutes: BTreeMap<i64, MinuteCounts>,
    pub(crate) tops: [Top; DIMENSIONS],
    /// The most that a count of each dimension may be told too much or be missing.
    pub(crate) errors: [u64; DIMENSIONS],
    pub(crate) newest: i64,
}

impl Windows {
    /// As it is told whole.
    pub(crate) fn state(self) -> LiveState {
        let Self { totals, seconds, minutes, tops, errors, .. } = self;
        let lists = Dimension::ALL.iter().zip(tops).filter(|(_, top)| !top.values.is_empty());
        let counts =
            |top: Top| top.values.into_iter().map(|(text, count)| (text.to_string(), count)).collect();
        let errors = Dimension::ALL.iter().zip(errors).filter(|(_, error)| *error > 0);
        LiveState {
            totals: Some(totals),
            seconds,
            minutes,
            tops: lists.map(|(dimension, top)| (*dimension, counts(top))).collect(),
            errors: errors.map(|(dimension, error)| (*dimension, error)).collect(),
        }
    }
}

impl Site {
    /// `gap_ms`: silence that ends a session.
    pub(crate) fn new(id: SiteId, gap_ms: i64) -> Self {
        Self {
            id,
            stored: 0,
            duplicate: 0,
            late: 0,
            poison: 0,
            newest: 0,
            sessions: Sessions::new(gap_ms),
            values: Values::default(),
            minutes: BTreeMap::new(),
            panes: Panes::default(),
            shown_from: i64::MIN,
            narrowed: 0,
        }
    }

    /// Call after deserialising.
    pub(crate) fn index(&mut self) {
        self.values.index();
    }

    /// Counts an event in the windows by second and by visitor.
    pub(crate) fn see(&mut self, event: &EventRef<'_>, bounds: SiteBounds) {
        self.panes.count(event, bounds.narrowed(self.narrowed).visitors);
    }

    /// Counts an event in its minute.
    pub(crate) fn count(&mut self, event: &EventRef<'_>, bounds: SiteBounds) {
        let start = minute_of(event.event_time);
        let shown = start >= self.shown_from;
        let minute = self.minutes.entry(start).or_insert_with(|| Minute::new(shown));
        minute.count(event, &mut self.values, bounds.narrowed(self.narrowed).minute);
    }

    pub(crate) fn minutes(&self) -> impl Iterator<Item = i64> {
        self.minutes.keys().copied()
    }

    /// The minute that starts at `start` (ms) and the values its cells name.
    pub(crate) fn minute(&mut self, start: i64) -> Option<(&mut Minute, &Values)> {
        Some((self.minutes.get_mut(&start)?, &self.values))
    }

    /// What was counted in a minute, when the stored rows cannot tell otherwise.
    pub(crate) fn counted(&self, start: i64) -> Option<MinuteCounts> {
        self.minutes.get(&start).filter(|minute| !minute.is_uncertain()).map(Minute::total)
    }

    pub(crate) fn windows(&mut self, clock: i64, longest: usize) -> Windows {
        self.move_to(first_minute_shown(clock));
        let visitors = self.panes.visitors(clock);
        let tops = self.values.tops(longest);
        let mut errors: [u64; DIMENSIONS] = std::array::from_fn(|dimension| tops[dimension].beyond);
        for minute in self.minutes.range(self.shown_from..).map(|(_, minute)| minute) {
            for (error, floor) in errors.iter_mut().zip(minute.floors()) {
                *error += floor;
            }
        }
        let shown = self.minutes.range(self.shown_from..=clock);
        let mut windows = Windows {
            totals: Totals {
                active: visitors.active,
                visitors: visitors.shown,
                visitors_error: visitors.error,
                stored: self.stored,
                duplicate: self.duplicate,
                late: self.late,
                poison: self.poison,
                ..Totals::default()
            },
            seconds: self.panes.seconds(clock),
            minutes: shown.map(|(minute, counts)| (minute / 1_000, counts.total())).collect(),
            tops,
            errors,
            newest: self.newest,
        };
        self.sessions.tell(clock, longest, &mut windows);
        windows
    }

    /// Takes the minutes before `from` (ms) out of the top lists.
    fn move_to(&mut self, from: i64) {
        if from > self.shown_from {
            for (_, minute) in self.minutes.range_mut(self.shown_from..from) {
                minute.hide(&mut self.values);
            }
            self.shown_from = from;
        }
    }

    /// Frees what is out of every window at log time, and the minutes before `floor` (ms), which are returned.
    pub(crate) fn sweep(&mut self, log_time: i64, floor: i64) -> Vec<i64> {
        self.sessions.sweep(log_time);
        self.panes.sweep(log_time);
        for (_, minute) in self.minutes.range_mut(..log_time - MINUTE_MS - PAIRS_KEPT_MS) {
            minute.forget_pairs();
        }
        let kept = self.minutes.split_off(&floor);
        let gone = std::mem::replace(&mut self.minutes, kept);
        let starts = gone.keys().copied().collect();
        gone.into_values().for_each(|minute| minute.release(&mut self.values));
        starts
    }

    /// Halves its bounds.
    pub(crate) fn narrow(&mut self, bounds: SiteBounds) {
        self.narrowed += 1;
        let SiteBounds { minute, visitors } = bounds.narrowed(self.narrowed);
        for counts in self.minutes.values_mut() {
            counts.shrink(&mut self.values, minute);
        }
        self.panes.shrink(visitors);
    }

    /// Doubles them again.
    pub(crate) fn widen(&mut self) {
        self.narrowed = self.narrowed.saturating_sub(1);
    }

    pub(crate) fn narrowed(&self) -> u8 {
        self.narrowed
    }

    /// Bytes held, about; sessions have a bound of their own.
    pub(crate) fn bytes(&self) -> usize {
        let minutes: usize = self.minutes.values().map(Minute::bytes).sum();
        size_of::<Self>() + minutes + self.values.bytes() + self.panes.bytes()
    }
}
