//! Presence: what every ingest node says once a second of each site it has visitors of. Costs per site, not per
//! connection.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{RejectReason, SiteId};

/// A node that is silent for longer counts zero.
pub const SILENCE_MS: i64 = 5_000;
/// A visitor stays online for this long after the last socket closed, so that going from page to page does not flicker.
pub const LINGER_MS: i64 = 3_000;

/// Value of a record on `footfall.presence`. Absolute: the newest of a node and site holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PresenceReport {
    pub node: String,
    /// When the node started (ms since 1970). Ledger counters start at zero then.
    pub started_at: i64,
    pub site: SiteId,
    /// When this was told (ms since 1970).
    pub at: i64,
    /// Visitors with an open connection, those lingering included.
    pub online: u32,
    /// Of these, with the page visible.
    pub visible: u32,
    /// Pages with the most visitors, at most 20.
    #[serde(default)]
    pub pages: BTreeMap<String, u32>,
    #[serde(default)]
    pub ledger: IngestLedger,
}

/// What became of the events of a site on one node since it started.
/// `received = accepted + refused + retried + in flight`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct IngestLedger {
    pub received: u64,
    /// Acked: in Kafka.
    pub accepted: u64,
    #[serde(default)]
    pub refused: BTreeMap<RejectReason, u64>,
    /// Not taken, told to come again.
    #[serde(default)]
    pub retried: u64,
    /// Lost in a tracker's bounded outbox, as the trackers report it.
    #[serde(default)]
    pub evicted: u64,
}
