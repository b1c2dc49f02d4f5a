//! What was counted of one site in one minute: a cell by dimension and value.
//!
//! Counts are exact. Distinct visitors by value need to know which (visitor, value) were counted ([`Pairs`]): that is
//! given up when the minute has passed or they are too many. What comes then makes the minute
//! uncertain: ClickHouse counts it from the stored rows. A list of more values than its bound keeps the most counted
//! (SpaceSaving: Metwally, Agrawal, El Abbadi 2005; evicting many at once), for the top lists; the minute as a whole is
//! counted by ClickHouse then, too.

use std::collections::HashMap;

use footfall_schemas::{Dimension, EventKind, live::MinuteCounts, record::EventRef, rollup::Measures};
use serde::{Deserialize, Serialize};

use crate::{
    pairs::Pairs,
    sample::{IdHash, Sample},
    values::{DIMENSIONS, ValueId, Values},
};

/// What a minute may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Values by dimension.
    pub(crate) values: usize,
    /// Visitors known one by one.
    pub(crate) visitors: usize,
    /// (visitor, value) known one by one.
    pub(crate) pairs: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Minute {
    total: Cell,
    visitors: Sample,
    cells: HashMap<ValueId, Cell, IdHash>,
    lists: [List; DIMENSIONS],
    /// `None`: no longer known.
    pairs: Option<Pairs>,
    /// What was counted here may differ from the stored rows.
    uncertain: bool,
    /// Its values are in the top lists.
    shown: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Cell {
    events: u32,
    views: u32,
    visitors: u32,
    /// Most that may have been counted of the value before it had this cell.
    over: u32,
    engaged_ms: u64,
    /// Changed since it was last written. A restored cell counts as never written.
    #[serde(skip, default = "never_written")]
    dirty: bool,
}

/// The values of a dimension.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct List {
    values: u32,
    /// The most that a value without a cell was counted; 0 while all have one.
    floor: u32,
}

fn never_written() -> bool {
    true
}

impl Cell {
    fn count(&mut self, event: &EventRef<'_>) {
        self.events += 1;
        self.views += u32::from(event.kind == EventKind::PageView);
        self.engaged_ms += u64::from(event.engaged_ms);
        self.dirty = true;
    }

    fn measures(&self, visitors: u64) -> Measures {
        Measures {
            events: self.events.into(),
            views: self.views.into(),
            visitors,
            engaged_ms: self.engaged_ms,
        }
    }

    /// What the top lists count: events for [`Dimension::Event`], page views for the others.
    fn rank(&self, dimension: Dimension) -> u64 {
        let counted = if dimension == Dimension::Event { self.events } else { self.views };
        u64::from(counted) + u64::from(self.over)
    }
}

impl Minute {
    /// `shown`: its values are to be in the top lists.
    pub(crate) fn new(shown: bool) -> Self {
        Self {
            total: Cell::default(),
            visitors: Sample::default(),
            cells: HashMap::default(),
            lists: Default::default(),
            pairs: Some(Pairs::default()),
            uncertain: false,
            shown,
        }
    }

    /// Counts an event under its value of each dimension.
    pub(crate) fn count(&mut self, event: &EventRef<'_>, values: &mut Values, bounds: Bounds) {
        let Self { total, visitors, cells, lists, pairs, shown, .. } = self;
        total.count(event);
        let mut known = pairs.as_mut().map(|pairs| pairs.of(event.visitor));
        if known.as_ref().is_none_or(|known| known.is_new) {
            visitors.insert(event.visitor.0, bounds.visitors);
        }
        let longest = bounds.values + bounds.values / 4;
        let mut is_long = false;
        for dimension in &Dimension::OF_EVENTS[1..] {
            let Some(text) = dimension.value_of(event) else { continue };
            let id = values.id(*dimension, text);
            let list = &mut lists[*dimension as usize];
            let cell = cells.entry(id).or_insert_with(|| {
                list.values += 1;
                values.hold(id);
                if *shown {
                    values.show(id, list.floor.into());
                }
                Cell { over: list.floor, ..Cell::default() }
            });
            cell.count(event);
            if let Some(known) = &mut known {
                cell.visitors += u32::from(known.note(*dimension, id));
            }
            if *shown && (*dimension == Dimension::Event || event.kind == EventKind::PageView) {
                values.show(id, 1);
            }
            is_long |= list.values as usize > longest;
        }
        if is_long {
            self.evict_longer(longest, values, bounds.values);
        }
        if self.pairs.is_none() {
            self.uncertain = true;
        } else if self.known_pairs() > bounds.pairs {
            self.uncertain = true;
            self.pairs = None;
        }
    }

