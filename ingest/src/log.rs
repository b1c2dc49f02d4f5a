//! The Kafka side: one idempotent producer whose delivery reports settle receipts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use footfall_schemas::{
    connect::KafkaSettings, presence::PresenceReport, record::DeadLetter, refusal::RetryReason, topics,
};
use rdkafka::{
    ClientConfig, ClientContext, Message as _,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    clock::now_ms,
    config::BatcherConfig,
    error::Error,
    metrics::Metrics,
    receipt::{Receipt, Retry},
    trace,
};

const PROBE: Duration = Duration::from_secs(3);
/// A failed delivery makes the node unready for this long, or until one succeeds.
const FAILURE_SHADOW_MS: i64 = 10_000;

/// What a record carries through the producer.
pub(crate) enum Delivery {
    Events(Vec<Receipt>),
    DeadLetter,
    Presence,
}

impl Delivery {
    fn topic(&self) -> &'static str {
        match self {
            Self::Events(_) => topics::EVENTS,
            Self::DeadLetter => topics::DEAD_LETTERS,
            Self::Presence => topics::PRESENCE,
        }
    }
}

/// Whether Kafka takes what it is given.
#[derive(Debug, Default)]
pub(crate) struct Health {
    delivered_at: AtomicI64,
    failed_at: AtomicI64,
    unreachable: AtomicBool,
}

impl Health {
    pub(crate) fn is_writable(&self, now_ms: i64) -> bool {
        let failed_at = self.failed_at.load(Ordering::Relaxed);
        let recovered = self.delivered_at.load(Ordering::Relaxed) >= failed_at;
        !self.unreachable.load(Ordering::Relaxed) && (recovered || now_ms - failed_at > FAILURE_SHADOW_MS)
    }

    fn delivered(&self) {
        self.delivered_at.store(now_ms(), Ordering::Relaxed);
    }

    fn failed(&self) {
        self.failed_at.store(now_ms(), Ordering::Relaxed);
    }
}

/// Runs on the producer's poll thread.
struct Reports {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        warn!(%error, reason, "kafka client");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, report: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        match report {
            Ok(_) => {
                self.health.delivered();
                self.metrics.delivered(delivery.topic());
                if let Delivery::Events(receipts) = *delivery {
                    receipts.into_iter().for_each(|receipt| receipt.settle(Ok(())));
                }
            }
            Err((error, message)) => {
                self.health.failed();
                let topic = delivery.topic();
                let bytes = message.payload().map_or(0, <[u8]>::len);
                refuse(&self.metrics, *delivery, topic, bytes, error);
            }
        }
    }
}

/// Never a false ack: whatever the error, the batches are told to come again. A record that did land although its
/// report says otherwise is met by its copy later, with the same ids.
fn refuse(metrics: &Metrics, delivery: Delivery, topic: &'static str, bytes: usize, error: &KafkaError) {
    let code = error.rdkafka_error_code();
    metrics.delivery_error(topic, code.map_or_else(|| "client".to_owned(), |code| format!("{code:?}")));
    let permanent = code.is_some_and(is_permanent);
    if permanent {
        error!(topic, bytes, %error, "kafka refuses a record for good; trackers keep its events: look at the topic's configuration and permissions");
    } else {
        warn!(topic, bytes, %error, "kafka did not take a record");
    }
    let retry = match code {
        Some(RDKafkaErrorCode::QueueFull) => Retry::jittered(RetryReason::Overloaded, 500),
        Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) => {
            Retry::jittered(RetryReason::Draining, 500)
        }
        _ if permanent => Retry::jittered(RetryReason::LogUnavailable, 15_000),
        _ => Retry::jittered(RetryReason::LogUnavailable, 1_000),
    };
    if let Delivery::Events(receipts) = delivery {
        receipts.into_iter().for_each(|receipt| receipt.settle(Err(retry)));
    }
}

/// What the next try meets as well, until somebody changes something.
fn is_permanent(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as C;
    matches!(
        code,
        C::MessageSizeTooLarge
            | C::InvalidMessage
            | C::InvalidMessageSize
            | C::InvalidTopic
            | C::UnknownTopic
            | C::UnknownPartition
            | C::UnknownTopicOrPartition
            | C::TopicAuthorizationFailed
            | C::ClusterAuthorizationFailed
            | C::PolicyViolation
            | C::UnsupportedForMessageFormat
            | C::Fatal
    )
}

/// The producer and what is known of the cluster.
pub(crate) struct Log {
    producer: ThreadedProducer<Reports>,
    partitions: u32,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

impl Log {
    /// Waits until Kafka answers and has the topics, or the shutdown. Blocks: call it where that is allowed.
    pub(crate) fn connect(
        kafka: &KafkaSettings,
        config: &BatcherConfig,
        metrics: Arc<Metrics>,
        shutdown: &CancellationToken,
    ) -> Result<Self, Error> {
        let mut client = ClientConfig::new();
        client
            .set("client.id", "footfall-ingest")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .set("socket.keepalive.enable", "true")
            // A broker that is back is found within a second, not ten.
            .set("reconnect.backoff.max.ms", "1000");
        for (key, value) in &kafka.properties {
            client.set(key, value);
        }
        // What an ack promises is no setting: these hold whatever the properties say.
        client
            .set("bootstrap.servers", &kafka.brokers)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", config.delivery_timeout_ms.to_string())
            // Events are bounded by `in_flight_bytes`; this leaves room for dead letters and presence.
            .set("queue.buffering.max.kbytes", (config.in_flight_bytes / 512).max(32 * 1024).to_string())
            .set("queue.buffering.max.messages", "1000000");
        let health = Arc::new(Health::default());
        let reports = Reports { health: Arc::clone(&health), metrics: Arc::clone(&metrics) };
        let producer: ThreadedProducer<Reports> =
            client.create_with_context(reports).map_err(Error::KafkaSettings)?;
        let mut log = Self { producer, partitions: 0, health, metrics };
        let deadline = Instant::now() + Duration::from_millis(config.start_timeout_ms);
        for topic in [topics::EVENTS, topics::DEAD_LETTERS, topics::PRESENCE] {
            let partitions = log.wait_for(topic, deadline, kafka, config, shutdown)?;
            if topic == topics::EVENTS {
                log.partitions = partitions;
            }
        }
        info!(brokers = %kafka.brokers, partitions = log.partitions, "kafka is there");
        Ok(log)
    }

