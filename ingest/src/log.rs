//! The Kafka side: one idempotent producer. Whoever polls it runs its callbacks; that is the
//! [`shipper`](crate::shipper).

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use footfall_schemas::{
    connect::KafkaSettings, presence::PresenceReport, record::DeadLetter, refusal::RetryReason, topics,
    trace::TraceParent,
};
use rdkafka::{
    ClientConfig, ClientContext, Message as _,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{clock::now_ms, config::BatcherConfig, error::Error, metrics::Metrics, receipt::Retry, trace};

const PROBE: Duration = Duration::from_secs(3);
/// A failed delivery makes the node unready for this long, or until one succeeds.
const FAILURE_SHADOW_MS: i64 = 10_000;

/// What a record carries through the producer.
pub(crate) enum Delivery {
    Events { number: u64, partition: i32 },
    DeadLetter,
    Presence,
}

impl Delivery {
    fn topic(&self) -> &'static str {
        match self {
            Self::Events { .. } => topics::EVENTS,
            Self::DeadLetter => topics::DEAD_LETTERS,
            Self::Presence => topics::PRESENCE,
        }
    }
}

/// What became of a record of events.
pub(crate) struct Report {
    pub(crate) number: u64,
    pub(crate) partition: i32,
    pub(crate) outcome: Result<(), Undelivered>,
}

pub(crate) struct Undelivered {
    pub(crate) fault: Fault,
    /// To be sent again.
    pub(crate) payload: Vec<u8>,
}

/// Why Kafka did not take a record, by what helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Time.
    Passing,
    /// Nothing that happens here: somebody has to change the topic or the permissions.
    Standing,
    /// Nothing at all: this record is not to be taken.
    Record,
    /// It was called back: the node stops.
    Stopped,
}

impl Fault {
    fn of(error: &KafkaError) -> Self {
        use RDKafkaErrorCode as C;
        match error.rdkafka_error_code() {
            Some(
                C::MessageSizeTooLarge
                | C::InvalidMessage
                | C::InvalidMessageSize
                | C::InvalidRecord
                | C::PolicyViolation
                | C::UnsupportedForMessageFormat,
            ) => Self::Record,
            Some(
                C::InvalidTopic
                | C::UnknownTopic
                | C::UnknownPartition
                | C::UnknownTopicOrPartition
                | C::TopicAuthorizationFailed
                | C::ClusterAuthorizationFailed,
            ) => Self::Standing,
            Some(C::PurgeQueue | C::PurgeInflight) => Self::Stopped,
            // The producer's own end is one of them: another process can write the record.
            _ => Self::Passing,
        }
    }

    /// What its batches are told when they are not taken.
    pub(crate) fn retry(self) -> Retry {
        match self {
            Self::Stopped => Retry::jittered(RetryReason::Draining, 500),
            Self::Passing => Retry::jittered(RetryReason::LogUnavailable, 1_000),
            Self::Standing | Self::Record => Retry::jittered(RetryReason::LogUnavailable, 15_000),
        }
    }
}

/// Whether Kafka takes what it is given.
#[derive(Debug, Default)]
pub(crate) struct Health {
    delivered_at: AtomicI64,
    failed_at: AtomicI64,
    unreachable: AtomicBool,
    /// Records are on their way and none arrives.
    pub(crate) stalled: AtomicBool,
    /// Batches are acked from the spool, and it has room.
    pub(crate) spool_acks: AtomicBool,
}

/// What `/readyz` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    /// Kafka takes nothing; the spool does, and what it has is acked.
    Spooling,
    Unwritable,
}

impl Health {
    pub(crate) fn readiness(&self, now_ms: i64) -> Readiness {
        if self.is_writable(now_ms) {
            Readiness::Ready
        } else if self.spool_acks.load(Ordering::Relaxed) {
            Readiness::Spooling
        } else {
            Readiness::Unwritable
        }
    }

    fn is_writable(&self, now_ms: i64) -> bool {
        let failed_at = self.failed_at.load(Ordering::Relaxed);
        let recovered = self.delivered_at.load(Ordering::Relaxed) >= failed_at;
        let stuck = self.unreachable.load(Ordering::Relaxed) || self.stalled.load(Ordering::Relaxed);
        !stuck && (recovered || now_ms - failed_at > FAILURE_SHADOW_MS)
    }

    fn delivered(&self) {
        self.delivered_at.store(now_ms(), Ordering::Relaxed);
    }

    fn failed(&self) {
        self.failed_at.store(now_ms(), Ordering::Relaxed);
    }
}

/// Runs on the thread that polls.
struct Callbacks {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    /// Of events, since [`Log::take_reports`].
    reports: Mutex<Vec<Report>>,
    /// How often, with anything.
    called: AtomicUsize,
}

impl ClientContext for Callbacks {
    fn error(&self, error: KafkaError, reason: &str) {
        self.called.fetch_add(1, Ordering::Relaxed);
        warn!(%error, reason, "kafka client");
    }
}

