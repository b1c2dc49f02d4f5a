//! The distinct texts of a column, and each cell as its place among them.

use xxhash_rust::xxh3::xxh3_64;

#[derive(Default)]
pub(crate) struct Dictionary<'a> {
    keys: Vec<&'a str>,
    indexes: Vec<u32>,
    /// Open addressing, a power of two, at most half full. Zero: free; else a key's place plus one, above it the upper
    /// half of its hash, which tells most others without looking at them.
    slots: Vec<u64>,
}

const FEWEST_SLOTS: usize = 64;

impl<'a> Dictionary<'a> {
    pub(crate) fn add(&mut self, text: &'a str) {
        // Neighbours are often equal, and many columns are empty throughout.
        let index = match self.indexes.last() {
            Some(last) if same(self.keys[*last as usize], text) => *last,
            _ => self.place(text),
        };
        self.indexes.push(index);
    }

    pub(crate) fn keys(&self) -> &[&'a str] {
        &self.keys
    }

    pub(crate) fn indexes(&self) -> &[u32] {
        &self.indexes
    }

    fn place(&mut self, text: &'a str) -> u32 {
        if self.keys.len() * 2 >= self.slots.len() {
            self.grow();
        }
        let hash = xxh3_64(text.as_bytes());
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                break;
            }
            let index = (slot as u32) - 1;
            if slot >> 32 == hash >> 32 && same(self.keys[index as usize], text) {
                return index;
            }
            at = (at + 1) & mask;
        }
        let index = self.keys.len() as u32;
        self.keys.push(text);
        self.slots[at] = slot_of(hash, index);
        index
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() * 4).max(FEWEST_SLOTS);
        self.slots.clear();
        self.slots.resize(slots, 0);
        let mask = slots - 1;
        for (index, key) in (0..).zip(&self.keys) {
            let hash = xxh3_64(key.as_bytes());
            let mut at = hash as usize & mask;
            while self.slots[at] != 0 {
                at = (at + 1) & mask;
            }
            self.slots[at] = slot_of(hash, index);
        }
    }
}

/// An empty `String` has no memory, and to compare nothing at its made-up address costs the processor a fault that it
/// then suppresses: ten times a comparison. Half of all cells are empty.
fn same(one: &str, other: &str) -> bool {
    one.len() == other.len() && (one.is_empty() || one == other)
}

fn slot_of(hash: u64, index: u32) -> u64 {
    hash >> 32 << 32 | u64::from(index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_finds_its_text_also_after_growing() {
        let texts: Vec<String> = (0..5_000u32).map(|number| format!("text {}", number % 1_777)).collect();
        let mut dictionary = Dictionary::default();
        texts.iter().for_each(|text| dictionary.add(text));
        assert_eq!(dictionary.keys().len(), 1_777);
        let told = dictionary.indexes().iter().map(|index| dictionary.keys()[*index as usize]);
        assert!(told.eq(texts.iter().map(String::as_str)));
    }
}
