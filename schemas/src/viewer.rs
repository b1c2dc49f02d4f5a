//! `footfall-live.v1`: JSON text frames between a dashboard node and a viewer's page (`/live`). A viewer subscribes to
//! a site and gets a snapshot, then deltas, each with an epoch and a sequence. A page that sees a gap subscribes again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{RejectReason, SiteId, live::LiveState};

pub const SUBPROTOCOL: &str = "footfall-live.v1";

/// What a viewer sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum ViewerRequest {
    /// Replaces the connection's subscription.
    Subscribe {
        site: SiteId,
        /// What the page has; answered by the missing deltas when the node still has them, else by a snapshot.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resume: Option<Position>,
    },
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
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ViewUpdate {
    pub site: SiteId,
    #[serde(flatten)]
    pub position: Position,
    /// The node's clock when this was made (ms since 1970).
    pub now: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online: Option<Online>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freshness: Option<Freshness>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<SiteLedger>,
    #[serde(default)]
    pub live: LiveState,
}

/// Connected now, over all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Online {
    pub visitors: u64,
    pub visible: u64,
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
