//! `footfall-live.v1`: JSON text frames between a dashboard node and a viewer's page (`/live`). A viewer subscribes to
//! a site and gets a snapshot, then deltas, each with an epoch and a sequence. A page that sees a gap subscribes again.
//!
//! The same frames come as server-sent events (`/live/events?site=&filter=`), where `id:` is `EPOCH-SEQ`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{EventId, EventKind, RejectReason, SiteId, alert::Alert, live::LiveState};

pub const SUBPROTOCOL: &str = "footfall-live.v1";

/// What a viewer sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "t", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)] // read, answered and dropped, one at a time
pub enum ViewerRequest {
    /// Replaces the connection's subscription.
    Subscribe {
        site: SiteId,
        /// Only what matches is counted.
        #[serde(default, skip_serializing_if = "Filter::is_empty")]
        filter: Filter,
        /// What the page has; answered by the missing deltas when the node still has them, else by a snapshot.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resume: Option<Position>,
    },
    /// Starts or stops the events themselves, of the site and filter subscribed to ([`ViewerFrame::Events`]).
    Feed { on: bool },
}

/// Only events that match all that is given are counted. Values as in the lists of the live view.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referrer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub campaign: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub browser: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Name of a goal of the site: visitors who have reached it in the half hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<String>,
}

impl Filter {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether this shows nothing that `wider` does not: all that `wider` gives is given, and is the same.
    pub fn is_within(&self, wider: &Self) -> bool {
        self.values().into_iter().zip(wider.values()).all(|(own, wider)| wider.is_none() || own == wider)
    }

    /// Of every field, in one order.
    pub fn values(&self) -> [Option<&str>; 9] {
        let Self { page, referrer, channel, campaign, country, browser, system, device, goal } = self;
        [page, referrer, channel, campaign, country, browser, system, device, goal].map(Option::as_deref)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Position {
    pub epoch: u64,
    pub seq: u64,
}

/// What a dashboard node sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum ViewerFrame {
    /// Replaces what the page holds.
    Snapshot(ViewUpdate),
    /// Applies to `seq − 1` of the same epoch.
    Delta(ViewUpdate),
    /// Nothing changed; the connection lives.
    Heartbeat {
        /// The node's clock, ms since 1970.
        now: i64,
    },
    /// The newest events, oldest first; at a high rate not all of them.
    Events {
        site: SiteId,
        events: Vec<FeedEvent>,
        /// Events left out since the frame before.
        #[serde(default, skip_serializing_if = "is_zero")]
        skipped: u64,
    },
    Error {
        reason: ViewerError,
        detail: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ViewerError {
    UnknownSite,
    NotAllowed,
    Malformed,
    /// More distinct filters are watched than this node computes: try later, or without.
    TooManyFilters,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// An event as a list of events shows it. Who it was is not told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FeedEvent {
    pub id: EventId,
    /// ms since 1970.
    pub received_at: i64,
    pub kind: EventKind,
    /// Custom event's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub page: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub referrer: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub channel: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub country: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub browser: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ViewUpdate {
    pub site: SiteId,
    #[serde(flatten)]
    pub position: Position,
    /// The node's clock when this was made (ms since 1970).
    pub now: i64,
    /// Of a filtered view only where presence tells it: for a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online: Option<Online>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freshness: Option<Freshness>,
    /// Of the whole site; a filtered view has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<SiteLedger>,
    #[serde(default)]
    pub live: LiveState,
    /// Goals reached in the last 30 minutes, by name: completions. As a change: only what changed; 0 stays in the list.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub goals: BTreeMap<String, u64>,
    /// Alerts that are open, and those resolved in the last half hour, newest first; all of them whenever one changes.
    /// A filtered view has none: a rule is of the whole site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alerts: Option<Vec<Alert>>,
}

/// Connected now, over all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Online {
    pub visitors: u64,
    /// Of these, with the page visible. Absent where only a page's visitors are told, of whom that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible: Option<u64>,
    /// Pages shown now, by visitors.
    pub pages: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Freshness {
    /// Log time (ms since 1970) up to which every live partition is told; 0 when nothing is known yet.
    pub clock: i64,
    /// Received-at of the newest event counted in (ms since 1970).
    pub newest: i64,
    /// Partitions whose aggregator has been silent for too long: numbers are stale.
    pub silent_partitions: u32,
    /// Ingest nodes that report.
    pub nodes: u32,
}

/// `received = stored + duplicate + refused + in flight`, summed over the ingest nodes that run now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SiteLedger {
    pub received: u64,
    pub accepted: u64,
    pub refused: BTreeMap<RejectReason, u64>,
    pub retried: u64,
    pub evicted: u64,
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    #[rstest]
    #[case::all_of_all(json!({}), json!({}), true)]
    #[case::part_of_all(json!({"page": "/a"}), json!({}), true)]
    #[case::all_of_a_part(json!({}), json!({"page": "/a"}), false)]
    #[case::the_same(json!({"page": "/a"}), json!({"page": "/a"}), true)]
    #[case::another(json!({"page": "/b"}), json!({"page": "/a"}), false)]
    #[case::of_another_field(json!({"referrer": "/a"}), json!({"page": "/a"}), false)]
    #[case::narrower(json!({"page": "/a", "goal": "g"}), json!({"page": "/a"}), true)]
    #[case::one_of_two(json!({"page": "/a"}), json!({"page": "/a", "goal": "g"}), false)]
    fn a_filter_is_within_a_wider_one(#[case] own: Value, #[case] wider: Value, #[case] within: bool) {
        let read = |filter| serde_json::from_value::<Filter>(filter).unwrap();
        assert_eq!(read(own).is_within(&read(wider)), within);
    }
}
