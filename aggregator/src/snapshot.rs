//! How a partition's state lies on the compacted topic `footfall.snapshots`: in chunks under two alternating slots,
//! each closed by a manifest, so that one complete snapshot is there while the next is written.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Well below the topic's `max.message.bytes`.
const CHUNK_BYTES: usize = 512 * 1024;
/// Changes with the state's form: a snapshot of another form is as good as none.
const FORM: u8 = 3;

/// A message for the snapshot topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
}

/// A complete snapshot found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) slot: Slot,
    /// The state is that before this offset.
    pub(crate) offset: i64,
    /// Grows over all snapshots of a partition: of two at one offset, which may differ in the settings adopted there,
    /// the later one holds.
    pub(crate) id: u64,
    pub(crate) state: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Slot {
    A,
    B,
}

impl Slot {
    fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// Offset and id of the snapshots kept.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slots {
    a: Option<(i64, u64)>,
    b: Option<(i64, u64)>,
}

impl Slots {
    pub(crate) fn found(saved: &[Stored]) -> Self {
        let mut slots = Self::default();
        saved.iter().for_each(|saved| slots.set(saved.slot, saved.offset, saved.id));
        slots
    }

    pub(crate) fn set(&mut self, slot: Slot, offset: i64, id: u64) {
        match slot {
            Slot::A => self.a = Some((offset, id)),
            Slot::B => self.b = Some((offset, id)),
        }
    }

    /// The slot to write next. The other one stays readable, and must not lie after `committed`: a restart begins
    /// there.
    pub(crate) fn next(&self, committed: i64) -> Slot {
        match (self.a, self.b) {
            (None, _) => Slot::A,
            (_, None) => Slot::B,
            (Some((a, _)), _) if a > committed => Slot::A,
            (_, Some((b, _))) if b > committed => Slot::B,
            (Some(a), Some(b)) => {
                if a <= b {
                    Slot::A
                } else {
                    Slot::B
                }
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Manifest {
    form: u8,
    /// Tells this snapshot's chunks from those of an earlier or a concurrent one in the same slot.
    id: u64,
    offset: i64,
    chunks: u32,
    hash: u64,
}

/// Cuts a state into the messages to be written, the manifest last.
pub(crate) fn chunks(slot: Slot, id: u64, offset: i64, state: &[u8]) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = state
        .chunks(CHUNK_BYTES)
        .enumerate()
        .map(|(index, bytes)| {
            let mut value = Vec::with_capacity(8 + bytes.len());
            value.extend_from_slice(&id.to_le_bytes());
            value.extend_from_slice(bytes);
            Chunk { key: format!("{}/{index}", slot.name()), value }
        })
        .collect();
    let manifest = Manifest { form: FORM, id, offset, chunks: chunks.len() as u32, hash: xxh3_64(state) };
    let value = postcard::to_stdvec(&manifest).expect("plain numbers always serialise into memory");
    chunks.push(Chunk { key: format!("{}/manifest", slot.name()), value });
    chunks
}

/// Puts together what lies on the topic; the newest message of a key holds.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    newest: HashMap<String, Vec<u8>>,
}

impl Assembly {
    pub(crate) fn add(&mut self, chunk: Chunk) {
        self.newest.insert(chunk.key, chunk.value);
    }

    /// The slots whose every chunk belongs to their manifest.
    pub(crate) fn complete(mut self) -> Vec<Stored> {
        [Slot::A, Slot::B].into_iter().filter_map(|slot| self.slot(slot)).collect()
    }

    fn slot(&mut self, slot: Slot) -> Option<Stored> {
        let manifest = self.newest.remove(&format!("{}/manifest", slot.name()))?;
        let manifest: Manifest = postcard::from_bytes(&manifest).ok()?;
        if manifest.form != FORM {
            return None;
        }
        let mut state = Vec::new();
        for index in 0..manifest.chunks {
            let chunk = self.newest.remove(&format!("{}/{index}", slot.name()))?;
            let (id, bytes) = chunk.split_first_chunk::<8>()?;
            if u64::from_le_bytes(*id) != manifest.id {
                return None;
            }
            state.extend_from_slice(bytes);
        }
        (xxh3_64(&state) == manifest.hash).then_some(Stored {
            slot,
            offset: manifest.offset,
            id: manifest.id,
            state,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::nothing_there(None, None, 10, Slot::A)]
    #[case::one_there(Some((5, 1)), None, 10, Slot::B)]
    #[case::the_older_one(Some((5, 1)), Some((8, 2)), 10, Slot::A)]
    #[case::the_older_one_again(Some((9, 2)), Some((8, 1)), 10, Slot::B)]
    #[case::the_earlier_one_of_an_offset(Some((8, 2)), Some((8, 1)), 10, Slot::B)]
    #[case::the_one_a_restart_cannot_use(Some((5, 1)), Some((12, 2)), 10, Slot::B)]
    #[case::the_one_a_restart_cannot_use_again(Some((12, 2)), Some((5, 1)), 10, Slot::A)]
    fn a_snapshot_is_written_over(
        #[case] a: Option<(i64, u64)>,
        #[case] b: Option<(i64, u64)>,
        #[case] committed: i64,
        #[case] expected: Slot,
    ) {
        assert_eq!(Slots { a, b }.next(committed), expected);
    }

    fn assemble(chunks: impl IntoIterator<Item = Chunk>) -> Vec<Stored> {
        let mut assembly = Assembly::default();
        chunks.into_iter().for_each(|chunk| assembly.add(chunk));
        assembly.complete()
    }

    fn state(fill: u8) -> Vec<u8> {
        vec![fill; 2 * CHUNK_BYTES + 7]
    }

    #[test]
    fn what_was_cut_is_put_together() {
        let written = chunks(Slot::A, 1, 42, &state(3));
        assert_eq!(written.len(), 4);
        assert_eq!(assemble(written), [Stored { slot: Slot::A, offset: 42, id: 1, state: state(3) }]);
    }

    #[test]
    fn a_snapshot_torn_at_any_message_is_not_read_and_the_other_slot_is() {
        for torn in 1..4 {
            let mut log = chunks(Slot::A, 1, 10, &state(1));
            log.extend(chunks(Slot::B, 2, 20, &state(2)));
            log.extend(chunks(Slot::A, 3, 30, &state(3)).into_iter().take(torn));
            let found = assemble(log);
            assert_eq!(
                found.iter().map(|snapshot| snapshot.offset).collect::<Vec<_>>(),
                [20],
                "torn at {torn}"
            );
        }
    }

    #[test]
    fn two_writers_in_one_slot_are_not_mixed() {
        let (one, two) = (chunks(Slot::A, 1, 10, &state(1)), chunks(Slot::A, 2, 20, &state(2)));
        let mixed = [&one[0], &two[0], &two[1], &one[1], &two[2], &two[3]].map(Clone::clone);
        assert_eq!(assemble(mixed), []);
    }
}
