//! `footfall.v1`: JSON text frames between a tracker and an ingest node, over WebSocket (`/ws?k=SITE[&t=TOKEN]`) and,
//! one batch a request, over HTTP (`POST /e?k=SITE`, or as a pixel `GET /e.gif?k=SITE`). Unknown fields and unknown
//! frame types are ignored. `PROTOCOL.md` says all that a client has to know.
//!
//! An event is sent only with a visitor token (a resend must meet its first copy on one partition): over WebSocket the
//! welcome brings it, over HTTP an empty batch asks for it. The one exception is a last beacon of a page that never
//! got one; such events are never sent a second time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{EventKind, RejectReason, StreamId, refusal::RetryReason, tracker_settings::TrackerSettings};

pub const SUBPROTOCOL: &str = "footfall.v1";

/// Largest frame, body or batch in bytes, as it comes and when it is inflated.
pub const MAX_BATCH_BYTES: usize = 64 * 1024;
/// Largest single event in bytes of JSON.
pub const MAX_EVENT_BYTES: usize = 8 * 1024;
/// Most events in a batch.
pub const MAX_BATCH_EVENTS: usize = 256;
/// Most events of a pixel: its answer is a header.
pub const MAX_PIXEL_EVENTS: usize = 16;
/// How long trackers of a site that is switched off stay away.
pub const STOP_MS: u32 = 60 * 60 * 1_000;
/// Header with the answer to a pixel: an ack, nack, error or stop frame in ASCII.
pub const ANSWER_HEADER: &str = "footfall-answer";

/// Which frame a tracker sent. Read first, on its own: an internally tagged enum would buffer the whole frame, and
/// [`RawValue`] does not survive that buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct ClientTag {
    #[serde(rename = "t")]
    pub tag: ClientFrame,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientFrame {
    /// [`Batch`]
    Batch,
    /// [`Here`]
    Here,
    /// From a newer tracker: ignored.
    #[serde(other)]
    Unknown,
}

/// `{"t":"batch", …}`: consecutive events of one stream.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Batch {
    #[serde(rename = "t")]
    #[schemars(with = "String", extend("const" = "batch"))]
    pub tag: ClientFrame,
    pub stream: StreamId,
    /// Sequence of the first event; the others follow by one.
    pub first: u32,
    /// The tracker's monotonic clock (ms since page load) when it sent this.
    pub sent: i64,
    /// Visitor token these events were first sent with; the connection's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// What holds for all events of the batch.
    #[serde(default)]
    pub ctx: PageContext,
    /// Events that were evicted from the tracker's outbox since the last contact.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub evicted: u32,
    /// Each parsed on its own as [`crate::TrackerEvent`], so that a bad one refuses itself alone.
    #[schemars(with = "Vec<crate::TrackerEvent>")]
    pub events: Vec<Box<RawValue>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PageContext {
    /// Screen width in CSS pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub w: Option<u32>,
    /// Language (BCP 47).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l: Option<String>,
    /// Time zone (IANA).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub z: Option<String>,
}

/// `{"t":"here", …}`: which page is shown and whether it is visible; sent on change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Here {
    #[serde(rename = "t")]
    #[schemars(with = "String", extend("const" = "here"))]
    pub tag: ClientFrame,
    pub path: String,
    pub visible: bool,
}

/// What an ingest node sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum ServerFrame {
    /// First frame of a connection.
    Welcome(Welcome),
    /// A batch (or several in a row) is settled: in Kafka, or refused for good.
    Ack(Ack),
    /// A batch was not taken; nothing of it is settled.
    Nack(Nack),
    /// Send less often: batch for at least this long.
    Slow { linger_ms: u32 },
    /// The site's rate is exceeded: for so long, drop this share of these kinds before they are numbered.
    Sample { drop_percent: u8, kinds: Vec<EventKind>, for_ms: u32 },
    /// Nothing is taken: forget what is held, close, and do not come back for so long.
    Stop { reason: RejectReason, for_ms: u32 },
    /// A frame could not be attributed to a batch.
    Error { reason: RejectReason, detail: String },
    /// The node is about to close: reconnect after `retry_ms`.
    Bye { retry_ms: u32 },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Welcome {
    /// Visitor token: return it with every batch, reconnect and fallback request.
    pub token: String,
    pub node: String,
    /// The server's clock, ms since 1970.
    pub now: i64,
    pub limits: Limits,
    /// What the site asks of its trackers.
    #[serde(default, skip_serializing_if = "TrackerSettings::is_default")]
    pub settings: TrackerSettings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Limits {
    pub batch_events: u32,
    pub batch_bytes: u32,
    /// A peer silent for longer is dropped; the server pings in between.
    pub idle_ms: u32,
}

/// Events `first..=upto` of `stream` are settled; `refused` names those that were not stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ack {
    pub stream: StreamId,
    pub first: u32,
    pub upto: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refusal>,
    /// HTTP only: the visitor token to use from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// HTTP only, with the answer to an empty batch: what the site asks of its trackers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Box<TrackerSettings>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    pub seq: u32,
    pub reason: RejectReason,
    /// Names the field and the fix.
    pub detail: String,
}

/// Events `first..=upto` of `stream` were not taken: keep them, wait, send again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Nack {
    pub stream: StreamId,
    pub first: u32,
    pub upto: u32,
    pub reason: RetryReason,
    pub retry_ms: u32,
}

impl ServerFrame {
    /// Of a site that is switched off.
    pub fn site_disabled() -> Self {
        Self::Stop { reason: RejectReason::SiteDisabled, for_ms: STOP_MS }
    }
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}