    /// Of the dimensions with more than `longest` values, keeps the `bound` most counted.
    fn evict_longer(&mut self, longest: usize, values: &mut Values, bound: usize) {
        for dimension in Dimension::OF_EVENTS {
            if self.lists[*dimension as usize].values as usize > longest {
                self.evict(*dimension, values, bound);
            }
        }
    }

    /// Keeps the `bound` most counted values of a dimension.
    fn evict(&mut self, dimension: Dimension, values: &mut Values, bound: usize) {
        let ids = self.cells.iter().filter(|(id, _)| values.dimension(**id) == dimension);
        let mut ranked: Vec<(u64, ValueId)> = ids.map(|(id, cell)| (cell.rank(dimension), *id)).collect();
        if ranked.len() <= bound {
            return;
        }
        let excess = ranked.len() - bound;
        ranked.select_nth_unstable(excess - 1);
        let list = &mut self.lists[dimension as usize];
        for (rank, id) in &ranked[..excess] {
            self.cells.remove(id);
            if self.shown {
                values.hide(*id, *rank);
            }
            values.release(*id);
            list.floor = list.floor.max(u32::try_from(*rank).unwrap_or(u32::MAX));
        }
        list.values = bound as u32;
        self.uncertain = true;
    }

    /// Narrows what the minute holds.
    pub(crate) fn shrink(&mut self, values: &mut Values, bounds: Bounds) {
        self.evict_longer(bounds.values, values, bounds.values);
        if !self.visitors.is_exact() || self.visitors.kept() > bounds.visitors {
            self.visitors.shrink(bounds.visitors);
            self.uncertain = true;
        }
        if self.known_pairs() > bounds.pairs {
            self.forget_pairs();
        }
    }

    pub(crate) fn known_pairs(&self) -> usize {
        self.pairs.as_ref().map_or(0, Pairs::len)
    }

    /// From now on an event makes the minute uncertain; what was counted stays right.
    pub(crate) fn forget_pairs(&mut self) {
        self.pairs = None;
    }

    /// The stored rows must be counted: what is in memory may differ from them.
    pub(crate) fn is_uncertain(&self) -> bool {
        self.uncertain || !self.visitors.is_exact()
    }

