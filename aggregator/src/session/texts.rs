//! Texts that many sessions share, each kept once for as long as it is used: a path costs a session four bytes.

use std::{hash::BuildHasher, sync::Arc};

use hashbrown::{DefaultHashBuilder, HashTable};
use serde::{Deserialize, Serialize};

/// A text of one [`Texts`].
pub(super) type TextId = u32;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(from = "Saved")]
pub(super) struct Texts {
    slots: Vec<Slot>,
    free: Vec<TextId>,
    /// Slots in use, by their text. Seeded anew in every process: visitors choose the texts.
    #[serde(skip)]
    index: HashTable<TextId>,
    #[serde(skip)]
    hasher: DefaultHashBuilder,
}

#[derive(Debug, Serialize, Deserialize)]
struct Slot {
    text: Arc<str>,
    uses: u32,
}

impl Texts {
    /// The text's id, used once more.
    pub(super) fn hold(&mut self, text: &str) -> TextId {
        let Self { slots, free, index, hasher } = self;
        let found = index.find(hasher.hash_one(text), |id| *slots[*id as usize].text == *text);
        if let Some(&id) = found {
            slots[id as usize].uses += 1;
            return id;
        }
        let slot = Slot { text: text.into(), uses: 1 };
        let id = match free.pop() {
            Some(id) => {
                slots[id as usize] = slot;
                id
            }
            None => {
                slots.push(slot);
                TextId::try_from(slots.len() - 1).expect("a node holds fewer texts than 32 bits count")
            }
        };
        index.insert_unique(hasher.hash_one(text), id, |id| hasher.hash_one(&*slots[*id as usize].text));
        id
    }

    /// Uses a text that is held already once more.
    pub(super) fn hold_again(&mut self, id: TextId) -> TextId {
        self.slots[id as usize].uses += 1;
        id
    }

    /// Gives a use back; the last one frees the text.
    pub(super) fn release(&mut self, id: TextId) {
        let Self { slots, free, index, hasher } = self;
        let slot = &mut slots[id as usize];
        slot.uses -= 1;
        if slot.uses == 0 {
            let text = std::mem::replace(&mut slot.text, Arc::from(""));
            if let Ok(entry) = index.find_entry(hasher.hash_one(&*text), |found| *found == id) {
                entry.remove();
            }
            free.push(id);
        }
    }

    pub(super) fn shared(&self, id: TextId) -> Arc<str> {
        self.slots[id as usize].text.clone()
    }

    pub(super) fn get(&self, id: TextId) -> &str {
        &self.slots[id as usize].text
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }
}

#[derive(Deserialize)]
struct Saved {
    slots: Vec<Slot>,
    free: Vec<TextId>,
}

impl From<Saved> for Texts {
    fn from(Saved { slots, free }: Saved) -> Self {
        let hasher = DefaultHashBuilder::default();
        let mut index = HashTable::with_capacity(slots.len() - free.len().min(slots.len()));
        let hash = |id: &TextId| hasher.hash_one(&*slots[*id as usize].text);
        for (id, _) in (0..).zip(&slots).filter(|(_, slot)| slot.uses > 0) {
            index.insert_unique(hash(&id), id, hash);
        }
        Self { slots, free, index, hasher }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once_for_as_long_as_it_is_used() {
        let mut texts = Texts::default();
        let (a, b) = (texts.hold("/a"), texts.hold("/b"));
        assert_eq!((texts.hold("/a"), texts.hold_again(b)), (a, b));
        texts.release(a);
        assert_eq!((texts.get(a), texts.len()), ("/a", 2));
        texts.release(a);
        assert_eq!(texts.len(), 1);
        assert_eq!(texts.hold("/c"), a, "its place is taken by the next");
        assert_eq!((texts.get(a), texts.get(b)), ("/c", "/b"));
    }

    #[test]
    fn what_is_read_back_finds_its_texts() {
        let mut texts = Texts::default();
        let (gone, kept) = (texts.hold("/gone"), texts.hold("/kept"));
        texts.release(gone);
        let bytes = postcard::to_stdvec(&texts).unwrap();
        let mut texts: Texts = postcard::from_bytes(&bytes).unwrap();
        assert_eq!((texts.hold("/kept"), texts.hold("/new"), texts.len()), (kept, gone, 2));
    }
}
