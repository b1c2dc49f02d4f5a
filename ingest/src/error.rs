//! Why an ingest node cannot start, or must stop.

use std::io;

use crate::{config::InvalidConfig, enrich::geography::BadDatabase, tls::TlsError};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    #[error("[kafka] the client does not start with these settings: {0}; correct brokers and properties")]
    KafkaSettings(#[source] rdkafka::error::KafkaError),
    #[error(
        "[kafka] brokers {brokers}: not reached within {waited_ms} ms ({source}); check that Kafka runs there"
    )]
    KafkaUnreachable {
        brokers: String,
        waited_ms: u64,
        #[source]
        source: rdkafka::error::KafkaError,
    },
    #[error("[kafka] topic {topic} is missing on {brokers}; create it with `footfall migrate`")]
    TopicMissing { topic: &'static str, brokers: String },
    /// librdkafka gave up for good; only a new process continues.
    #[error("[kafka] the producer stopped for good ({code}): {reason}; restart this node")]
    KafkaFatal { code: String, reason: String },
    #[error("[ingest.geography] database = {0}; correct the path, or leave it out")]
    Geography(#[from] BadDatabase),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("[ingest] TLS does not start: {0}")]
    TlsSettings(#[source] tokio_rustls::rustls::Error),
    #[error(
        "[ingest.spool] path: {}: {source}; make it a directory that this user can write, or set max_bytes = 0",
        path.display()
    )]
    Spool {
        path: std::path::PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("[ingest] listener: {0}")]
    Listener(#[source] io::Error),
}
