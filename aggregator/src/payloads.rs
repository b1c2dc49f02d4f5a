//! Payload hashes of a partition's newest events: tells a resend from another payload under the same id.

use std::collections::HashMap;

use footfall_schemas::EventId;

use crate::sample::{IdHash, mixed};

/// Two halves of so many are kept, 1.5 MB: a tracker resends within seconds, or after hours.
const HALF: usize = 32_768;

#[derive(Debug, Default)]
pub(crate) struct Payloads {
    newer: HashMap<u64, u64, IdHash>,
    older: HashMap<u64, u64, IdHash>,
}

impl Payloads {
    pub(crate) fn note(&mut self, site: u32, id: EventId, payload: u64) {
        if self.newer.len() >= HALF {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(key(site, id), payload);
    }

    /// The payload with which the event came first; `None` when that is too long ago.
    pub(crate) fn first(&self, site: u32, id: EventId) -> Option<u64> {
        let key = key(site, id);
        self.newer.get(&key).or_else(|| self.older.get(&key)).copied()
    }
}

/// 64 bits: two of 65,536 events are taken for each other once in four billion such sets.
fn key(site: u32, id: EventId) -> u64 {
    let (high, low) = id.to_uuid().as_u64_pair();
    mixed(mixed(high ^ u64::from(site) << 16) ^ low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use footfall_schemas::{Sequence, StreamId};

    #[test]
    fn the_newest_are_remembered_and_the_oldest_are_not() {
        let id = |number: u32| EventId::new(StreamId::from_parts(1, 1), Sequence::new(number).unwrap());
        let mut payloads = Payloads::default();
        (1..=3 * HALF as u32).for_each(|number| payloads.note(0, id(number), number.into()));
        assert_eq!(payloads.first(0, id(3 * HALF as u32)), Some(3 * HALF as u64));
        assert_eq!(payloads.first(0, id(2 * HALF as u32)), Some(2 * HALF as u64));
        assert_eq!(payloads.first(0, id(1)), None);
        assert_eq!(payloads.first(1, id(3 * HALF as u32)), None, "another site's event is another event");
    }
}
