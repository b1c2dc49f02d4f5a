//! The live view's state and its changes. One type serves three hops: what an aggregator knows of a (site, partition),
//! what a dashboard node merges from the partitions, and what a viewer's page holds. A change is the same type with
//! only the changed entries, each an absolute value, so that applying one twice is harmless.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{
    Dimension, SiteId,
    time::{MINUTE_MS, SECOND_MS},
};

/// Seconds shown as a moving chart.
pub const SECONDS_SHOWN: i64 = 60;
/// Minutes shown and windows of the top lists.
pub const MINUTES_SHOWN: i64 = 30;
/// Window of "active".
pub const ACTIVE_WINDOW_MS: i64 = 5 * MINUTE_MS;

/// Value of a record on `footfall.live`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LiveRecord {
    pub site: SiteId,
    pub partition: i32,
    /// When this partition was assigned to the member that tells (ms since 1970). The highest holds.
    pub epoch: u64,
    /// Counts records of this (site, partition, epoch) from 1; a gap is healed by the next full record.
    pub seq: u64,
    /// `true`: `state` is everything; `false`: what changed since `seq − 1`.
    pub full: bool,
    /// Log time (ms since 1970) up to which the windows are told.
    pub clock: i64,
    /// Received-at of the newest event counted in (ms since 1970); 0 for none yet.
    pub newest: i64,
    /// When this was told (ms since 1970, the aggregator's clock).
    pub at: i64,
    pub state: LiveState,
}

/// Windows of a site. As a change: only what changed; a count of 0 removes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LiveState {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals: Option<Totals>,
    /// By start of the second (s since 1970), the last [`SECONDS_SHOWN`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "by_start")]
    pub seconds: BTreeMap<i64, SecondCounts>,
    /// By start of the minute (s since 1970), the last [`MINUTES_SHOWN`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "by_start")]
    pub minutes: BTreeMap<i64, MinuteCounts>,
    /// Page views of the last [`MINUTES_SHOWN`] minutes by value: events for [`Dimension::Event`], sessions that started
    /// in them for [`Dimension::Entry`] and [`Dimension::Exit`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tops: BTreeMap<Dimension, BTreeMap<String, u64>>,
    /// Of the lists that are not exact: the most that a count in it may be told too much, and that a value not in it
    /// may have been counted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<Dimension, u64>,
}