impl ProducerContext for Callbacks {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, report: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        self.called.fetch_add(1, Ordering::Relaxed);
        let outcome = match report {
            Ok(_) => {
                self.health.delivered();
                self.metrics.delivered(delivery.topic());
                Ok(())
            }
            Err((error, message)) => {
                self.health.failed();
                let payload = message.payload().unwrap_or_default();
                let fault = self.undelivered(delivery.topic(), payload.len(), error);
                Err((fault, payload))
            }
        };
        if let Delivery::Events { number, partition } = *delivery {
            let outcome =
                outcome.map_err(|(fault, payload)| Undelivered { fault, payload: payload.to_vec() });
            self.reports.lock().unwrap_or_else(PoisonError::into_inner).push(Report {
                number,
                partition,
                outcome,
            });
        }
    }
}

impl Callbacks {
    fn undelivered(&self, topic: &'static str, bytes: usize, error: &KafkaError) -> Fault {
        let fault = Fault::of(error);
        let code = error.rdkafka_error_code();
        self.metrics
            .delivery_error(topic, code.map_or_else(|| "client".to_owned(), |code| format!("{code:?}")));
        if matches!(fault, Fault::Standing | Fault::Record) {
            error!(topic, bytes, %error, "kafka refuses a record for good; trackers keep its events: look at the topic's configuration and permissions");
        } else {
            warn!(topic, bytes, %error, "kafka did not take a record");
        }
        fault
    }
}

/// The producer and what is known of the cluster.
pub(crate) struct Log {
    producer: BaseProducer<Callbacks>,
    partitions: u32,
    health: Arc<Health>,
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
        let callbacks = Callbacks {
            health: Arc::clone(&health),
            metrics,
            reports: Mutex::default(),
            called: AtomicUsize::new(0),
        };
        let producer: BaseProducer<Callbacks> =
            client.create_with_context(callbacks).map_err(Error::KafkaSettings)?;
        let mut log = Self { producer, partitions: 0, health };
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

    /// Never blocks. An error: the record is not on its way. `traced` goes with it in a header.
    pub(crate) fn send_events(
        &self,
        partition: i32,
        number: u64,
        lines: &[u8],
        traced: Option<TraceParent>,
    ) -> Result<(), Fault> {
        let mut record =
            BaseRecord::with_opaque_to(topics::EVENTS, Box::new(Delivery::Events { number, partition }))
                .partition(partition)
                .payload(lines);
        if let Some(parent) = traced {
            let value = parent.to_string();
            record = record
                .headers(OwnedHeaders::new().insert(Header { key: trace::HEADER, value: Some(&value) }));
        }
        self.send::<()>(record)
    }

    pub(crate) fn send_dead_letter(&self, letter: &DeadLetter) {
        let Ok(json) = serde_json::to_vec(letter) else { return };
        let record: BaseRecord<'_, (), [u8], _> =
            BaseRecord::with_opaque_to(topics::DEAD_LETTERS, Box::new(Delivery::DeadLetter)).payload(&json);
        // Counted and logged when it fails; there is nobody who waits for it.
        let _ = self.send(record);
    }

    pub(crate) fn send_presence(&self, report: &PresenceReport) {
        let Ok(json) = serde_json::to_vec(report) else { return };
        let key = format!("{}/{}", report.node, report.site);
        let record = BaseRecord::with_opaque_to(topics::PRESENCE, Box::new(Delivery::Presence))
            .key(key.as_str())
            .payload(&json[..]);
        // As above; the next report says the same and more.
        let _ = self.send(record);
    }

    fn send<K: rdkafka::message::ToBytes + ?Sized>(
        &self,
        record: BaseRecord<'_, K, [u8], Box<Delivery>>,
    ) -> Result<(), Fault> {
        self.producer.send(record).map_err(|(error, record)| {
            let bytes = record.payload.map_or(0, <[u8]>::len);
            self.producer.context().undelivered(record.delivery_opaque.topic(), bytes, &error)
        })
    }

    /// Lets the client call back for what is there. It does not wait: `rdkafka` spins through the last millisecond of
    /// a wait.
    pub(crate) fn poll(&self) {
        let called = &self.producer.context().called;
        loop {
            let before = called.load(Ordering::Relaxed);
            self.producer.poll(Duration::ZERO);
            // One poll is one event, which may be many deliveries.
            if called.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }

    /// What became of records of events, in the order of the reports, into an empty `reports`.
    pub(crate) fn take_reports(&self, reports: &mut Vec<Report>) {
        let mut kept = self.producer.context().reports.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *kept, reports);
    }

    /// Calls everything back that is not delivered; each record is reported.
    pub(crate) fn purge(&self) {
        let records = self.producer.in_flight_count();
        warn!(records, "kafka did not take everything before the end; trackers keep the rest");
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }

    /// Waits for the outstanding deliveries. Blocks.
    pub(crate) fn close(&self, timeout: Duration) {
        if self.producer.flush(timeout).is_err() {
            self.purge();
            let _ = self.producer.flush(Duration::from_secs(1));
        }
    }
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

    #[test]
    fn a_node_whose_spool_acks_is_ready_and_says_that_it_spools() {
        let health = Health::default();
        health.stalled.store(true, Ordering::Relaxed);
        assert_eq!(health.readiness(now_ms()), Readiness::Unwritable);
        health.spool_acks.store(true, Ordering::Relaxed);
        assert_eq!(health.readiness(now_ms()), Readiness::Spooling);
        health.stalled.store(false, Ordering::Relaxed);
        assert_eq!(health.readiness(now_ms()), Readiness::Ready);
    }
}
