//! Every type that crosses a process: from the browser to ingest ([`tracker`]), from ingest over Kafka to the
//! aggregator ([`record`]), into ClickHouse ([`rows`], [`migrations`]), from the aggregator and the ingest nodes to
//! the dashboard nodes ([`live`], [`presence`]) and from there to a viewer's screen ([`viewer`]), and, when a rule of a
//! site fires ([`alert_rule`]), to whom its owner names ([`alert`], [`webhook`]); and what people set up ([`directory`]).
//!
//! `golden/*.json` holds one example of each wire type; the Rust and the TypeScript tests read the same files.

pub mod alert;
pub mod alert_rule;
pub mod connect;
pub mod directory;
pub mod event;
pub mod goal;
pub mod ids;
pub mod live;
pub mod migrations;
pub mod network;
pub mod page_rules;
pub mod partition_view;
pub mod payload;
pub mod presence;
pub mod record;
pub mod refusal;
pub mod rollup;
pub mod rows;
pub mod secret;
pub mod server;
pub mod site;
pub mod snippet;
pub mod time;
pub mod topics;
pub mod trace;
pub mod tracker;
pub mod tracker_settings;
pub mod viewer;
pub mod webhook;

pub use event::{EventKind, TrackerEvent};
pub use ids::{EventId, Sequence, SessionId, SiteId, StreamId, VisitorId};
pub use record::EventRecord;
pub use refusal::RejectReason;
pub use rollup::Dimension;