    fn wait_for(
        &self,
        topic: &'static str,
        deadline: Instant,
        kafka: &KafkaSettings,
        config: &BatcherConfig,
        shutdown: &CancellationToken,
    ) -> Result<u32, Error> {
        loop {
            let error = match self.partitions_of(topic) {
                Ok(0) => Error::TopicMissing { topic, brokers: kafka.brokers.clone() },
                Ok(partitions) => return Ok(partitions),
                Err(source) => Error::KafkaUnreachable {
                    brokers: kafka.brokers.clone(),
                    waited_ms: config.start_timeout_ms,
                    source,
                },
            };
            if Instant::now() >= deadline || shutdown.is_cancelled() {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// 0 when there is no such topic.
    fn partitions_of(&self, topic: &str) -> Result<u32, KafkaError> {
        let metadata = self.producer.client().fetch_metadata(Some(topic), PROBE)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
        Ok(found.map_or(0, |found| found.partitions().len() as u32))
    }

    pub(crate) fn partitions(&self) -> u32 {
        self.partitions
    }

    pub(crate) fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Asks Kafka whether it is there. Blocks for up to 3 s. An error only when the producer can never write again.
    pub(crate) fn probe(&self) -> Result<(), Error> {
        if let Some((code, reason)) = self.producer.client().fatal_error() {
            return Err(Error::KafkaFatal { code: format!("{code:?}"), reason });
        }
        let (reachable, problem) = match self.partitions_of(topics::EVENTS) {
            Ok(partitions) if partitions == self.partitions => (true, None),
            Ok(0) => (false, Some("the events topic is gone".to_owned())),
            // A node that started later would send a visitor elsewhere: copies of one event would not meet.
            Ok(now) => (
                true,
                Some(format!(
                    "the events topic has {now} partitions, this node writes to {}: restart every node, and \
                 never add partitions while trackers hold unacked events",
                    self.partitions
                )),
            ),
            Err(error) => (false, Some(error.to_string())),
        };
        if let Some(problem) = problem {
            error!(problem, "kafka probe");
        }
        self.health.unreachable.store(!reachable, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn send_events(&self, partition: i32, lines: &[u8], mut receipts: Vec<Receipt>) {
        let traced = trace::record(partition, &mut receipts);
        let mut record = BaseRecord::with_opaque_to(topics::EVENTS, Box::new(Delivery::Events(receipts)))
            .partition(partition)
            .payload(lines);
        if let Some(parent) = traced {
            let value = parent.to_string();
            record = record
                .headers(OwnedHeaders::new().insert(Header { key: trace::HEADER, value: Some(&value) }));
        }
        self.send::<()>(record);
    }

    pub(crate) fn send_dead_letter(&self, letter: &DeadLetter) {
        let Ok(json) = serde_json::to_vec(letter) else { return };
        let record: BaseRecord<'_, (), [u8], _> =
            BaseRecord::with_opaque_to(topics::DEAD_LETTERS, Box::new(Delivery::DeadLetter)).payload(&json);
        self.send(record);
    }

    pub(crate) fn send_presence(&self, report: &PresenceReport) {
        let Ok(json) = serde_json::to_vec(report) else { return };
        let key = format!("{}/{}", report.node, report.site);
        let record = BaseRecord::with_opaque_to(topics::PRESENCE, Box::new(Delivery::Presence))
            .key(key.as_str())
            .payload(&json[..]);
        self.send(record);
    }

    fn send<K: rdkafka::message::ToBytes + ?Sized>(&self, record: BaseRecord<'_, K, [u8], Box<Delivery>>) {
        if let Err((error, record)) = self.producer.send(record) {
            let bytes = record.payload.map_or(0, <[u8]>::len);
            let delivery = *record.delivery_opaque;
            refuse(&self.metrics, delivery, topic_name(record.topic), bytes, &error);
        }
    }

    /// Waits for the outstanding deliveries; what is not delivered by then is told to come again. Blocks.
    pub(crate) fn close(&self, timeout: Duration) {
        if let Err(error) = self.producer.flush(timeout) {
            let records = self.producer.in_flight_count();
            warn!(%error, records, "kafka did not take everything before the end; trackers keep the rest");
            self.producer.purge(PurgeConfig::default().queue().inflight());
            let _ = self.producer.flush(Duration::from_secs(1));
        }
    }
}

fn topic_name(topic: &str) -> &'static str {
    [topics::EVENTS, topics::DEAD_LETTERS, topics::PRESENCE]
        .into_iter()
        .find(|known| *known == topic)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_makes_unready_until_a_delivery_or_for_ten_seconds() {
        let health = Health::default();
        assert!(health.is_writable(now_ms()));
        health.failed();
        assert!(!health.is_writable(now_ms()));
        assert!(health.is_writable(now_ms() + FAILURE_SHADOW_MS + 1));
        health.delivered();
        assert!(health.is_writable(now_ms()));
        health.unreachable.store(true, Ordering::Relaxed);
        assert!(!health.is_writable(now_ms() + FAILURE_SHADOW_MS + 1));
    }
}
