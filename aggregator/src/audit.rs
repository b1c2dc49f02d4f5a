//! The audit: lines = rows + duplicates + dead letters, the tables hold these rows once, and the rolling counts are
//! those of the rows.
//!
//! [`account`] counts while the log is read; this file compares, without I/O. Who owns a partition compares what it
//! has written all the time ([`watch`], [`rounds`]); [`Replay`] says from the log alone what the tables must hold, for
//! `footfall audit`. [`Tables`] asks ClickHouse.

mod account;
mod replay;
mod rounds;
mod tables;
mod watch;

use std::collections::{BTreeMap, HashMap, HashSet};

use footfall_schemas::{Dimension, EventId, rows::EventRow};
use uuid::Uuid;

pub use account::Account;
pub(crate) use account::{Books, Checkpoint};
pub use replay::{Expected, RawLine, Replay};
pub(crate) use rounds::Known;
pub use tables::{Booked, Counted, StoredRow, Tables};
pub(crate) use tables::{Sample, Span};
pub(crate) use watch::Watch;

/// Offset and index of a row in its partition.
pub type Place = (i64, u16);
/// A site's minute (ms since 1970, its start).
pub type SiteMinute = (String, i64);

/// What a minute's rows, or its rolling counts, add up to in one dimension.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    pub events: u64,
    pub views: u64,
    /// Distinct visitors by value, added up over the values.
    pub visitors: u64,
}

/// The dimensions that count every event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MinuteSums {
    pub total: Sums,
    pub page: Sums,
}

/// What is not as it must be. Counts are rows or lines; minutes are ms since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Difference {
    /// The state does not add up.
    Lines {
        from: i64,
        to: i64,
        account: Account,
    },
    /// Other rows than the log makes, by their number of distinct places.
    Rows {
        from: i64,
        to: i64,
        expected: u64,
        found: u64,
    },
    /// Rows that are there more than once.
    Doubled {
        from: i64,
        to: i64,
        distinct: u64,
        found: u64,
    },
    DeadLetters {
        from: i64,
        to: i64,
        expected: u64,
        found: u64,
    },
    /// A minute's rows are other than those counted from the log.
    MinuteRows {
        at: SiteMinute,
        expected: (u64, u64),
        found: (u64, u64),
    },
    /// A minute's rolling counts are other than its rows.
    Counts {
        at: SiteMinute,
        dimension: Dimension,
        rows: Sums,
        counted: Sums,
    },
}

impl Difference {
    pub(crate) const KINDS: [&str; 5] = ["lines", "rows", "doubled", "dead_letters", "rolling_counts"];

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Lines { .. } => "lines",
            Self::Rows { .. } | Self::MinuteRows { .. } => "rows",
            Self::Doubled { .. } => "doubled",
            Self::DeadLetters { .. } => "dead_letters",
            Self::Counts { .. } => "rolling_counts",
        }
    }
}

/// The rows of an offset range, by numbers: `account` is what the log made of it.
pub(crate) fn compare_span(span: Span, account: Account, stored: Booked) -> Vec<Difference> {
    let Span { from, to } = span;
    let mut found = Vec::new();
    if !account.is_balanced() {
        found.push(Difference::Lines { from, to, account });
    }
    if stored.distinct != account.rows {
        found.push(Difference::Rows { from, to, expected: account.rows, found: stored.distinct });
    }
    if stored.rows != stored.distinct {
        found.push(Difference::Doubled { from, to, distinct: stored.distinct, found: stored.rows });
    }
    found
}

/// A minute: what was counted from the log (events and views; `None` when that is not known), the rows, and the
/// rolling counts.
pub(crate) fn compare_minute(
    at: &SiteMinute,
    known: Option<(u64, u64)>,
    rows: &MinuteSums,
    counted: &MinuteSums,
) -> Vec<Difference> {
    let mut differences = Vec::new();
    let found = (rows.total.events, rows.total.views);
    if let Some(expected) = known.filter(|known| *known != found) {
        differences.push(Difference::MinuteRows { at: at.clone(), expected, found });
    }
    for (dimension, rows, counted) in differing(rows, counted) {
        differences.push(Difference::Counts { at: at.clone(), dimension, rows, counted });
    }
    differences
}

/// The dimensions in which rolling counts are other than the rows: of the rows, of the counts.
pub fn differing(rows: &MinuteSums, counted: &MinuteSums) -> Vec<(Dimension, Sums, Sums)> {
    [(Dimension::Total, rows.total, counted.total), (Dimension::Page, rows.page, counted.page)]
        .into_iter()
        .filter(|(_, rows, counted)| rows != counted)
        .collect()
}

/// What differs between the rows that the log makes and those that are stored, of one range of offsets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowDifferences {
    /// Indexes of expected rows that are not stored.
    pub missing: Vec<usize>,
    /// Indexes of expected rows that are stored several times, or beside or as another event.
    pub spoiled: Vec<usize>,
    /// Places where the log makes no row, and a row is stored.
    pub foreign: HashSet<Place>,
    /// Rows too many at the places of expected ones.
    pub surplus: u64,
}

impl RowDifferences {
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.spoiled.is_empty() && self.foreign.is_empty()
    }
}

/// Compares by place, and by event at the place.
pub fn compare_rows(expected: &[EventRow], stored: &[StoredRow]) -> RowDifferences {
    let places: HashMap<Place, (usize, Uuid)> = expected
        .iter()
        .enumerate()
        .map(|(index, row)| ((row._offset, row._index), (index, row.event_id)))
        .collect();
    let mut differences = RowDifferences::default();
    // Rows at an expected place, and whether one of them is another event.
    let mut found: BTreeMap<usize, (u64, bool)> = BTreeMap::new();
    for row in stored {
        match places.get(&row.place) {
            None => {
                differences.foreign.insert(row.place);
            }
            Some((index, event_id)) => {
                let (rows, other) = found.entry(*index).or_default();
                *rows += 1;
                *other |= row.event_id != *event_id;
            }
        }
    }
    for index in 0..expected.len() {
        match found.get(&index) {
            None => differences.missing.push(index),
            Some((1, false)) => {}
            Some((rows, _)) => {
                differences.spoiled.push(index);
                differences.surplus += rows - 1;
            }
        }
    }
    differences
}

/// Where an event is stored first, for a replay that knows which stored rows are wrong: `stored` in any order, without
/// the places in `foreign`, and with the rows that are missing although the log makes them.
fn first_places<K: Eq + std::hash::Hash + Clone>(
    stored: impl IntoIterator<Item = (K, Place)>,
    foreign: &HashSet<Place>,
    missing: &HashMap<K, Place>,
    asked: impl IntoIterator<Item = K>,
) -> HashMap<K, Place> {
    let mut first: HashMap<K, Place> = HashMap::new();
    let lost = asked.into_iter().filter_map(|key| missing.get(&key).map(|place| (key, *place)));
    let right = stored.into_iter().filter(|(_, place)| !foreign.contains(place));
    for (key, place) in right.chain(lost) {
        first.entry(key).and_modify(|known| *known = place.min(*known)).or_insert(place);
    }
    first
}

/// The id of an event, as far as a stored row has a valid one.
fn event_id(stored: Uuid) -> Option<EventId> {
    EventId::from_uuid(stored).ok()
}

#[cfg(test)]
mod tests;
