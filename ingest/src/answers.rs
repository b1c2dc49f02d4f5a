//! The receipts of records that are not in the log yet, by the record's number.

use std::{collections::BTreeMap, ops::Bound, time::Duration};

use footfall_schemas::refusal::RetryReason;
use tokio::time::Instant;

use crate::receipt::{Outcome, Receipt, Retry};

/// Least and most that a tracker is told to wait when its batch is late, before jitter doubles it at most.
const RETRY_MS: (u32, u32) = (2_000, 30_000);

#[derive(Debug, Default)]
pub(crate) struct Answers {
    waiting: BTreeMap<u64, Waiting>,
    /// Every record up to this one has been answered, in one way or another.
    answered: u64,
}

#[derive(Debug)]
struct Waiting {
    receipts: Vec<Receipt>,
    partition: i32,
    /// Numbers rise with it.
    packed_at: Instant,
    /// The record itself is on the disk: only the answer is due.
    spooled: bool,
}

impl Answers {
    /// The record is on its way to Kafka; the receipts hold its bytes.
    pub(crate) fn sent(&mut self, number: u64, partition: i32, receipts: Vec<Receipt>, now: Instant) {
        self.waiting.insert(number, Waiting { receipts, partition, packed_at: now, spooled: false });
    }

    /// The record has left the memory.
    pub(crate) fn spooled(&mut self, number: u64, partition: i32, mut receipts: Vec<Receipt>, now: Instant) {
        if number > self.answered && !receipts.is_empty() {
            receipts.iter_mut().for_each(Receipt::release);
            self.waiting.insert(number, Waiting { receipts, partition, packed_at: now, spooled: true });
        }
    }

    /// The receipts of a record that has landed somewhere.
    pub(crate) fn take(&mut self, number: u64) -> Vec<Receipt> {
        self.waiting.remove(&number).map_or_else(Vec::new, |waiting| waiting.receipts)
    }

    /// A tracker gives up on a connection that does not answer, and all of them would come again at once. So whoever
    /// waits for longer than `patience` is told to come again, later the longer the partition has been stalled; the
    /// record goes on its way all the same, and meets its copy behind Kafka.
    pub(crate) fn overdue(
        &mut self,
        patience: Duration,
        now: Instant,
        stalled_for: impl Fn(i32) -> Duration,
    ) {
        let mut past = Vec::new();
        for (number, waiting) in self.waiting.range_mut((Bound::Excluded(self.answered), Bound::Unbounded)) {
            if now.saturating_duration_since(waiting.packed_at) < patience {
                break;
            }
            self.answered = *number;
            let stalled_ms = u32::try_from(stalled_for(waiting.partition).as_millis()).unwrap_or(u32::MAX);
            let after_ms = stalled_ms.clamp(RETRY_MS.0, RETRY_MS.1);
            for receipt in &mut waiting.receipts {
                receipt.settle(Err(Retry::jittered(RetryReason::LogUnavailable, after_ms)), now);
            }
            if waiting.spooled {
                past.push(*number);
            }
        }
        for number in past {
            self.waiting.remove(&number);
        }
    }
}

/// The last first: a connection waits for its oldest batch, and when that one wakes it, the others are settled, too.
/// So it wakes once and sends one ack.
pub(crate) fn settle(receipts: &mut [Receipt], outcome: Outcome, now: Instant) {
    receipts.iter_mut().rev().for_each(|receipt| receipt.settle(outcome, now));
}
