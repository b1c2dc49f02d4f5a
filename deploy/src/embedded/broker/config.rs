//! What the operator chooses for the broker, and what a topic's owner chooses for a topic.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything the broker can be told. `..BrokerConfig::default()` fills in what is not of interest.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Topics, offsets and producer ids live below this directory; one broker at a time may use it.
    pub data_dir: PathBuf,
    /// Where clients connect. Port 0 lets the system choose; ask [`super::Broker::address`].
    pub listen: SocketAddr,
    /// Host and port told to clients. `None`: the address on which the client reached the broker.
    pub advertised: Option<(String, u16)>,
    /// Partitions of a topic whose creator does not say.
    pub default_partitions: u16,
    /// Create a topic when a client asks for its metadata and allows it. Off: the client is told that it is unknown.
    pub auto_create_topics: bool,
    /// Partitions in the whole broker; each costs a directory, an open file per segment and a task.
    pub max_partitions: usize,
    /// What a topic has where its creator does not say.
    pub topic_defaults: TopicConfig,
    /// Largest request; a longer one closes its connection.
    pub max_frame_bytes: usize,
    /// Requests held in memory at once, over all connections. Full: sockets are not read, so TCP slows the clients.
    pub max_in_flight_bytes: usize,
    /// More connections than this are closed at once.
    pub max_connections: usize,
    /// Shortest and longest session timeout a group member may ask for.
    pub session_timeout: (Duration, Duration),
    /// How often retention and compaction look at the partitions.
    pub maintenance_interval: Duration,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("kafka"),
            listen: SocketAddr::from(([127, 0, 0, 1], 9092)),
            advertised: None,
            default_partitions: 1,
            auto_create_topics: false,
            max_partitions: 2_000,
            topic_defaults: TopicConfig::default(),
            max_frame_bytes: 100 << 20,
            max_in_flight_bytes: 256 << 20,
            max_connections: 1_000,
            session_timeout: (Duration::from_millis(100), Duration::from_secs(1_800)),
            maintenance_interval: Duration::from_secs(10),
        }
    }
}

/// A topic's settings under Kafka's names; durations are milliseconds, `None` is Kafka's -1 (no limit).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TopicConfig {
    /// `cleanup.policy` contains `delete`.
    pub delete: bool,
    /// `cleanup.policy` contains `compact`.
    pub compact: bool,
    /// `retention.ms`
    pub retention_ms: Option<i64>,
    /// `retention.bytes`, per partition.
    pub retention_bytes: Option<u64>,
    /// `segment.bytes`: a segment that would grow past this is closed and a new one begun.
    pub segment_bytes: u64,
    /// `segment.ms`: a segment older than this is closed at the next append.
    pub segment_ms: i64,
    /// `max.message.bytes`: the largest record batch, compressed.
    pub max_message_bytes: usize,
    /// `message.timestamp.type` is `LogAppendTime`: records have the time at which the broker took them.
    pub log_append_time: bool,
    /// `delete.retention.ms`: how long compaction keeps a tombstone for readers to see.
    pub delete_retention_ms: i64,
    /// `min.cleanable.dirty.ratio`: compaction waits until this share of the log is new.
    pub min_cleanable_dirty_ratio: f64,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            delete: true,
            compact: false,
            retention_ms: Some(7 * 24 * 3_600_000),
            retention_bytes: None,
            segment_bytes: 128 << 20,
            segment_ms: 7 * 24 * 3_600_000,
            max_message_bytes: 1_048_588,
            log_append_time: false,
            delete_retention_ms: 24 * 3_600_000,
            min_cleanable_dirty_ratio: 0.5,
        }
    }
}

/// Why a topic's setting is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopicConfig {
    #[error("unknown topic config name: {0}")]
    Unknown(String),
    #[error("invalid value {value:?} for {name}: expected {expected}")]
    Value { name: String, value: String, expected: &'static str },
}

/// Settings that clients may state as long as they state what this broker does anyway.
const FIXED: [(&str, &str); 2] = [("compression.type", "producer"), ("min.insync.replicas", "1")];

