//! `POST /api/v1/events`: what servers send, signed with a site's secret, and what they are told of each event.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{EventId, RejectReason, TrackerEvent, refusal::RetryReason, tracker::PageContext};

/// Largest body in bytes, as it comes and when it is inflated.
pub const MAX_REQUEST_BYTES: usize = 1024 * 1024;
pub const MAX_REQUEST_EVENTS: usize = 1_000;
/// How far the sender's clock may be from the node's; and how far ahead an event's time may lie.
pub const MAX_SKEW_MS: i64 = 5 * 60 * 1_000;
/// Longest `idempotency` and `visitor`.
pub const MAX_KEY_BYTES: usize = 256;

/// Key of the site.
pub const SITE_HEADER: &str = "footfall-site";
/// Seconds since 1970 by the sender's clock.
pub const TIMESTAMP_HEADER: &str = "footfall-timestamp";
/// `v1=` and HMAC-SHA256, in hex, of site, LF, timestamp, LF and the body as it is sent, with the site's secret.
pub const SIGNATURE_HEADER: &str = "footfall-signature";

/// The body.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EventsRequest {
    /// Each parsed on its own as [`ServerEvent`], so that a bad one refuses itself alone.
    #[schemars(with = "Vec<ServerEvent>")]
    pub events: Vec<Box<RawValue>>,
}

/// A tracker's event with an identity, a visitor and a time of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServerEvent {
    /// Here `at` is absolute: ms since 1970, at most 7 days ago and at most 5 minutes ahead.
    #[serde(flatten)]
    pub event: TrackerEvent,
    /// A UUID whose last 32 bits are no zero: the same for every resend. Either this or `idempotency`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<EventId>,
    /// Any text of 1 to 256 bytes, the same for every resend; the id is made from it and the site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<String>,
    /// Any text of 1 to 256 bytes, the same for every event of a visitor. Only a keyed hash of it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visitor: Option<String>,
    /// The visitor's address. With `user_agent` it stands in for `visitor`, as for a tracker's; it is not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The visitor's browser; tells browser, system and device. It is not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctx: Option<PageContext>,
}

/// The answer, once Kafka has what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventsAnswer {
    /// As many as there were events, in their order.
    pub results: Vec<EventResult>,
}

impl EventsAnswer {
    /// Why the first event that is to be sent again was not taken, and the longest time to wait.
    pub fn first_retry(&self) -> Option<(RetryReason, u32)> {
        let mut retries = self.results.iter().filter_map(|result| match result {
            EventResult::Retry { reason, retry_ms, .. } => Some((*reason, *retry_ms)),
            EventResult::Accepted { .. } | EventResult::Refused { .. } => None,
        });
        let (reason, first_ms) = retries.next()?;
        Some((reason, retries.map(|(_, retry_ms)| retry_ms).max().unwrap_or_default().max(first_ms)))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum EventResult {
    /// In Kafka.
    Accepted { id: EventId },
    /// Settled, not stored. Sent again as it is, it is refused again.
    Refused {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<EventId>,
        reason: RejectReason,
        /// Names the field and the fix.
        detail: String,
    },
    /// Not taken: send it again after `retry_ms`.
    Retry { id: EventId, reason: RetryReason, retry_ms: u32 },
}
