//! What idempotence remembers of a partition's producers: an epoch and the last five batches of each.

use std::collections::{HashMap, VecDeque};

use kafka_protocol::error::ResponseError;

use super::batch::{BatchHeader, NO_PRODUCER};

/// As many batches as an idempotent producer may have in flight.
const REMEMBERED_BATCHES: usize = 5;
/// Producers remembered per partition. Full: the half that has been silent longest is forgotten, and a batch that
/// one of those resends after that is taken for a new one.
const MAX_PRODUCERS: usize = 20_000;

#[derive(Debug, Clone)]
pub(super) struct Producer {
    epoch: i16,
    batches: VecDeque<Remembered>,
}

#[derive(Debug, Clone, Copy)]
struct Remembered {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
}

/// What to do with a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Append,
    /// It is in the log already, from this offset on.
    Duplicate(i64),
    Refuse(ResponseError),
}

#[derive(Debug, Default)]
pub(super) struct ProducerStates(HashMap<i64, Producer>);

impl ProducerStates {
    pub(super) fn check(&self, header: &BatchHeader) -> Verdict {
        let Some(producer) = self.0.get(&header.producer_id) else {
            // Its records may have been removed by retention, so any sequence may begin.
            return Verdict::Append;
        };
        if header.producer_epoch < producer.epoch {
            return Verdict::Refuse(ResponseError::InvalidProducerEpoch);
        }
        if header.producer_epoch > producer.epoch {
            return match header.base_sequence {
                0 => Verdict::Append,
                _ => Verdict::Refuse(ResponseError::OutOfOrderSequenceNumber),
            };
        }
        let (first, last) = (header.base_sequence, header.last_sequence());
        let known = |batch: &&Remembered| batch.first_sequence == first && batch.last_sequence == last;
        if let Some(batch) = producer.batches.iter().find(known) {
            return Verdict::Duplicate(batch.base_offset);
        }
        match producer.batches.back() {
            Some(newest) if first != newest.last_sequence.checked_add(1).unwrap_or(0) => {
                Verdict::Refuse(ResponseError::OutOfOrderSequenceNumber)
            }
            _ => Verdict::Append,
        }
    }

    /// Remembers an appended batch; returns what was known of its producer before, for [`Self::restore`].
    pub(super) fn record(&mut self, header: &BatchHeader) -> Option<Producer> {
        if header.producer_id == NO_PRODUCER {
            return None;
        }
        let before = self.0.get(&header.producer_id).cloned();
        let producer = self
            .0
            .entry(header.producer_id)
            .or_insert_with(|| Producer { epoch: header.producer_epoch, batches: VecDeque::new() });
        if producer.epoch != header.producer_epoch {
            producer.epoch = header.producer_epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == REMEMBERED_BATCHES {
            producer.batches.pop_front();
        }
        producer.batches.push_back(Remembered {
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset: header.base_offset,
        });
        if self.0.len() > MAX_PRODUCERS {
            self.forget_the_silent_half();
        }
        before
    }

    /// Undoes a [`Self::record`] whose batch did not reach the disk.
    pub(super) fn restore(&mut self, producer_id: i64, before: Option<Producer>) {
        match before {
            Some(producer) => self.0.insert(producer_id, producer),
            None => self.0.remove(&producer_id),
        };
    }

    fn forget_the_silent_half(&mut self) {
        let newest = |producer: &Producer| producer.batches.back().map_or(-1, |batch| batch.base_offset);
        let mut offsets: Vec<i64> = self.0.values().map(newest).collect();
        let half = offsets.len() / 2;
        let (_, &mut median, _) = offsets.select_nth_unstable(half);
        self.0.retain(|_, producer| newest(producer) >= median);
    }
}