impl TopicConfig {
    /// The defaults with a topic's own settings laid over them.
    pub fn with(mut self, overrides: &BTreeMap<String, String>) -> Result<Self, InvalidTopicConfig> {
        for (name, value) in overrides {
            self.set(name, value)?;
        }
        Ok(self)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), InvalidTopicConfig> {
        let invalid =
            |expected| InvalidTopicConfig::Value { name: name.to_owned(), value: value.to_owned(), expected };
        let number = |least: i64, expected| {
            value
                .trim()
                .parse::<i64>()
                .ok()
                .filter(|number| *number >= least)
                .ok_or_else(|| invalid(expected))
        };
        let limit = |expected| number(-1, expected).map(|number| (number >= 0).then_some(number));
        match name {
            "cleanup.policy" => {
                let policies: Vec<&str> = value.split(',').map(str::trim).collect();
                if !policies.iter().all(|policy| matches!(*policy, "delete" | "compact")) {
                    return Err(invalid("delete, compact or both"));
                }
                self.delete = policies.contains(&"delete");
                self.compact = policies.contains(&"compact");
            }
            "retention.ms" => self.retention_ms = limit("milliseconds, or -1 for no limit")?,
            "retention.bytes" => {
                self.retention_bytes = limit("bytes, or -1 for no limit")?.map(i64::cast_unsigned);
            }
            "segment.bytes" => {
                self.segment_bytes = number(1 << 20, "at least 1048576 bytes")?.cast_unsigned();
            }
            "segment.ms" => self.segment_ms = number(1, "at least 1 millisecond")?,
            "max.message.bytes" => {
                self.max_message_bytes =
                    usize::try_from(number(0, "bytes")?).map_err(|_| invalid("bytes"))?;
            }
            "message.timestamp.type" => {
                self.log_append_time = match value {
                    "CreateTime" => false,
                    "LogAppendTime" => true,
                    _ => return Err(invalid("CreateTime or LogAppendTime")),
                };
            }
            "delete.retention.ms" => self.delete_retention_ms = number(0, "milliseconds")?,
            "min.cleanable.dirty.ratio" => {
                self.min_cleanable_dirty_ratio = value
                    .parse()
                    .ok()
                    .filter(|ratio| (0.0..=1.0).contains(ratio))
                    .ok_or_else(|| invalid("a number from 0 to 1"))?;
            }
            _ => match FIXED.iter().find(|(fixed, _)| *fixed == name) {
                Some((_, only)) if *only == value => {}
                Some((_, only)) => return Err(invalid(only)),
                None => return Err(InvalidTopicConfig::Unknown(name.to_owned())),
            },
        }
        Ok(())
    }

    /// Every setting with its value, as DescribeConfigs shows it.
    #[must_use]
    pub fn entries(&self) -> Vec<(&'static str, String)> {
        let limit = |value: Option<i64>| value.unwrap_or(-1).to_string();
        let policy = match (self.compact, self.delete) {
            (true, true) => "compact,delete",
            (true, false) => "compact",
            _ => "delete",
        };
        let mut entries = vec![
            ("cleanup.policy", policy.to_owned()),
            ("delete.retention.ms", self.delete_retention_ms.to_string()),
            ("max.message.bytes", self.max_message_bytes.to_string()),
            (
                "message.timestamp.type",
                if self.log_append_time { "LogAppendTime" } else { "CreateTime" }.to_owned(),
            ),
            ("min.cleanable.dirty.ratio", self.min_cleanable_dirty_ratio.to_string()),
            ("retention.bytes", limit(self.retention_bytes.map(u64::cast_signed))),
            ("retention.ms", limit(self.retention_ms)),
            ("segment.bytes", self.segment_bytes.to_string()),
            ("segment.ms", self.segment_ms.to_string()),
        ];
        entries.extend(FIXED.iter().map(|(name, value)| (*name, (*value).to_owned())));
        entries.sort_unstable();
        entries
    }
}
