//! What can go wrong, by what its reader should do.

/// A fault that waiting does not heal: the role stops with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("[aggregator] {field} {reason}")]
    Config { field: &'static str, reason: &'static str },
    #[error("[kafka] the {client} cannot be made: {source}; check brokers and properties")]
    Kafka { client: &'static str, source: rdkafka::error::KafkaError },
    #[error(
        "partition {partition} of {topic} holds offsets {low} to {high}, but {wanted} is to be read next: records were \
         deleted before they were counted, or the log was replaced. Set the offset of group {group} by hand to go on"
    )]
    OutOfRange { topic: &'static str, group: &'static str, partition: i32, low: i64, high: i64, wanted: i64 },
    #[error(
        "partition {partition} of {topic} carries the commit metadata {metadata:?}, which this version does not know: \
         start the version that wrote it, or a newer one"
    )]
    Metadata { topic: &'static str, partition: i32, metadata: String },
    #[error("[kafka] {0}")]
    Log(String),
    #[error("the aggregator's {0} ended unexpectedly")]
    Ended(&'static str),
}

/// Why the log did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LogError {
    /// The partition belongs to somebody else, or to a newer assignment. Nothing more may be written for it.
    #[error("the partition was taken away")]
    Gone,
    #[error("{0}")]
    Retry(String),
}

/// Why the store did not do what was asked. In doubt either way: it may have been done, wholly or in part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub(crate) String);
