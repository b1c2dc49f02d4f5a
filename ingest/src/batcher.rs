//! Packs batches of one partition into records, so that Kafka sees few large ones.
//!
//! A batch goes whole into one record: its ack hangs on one delivery.

use std::{collections::HashMap, sync::Arc, time::Duration};

use footfall_schemas::{record::MAX_RECORD_EVENTS, refusal::RetryReason};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, sleep_until},
};

use crate::{
    config::BatcherConfig,
    log::Log,
    metrics::Metrics,
    receipt::{Receipt, Retry},
};

/// Below Kafka's default limit of 1 MB for a record batch.
const MAX_RECORD_BYTES: usize = 900 * 1024;
/// Contributions taken from the queue at once.
const TAKE: usize = 256;

/// The events of one batch.
#[derive(Debug)]
pub(crate) struct Contribution {
    pub(crate) partition: i32,
    /// NDJSON, each line ended.
    pub(crate) lines: Vec<u8>,
    pub(crate) events: usize,
    pub(crate) receipt: Receipt,
}

/// The way in. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Batcher {
    queue: mpsc::Sender<Contribution>,
    bytes: Arc<Semaphore>,
    pub(crate) partitions: u32,
}

/// The other end: [`Packer::run`] until every [`Batcher`] is gone.
pub(crate) struct Packer {
    queue: mpsc::Receiver<Contribution>,
    linger: Duration,
    log: Arc<Log>,
    metrics: Arc<Metrics>,
    open: HashMap<i32, OpenRecord>,
}

#[derive(Default)]
struct OpenRecord {
    lines: Vec<u8>,
    events: usize,
    receipts: Vec<Receipt>,
}

impl Batcher {
    pub(crate) fn new(config: &BatcherConfig, log: Arc<Log>, metrics: Arc<Metrics>) -> (Self, Packer) {
        let (sender, queue) = mpsc::channel(config.queue);
        let partitions = log.partitions();
        let linger = Duration::from_millis(config.linger_ms);
        let packer = Packer { queue, linger, log, metrics, open: HashMap::new() };
        let bytes = Arc::new(Semaphore::new(config.in_flight_bytes as usize));
        (Self { queue: sender, bytes, partitions }, packer)
    }

    /// Takes a batch or settles it as not taken: overload refuses before the ack, never drops after it.
    pub(crate) fn offer(&self, mut contribution: Contribution) {
        let bytes = u32::try_from(contribution.lines.len()).unwrap_or(u32::MAX);
        match Arc::clone(&self.bytes).try_acquire_many_owned(bytes) {
            Ok(permit) => contribution.receipt.hold(permit),
            Err(_) => return overloaded(contribution),
        }
        match self.queue.try_send(contribution) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(contribution)) => overloaded(contribution),
            // Dropped, its receipt says that the node is draining.
            Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
    }
}

fn overloaded(contribution: Contribution) {
    contribution.receipt.settle(Err(Retry::jittered(RetryReason::Overloaded, 500)));
}

impl Packer {
    pub(crate) async fn run(mut self) {
        let mut taken = Vec::with_capacity(TAKE);
        let mut flush_at = None;
        loop {
            let deadline: Option<Instant> = flush_at;
            tokio::select! {
                count = self.queue.recv_many(&mut taken, TAKE) => {
                    if count == 0 {
                        self.flush_all();
                        return;
                    }
                    taken.drain(..).for_each(|contribution| self.pack(contribution));
                }
                () = async { sleep_until(deadline.unwrap_or_else(Instant::now)).await }, if deadline.is_some() => {
                    self.flush_all();
                    flush_at = None;
                    continue;
                }
            }
            if flush_at.is_none() && !self.open.is_empty() {
                flush_at = Some(Instant::now() + self.linger);
            }
        }
    }

    fn pack(&mut self, contribution: Contribution) {
        let Contribution { partition, lines, events, receipt } = contribution;
        let record = self.open.entry(partition).or_default();
        let fits = record.events + events <= MAX_RECORD_EVENTS
            && record.lines.len() + lines.len() <= MAX_RECORD_BYTES;
        if !fits {
            let full = std::mem::take(record);
            self.send(partition, full);
        }
        let record = self.open.entry(partition).or_default();
        if record.lines.is_empty() {
            record.lines = lines;
        } else {
            record.lines.extend_from_slice(&lines);
        }
        record.events += events;
        record.receipts.push(receipt);
    }

    fn flush_all(&mut self) {
        for (partition, record) in std::mem::take(&mut self.open) {
            self.send(partition, record);
        }
    }

    fn send(&self, partition: i32, record: OpenRecord) {
        if !record.receipts.is_empty() {
            self.metrics.record_events.record(record.events as u64, &[]);
            self.log.send_events(partition, &record.lines, record.receipts);
        }
    }
}
