//! Reads topics whole: every partition, without a group. Every dashboard node reads everything.

use std::time::Duration;

use footfall_schemas::connect::KafkaSettings;
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

/// Where a topic is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Beginning,
    /// So many ms before now.
    Ago(u64),
    End,
}

/// A topic to read.
pub(crate) type Read = (&'static str, From);

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
        reads: &[Read],
        shutdown: &CancellationToken,
    ) -> Result<Option<Self>, Error> {
        let consumer: StreamConsumer = client_config(settings).create().map_err(Error::Consumer)?;
        let mut consumer = Some(consumer);
        let topics = reads.iter().map(|(topic, _)| *topic).collect::<Vec<_>>().join(", ");
        let mut told = false;
        while let Some(unplaced) = consumer.take() {
            let reads = reads.to_vec();
            let place = tokio::task::spawn_blocking(move || {
                let placed = assign(&unplaced, &reads);
                (unplaced, placed)
            });
            let (unplaced, placed) = tokio::select! {
                placed = place => placed.map_err(|panic| Error::Hub(panic.to_string()))?,
                () = shutdown.cancelled() => return Ok(None),
            };
            match placed {
                Ok(behind) => {
                    info!(topics, behind = behind.0.len(), "reading");
                    return Ok(Some(Self { consumer: unplaced, behind }));
                }
                Err(error) if !told => {
                    told = true;
                    warn!(brokers = settings.brokers, topics, %error, "cannot be read yet; trying every second");
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

fn assign(consumer: &StreamConsumer, reads: &[Read]) -> KafkaResult<Behind> {
    let mut assigned = TopicPartitionList::new();
    let mut behind = Vec::new();
    for (topic, from) in reads {
        let partitions = partitions(consumer, topic)?;
        let starts = match from {
            From::Ago(ms) => starts_by_time(consumer, topic, &partitions, *ms)?,
            From::Beginning => partitions.into_iter().map(|partition| (partition, Some(0))).collect(),
            From::End => partitions.into_iter().map(|partition| (partition, None)).collect(),
        };
        for (partition, start) in starts {
            let (low, end) = consumer.fetch_watermarks(topic, partition, CALL_TIMEOUT)?;
            let offset = start.map_or(end, |start| start.clamp(low, end));
            assigned.add_partition_offset(topic, partition, Offset::Offset(offset))?;
            if offset < end {
                behind.push((*topic, partition, end));
            }
        }
    }
    consumer.assign(&assigned)?;
    Ok(Behind(behind))
}

fn partitions(consumer: &StreamConsumer, topic: &str) -> KafkaResult<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), CALL_TIMEOUT)?;
    let found = metadata.topics().first();
    if let Some(code) = found.and_then(|found| found.error()) {
        return Err(KafkaError::MetadataFetch(code.into()));
    }
    let partitions: Vec<i32> =
        found.into_iter().flat_map(|found| found.partitions()).map(|partition| partition.id()).collect();
    if partitions.is_empty() {
        return Err(KafkaError::MetadataFetch(rdkafka::types::RDKafkaErrorCode::UnknownTopicOrPartition));
    }
    Ok(partitions)
}

/// The first offset that is younger, by partition; none when nothing is.
fn starts_by_time(
    consumer: &StreamConsumer,
    topic: &str,
    partitions: &[i32],
    ago_ms: u64,
) -> KafkaResult<Vec<(i32, Option<i64>)>> {
    let from = crate::clock::wall_ms() - ago_ms as i64;
    let mut by_time = TopicPartitionList::new();
    for partition in partitions {
        by_time.add_partition_offset(topic, *partition, Offset::Offset(from))?;
    }
    let found = consumer.offsets_for_times(by_time, CALL_TIMEOUT)?;
    let start = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
        element.error()?;
        let offset = match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        Ok((element.partition(), offset))
    };
    found.elements().iter().map(start).collect()
}

/// When a record was written (ms since 1970), if the broker says.
pub(crate) fn written_at(message: &impl Message) -> Option<i64> {
    message.timestamp().to_millis()
}

#[cfg(test)]
mod tests {
    use footfall_schemas::topics::{LIVE, PRESENCE};

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
