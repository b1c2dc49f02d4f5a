//! Reads `footfall.events` beside its consumer group, without joining it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use footfall_aggregator::{GROUP, audit::RawLine};
use footfall_schemas::{connect::KafkaSettings, topics};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
};
use tokio::sync::mpsc::{Receiver, channel};

use crate::migrate::client_config;

const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Records handed on at once; a few such batches wait. A range of the comparison ends with one, so it may be so much
/// longer than a block.
const BATCH: usize = 16;

/// How far a partition's log reaches, and how far it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach {
    /// First offset held, and the offset after the last.
    pub(super) low: i64,
    pub(super) high: i64,
    /// Everything before is written, and no block that may still be on its way holds it.
    pub(super) written: i64,
    /// Nothing waits to be written, the counts of open minutes included.
    pub(super) at_rest: bool,
}

/// The topic, for one who asks without reading.
pub(super) struct Log {
    config: ClientConfig,
    consumer: Arc<BaseConsumer>,
}

impl Log {
    pub(super) fn new(kafka: &KafkaSettings) -> anyhow::Result<Self> {
        let mut config = client_config(kafka);
        // Names the group to ask for its offsets; nothing subscribes, so nobody joins it.
        config
            .set("group.id", GROUP)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("queued.max.messages.kbytes", "16384");
        let consumer = Arc::new(config.create().context("kafka")?);
        Ok(Self { config, consumer })
    }

    pub(super) async fn partitions(&self) -> anyhow::Result<i32> {
        let metadata =
            self.ask(|consumer| consumer.fetch_metadata(Some(topics::EVENTS), ANSWER_WITHIN)).await?;
        let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        if count == 0 {
            bail!("kafka: there is no topic {}", topics::EVENTS);
        }
        Ok(i32::try_from(count)?)
    }

    pub(super) async fn reach(&self, partition: i32) -> anyhow::Result<Reach> {
        let (committed, (low, high)) = self
            .ask(move |consumer| {
                let mut wanted = TopicPartitionList::new();
                wanted.add_partition(topics::EVENTS, partition);
                let committed = consumer.committed_offsets(wanted, ANSWER_WITHIN)?;
                // After the commit: the log reaches at least as far.
                Ok((committed, consumer.fetch_watermarks(topics::EVENTS, partition, ANSWER_WITHIN)?))
            })
            .await?;
        let found = committed.find_partition(topics::EVENTS, partition);
        let (written, is_plain) = match found.as_ref().map(|found| (found.offset(), found.metadata())) {
            Some((Offset::Offset(offset), metadata)) => (offset, metadata.is_empty()),
            _ => (low, false),
        };
        if written < low || written > high {
            bail!(
                "partition {partition} of {} holds offsets {low} to {high}, and its group has written up to {written}: \
                 the log was cut or replaced, so it cannot say what the tables must hold",
                topics::EVENTS
            );
        }
        Ok(Reach { low, high, written, at_rest: is_plain && written == high })
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&BaseConsumer) -> Result<T, KafkaError> + Send + 'static,
    ) -> anyhow::Result<T> {
        let consumer = self.consumer.clone();
        tokio::task::spawn_blocking(move || question(&consumer)).await?.context("kafka")
    }

    /// The records of offsets `from..to`, in batches; ends with an error or when all were read.
    pub(super) fn read(&self, partition: i32, from: i64, to: i64) -> Receiver<anyhow::Result<Vec<RawLine>>> {
        let (send, batches) = channel(4);
        let config = self.config.clone();
        std::thread::spawn(move || {
            let hand_on = |batch| send.blocking_send(Ok(batch)).is_ok();
            if let Err(error) = read(&config, partition, from, to, hand_on) {
                let _ = send.blocking_send(Err(error));
            }
        });
        batches
    }
}

/// `hand_on` says `false` when nobody listens any more.
fn read(
    config: &ClientConfig,
    partition: i32,
    from: i64,
    to: i64,
    hand_on: impl Fn(Vec<RawLine>) -> bool,
) -> anyhow::Result<()> {
    if from >= to {
        return Ok(());
    }
    let consumer: BaseConsumer = config.create().context("kafka")?;
    let mut assigned = TopicPartitionList::new();
    assigned.add_partition_offset(topics::EVENTS, partition, Offset::Offset(from))?;
    consumer.assign(&assigned).context("kafka")?;
    let mut batch = Vec::with_capacity(BATCH);
    let mut heard = Instant::now();
    loop {
        match consumer.poll(Duration::from_secs(1)) {
            Some(Ok(message)) if message.offset() < to => {
                batch.push(RawLine {
                    offset: message.offset(),
                    timestamp: message.timestamp().to_millis().unwrap_or(0),
                    value: message.payload().unwrap_or_default().to_vec(),
                });
                let is_last = message.offset() + 1 == to;
                let is_full = is_last || batch.len() == BATCH;
                let is_heard = !is_full || hand_on(std::mem::take(&mut batch));
                if is_last || !is_heard {
                    return Ok(());
                }
                // After handing on: whoever reads slowly is no silent broker.
                heard = Instant::now();
            }
            // Beyond what was asked, or the end: offsets of control records hold nothing.
            Some(Ok(_)) | Some(Err(KafkaError::PartitionEOF(_))) => {
                hand_on(batch);
                return Ok(());
            }
            Some(Err(KafkaError::MessageConsumption(code))) => {
                bail!("kafka: partition {partition} cannot be read from {from}: {code}")
            }
            Some(Err(error)) => eprintln!("footfall: {error}; waiting for Kafka"),
            None if heard.elapsed() < ANSWER_WITHIN => {}
            None => bail!("kafka: partition {partition} says nothing for {} s", ANSWER_WITHIN.as_secs()),
        }
    }
}
