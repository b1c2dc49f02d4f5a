//! Reads `footfall.live` and `footfall.presence`: every partition, without a group, from a little before now. Every
//! dashboard node reads everything.

use std::time::Duration;

use footfall_schemas::{
    connect::KafkaSettings,
    topics::{LIVE, PRESENCE},
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{Consumer, StreamConsumer},
    error::{KafkaError, KafkaResult},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::error::Error;

/// Also the longest that a stop has to wait for. A connection under way goes on between the tries.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(1);

/// A consumer at its start, and what it has yet to read before the view is whole.
pub(crate) struct Source {
    pub(crate) consumer: StreamConsumer,
    pub(crate) behind: Behind,
}

/// Partitions that lay behind their end when reading began, with that end.
pub(crate) struct Behind(Vec<(&'static str, i32, i64)>);

impl Behind {
    /// Notes that the record at `offset` was read.
    pub(crate) fn passed(&mut self, topic: &str, partition: i32, offset: i64) {
        self.0.retain(|(behind, of, end)| (*behind, *of) != (topic, partition) || offset + 1 < *end);
    }

    /// Everything that was there at the beginning was read.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Source {
    /// Finds the partitions and assigns them; tries until Kafka answers. `None`: shut down before.
    pub(crate) async fn open(
        settings: &KafkaSettings,
        lookback_ms: u64,
        shutdown: &CancellationToken,
    ) -> Result<Option<Self>, Error> {
        let consumer: StreamConsumer = client_config(settings).create().map_err(Error::Consumer)?;
        let mut consumer = Some(consumer);
        let mut told = false;
        while let Some(unplaced) = consumer.take() {
            let place = tokio::task::spawn_blocking(move || {
                let placed = assign(&unplaced, lookback_ms);
                (unplaced, placed)
            });
            let (unplaced, placed) = tokio::select! {
                placed = place => placed.map_err(|panic| Error::Hub(panic.to_string()))?,
                () = shutdown.cancelled() => return Ok(None),
            };
            match placed {
                Ok(behind) => {
                    info!(behind = behind.0.len(), "reading the live topics");
                    return Ok(Some(Self { consumer: unplaced, behind }));
                }
                Err(error) if !told => {
                    told = true;
                    warn!(brokers = settings.brokers, %error, "the live topics cannot be read yet; trying every second");
                }
                Err(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => consumer = Some(unplaced),
                () = shutdown.cancelled() => return Ok(None),
            }
        }
        Ok(None)
    }
}

fn client_config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("client.id", "footfall-dashboard")
        // Needed by the consumer, though it never joins: partitions are assigned by hand and nothing is committed.
        .set("group.id", "footfall-dashboard-unused")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("allow.auto.create.topics", "false")
        // What was cut off behind us by retention is of no worth any more.
        .set("auto.offset.reset", "earliest")
        // Live records are small; a second of back-off after a full queue would be seen on the screen.
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.error.backoff.ms", "100")
        .set("queued.max.messages.kbytes", "16384");
    for (key, value) in &settings.properties {
        config.set(key, value);
    }
    config.set("bootstrap.servers", &settings.brokers);
    config
}

fn assign(consumer: &StreamConsumer, lookback_ms: u64) -> KafkaResult<Behind> {
    let from = crate::clock::wall_ms() - lookback_ms as i64;
    let mut by_time = TopicPartitionList::new();
    for topic in [LIVE, PRESENCE] {
        let metadata = consumer.fetch_metadata(Some(topic), CALL_TIMEOUT)?;
        let found = metadata.topics().first();
        if let Some(code) = found.and_then(|found| found.error()) {
            return Err(KafkaError::MetadataFetch(code.into()));
        }
        let partitions = found.map_or(&[][..], |found| found.partitions());
        if partitions.is_empty() {
            return Err(KafkaError::MetadataFetch(rdkafka::types::RDKafkaErrorCode::UnknownTopicOrPartition));
        }
        for partition in partitions {
            by_time.add_partition_offset(topic, partition.id(), Offset::Offset(from))?;
        }
    }
    let starts = consumer.offsets_for_times(by_time, CALL_TIMEOUT)?;
    let mut assigned = TopicPartitionList::new();
    let mut behind = Vec::new();
    for topic in [LIVE, PRESENCE] {
        for start in starts.elements_for_topic(topic) {
            start.error()?;
            let (low, end) = consumer.fetch_watermarks(topic, start.partition(), CALL_TIMEOUT)?;
            // Nothing as young as that: from the end.
            let offset = match start.offset() {
                Offset::Offset(offset) => offset.clamp(low, end),
                _ => end,
            };
            assigned.add_partition_offset(topic, start.partition(), Offset::Offset(offset))?;
            if offset < end {
                behind.push((topic, start.partition(), end));
            }
        }
    }
    consumer.assign(&assigned)?;
    Ok(Behind(behind))
}

/// When a record was written (ms since 1970), if the broker says.
pub(crate) fn written_at(message: &impl Message) -> Option<i64> {
    message.timestamp().to_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_view_is_whole_once_every_partition_was_read_to_where_it_ended_at_the_start() {
        let mut behind = Behind(vec![(LIVE, 0, 10), (LIVE, 1, 3), (PRESENCE, 0, 1)]);
        for (topic, partition, offset) in [(LIVE, 0, 8), (LIVE, 1, 2), (PRESENCE, 0, 0), (LIVE, 1, 9)] {
            behind.passed(topic, partition, offset);
            assert!(!behind.is_empty());
        }
        behind.passed(LIVE, 0, 9);
        assert!(behind.is_empty());
    }
}
