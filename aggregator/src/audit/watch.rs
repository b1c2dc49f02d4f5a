//! The owner's audit at work: one round at a time, beside the block path.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::{
    Difference,
    account::Checkpoint,
    rounds::{Findings, Round, Rounds, complain},
};
use crate::{
    block::Counts,
    error::StoreError,
    keep::Keeper,
    partition::Partition,
    ports::{Log, Outlet, Store},
};

pub(crate) type Audited = Result<Findings, (Round, StoreError)>;

pub(crate) struct Watch {
    /// One round at a time, whoever's: it must not be felt.
    turns: Arc<Semaphore>,
    rounds: Rounds,
    under_way: Option<AbortOnDropHandle<Audited>>,
    /// Wall clock (ms) of the last round's begin.
    began_at: i64,
}

impl Watch {
    pub(crate) fn new<L: Log, S: Store, O: Outlet>(
        turns: Arc<Semaphore>,
        keeper: &Keeper<L, S, O>,
        now: i64,
    ) -> Self {
        for kind in Difference::KINDS {
            keeper.metrics.differ(keeper.partition, kind, 0);
        }
        Self { turns, rounds: Rounds::default(), under_way: None, began_at: now }
    }

    /// These counts are on their way.
    pub(crate) fn counted(&mut self, counts: &Counts) {
        self.rounds.counted(counts);
    }

    /// Everything before is written.
    pub(crate) fn written(&mut self, checkpoint: Checkpoint) {
        self.rounds.written(checkpoint);
    }

    /// Begins a round when one is due. Only with nothing on its way: then what memory counted of a minute that does not
    /// wait is what is written of it.
    pub(crate) fn begin<L: Log, S: Store, O: Outlet>(
        &mut self,
        keeper: &Keeper<L, S, O>,
        partition: &Partition,
        clock: i64,
        now: i64,
    ) {
        let every = keeper.config.audit_ms as i64;
        let is_due = every > 0 && now - self.began_at >= every && self.under_way.is_none();
        if !is_due || keeper.status.is_failing(keeper.partition) {
            return;
        }
        self.began_at = now;
        let round = self.rounds.plan(
            keeper.partition,
            clock,
            clock - keeper.config.lateness_ms,
            partition.oldest_checkpoint(),
            |site, minute| partition.known(site, minute),
        );
        let Some(round) = round else { return };
        let (store, turns) = (keeper.ports.store.clone(), self.turns.clone());
        self.under_way = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            // Closed by nobody.
            let _turn = turns.acquire().await;
            round.check(&*store).await
        })));
    }

    /// Waits for the round under way; for ever when there is none. `None`: it broke off.
    pub(crate) async fn done(&mut self) -> Option<Audited> {
        let Some(round) = &mut self.under_way else { return std::future::pending().await };
        let result = round.await;
        self.under_way = None;
        result.ok()
    }

    /// Tells what a round found, and has rolling counts counted again where that is harmless.
    pub(crate) fn learn<L: Log, S: Store, O: Outlet>(
        &mut self,
        keeper: &Keeper<L, S, O>,
        partition: &mut Partition,
        audited: Option<Audited>,
        now: i64,
    ) {
        match audited {
            None => {}
            Some(Err((round, error))) => {
                debug!(partition = keeper.partition, %error, "the audit could not ask; the next round does");
                self.rounds.failed(round);
            }
            Some(Ok(findings)) => {
                let (differences, heal) = self.rounds.learn(findings);
                keeper.status.audited(keeper.partition, differences.len() as u64, now);
                for difference in &differences {
                    keeper.metrics.differ(keeper.partition, difference.kind(), 1);
                }
                complain(keeper.partition, &differences, &heal);
                for (site, minute) in &heal {
                    partition.recount(site, *minute);
                }
            }
        }
    }
}
