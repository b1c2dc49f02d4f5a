//! The distinct texts of a column, and each cell as its place among them.

use xxhash_rust::xxh3::xxh3_64;

use crate::native::{fixed, number, text};

#[derive(Debug, Clone, Default)]
pub(crate) struct Dictionary {
    /// As the format Native has them: each with its length before it.
    keys: Vec<u8>,
    /// Begin and end of each key, its length not included.
    places: Vec<(u32, u32)>,
    indexes: Vec<u32>,
    /// Open addressing, a power of two, at most half full. Zero: free; else a key's place plus one, above it the upper
    /// half of its hash, which tells most others without looking at them.
    slots: Vec<u64>,
}

const FEWEST_SLOTS: usize = 64;
/// Of an indexed column: its keys are in this block and in no other.
const OWN_KEYS: u64 = 1 << 9 | 1 << 10;

impl Dictionary {
    pub(crate) fn add(&mut self, text: &str) {
        // Neighbours are often equal, and many columns are empty throughout.
        let index = match self.indexes.last() {
            Some(last) if same(self.key(*last), text.as_bytes()) => *last,
            _ => self.place(text),
        };
        self.indexes.push(index);
    }

    /// Cells.
    pub(crate) fn len(&self) -> usize {
        self.indexes.len()
    }

    /// Bytes written.
    pub(crate) fn bytes(&self) -> usize {
        self.keys.len() + self.indexes.len() * 4 + 24
    }

    /// A cell's text.
    pub(crate) fn text(&self, cell: usize) -> &str {
        std::str::from_utf8(self.key(self.indexes[cell])).expect("a key is made of text")
    }

    /// Width and number of the keys, the keys, the number of cells, each cell's key. Nothing when there is no cell.
    pub(crate) fn write(&self, block: &mut Vec<u8>) {
        if self.indexes.is_empty() {
            return;
        }
        let width = match self.places.len() {
            ..=0x100 => 0,
            0x101..=0x1_0000 => 1,
            _ => 2,
        };
        number(block, OWN_KEYS | width);
        number(block, self.places.len() as u64);
        block.extend_from_slice(&self.keys);
        number(block, self.indexes.len() as u64);
        match width {
            0 => fixed(block, &self.indexes, |index| [*index as u8]),
            1 => fixed(block, &self.indexes, |index| (*index as u16).to_le_bytes()),
            _ => fixed(block, &self.indexes, |index| index.to_le_bytes()),
        }
    }

    fn key(&self, index: u32) -> &[u8] {
        let (begin, end) = self.places[index as usize];
        &self.keys[begin as usize..end as usize]
    }

    fn place(&mut self, key: &str) -> u32 {
        if self.places.len() * 2 >= self.slots.len() {
            self.grow();
        }
        let hash = xxh3_64(key.as_bytes());
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                break;
            }
            let index = (slot as u32) - 1;
            if slot >> 32 == hash >> 32 && same(self.key(index), key.as_bytes()) {
                return index;
            }
            at = (at + 1) & mask;
        }
        let index = self.places.len() as u32;
        text(&mut self.keys, key);
        let end = self.keys.len() as u32;
        self.places.push((end - key.len() as u32, end));
        self.slots[at] = slot_of(hash, index);
        index
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() * 4).max(FEWEST_SLOTS);
        self.slots.clear();
        self.slots.resize(slots, 0);
        let mask = slots - 1;
        for index in 0..self.places.len() as u32 {
            let hash = xxh3_64(self.key(index));
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
fn same(one: &[u8], other: &[u8]) -> bool {
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
        assert_eq!(dictionary.places.len(), 1_777);
        assert!((0..dictionary.len()).map(|cell| dictionary.text(cell)).eq(texts.iter().map(String::as_str)));
    }
}
