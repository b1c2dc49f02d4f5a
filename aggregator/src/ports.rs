//! What a partition needs of the world, small enough to be played by a test.

use std::{collections::HashSet, sync::Arc};

use footfall_schemas::{
    EventId, SiteId,
    live::LiveRecord,
    rows::{RollingRow, SessionRow},
    trace::TraceParent,
};

use crate::{
    audit::Sample,
    block::Letter,
    error::{LogError, StoreError},
    partition::Stored,
    rows::Rows,
    snapshot::{Chunk, Found},
};

/// What the group keeps of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    pub(crate) metadata: String,
}

/// What the log sends to a partition's owner.
#[derive(Debug)]
pub(crate) enum Input {
    Record(RawRecord),
    /// The end of the log was reached: for now there is nothing after the records sent.
    End,
}

/// A record as it lies on Kafka; parsed by the partition's owner, so that partitions parse in parallel.
#[derive(Debug, Clone)]
pub(crate) struct RawRecord {
    pub(crate) offset: i64,
    /// ms since 1970.
    pub(crate) timestamp: i64,
    pub(crate) value: Vec<u8>,
    /// When a batch in it is traced.
    pub(crate) trace: Option<TraceParent>,
}

/// One assigned partition of `footfall.events`. Every call fails with [`LogError::Gone`] once it was taken away.
pub(crate) trait Log: Send + Sync + 'static {
    fn committed(&self) -> impl Future<Output = Result<Option<Committed>, LogError>> + Send;
    /// First offset held and the offset after the last.
    fn bounds(&self) -> impl Future<Output = Result<(i64, i64), LogError>> + Send;
    /// Sends the records from `offset` on to the inbox.
    fn start(&self, offset: i64) -> impl Future<Output = Result<(), LogError>> + Send;
    /// Returns once the group's coordinator has it.
    fn commit(&self, offset: i64, metadata: String) -> impl Future<Output = Result<(), LogError>> + Send;
    /// The owner took this many bytes of records out of its inbox.
    fn taken(&self, bytes: usize);
}

/// ClickHouse. Any error leaves in doubt whether the thing was done.
pub(crate) trait Store: Sample {
    /// One INSERT, dropped by the store when it has seen the token.
    fn insert_events(
        &self,
        partition: i32,
        token: &str,
        rows: &Rows,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Waits until no INSERT with a token that starts so is running.
    fn settle(&self, token_prefix: &str) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Offsets and indexes of the rows stored of `start..end`.
    fn present(
        &self,
        partition: i32,
        start: i64,
        end: i64,
    ) -> impl Future<Output = Result<HashSet<(i64, u16)>, StoreError>> + Send;
    /// Offset after the last row stored of the partition.
    fn end(&self, partition: i32) -> impl Future<Output = Result<i64, StoreError>> + Send;
    /// Where these events are stored, among the rows of offsets below `before`.
    fn look_up(
        &self,
        partition: i32,
        events: &[(SiteId, EventId)],
        before: i64,
    ) -> impl Future<Output = Result<Stored, StoreError>> + Send;
    fn insert_counts(&self, rows: &[RollingRow]) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn insert_sessions(&self, rows: &[SessionRow]) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Counts these minutes (ms) from the rows of offsets below `before`, and writes them with that version.
    fn recount(
        &self,
        partition: i32,
        minutes: &[(SiteId, i64)],
        before: i64,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The other topics.
pub(crate) trait Outlet: Send + Sync + 'static {
    /// Returns once the log has them all.
    fn send_letters(&self, letters: &[Letter]) -> impl Future<Output = Result<(), LogError>> + Send;
    /// `false` when it could not even be queued.
    fn tell(&self, record: &LiveRecord) -> bool;
    /// Returns once the log has them all, in this order.
    fn save(&self, partition: i32, chunks: Vec<Chunk>) -> impl Future<Output = Result<(), LogError>> + Send;
    /// The snapshots of a partition.
    fn saved(&self, partition: i32) -> impl Future<Output = Result<Found, LogError>> + Send;
}

/// The three, shared by a partition and its block on the way.
pub(crate) struct Ports<L, S, O> {
    pub(crate) log: Arc<L>,
    pub(crate) store: Arc<S>,
    pub(crate) outlet: Arc<O>,
}

impl<L, S, O> Clone for Ports<L, S, O> {
    fn clone(&self) -> Self {
        Self { log: self.log.clone(), store: self.store.clone(), outlet: self.outlet.clone() }
    }
}
