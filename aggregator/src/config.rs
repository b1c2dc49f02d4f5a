//! `[aggregator]`

use std::time::Duration;

use serde::Deserialize;

use crate::{dedupe, error::Error, partition::Limits};

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
    /// How often changed windows are told on the live topic.
    pub live_ms: u64,
    /// How often a site's whole windows are told.
    pub live_full_ms: u64,
    /// Longest top list told, by site, partition and dimension. Beyond it the list says that it is cut.
    pub live_values: usize,
    /// Most distinct values of a dimension counted in memory, by site, partition and minute. A minute with more is
    /// counted by ClickHouse when it is written, so `rolling_counts` stays exact; the live list says that it is cut.
    pub minute_values: usize,
    /// How often the state is kept while it changes; bounds the replay after a restart.
    pub snapshot_ms: u64,
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
            minute_values: 10_000,
            snapshot_ms: 30_000,
            audit_ms: 60_000,
            stream_horizon_ms: 6 * 60 * 60 * 1_000,
            streams: 500_000,
            inbox_bytes: 8 << 20,
            insert_timeout_ms: 60_000,
            query_timeout_ms: 30_000,
            backoff_ms: 100,
            backoff_max_ms: 5_000,
            session_timeout_ms: 10_000,
            static_membership: false,
            drain_ms: 10_000,
            revoke_ms: 3_000,
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
        if self.streams == 0 || self.minute_values == 0 || self.live_values == 0 {
            return invalid("streams / minute_values / live_values", "must be at least 1");
        }
        if self.block_bytes == 0 || self.inbox_bytes == 0 {
            return invalid("block_bytes / inbox_bytes", "must be at least 1");
        }
        if self.session_timeout_ms < 1_000 {
            return invalid("session_timeout_ms", "must be at least 1000");
        }
        Ok(())
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            lateness_ms: self.lateness_ms,
            minute_values: self.minute_values,
            live_values: self.live_values,
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
