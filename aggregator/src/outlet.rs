//! The topics the aggregator writes: live, dead letters, snapshots.

use std::time::{Duration, Instant};

use footfall_schemas::{connect::KafkaSettings, live::LiveRecord, topics};
use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord, Producer},
};

use crate::{
    block::Letter,
    error::{Error, LogError},
    ports::Outlet,
    snapshot::{Assembly, Chunk, Found},
    source::complain,
};

/// Header of a dead letter that the aggregator wrote: `topic/partition/offset/index` of what could not be read.
pub(crate) const ORIGIN: &str = "footfall-origin";
/// Reading a whole partition must end within this time.
const PATIENCE: Duration = Duration::from_secs(60);
const MAX_MESSAGE_BYTES: &str = "2000000";

pub(crate) struct Topics {
    /// Acknowledged by all replicas.
    durable: FutureProducer,
    /// Windows are worth seconds: what cannot be sent soon is told anew.
    live: FutureProducer,
    kafka: KafkaSettings,
}

/// Settings that every client shares.
pub(crate) fn client(kafka: &KafkaSettings, id: &str) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings
        .set("client.id", id)
        .set("bootstrap.servers", &kafka.brokers)
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "2000");
    for (key, value) in &kafka.properties {
        settings.set(key, value);
    }
    settings
}

impl Topics {
    pub(crate) fn new(kafka: &KafkaSettings, member: &str) -> Result<Self, Error> {
        let made = |source| Error::Kafka { client: "producer", source };
        let durable = client(kafka, &format!("footfall-aggregator-{member}"))
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.codec", "lz4")
            .set("linger.ms", "5")
            .set("message.max.bytes", MAX_MESSAGE_BYTES)
            .create()
            .map_err(made)?;
        let live = client(kafka, &format!("footfall-live-{member}"))
            .set("acks", "1")
            .set("compression.codec", "lz4")
            .set("linger.ms", "2")
            .set("message.timeout.ms", "5000")
            .set("message.max.bytes", MAX_MESSAGE_BYTES)
            .set("queue.buffering.max.messages", "20000")
            .set("queue.buffering.max.kbytes", "65536")
            .create()
            .map_err(made)?;
        Ok(Self { durable, live, kafka: kafka.clone() })
    }

    /// Waits for what is queued. Blocks.
    pub(crate) fn flush(&self, patience: Duration) {
        let _ = self.live.flush(patience);
        let _ = self.durable.flush(patience);
    }
}

pub(crate) fn again(error: KafkaError) -> LogError {
    LogError::Retry(error.to_string())
}

impl Outlet for Topics {
    async fn send_letters(&self, letters: &[Letter]) -> Result<(), LogError> {
        let mut sent = Vec::with_capacity(letters.len());
        for Letter { at, letter } in letters {
            let value = serde_json::to_vec(letter).map_err(|error| LogError::Retry(error.to_string()))?;
            let origin = format!("{}/{}/{}/{}", topics::EVENTS, at.partition, at.offset, at.index);
            let headers = OwnedHeaders::new().insert(Header { key: ORIGIN, value: Some(&origin) });
            let record = FutureRecord::<(), _>::to(topics::DEAD_LETTERS).payload(&value).headers(headers);
            sent.push(self.durable.send_result(record).map_err(|(error, _)| again(error))?);
        }
        for delivery in sent {
            let delivered = delivery.await.map_err(|_| LogError::Retry("the producer has gone".into()))?;
            delivered.map_err(|(error, _)| again(error))?;
        }
        Ok(())
    }

    fn tell(&self, record: &LiveRecord) -> bool {
        let Ok(value) = serde_json::to_vec(record) else { return false };
        let key = format!("{}/{}", record.site, record.partition);
        self.live.send_result(FutureRecord::to(topics::LIVE).key(&key).payload(&value)).is_ok()
    }

    async fn save(&self, partition: i32, chunks: Vec<Chunk>) -> Result<(), LogError> {
        // One after the other: the manifest must not be there before its chunks.
        for chunk in chunks {
            let mut record = FutureRecord::to(topics::SNAPSHOTS).partition(partition).key(&chunk.key);
            record.payload = chunk.value.as_ref();
            self.durable.send(record, Duration::from_secs(5)).await.map_err(|(error, _)| again(error))?;
        }
        Ok(())
    }

    async fn saved(&self, partition: i32) -> Result<Found, LogError> {
        let kafka = self.kafka.clone();
        tokio::task::spawn_blocking(move || read_snapshots(&kafka, partition))
            .await
            .map_err(|error| LogError::Retry(error.to_string()))?
    }
}

fn read_snapshots(kafka: &KafkaSettings, partition: i32) -> Result<Found, LogError> {
    let mut assembly = Assembly::default();
    read_whole(kafka, topics::SNAPSHOTS, partition, |key, value| {
        assembly.add(Chunk { key: key.to_owned(), value: value.map(<[u8]>::to_vec) });
    })?;
    Ok(assembly.complete())
}

struct WholeReader;

impl ClientContext for WholeReader {
    fn error(&self, error: KafkaError, reason: &str) {
        complain(&error, reason);
    }
}

impl ConsumerContext for WholeReader {}

/// Reads a partition of a compacted topic from its beginning to its end; records without key are left out.
/// Blocks.
pub(crate) fn read_whole(
    kafka: &KafkaSettings,
    topic: &str,
    partition: i32,
    mut each: impl FnMut(&str, Option<&[u8]>),
) -> Result<(), LogError> {
    let consumer: BaseConsumer<WholeReader> = client(kafka, "footfall-aggregator-reader")
        // Needed by the consumer, though it never joins.
        .set("group.id", "footfall-aggregator-reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "50")
        .create_with_context(WholeReader)
        .map_err(again)?;
    let (low, high) = consumer.fetch_watermarks(topic, partition, Duration::from_secs(10)).map_err(again)?;
    if low >= high {
        return Ok(());
    }
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, partition, Offset::Beginning).map_err(again)?;
    consumer.assign(&from).map_err(again)?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) => return Err(again(error)),
            Some(Ok(message)) => {
                if let Some(key) = message.key().map(String::from_utf8_lossy) {
                    each(&key, message.payload());
                }
                if message.offset() + 1 >= high {
                    return Ok(());
                }
            }
        }
    }
    Err(LogError::Retry(format!("{topic} was not read within {} s", PATIENCE.as_secs())))
}