/// Distinct counts over sliding windows, and what became of the events since the log began to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Totals {
    /// Distinct visitors in the last 5 minutes.
    pub active: u64,
    /// Distinct visitors in the last 30 minutes.
    pub visitors: u64,
    /// One standard error of both; 0 while they are exact.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub visitors_error: u64,
    /// Events that became rows.
    pub stored: u64,
    /// Resends recognised.
    pub duplicate: u64,
    /// Of those stored, how many came after their minute was closed.
    pub late: u64,
    /// Records and lines that could not be read.
    pub poison: u64,
    /// Sessions that started in the last [`MINUTES_SHOWN`] minutes.
    #[serde(default)]
    pub sessions: u64,
    /// Of these, how many consist of one page view and no custom event.
    #[serde(default)]
    pub bounces: u64,
    /// From first to last event of these, added up, ms.
    #[serde(default)]
    pub duration_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SecondCounts {
    pub views: u64,
    pub events: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct MinuteCounts {
    pub views: u64,
    pub events: u64,
    /// Distinct visitors in this minute.
    pub visitors: u64,
    /// Sessions that started in this minute, as far as is known: a late event can move a session's start, or join two.
    pub sessions: u64,
}

impl LiveState {
    /// Takes over every entry of `change`.
    pub fn apply(&mut self, change: &Self) {
        if change.totals.is_some() {
            self.totals = change.totals;
        }
        apply_map(&mut self.seconds, &change.seconds);
        apply_map(&mut self.minutes, &change.minutes);
        for (dimension, values) in &change.tops {
            let top = self.tops.entry(*dimension).or_default();
            apply_map(top, values);
            if top.is_empty() {
                self.tops.remove(dimension);
            }
        }
        apply_map(&mut self.errors, &change.errors);
    }

    /// What must be applied to `self` to get `newer`; `None` when nothing changed.
    pub fn change_to(&self, newer: &Self) -> Option<Self> {
        let mut tops = BTreeMap::new();
        let empty = BTreeMap::new();
        for dimension in self.tops.keys().chain(newer.tops.keys()) {
            let (old, new) =
                (self.tops.get(dimension).unwrap_or(&empty), newer.tops.get(dimension).unwrap_or(&empty));
            let changed = change_map(old, new);
            if !changed.is_empty() {
                tops.insert(*dimension, changed);
            }
        }
        let change = Self {
            totals: newer.totals.filter(|_| self.totals != newer.totals),
            seconds: change_map(&self.seconds, &newer.seconds),
            minutes: change_map(&self.minutes, &newer.minutes),
            tops,
            errors: change_map(&self.errors, &newer.errors),
        };
        (change != Self::default()).then_some(change)
    }

    /// Adds another partition's state: partitions hold disjoint visitors, so everything adds up.
    pub fn add(&mut self, other: &Self) {
        if let Some(other) = other.totals {
            let totals = self.totals.get_or_insert_default();
            totals.active += other.active;
            totals.visitors += other.visitors;
            totals.visitors_error += other.visitors_error;
            totals.stored += other.stored;
            totals.duplicate += other.duplicate;
            totals.late += other.late;
            totals.poison += other.poison;
            totals.sessions += other.sessions;
            totals.bounces += other.bounces;
            totals.duration_ms += other.duration_ms;
        }
        for (second, other) in &other.seconds {
            let counts = self.seconds.entry(*second).or_default();
            counts.views += other.views;
            counts.events += other.events;
        }
        for (minute, other) in &other.minutes {
            let counts = self.minutes.entry(*minute).or_default();
            counts.views += other.views;
            counts.events += other.events;
            counts.visitors += other.visitors;
            counts.sessions += other.sessions;
        }
        for (dimension, values) in &other.tops {
            let top = self.tops.entry(*dimension).or_default();
            for (value, count) in values {
                *top.entry(value.clone()).or_default() += count;
            }
        }
        for (dimension, error) in &other.errors {
            *self.errors.entry(*dimension).or_default() += error;
        }
    }

    /// Forgets the seconds and minutes that have left the windows at `clock` (ms since 1970).
    pub fn prune(&mut self, clock: i64) {
        let second = clock.div_euclid(SECOND_MS) - SECONDS_SHOWN;
        let minute = (clock.div_euclid(MINUTE_MS) - MINUTES_SHOWN) * (MINUTE_MS / SECOND_MS);
        self.seconds.retain(|start, _| *start > second);
        self.minutes.retain(|start, _| *start > minute);
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn apply_map<K: Ord + Clone, V: Default + PartialEq + Clone>(
    map: &mut BTreeMap<K, V>,
    change: &BTreeMap<K, V>,
) {
    for (key, value) in change {
        if *value == V::default() {
            map.remove(key);
        } else {
            map.insert(key.clone(), value.clone());
        }
    }
}

fn change_map<K: Ord + Clone, V: Default + PartialEq + Clone>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> BTreeMap<K, V> {
    let gone = old.keys().filter(|key| !new.contains_key(key)).map(|key| (key.clone(), V::default()));
    let changed = new.iter().filter(|(key, value)| old.get(key) != Some(value));
    changed.map(|(key, value)| (key.clone(), value.clone())).chain(gone).collect()
}

/// JSON's keys are text; inside a tagged frame serde hands them on as text and would not parse them.
fn by_start<'de, D: Deserializer<'de>, V: Deserialize<'de>>(
    deserializer: D,
) -> Result<BTreeMap<i64, V>, D::Error> {
    let texts = BTreeMap::<String, V>::deserialize(deserializer)?;
    texts.into_iter().map(|(key, value)| Ok((key.parse().map_err(D::Error::custom)?, value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts() -> impl Strategy<Value = BTreeMap<i64, MinuteCounts>> {
        prop::collection::btree_map(0..5i64, (1..4u64, 1..4u64), 0..5).prop_map(|map| {
            let counts = |(views, visitors)| MinuteCounts { views, events: views, visitors, sessions: 0 };
            map.into_iter().map(|(minute, pair)| (minute * 60, counts(pair))).collect()
        })
    }

    fn state() -> impl Strategy<Value = LiveState> {
        let values = prop::collection::btree_map("[ab]{1,2}", 1..9u64, 1..4);
        let dimension = prop::sample::select(vec![Dimension::Page, Dimension::Country]);
        (counts(), prop::collection::btree_map(dimension, values, 0..2), 0..3u64).prop_map(
            |(minutes, tops, active)| LiveState {
                totals: Some(Totals { active, ..Totals::default() }),
                minutes,
                tops,
                ..LiveState::default()
            },
        )
    }

    proptest! {
        #[test]
        fn applying_the_change_gives_the_newer_state(old in state(), new in state()) {
            let mut applied = old.clone();
            if let Some(change) = old.change_to(&new) {
                applied.apply(&change);
                applied.apply(&change);
            }
            prop_assert_eq!(applied, new);
        }

        #[test]
        fn merging_is_the_same_in_any_order(a in state(), b in state(), c in state()) {
            let merge = |parts: [&LiveState; 3]| parts.iter().fold(LiveState::default(), |mut sum, part| { sum.add(part); sum });
            prop_assert_eq!(merge([&a, &b, &c]), merge([&c, &a, &b]));
        }
    }

    #[test]
    fn windows_forget_what_has_left_them() {
        let mut state = LiveState {
            minutes: (0..40)
                .map(|minute| (minute * 60, MinuteCounts { views: 1, ..Default::default() }))
                .collect(),
            seconds: (0..2_400).map(|second| (second, SecondCounts { views: 1, events: 1 })).collect(),
            ..LiveState::default()
        };
        state.prune(39 * MINUTE_MS + 59_999);
        assert_eq!(state.minutes.len(), 30);
        assert_eq!(state.seconds.len(), 60);
        assert_eq!(state.seconds.last_key_value().unwrap().0, &2_399);
    }
}