    /// Takes the cells that changed since they were last taken.
    pub(crate) fn take_changed<'a>(
        &'a mut self,
        values: &'a Values,
    ) -> impl Iterator<Item = (Dimension, &'a str, Measures)> {
        let total = std::mem::take(&mut self.total.dirty)
            .then(|| (Dimension::Total, "", self.total.measures(self.visitors.estimate())));
        let cells = self.cells.iter_mut().filter_map(|(id, cell)| {
            std::mem::take(&mut cell.dirty)
                .then(|| (values.dimension(*id), values.text(*id), cell.measures(cell.visitors.into())))
        });
        total.into_iter().chain(cells)
    }

    pub(crate) fn total(&self) -> MinuteCounts {
        MinuteCounts {
            views: self.total.views.into(),
            events: self.total.events.into(),
            visitors: self.visitors.estimate(),
            sessions: 0,
        }
    }

    /// The most that a value of each dimension may be told too much, or be missing, because of this minute.
    pub(crate) fn floors(&self) -> [u64; DIMENSIONS] {
        self.lists.map(|list| list.floor.into())
    }

    /// Takes its values out of the top lists.
    pub(crate) fn hide(&mut self, values: &mut Values) {
        if std::mem::take(&mut self.shown) {
            for (id, cell) in &self.cells {
                let rank = cell.rank(values.dimension(*id));
                values.hide(*id, rank);
            }
        }
    }

    /// Lets go of its values, before it is dropped.
    pub(crate) fn release(mut self, values: &mut Values) {
        self.hide(values);
        self.cells.keys().for_each(|id| values.release(*id));
    }

    /// Bytes held, about.
    pub(crate) fn bytes(&self) -> usize {
        // Tables are between 7/16 and 7/8 full; a slot has a byte of its own besides.
        let slots = |filled: usize, slot: usize| filled * (slot + 1) * 3 / 2;
        size_of::<Self>()
            + slots(self.cells.len(), size_of::<(ValueId, Cell)>())
            + slots(self.visitors.kept(), size_of::<u64>())
            + self.pairs.as_ref().map_or(0, Pairs::bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use footfall_schemas::{EventRecord, VisitorId};

    use super::*;
    use proptest::prelude::*;

    const WIDE: Bounds = Bounds { values: 1_000, visitors: 1_000, pairs: 10_000 };

    fn event(visitor: u64, path: &str, kind: EventKind) -> EventRecord {
        let golden = include_str!("../../schemas/golden/event_record.json");
        let golden: EventRecord = serde_json::from_str(golden).unwrap();
        EventRecord { visitor: VisitorId(visitor), path: path.into(), kind, engaged_ms: 10, ..golden }
    }

    fn view(visitor: u64, path: &str) -> EventRecord {
        event(visitor, path, EventKind::PageView)
    }

    fn pages(minute: &mut Minute, values: &Values) -> BTreeMap<String, Measures> {
        let changed = minute.take_changed(values);
        let pages = changed.filter(|(dimension, ..)| *dimension == Dimension::Page);
        pages.map(|(_, path, measures)| (path.to_owned(), measures)).collect()
    }

    fn top(values: &Values) -> BTreeMap<String, u64> {
        let [_, page, ..] = values.tops(1_000);
        page.values.iter().map(|(path, count)| (path.to_string(), *count)).collect()
    }

    #[test]
    fn a_cell_holds_events_views_distinct_visitors_and_engaged_time() {
        let (mut minute, mut values) = (Minute::new(true), Values::default());
        for event in [
            view(1, "/a"),
            view(1, "/a"),
            event(2, "/a", EventKind::Engagement),
            view(1, "/b"),
            view(2, "/b"),
        ] {
            minute.count(&event.borrowed(), &mut values, WIDE);
        }
        let measures =
            |events, views, visitors| Measures { events, views, visitors, engaged_ms: 10 * events };
        let expected = [("/a", measures(3, 2, 2)), ("/b", measures(2, 2, 2))];
        assert_eq!(pages(&mut minute, &values), expected.map(|(path, m)| (path.to_owned(), m)).into());
        assert_eq!(top(&values), BTreeMap::from([("/a".into(), 2), ("/b".into(), 2)]));
        assert!(!minute.is_uncertain());
        assert!(pages(&mut minute, &values).is_empty(), "what was taken is not taken again");
        minute.count(&view(1, "/b").borrowed(), &mut values, WIDE);
        assert_eq!(pages(&mut minute, &values)["/b"], measures(3, 3, 2));
    }

    #[test]
    fn when_a_minute_no_longer_knows_who_was_counted_the_rows_must_tell() {
        let (mut minute, mut values) = (Minute::new(true), Values::default());
        minute.count(&view(1, "/").borrowed(), &mut values, WIDE);
        minute.forget_pairs();
        assert!(!minute.is_uncertain());
        minute.count(&view(1, "/").borrowed(), &mut values, WIDE);
        assert!(minute.is_uncertain());
    }

    #[test]
    fn a_minute_with_too_many_visitors_or_pairs_is_counted_from_the_rows() {
        for bounds in [Bounds { visitors: 5, ..WIDE }, Bounds { pairs: 20, ..WIDE }] {
            let (mut minute, mut values) = (Minute::new(true), Values::default());
            (0..50).for_each(|visitor| minute.count(&view(visitor, "/").borrowed(), &mut values, bounds));
            assert!(minute.is_uncertain(), "{bounds:?}");
        }
    }

    #[test]
    fn a_minute_that_goes_leaves_no_value_behind() {
        let (mut minute, mut values) = (Minute::new(true), Values::default());
        minute.count(&view(1, "/a").borrowed(), &mut values, WIDE);
        let mut other = Minute::new(true);
        other.count(&view(1, "/a").borrowed(), &mut values, WIDE);
        minute.release(&mut values);
        assert_eq!(top(&values), BTreeMap::from([("/a".into(), 1)]));
        other.hide(&mut values);
        assert_eq!(top(&values), BTreeMap::new());
        other.release(&mut values);
        assert!(values.is_empty());
    }

    proptest! {
        /// Whatever is evicted, and whenever: a value in the list was counted at least its count less the error and
        /// at most its count, and one that is not in the list at most the error.
        #[test]
        fn a_list_beyond_its_bound_errs_within_its_floor(
            paths in prop::collection::vec((0..40u32).prop_map(|n| n * n / 40), 1..400),
            bound in 4..12usize,
        ) {
            let (mut minute, mut values) = (Minute::new(true), Values::default());
            let mut counted = BTreeMap::<String, u64>::new();
            for path in paths {
                let path = format!("/{path}");
                minute.count(&view(1, &path).borrowed(), &mut values, Bounds { values: bound, ..WIDE });
                *counted.entry(path).or_default() += 1;
            }
            let floor = minute.floors()[Dimension::Page as usize];
            let top = top(&values);
            prop_assert!(top.len() <= bound + bound / 4);
            prop_assert_eq!(floor > 0, minute.is_uncertain());
            for (path, count) in counted {
                match top.get(&path) {
                    Some(told) => prop_assert!(count <= *told && *told <= count + floor, "{path}: {count} told as {told} ± {floor}"),
                    None => prop_assert!(count <= floor, "{path}: {count} is missing, ± {floor}"),
                }
            }
            minute.release(&mut values);
            prop_assert!(values.tops(1_000).iter().all(|top| top.values.is_empty()));
        }
    }
}
