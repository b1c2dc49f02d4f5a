//! The values that a site's events have in each dimension, every text once, and how often each was counted in the
//! minutes shown: the top lists.

use std::{hash::BuildHasher as _, sync::Arc};

use footfall_schemas::Dimension;
use hashbrown::{DefaultHashBuilder, HashTable};
use serde::{Deserialize, Serialize};

/// Number of dimensions: each is an index into arrays of this length.
pub(crate) const DIMENSIONS: usize = Dimension::ALL.len();

/// Number of a value among its site's. Given again when nothing counts it any more.
pub(crate) type ValueId = u32;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Values {
    slots: Vec<Option<Value>>,
    free: Vec<ValueId>,
    /// Built from the slots after a restart.
    #[serde(skip)]
    table: HashTable<ValueId>,
    #[serde(skip)]
    hash: DefaultHashBuilder,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Value {
    dimension: Dimension,
    text: Arc<str>,
    /// Counted in the minutes shown.
    shown: u64,
    /// Cells that count it.
    cells: u32,
}

/// The most counted values of a dimension, in no order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Top {
    pub(crate) values: Vec<(Arc<str>, u64)>,
    /// The most that a value not in the list was counted; 0 when the list is whole.
    pub(crate) beyond: u64,
}

impl Top {
    /// The `longest` most counted of these; of values counted as often, the first by text.
    pub(crate) fn of(mut values: Vec<(Arc<str>, u64)>, longest: usize) -> Self {
        let mut beyond = 0;
        if values.len() > longest {
            let order = |a: &(Arc<str>, u64), b: &(Arc<str>, u64)| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0));
            beyond = values.select_nth_unstable_by(longest, order).1.1;
            values.truncate(longest);
        }
        Self { values, beyond }
    }
}

impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        self.slots == other.slots
    }
}

impl Values {
    /// Call after deserialising.
    pub(crate) fn index(&mut self) {
        let Self { slots, table, hash, .. } = self;
        table.clear();
        for (id, value) in (0..).zip(slots.iter()) {
            if let Some(value) = value {
                let code = hash.hash_one((value.dimension as u8, &*value.text));
                table.insert_unique(code, id, |id| code_of(hash, slots, *id));
            }
        }
    }

    /// The value's number; it counts as counted by a new cell when there is none yet.
    pub(crate) fn id(&mut self, dimension: Dimension, text: &str) -> ValueId {
        let Self { slots, free, table, hash } = self;
        let code = hash.hash_one((dimension as u8, text));
        let is_it = |id: &ValueId| {
            slots[*id as usize]
                .as_ref()
                .is_some_and(|value| value.dimension == dimension && *value.text == *text)
        };
        if let Some(id) = table.find(code, is_it) {
            return *id;
        }
        let value = Some(Value { dimension, text: text.into(), shown: 0, cells: 0 });
        let id = match free.pop() {
            Some(id) => {
                slots[id as usize] = value;
                id
            }
            None => {
                slots.push(value);
                (slots.len() - 1) as ValueId
            }
        };
        table.insert_unique(code, id, |id| code_of(hash, slots, *id));
        id
    }

    fn value(&mut self, id: ValueId) -> &mut Value {
        self.slots[id as usize].as_mut().expect("a cell holds its value")
    }

    pub(crate) fn dimension(&self, id: ValueId) -> Dimension {
        self.slots[id as usize].as_ref().expect("a cell holds its value").dimension
    }

    pub(crate) fn text(&self, id: ValueId) -> &str {
        &self.slots[id as usize].as_ref().expect("a cell holds its value").text
    }

    /// A cell begins to count it.
    pub(crate) fn hold(&mut self, id: ValueId) {
        self.value(id).cells += 1;
    }

    /// A cell no longer counts it.
    pub(crate) fn release(&mut self, id: ValueId) {
        let value = self.value(id);
        value.cells -= 1;
        if value.cells == 0 {
            let Self { slots, free, table, hash } = self;
            let code = code_of(hash, slots, id);
            if let Ok(entry) = table.find_entry(code, |found| *found == id) {
                entry.remove();
            }
            slots[id as usize] = None;
            free.push(id);
        }
    }

    pub(crate) fn show(&mut self, id: ValueId, count: u64) {
        self.value(id).shown += count;
    }

    pub(crate) fn hide(&mut self, id: ValueId, count: u64) {
        self.value(id).shown -= count;
    }

    /// The `longest` most counted values of each dimension, by its index.
    pub(crate) fn tops(&self, longest: usize) -> [Top; DIMENSIONS] {
        let mut tops: [Top; DIMENSIONS] = Default::default();
        for value in self.slots.iter().flatten().filter(|value| value.shown > 0) {
            tops[value.dimension as usize].values.push((value.text.clone(), value.shown));
        }
        tops.map(|top| Top::of(top.values, longest))
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len() && self.table.is_empty()
    }

    /// Bytes held, about.
    pub(crate) fn bytes(&self) -> usize {
        // A slot, its entry in the table, the text's two counters; texts are short, so their mean is not worth a sum.
        self.slots.len() * (size_of::<Option<Value>>() + 8 + 16 + 24)
    }
}

fn code_of(hash: &DefaultHashBuilder, slots: &[Option<Value>], id: ValueId) -> u64 {
    slots[id as usize].as_ref().map_or(0, |value| hash.hash_one((value.dimension as u8, &*value.text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(counts: &[(&str, u64)]) -> Values {
        let mut values = Values::default();
        for (text, count) in counts {
            let id = values.id(Dimension::Page, text);
            values.hold(id);
            values.show(id, *count);
        }
        values
    }

    #[test]
    fn a_text_has_one_number_in_a_dimension_and_another_in_another() {
        let mut values = counted(&[("/", 1)]);
        assert_eq!(values.id(Dimension::Page, "/"), 0);
        assert_ne!(values.id(Dimension::Event, "/"), 0);
    }

    #[test]
    fn what_no_cell_counts_is_forgotten_and_its_number_is_given_again() {
        let mut values = counted(&[("/a", 1), ("/b", 1)]);
        values.hide(0, 1);
        values.release(0);
        assert_eq!(values.id(Dimension::Page, "/c"), 0);
        assert_eq!((values.text(0), values.text(1)), ("/c", "/b"));
        assert_eq!(values.id(Dimension::Page, "/b"), 1);
    }

    #[test]
    fn a_long_list_keeps_its_head_and_tells_what_lies_beyond() {
        let values = counted(&[("/a", 3), ("/c", 1), ("/b", 2), ("/d", 1)]);
        let mut top = values.tops(2)[Dimension::Page as usize].clone();
        top.values.sort();
        assert_eq!(top, Top { values: vec![("/a".into(), 3), ("/b".into(), 2)], beyond: 1 });
        assert_eq!(values.tops(4)[Dimension::Page as usize].beyond, 0);
    }

    #[test]
    fn a_restored_index_finds_every_value() {
        let values = counted(&[("/a", 3), ("/b", 2)]);
        let bytes = postcard::to_stdvec(&values).unwrap();
        let mut restored: Values = postcard::from_bytes(&bytes).unwrap();
        restored.index();
        assert_eq!(restored, values);
        assert_eq!((restored.id(Dimension::Page, "/a"), restored.id(Dimension::Page, "/b")), (0, 1));
    }
}
