//! `[aggregator]`

use std::time::Duration;

use serde::Deserialize;

use crate::{
    alerts::{Alerts, Webhooks},
    dedupe,
    error::Error,
    minute::Bounds,
    partition::Limits,
    site::SiteBounds,
};

/// What dedupe can tell the age of.
const MAX_HORIZON_MS: i64 = 20 * 24 * 60 * 60 * 1_000;

/// Every field has a default; bytes, rows and ms are in the names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A block is written when it has this many rows, …
    pub block_rows: usize,
    /// … this many bytes of records, …
    pub block_bytes: usize,
    /// … or is this old.
    pub block_ms: u64,
    /// How long after a minute's end its events are not yet late.
    pub lateness_ms: i64,
    /// Changed windows are told on the live topic at once, but no oftener than this.
    pub live_ms: u64,
    /// How often a site's whole windows are told.
    pub live_full_ms: u64,
    /// Longest top list told, by site, partition and dimension. Beyond it the list says that it is cut.
    pub live_values: usize,
    /// Most values of a dimension counted in memory, by site, partition and minute; beyond it the most counted ones are
    /// kept. Such a minute is counted by ClickHouse when it is written, so `rolling_counts` stays exact; the live list
    /// tells its error.
    pub minute_values: usize,
    /// Most visitors of a site and partition known one by one, in its windows; a quarter as many in a minute. Beyond it
    /// a sample of so many is kept, and the live view tells the error.
    pub exact_visitors: usize,
    /// How much a partition's sites may hold together. Beyond it the largest site is halved, in what it knows exactly,
    /// until all fit; the others keep what they have.
    pub partition_bytes: usize,
    /// While a partition is busy, minutes that only ClickHouse can count are counted this often.
    pub recount_ms: u64,
    /// How often the state is kept while it changes, and after how many events at the latest, by partition; bounds the
    /// replay after a restart.
    pub snapshot_ms: u64,
    pub snapshot_events: u64,
    /// How often what was written is compared with the log; 0 is never.
    pub audit_ms: u64,
    /// How long a stream is remembered after its last event. What is older is looked up in ClickHouse.
    pub stream_horizon_ms: i64,
    /// Most streams remembered by partition. What is forgotten is looked up in ClickHouse.
    pub streams: usize,
    /// Records waiting by partition. Full: the partition is paused, so the log holds them.
    pub inbox_bytes: usize,
    /// One INSERT must be answered within this time; then its outcome is in doubt and is looked up.
    pub insert_timeout_ms: u64,
    /// Any other query must be answered within this time.
    pub query_timeout_ms: u64,
    /// First pause after a failure; doubles up to `backoff_max_ms`.
    pub backoff_ms: u64,
    pub backoff_max_ms: u64,
    /// A member that is silent for this long loses its partitions.
    pub session_timeout_ms: u64,
    /// Keeps partitions over a restart: the member's name becomes its `group.instance.id`.
    pub static_membership: bool,
    /// Time to write the open blocks when stopping.
    pub drain_ms: u64,
    /// Time for a block on its way when its partition is taken away.
    pub revoke_ms: u64,
    pub alerts: Alerts,
    pub webhooks: Webhooks,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            block_rows: 50_000,
            block_bytes: 32 << 20,
            block_ms: 1_000,
            lateness_ms: 10_000,
            live_ms: 250,
            live_full_ms: 3_000,
            live_values: 200,
            minute_values: 2_000,
            exact_visitors: 262_144,
            partition_bytes: 256 << 20,
            recount_ms: 10_000,
            snapshot_ms: 30_000,
            snapshot_events: 300_000,
            audit_ms: 60_000,
            stream_horizon_ms: 6 * 60 * 60 * 1_000,
            streams: 450_000,
            inbox_bytes: 8 << 20,
            insert_timeout_ms: 60_000,
            query_timeout_ms: 30_000,
            backoff_ms: 100,
            backoff_max_ms: 5_000,
            session_timeout_ms: 10_000,
            static_membership: false,
            drain_ms: 10_000,
            revoke_ms: 3_000,
            alerts: Alerts::default(),
            webhooks: Webhooks::default(),
        }
    }
}

impl Config {
    /// Refuses at boot what could never work.
    pub fn check(&self) -> Result<(), Error> {
        let invalid = |field, reason| Err(Error::Config { field, reason });
        if self.block_rows == 0 || self.block_rows > 1_000_000 {
            return invalid("block_rows", "must lie between 1 and 1000000: one block is one INSERT");
        }
        if self.block_ms == 0 || self.live_ms == 0 {
            return invalid("block_ms / live_ms", "must be at least 1");
        }
        if self.lateness_ms < 0 || self.stream_horizon_ms <= 0 {
            return invalid("lateness_ms / stream_horizon_ms", "must not be negative");
        }
        if self.stream_horizon_ms > MAX_HORIZON_MS {
            return invalid("stream_horizon_ms", "must be at most 1728000000 (20 days)");
        }
        if self.streams == 0 || self.minute_values == 0 || self.live_values == 0 || self.exact_visitors == 0 {
            return invalid("streams / minute_values / live_values / exact_visitors", "must be at least 1");
        }
        if self.partition_bytes < 1 << 20 {
            return invalid("partition_bytes", "must be at least 1048576 (1 MiB)");
        }
        if self.block_bytes == 0 || self.inbox_bytes == 0 {
            return invalid("block_bytes / inbox_bytes", "must be at least 1");
        }
        if self.session_timeout_ms < 1_000 {
            return invalid("session_timeout_ms", "must be at least 1000");
        }
        self.webhooks.check()
    }

    pub(crate) fn limits(&self) -> Limits {
        let minute_visitors = (self.exact_visitors / 4).max(1);
        Limits {
            lateness_ms: self.lateness_ms,
            site: SiteBounds {
                // As many as a visitor has values, on a page of an ordinary site.
                minute: Bounds {
                    values: self.minute_values,
                    visitors: minute_visitors,
                    pairs: 8 * minute_visitors,
                },
                visitors: self.exact_visitors,
            },
            live_values: self.live_values,
            bytes: self.partition_bytes,
            dedupe: dedupe::Bounds { horizon_ms: self.stream_horizon_ms, streams: self.streams },
        }
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff { next: self.backoff_ms.max(1), max: self.backoff_max_ms.max(1) }
    }
}

/// Pauses between attempts, doubling. Without jitter: a partition has one owner, so nobody retries in step with it.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    next: u64,
    max: u64,
}

impl Backoff {
    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.next)).await;
        self.next = (self.next * 2).min(self.max);
    }
}
