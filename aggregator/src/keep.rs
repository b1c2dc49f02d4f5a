//! Writes a block, exactly once whatever happens: boundary, dead letters, rows, counts, snapshot, in this order.
//!
//! Every INSERT carries a token, so that one that is repeated, or that arrives after its sender was given up, changes
//! nothing. A token is not enough: the store may remember it and have lost the rows. So after any doubt the rows are
//! asked for by their coordinates, and what is missing is inserted with the token of the next round.

use std::{borrow::Cow, sync::Arc, time::Instant};

use footfall_schemas::topics;
use tracing::{info, warn};

use crate::{
    block::{Block, Counts},
    config::Config,
    error::LogError,
    metrics::Metrics,
    ports::{Log, Outlet, Ports, Store},
    rows::Rows,
    snapshot::{self, Save},
    status::Status,
};

/// Minutes counted by one query.
const RECOUNT_MINUTES: usize = 200;
/// Rows of counts in one INSERT.
const COUNT_ROWS: usize = 100_000;

/// The partition was taken away: whatever is not yet written is the next owner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// Writes for one partition.
pub(crate) struct Keeper<L, S, O> {
    pub(crate) partition: i32,
    pub(crate) ports: Ports<L, S, O>,
    pub(crate) config: Arc<Config>,
    pub(crate) status: Arc<Status>,
    pub(crate) metrics: Metrics,
}

impl<L, S, O> Clone for Keeper<L, S, O> {
    fn clone(&self) -> Self {
        Self {
            partition: self.partition,
            ports: self.ports.clone(),
            config: self.config.clone(),
            status: self.status.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

impl<L: Log, S: Store, O: Outlet> Keeper<L, S, O> {
    /// Returns once everything is written. `in_doubt`: somebody may have inserted it before.
    pub(crate) async fn keep(
        &self,
        block: Block,
        counts: Counts,
        in_doubt: bool,
        save: Option<Save>,
    ) -> Result<(), Gone> {
        self.commit(block.start, block.boundary().to_string()).await?;
        self.retry("dead letters", || self.ports.outlet.send_letters(&block.letters)).await?;
        self.rows(&block, in_doubt).await?;
        self.counts(&counts, block.end).await?;
        if let (Some(save), Some(state)) = (save, &block.snapshot) {
            self.save(&save, block.end, state).await?;
        }
        self.metrics.blocks.add(1, &self.metrics.of(self.partition));
        Ok(())
    }

    /// Commits until the coordinator has it.
    pub(crate) async fn commit(&self, offset: i64, metadata: String) -> Result<(), Gone> {
        self.retry("commit", || self.ports.log.commit(offset, metadata.clone())).await
    }

    pub(crate) async fn save(&self, save: &Save, offset: i64, state: &[u8]) -> Result<(), Gone> {
        let chunks = snapshot::chunks(save, offset, state);
        self.retry("snapshot", || self.ports.outlet.save(self.partition, chunks.clone())).await
    }

    /// Writes counts as of `version`, all of whose rows are stored. Absolute values: writing them twice is harmless.
    pub(crate) async fn counts(&self, counts: &Counts, version: i64) -> Result<(), Gone> {
        for rows in counts.rows.chunks(COUNT_ROWS) {
            self.retry("rolling counts", || self.ports.store.insert_counts(rows)).await?;
        }
        for minutes in counts.recount.chunks(RECOUNT_MINUTES) {
            self.retry("recount", || self.ports.store.recount(self.partition, minutes, version)).await?;
        }
        for sessions in counts.sessions.chunks(COUNT_ROWS) {
            self.retry("sessions", || self.ports.store.insert_sessions(sessions)).await?;
        }
        Ok(())
    }

    async fn rows(&self, block: &Block, mut in_doubt: bool) -> Result<(), Gone> {
        if block.rows.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let token = format!("{}/{}/{}-{}", topics::EVENTS, self.partition, block.start, block.end);
        let mut backoff = self.config.backoff();
        let mut round = 0;
        loop {
            let missing =
                if in_doubt { self.missing(block, &token).await? } else { Cow::Borrowed(&block.rows) };
            if missing.is_empty() {
                break;
            }
            if in_doubt {
                // The look-up may have taken long: only who still owns the partition may insert.
                self.commit(block.start, block.boundary().to_string()).await?;
                self.metrics.reconciled.add(missing.len() as u64, &self.metrics.of(self.partition));
                info!(
                    partition = self.partition,
                    start = block.start,
                    end = block.end,
                    rows = block.rows.len(),
                    missing = missing.len(),
                    round,
                    "inserting what is missing of a block"
                );
            }
            let token = if round == 0 { token.clone() } else { format!("{token}/{round}") };
            match self.ports.store.insert_events(self.partition, &token, &missing).await {
                Ok(()) if !in_doubt => break,
                Ok(()) => round += 1,
                Err(error) => {
                    self.metrics.doubtful.add(1, &self.metrics.of(self.partition));
                    self.failed("insert of a block, its outcome is looked up", &error.to_string());
                    in_doubt = true;
                }
            }
            backoff.pause().await;
        }
        let took = began.elapsed().as_secs_f64();
        self.metrics.block_seconds.record(took, &self.metrics.of(self.partition));
        self.status.worked(self.partition);
        Ok(())
    }

    /// The block's rows that are not stored.
    async fn missing<'a>(&self, block: &'a Block, token: &str) -> Result<Cow<'a, Rows>, Gone> {
        self.retry("waiting for inserts on their way", || self.ports.store.settle(token)).await?;
        let present = self
            .retry("look-up of a block", || self.ports.store.present(self.partition, block.start, block.end))
            .await?;
        if present.is_empty() {
            return Ok(Cow::Borrowed(&block.rows));
        }
        let missing = block.rows.iter().filter(|row| !present.contains(&(row._offset, row._index)));
        let mut rows = Rows::default();
        missing.for_each(|row| rows.put(&row));
        Ok(Cow::Owned(rows))
    }

    /// Never gives up: what cannot be written now holds the partition back, visibly.
    pub(crate) async fn retry<T, E, F>(&self, what: &'static str, attempt: impl Fn() -> F) -> Result<T, Gone>
    where
        E: Into<Failure>,
        F: Future<Output = Result<T, E>>,
    {
        let mut backoff = self.config.backoff();
        loop {
            match attempt().await.map_err(Into::into) {
                Ok(done) => return Ok(done),
                Err(Failure::Gone) => return Err(Gone),
                Err(Failure::Again(reason)) => self.failed(what, &reason),
            }
            backoff.pause().await;
        }
    }

    fn failed(&self, what: &'static str, reason: &str) {
        warn!(partition = self.partition, what, reason, "failed; trying again");
        self.metrics.failures.add(1, &self.metrics.of(self.partition));
        self.status.failed(self.partition, format!("{what}: {reason}"));
    }
}

/// An error as the loop above sees it.
pub(crate) enum Failure {
    Gone,
    Again(String),
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Gone => Self::Gone,
            LogError::Retry(reason) => Self::Again(reason),
        }
    }
}

impl From<crate::error::StoreError> for Failure {
    fn from(error: crate::error::StoreError) -> Self {
        Self::Again(error.0)
    }
}
