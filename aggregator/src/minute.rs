//! What was counted of one site in one minute: a cell by dimension and value.

use std::collections::{BTreeMap, HashMap, HashSet};

use footfall_schemas::{Dimension, EventKind, EventRecord, live::MinuteCounts, rollup::Measures};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Minute {
    cells: BTreeMap<Dimension, HashMap<String, Cell>>,
    /// Dimensions with more values than may be counted here. What is missing is counted by ClickHouse.
    full: Vec<Dimension>,
    /// What was counted here may differ from the stored rows, so ClickHouse counts the whole minute.
    uncertain: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Cell {
    events: u64,
    views: u64,
    sessions: u64,
    engaged_ms: u64,
    /// Partitions hold disjoint visitors, so the sizes add up.
    visitors: HashSet<u64>,
    /// Changed since it was last written. A restored cell counts as never written.
    #[serde(skip, default = "never_written")]
    dirty: bool,
}

fn never_written() -> bool {
    true
}

impl Cell {
    fn measures(&self) -> Measures {
        Measures {
            events: self.events,
            views: self.views,
            visitors: self.visitors.len() as u64,
            sessions: self.sessions,
            engaged_ms: self.engaged_ms,
        }
    }
}

impl Minute {
    /// Counts an event under its value of each dimension; at most `values` of them are counted by dimension.
    pub(crate) fn count(&mut self, event: &EventRecord, session_start: bool, values: usize) {
        for dimension in Dimension::ALL {
            let Some(value) = dimension.value_of(event) else { continue };
            let cells = self.cells.entry(*dimension).or_default();
            if !cells.contains_key(value) {
                if cells.len() >= values {
                    if !self.full.contains(dimension) {
                        self.full.push(*dimension);
                    }
                    continue;
                }
                cells.insert(value.to_owned(), Cell::default());
            }
            let cell = cells.get_mut(value).expect("inserted above when it was not there");
            cell.events += 1;
            cell.views += u64::from(event.kind == EventKind::PageView);
            cell.sessions += u64::from(session_start);
            cell.engaged_ms += u64::from(event.engaged_ms);
            cell.visitors.insert(event.visitor.0);
            cell.dirty = true;
        }
    }

    pub(crate) fn distrust(&mut self) {
        self.uncertain = true;
    }

    pub(crate) fn is_uncertain(&self) -> bool {
        self.uncertain
    }

    /// The dimensions whose values are not all here.
    pub(crate) fn full(&self) -> &[Dimension] {
        &self.full
    }

    /// Takes the cells that changed since they were last taken.
    pub(crate) fn take_changed(&mut self) -> impl Iterator<Item = (Dimension, &str, Measures)> {
        self.cells.iter_mut().flat_map(|(dimension, cells)| {
            cells.iter_mut().filter_map(|(value, cell)| {
                std::mem::take(&mut cell.dirty).then(|| (*dimension, value.as_str(), cell.measures()))
            })
        })
    }

    pub(crate) fn total(&self) -> MinuteCounts {
        let total = self.cells.get(&Dimension::Total).and_then(|cells| cells.get(""));
        total.map_or_else(MinuteCounts::default, |cell| MinuteCounts {
            views: cell.views,
            events: cell.events,
            visitors: cell.visitors.len() as u64,
            sessions: cell.sessions,
        })
    }

    /// What the top lists count: events for [`Dimension::Event`], page views for the others.
    pub(crate) fn tops(&self) -> impl Iterator<Item = (Dimension, &str, u64)> {
        self.cells.iter().filter(|(dimension, _)| **dimension != Dimension::Total).flat_map(
            |(dimension, cells)| {
                cells.iter().map(|(value, cell)| {
                    let count = if *dimension == Dimension::Event { cell.events } else { cell.views };
                    (*dimension, value.as_str(), count)
                })
            },
        )
    }
}
