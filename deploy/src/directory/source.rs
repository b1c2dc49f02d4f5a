//! Reads the topic from its beginning: its one partition, without a group, whatever happens to the brokers.

use std::time::Duration;

use footfall_schemas::{connect::KafkaSettings, topics::DIRECTORY};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    client::ClientContext,
    consumer::{Consumer, ConsumerContext, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::migrate::client_config;

const ANSWER_WITHIN: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_millis(500);
/// Reads that wait for their reader. Full: the rest waits on the log.
const QUEUE: usize = 1_024;

/// The end of the log is no error.
struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            warn!(%error, reason, "the directory's consumer");
        }
    }
}

impl ConsumerContext for Quiet {}

/// What is told of the topic, in its order.
#[derive(Debug)]
pub(super) enum Read {
    Record {
        offset: i64,
        key: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
    },
    /// All that was there was read; more may come.
    End,
    /// Nothing can be read at the moment; it is tried again.
    Problem(String),
}

/// Tells until it is dropped.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) reads: mpsc::Receiver<Read>,
    _telling: AbortOnDropHandle<()>,
}

impl Source {
    pub(super) fn spawn(kafka: &KafkaSettings) -> Result<Self, KafkaError> {
        let consumer = settings(kafka).create_with_context(Quiet)?;
        let (tell, reads) = mpsc::channel(QUEUE);
        let telling = tokio::spawn(run(consumer, kafka.brokers.clone(), tell));
        Ok(Self { reads, _telling: AbortOnDropHandle::new(telling) })
    }
}

fn settings(kafka: &KafkaSettings) -> ClientConfig {
    let mut config = client_config(kafka);
    config
        .set("client.id", "footfall-directory")
        // Needed by the consumer, though it never joins.
        .set("group.id", "footfall-directory-unused")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        // Somebody waits for what was written a moment ago.
        .set("fetch.error.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "1000");
    config
}

/// Ends when nobody listens any more.
async fn run(consumer: StreamConsumer<Quiet>, brokers: String, tell: mpsc::Sender<Read>) {
    let mut unassigned = Some(consumer);
    let consumer = loop {
        let Some(consumer) = unassigned.take() else { return };
        let brokers = brokers.clone();
        let assigning = tokio::task::spawn_blocking(move || {
            let problem = assign(&consumer, &brokers).err();
            (consumer, problem)
        });
        let Ok((consumer, problem)) = assigning.await else { return };
        let Some(problem) = problem else { break consumer };
        if tell.send(Read::Problem(problem)).await.is_err() {
            return;
        }
        unassigned = Some(consumer);
        sleep(RETRY).await;
    };
    loop {
        let read = match consumer.recv().await {
            Ok(message) => Read::Record {
                offset: message.offset(),
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
            },
            Err(KafkaError::PartitionEOF(_)) => Read::End,
            // librdkafka reconnects by itself.
            Err(error) => Read::Problem(format!("{DIRECTORY} cannot be read: {error}")),
        };
        let is_problem = matches!(read, Read::Problem(_));
        if tell.send(read).await.is_err() {
            return;
        }
        if is_problem {
            sleep(RETRY).await;
        }
    }
}

fn assign(consumer: &StreamConsumer<Quiet>, brokers: &str) -> Result<(), String> {
    let metadata = consumer
        .fetch_metadata(Some(DIRECTORY), ANSWER_WITHIN)
        .map_err(|error| format!("kafka.brokers: {brokers} does not answer: {error}"))?;
    let topic = metadata.topics().first().filter(|topic| topic.error().is_none());
    match topic.map_or(0, |topic| topic.partitions().len()) {
        0 => return Err(format!("{DIRECTORY} is not there; `footfall migrate` makes it")),
        1 => {}
        // An entry's changes are in order within a partition only, and everybody must see the same order.
        count => return Err(format!("{DIRECTORY} has {count} partitions; make it anew with one")),
    }
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(DIRECTORY, 0, Offset::Beginning)
        .and_then(|()| consumer.assign(&from))
        .map_err(|error| format!("{DIRECTORY} cannot be read: {error}"))
}
