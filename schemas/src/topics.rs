//! The Kafka topics.

/// Accepted events, packed ([`crate::record`]). Partitioned by site and visitor.
pub const EVENTS: &str = "footfall.events";
/// What was refused ([`crate::record::DeadLetter`]).
pub const DEAD_LETTERS: &str = "footfall.dead-letters";
/// Live windows per site and partition ([`crate::live`]). Key: `site/partition`.
pub const LIVE: &str = "footfall.live";
/// Connected visitors per node and site, once a second ([`crate::presence`]). Key: `node/site`.
pub const PRESENCE: &str = "footfall.presence";
/// State of each events partition at a known offset; as many partitions as [`EVENTS`], compacted.
pub const SNAPSHOTS: &str = "footfall.snapshots";
/// State of each alert rule that has fired ([`crate::alert`]), compacted. Key: `site/rule`.
pub const ALERTS: &str = "footfall.alerts";
/// Sites, users, keys and links ([`crate::directory`]), compacted. Key: `kind/id`.
pub const DIRECTORY: &str = "footfall.directory";

/// How a topic is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicSpec {
    pub name: &'static str,
    /// As many as the events topic has, or one.
    pub like_events: bool,
    pub configs: &'static [(&'static str, &'static str)],
}

/// All topics. Events outlive the resend window, and have the broker's time: no node's clock may move the windows. Live
/// and presence are worth minutes.
pub const ALL: &[TopicSpec] = &[
    TopicSpec {
        name: EVENTS,
        like_events: true,
        configs: &[("retention.ms", "691200000"), ("message.timestamp.type", "LogAppendTime")],
    },
    TopicSpec { name: DEAD_LETTERS, like_events: false, configs: &[("retention.ms", "2592000000")] },
    TopicSpec {
        name: LIVE,
        like_events: false,
        configs: &[("retention.ms", "600000"), ("segment.ms", "120000"), ("segment.bytes", "16777216")],
    },
    TopicSpec {
        name: PRESENCE,
        like_events: false,
        configs: &[("retention.ms", "600000"), ("segment.ms", "120000"), ("segment.bytes", "16777216")],
    },
    TopicSpec {
        name: SNAPSHOTS,
        like_events: true,
        configs: &[
            ("cleanup.policy", "compact"),
            ("segment.bytes", "16777216"),
            ("max.message.bytes", "2097152"),
        ],
    },
    TopicSpec {
        name: ALERTS,
        like_events: false,
        configs: &[("cleanup.policy", "compact"), ("segment.bytes", "16777216")],
    },
    TopicSpec {
        name: DIRECTORY,
        like_events: false,
        configs: &[("cleanup.policy", "compact"), ("segment.bytes", "16777216")],
    },
];
