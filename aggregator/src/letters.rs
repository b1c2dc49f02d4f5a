//! Copies `footfall.dead-letters` into the table `dead_letters`. Written twice a letter is still one row, so it is
//! enough to insert first and commit then.

use std::{sync::Arc, time::Duration};

use footfall_schemas::{
    RejectReason,
    connect::KafkaSettings,
    record::{DeadLetter, MAX_DEAD_PAYLOAD_BYTES, Stage},
    rows::{Coordinates, DeadLetterRow},
    topics,
};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer, StreamConsumer},
    message::{BorrowedMessage, Headers},
};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    config::Config,
    error::Error,
    metrics::Metrics,
    outlet::{ORIGIN, client},
    store::ClickHouse,
};

const GROUP: &str = "footfall-dead-letters";
const MAX_ROWS: usize = 1_000;
const LINGER: Duration = Duration::from_secs(1);

pub(crate) struct Letters {
    consumer: StreamConsumer,
    store: Arc<ClickHouse>,
    config: Arc<Config>,
    metrics: Metrics,
}

impl Letters {
    pub(crate) fn new(
        kafka: &KafkaSettings,
        member: &str,
        store: Arc<ClickHouse>,
        config: Arc<Config>,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let made = |source| Error::Kafka { client: "consumer of dead letters", source };
        let consumer: StreamConsumer = client(kafka, &format!("footfall-dead-letters-{member}"))
            .set("group.id", GROUP)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", config.session_timeout_ms.to_string())
            .set("heartbeat.interval.ms", (config.session_timeout_ms / 5).min(3_000).to_string())
            .set("queued.max.messages.kbytes", "4096")
            .create()
            .map_err(made)?;
        consumer.subscribe(&[topics::DEAD_LETTERS]).map_err(made)?;
        Ok(Self { consumer, store, config, metrics })
    }

    pub(crate) async fn run(self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.copy()).await;
    }

    async fn copy(&self) {
        loop {
            let (rows, ends) = self.batch().await;
            let mut backoff = self.config.backoff();
            while let Err(error) = self.store.insert_letters(&rows).await {
                warn!(%error, rows = rows.len(), "dead letters cannot be written; trying again");
                backoff.pause().await;
            }
            self.metrics.dead_letters.add(rows.len() as u64, &[]);
            // A commit that fails means that these letters are written again.
            if let Err(error) = self.consumer.commit(&ends, CommitMode::Async) {
                debug!(%error, "offset of dead letters not committed");
            }
        }
    }

    /// Waits for a letter, then a moment for more.
    async fn batch(&self) -> (Vec<DeadLetterRow>, TopicPartitionList) {
        let mut rows = Vec::new();
        let mut ends = TopicPartitionList::new();
        let mut deadline = None;
        while rows.len() < MAX_ROWS {
            let received = match deadline {
                None => self.consumer.recv().await,
                Some(deadline) => match timeout_at(deadline, self.consumer.recv()).await {
                    Ok(received) => received,
                    Err(_) => break,
                },
            };
            match received {
                Ok(message) => {
                    let end = Offset::Offset(message.offset() + 1);
                    let known = ends.set_partition_offset(message.topic(), message.partition(), end).is_ok();
                    if !known {
                        let _ = ends.add_partition_offset(message.topic(), message.partition(), end);
                    }
                    rows.push(row(&message));
                    deadline.get_or_insert_with(|| Instant::now() + LINGER);
                }
                Err(error) => {
                    debug!(%error, "consumer of dead letters");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
        (rows, ends)
    }
}

fn row(message: &BorrowedMessage<'_>) -> DeadLetterRow {
    let value = message.payload().unwrap_or_default();
    let letter = serde_json::from_slice(value).unwrap_or_else(|error| DeadLetter {
        site: String::new(),
        received_at: message.timestamp().to_millis().unwrap_or(0),
        stage: Stage::Aggregator,
        reason: RejectReason::PoisonRecord,
        detail: format!("a dead letter that cannot be read: {error}"),
        event_id: None,
        payload: String::from_utf8_lossy(&value[..value.len().min(MAX_DEAD_PAYLOAD_BYTES)]).into_owned(),
    });
    let origin = message.headers().and_then(|headers| {
        headers.iter().find(|header| header.key == ORIGIN).and_then(|header| header.value)
    });
    let (topic, at) = origin.and_then(|text| place(std::str::from_utf8(text).ok()?)).unwrap_or((
        topics::DEAD_LETTERS,
        Coordinates { partition: message.partition(), offset: message.offset(), index: 0 },
    ));
    DeadLetterRow::new(letter, topic, at)
}

/// Parses `topic/partition/offset/index`. A letter sent twice for the same record becomes the same row.
fn place(text: &str) -> Option<(&'static str, Coordinates)> {
    let mut parts = text.strip_prefix(topics::EVENTS)?.strip_prefix('/')?.split('/');
    let partition = parts.next()?.parse().ok()?;
    let offset = parts.next()?.parse().ok()?;
    let index = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some((topics::EVENTS, Coordinates { partition, offset, index }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("footfall.events/3/1234/5", true)]
    #[case("footfall.events/3/1234", false)]
    #[case("footfall.events/3/1234/5/6", false)]
    #[case("elsewhere/3/1234/5", false)]
    fn an_origin_names_the_record_that_could_not_be_read(#[case] text: &str, #[case] valid: bool) {
        let expected = (topics::EVENTS, Coordinates { partition: 3, offset: 1234, index: 5 });
        assert_eq!(place(text), valid.then_some(expected));
    }
}
