//! How a partition's state lies on the compacted topic `footfall.snapshots`: in chunks under two alternating slots of its
//! owner's own, each closed by a manifest, so that one complete snapshot is there while the next is written. Nothing
//! fences who writes here: an owner that has not noticed its end writes over its own snapshots, not over its successor's,
//! which takes them away when it has enough of its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Well below the topic's `max.message.bytes`.
const CHUNK_BYTES: usize = 512 * 1024;
/// Changes with the state's form: a snapshot of another form is as good as none.
const FORM: u8 = 3;
const MANIFEST: &str = "manifest";

/// A message for the snapshot topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) key: String,
    /// `None` takes away what lies under the key.
    pub(crate) value: Option<Vec<u8>>,
}

/// A complete snapshot found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The state is that before this offset.
    pub(crate) offset: i64,
    /// Grows over all snapshots of a partition: of two at one offset, which may differ in the settings adopted there,
    /// the later one holds.
    pub(crate) id: Id,
    pub(crate) state: Vec<u8>,
}

/// What lies on the topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) snapshots: Vec<Stored>,
    /// Keys of all of them, and of those torn.
    pub(crate) keys: Vec<String>,
}

/// Tells a snapshot from all others of its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Id {
    /// The owner's: when the partition was assigned to it (ms since 1970); nobody is assigned it twice in one.
    pub(crate) epoch: u64,
    /// Counts the owner's snapshots from 1.
    pub(crate) number: u64,
}

impl Id {
    /// One of two: the other one stays readable.
    fn slot(self) -> String {
        format!("{}/{}", self.epoch, if self.number % 2 == 1 { "a" } else { "b" })
    }
}

/// A snapshot to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Save {
    pub(crate) id: Id,
    /// Keys of earlier owners, to be taken away then.
    pub(crate) forget: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Manifest {
    form: u8,
    /// Tells this snapshot's chunks from those of an earlier one in the same slot.
    id: Id,
    offset: i64,
    chunks: u32,
    hash: u64,
}

/// Cuts a state into the messages to be written: chunks, manifest, and what is then taken away.
pub(crate) fn chunks(save: &Save, offset: i64, state: &[u8]) -> Vec<Chunk> {
    let Save { id, forget } = save;
    let slot = id.slot();
    let mut chunks: Vec<Chunk> = state
        .chunks(CHUNK_BYTES)
        .enumerate()
        .map(|(index, bytes)| {
            let mut value = Vec::with_capacity(8 + bytes.len());
            value.extend_from_slice(&id.number.to_le_bytes());
            value.extend_from_slice(bytes);
            Chunk { key: format!("{slot}/{index}"), value: Some(value) }
        })
        .collect();
    let manifest =
        Manifest { form: FORM, id: *id, offset, chunks: chunks.len() as u32, hash: xxh3_64(state) };
    let value = postcard::to_stdvec(&manifest).expect("plain numbers always serialise into memory");
    chunks.push(Chunk { key: format!("{slot}/{MANIFEST}"), value: Some(value) });
    chunks.extend(forget.iter().map(|key| Chunk { key: key.clone(), value: None }));
    chunks
}

/// Puts together what lies on the topic; the newest message of a key holds.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    newest: BTreeMap<String, Vec<u8>>,
}

impl Assembly {
    pub(crate) fn add(&mut self, chunk: Chunk) {
        match chunk.value {
            Some(value) => drop(self.newest.insert(chunk.key, value)),
            None => drop(self.newest.remove(&chunk.key)),
        }
    }

    /// The snapshots whose every chunk belongs to their manifest.
    pub(crate) fn complete(self) -> Found {
        let slots = self.newest.keys().filter_map(|key| key.strip_suffix(MANIFEST));
        Found {
            snapshots: slots.filter_map(|slot| self.slot(slot)).collect(),
            keys: self.newest.keys().cloned().collect(),
        }
    }

    fn slot(&self, slot: &str) -> Option<Stored> {
        let manifest: Manifest = postcard::from_bytes(self.newest.get(&format!("{slot}{MANIFEST}"))?).ok()?;
        if manifest.form != FORM {
            return None;
        }
        let mut state = Vec::new();
        for index in 0..manifest.chunks {
            let (number, bytes) = self.newest.get(&format!("{slot}{index}"))?.split_first_chunk::<8>()?;
            if u64::from_le_bytes(*number) != manifest.id.number {
                return None;
            }
            state.extend_from_slice(bytes);
        }
        let Manifest { id, offset, hash, .. } = manifest;
        (xxh3_64(&state) == hash).then_some(Stored { offset, id, state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(number: u64) -> Save {
        Save { id: Id { epoch: 7, number }, forget: Vec::new() }
    }

    fn assemble(chunks: impl IntoIterator<Item = Chunk>) -> Vec<Stored> {
        let mut assembly = Assembly::default();
        chunks.into_iter().for_each(|chunk| assembly.add(chunk));
        assembly.complete().snapshots
    }

    fn state(fill: u8) -> Vec<u8> {
        vec![fill; 2 * CHUNK_BYTES + 7]
    }

    #[test]
    fn what_was_cut_is_put_together() {
        let written = chunks(&save(1), 42, &state(3));
        assert_eq!(written.len(), 4);
        assert_eq!(
            assemble(written),
            [Stored { offset: 42, id: Id { epoch: 7, number: 1 }, state: state(3) }]
        );
    }

    #[test]
    fn a_snapshot_torn_at_any_message_is_not_read_and_the_one_before_is() {
        for torn in 1..4 {
            let mut log = chunks(&save(1), 10, &state(1));
            log.extend(chunks(&save(2), 20, &state(2)));
            log.extend(chunks(&save(3), 30, &state(3)).into_iter().take(torn));
            let found = assemble(log);
            assert_eq!(
                found.iter().map(|snapshot| snapshot.offset).collect::<Vec<_>>(),
                [20],
                "torn at {torn}"
            );
        }
    }

    #[test]
    fn an_owner_whose_time_is_over_writes_over_nothing_of_its_successors() {
        let late = Save { id: Id { epoch: 6, number: 9 }, forget: Vec::new() };
        let (own, late) = (chunks(&save(1), 20, &state(2)), chunks(&late, 10, &state(1)));
        let mixed = own.iter().zip(&late).flat_map(|(own, late)| [own.clone(), late.clone()]);
        let offsets: Vec<_> = assemble(mixed).iter().map(|snapshot| snapshot.offset).collect();
        assert_eq!(offsets, [10, 20]);
    }

    #[test]
    fn what_is_forgotten_is_gone_once_the_new_one_is_there() {
        let before = chunks(&save(1), 10, &state(1));
        let forget = before.iter().map(|chunk| chunk.key.clone()).collect();
        let after = chunks(&Save { id: Id { epoch: 8, number: 1 }, forget }, 20, &state(2));
        let offsets = |written: usize| -> Vec<i64> {
            let log = before.iter().chain(&after[..written]).cloned();
            assemble(log).iter().map(|snapshot| snapshot.offset).collect()
        };
        assert_eq!((offsets(3), offsets(4)), (vec![10], vec![10, 20]));
        assert_eq!(offsets(after.len()), [20]);
    }
}
