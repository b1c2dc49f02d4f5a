//! Owns one assigned partition: rebuilds its state from a snapshot and the log, and finds out what its last owner left
//! half done. Then [`Work`] begins.

use std::sync::Arc;

use footfall_schemas::{directory::Directory, topics};
use tokio::sync::{Semaphore, mpsc::UnboundedReceiver, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    block::Boundary,
    error::Error,
    keep::{Gone, Keeper},
    partition::Partition,
    ports::{Input, Log, Outlet, Store},
    session::gaps_of,
    snapshot::Slots,
    status::Phase,
    work::Work,
};

pub(crate) type WallClock = Arc<dyn Fn() -> i64 + Send + Sync>;

pub(crate) struct Driver<L, S, O> {
    pub(crate) keeper: Keeper<L, S, O>,
    /// The sites as they are set up at any time.
    pub(crate) directory: watch::Receiver<Arc<Directory>>,
    pub(crate) inbox: UnboundedReceiver<Input>,
    /// ms since 1970.
    pub(crate) wall: WallClock,
    /// When the partition was assigned (ms since 1970).
    pub(crate) epoch: u64,
    /// One round of the audit at a time, whoever's: it must not be felt.
    pub(crate) audits: Arc<Semaphore>,
    /// Write what is open, then end.
    pub(crate) drain: CancellationToken,
    /// The partition was taken away: end soon.
    pub(crate) revoked: CancellationToken,
}

/// Why a partition's work ended early.
pub(crate) enum End {
    Gone,
    Fault(Error),
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl<L: Log, S: Store, O: Outlet> Driver<L, S, O> {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let restored = tokio::select! {
            () = self.revoked.cancelled() => return Ok(()),
            () = self.drain.cancelled() => return Ok(()),
            restored = self.restore() => restored,
        };
        let work = match restored {
            Ok((partition, plan)) => Work::new(self, partition, plan).run().await,
            Err(end) => Err(end),
        };
        match work {
            Ok(()) | Err(End::Gone) => Ok(()),
            Err(End::Fault(fault)) => Err(fault),
        }
    }

    /// The state from which to read on, and what the last owner may have left half done.
    async fn restore(&self) -> Result<(Partition, Plan), End> {
        let keeper = &self.keeper;
        let ports = &keeper.ports;
        let number = keeper.partition;
        keeper.status.phase(number, Phase::Loading);
        let committed = keeper.retry("committed offset", || ports.log.committed()).await?;
        let (low, high) = keeper.retry("offsets of the log", || ports.log.bounds()).await?;
        let (start, cut) = match committed {
            None => (low, None),
            Some(committed) if committed.metadata.is_empty() => (committed.offset, None),
            Some(committed) => match Boundary::parse(&committed.metadata) {
                Some(boundary) if boundary.end >= committed.offset => (committed.offset, Some(boundary)),
                _ => {
                    let metadata = committed.metadata;
                    let fault = Error::Metadata { topic: topics::EVENTS, partition: number, metadata };
                    return Err(End::Fault(fault));
                }
            },
        };
        let stored_end = keeper.retry("end of the stored rows", || ports.store.end(number)).await?;
        let cut_end = cut.map_or(start, |cut| cut.end);
        for wanted in [start, cut_end, stored_end] {
            // The rows' end may lie below the log's beginning: they are kept for longer.
            if wanted > high || (wanted == start && wanted < low) {
                return Err(End::Fault(Error::OutOfRange {
                    topic: topics::EVENTS,
                    group: crate::source::GROUP,
                    partition: number,
                    low,
                    high,
                    wanted,
                }));
            }
        }

        let limits = keeper.config.limits();
        let saved = keeper.retry("snapshots", || ports.outlet.saved(number)).await?;
        let slots = Slots::found(&saved);
        let usable = saved.into_iter().filter(|saved| (low..=start).contains(&saved.offset));
        let newest = usable.max_by_key(|saved| (saved.offset, saved.id));
        let decoded = newest.and_then(|saved| match Partition::decode(number, limits, &saved.state) {
            Ok(partition) => Some(partition),
            Err(error) => {
                warn!(partition = number, %error, "the snapshot cannot be read; replaying the log instead");
                None
            }
        });
        let is_kept = decoded.is_some();
        let partition = decoded.unwrap_or_else(|| {
            let mut partition = match low {
                0 => Partition::from_the_beginning(number, limits),
                _ => Partition::from_the_unknown(number, limits, low),
            };
            // What earlier owners had adopted, if there were any, is not known.
            partition.adopt(&gaps_of(&self.directory.borrow()));
            partition
        });
        info!(
            partition = number,
            committed = start,
            boundary = cut.map(|cut| cut.end),
            stored = stored_end,
            replay_from = partition.next(),
            log_end = high,
            "partition assigned"
        );
        keeper.status.stored(number, start);
        keeper.status.end(number, high);
        keeper.status.phase(number, Phase::Replaying);
        keeper.retry("start reading", || ports.log.start(partition.next())).await?;
        let doubt_until = cut_end.max(stored_end);
        Ok((partition, Plan { emit_from: start, cut, doubt_until, slots, adopt: true, is_kept }))
    }
}

/// What an assignment begins with.
pub(crate) struct Plan {
    /// Records before were written by earlier owners.
    pub(crate) emit_from: i64,
    /// The block that the last owner announced: it is cut again at the same offset.
    pub(crate) cut: Option<Boundary>,
    /// Rows of offsets before may be stored already.
    pub(crate) doubt_until: i64,
    pub(crate) slots: Slots,
    /// The settings of now are still to be adopted.
    pub(crate) adopt: bool,
    /// A snapshot holds the settings adopted last.
    pub(crate) is_kept: bool,
}
