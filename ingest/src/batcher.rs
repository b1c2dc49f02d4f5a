//! The way of a batch from a connection to the [`shipper`](crate::shipper)'s thread.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use footfall_schemas::refusal::RetryReason;
use tokio::{sync::oneshot, time::Instant};

use crate::{
    receipt::{Desk, Outcome, Receipt, Retry, Tally},
    sites::SiteState,
};

/// What a batch weighs besides its lines: its receipt, its place in the queue and its waiting connection. So that
/// bytes bound the number of batches, too.
const BATCH_BYTES: usize = 512;

/// The events of one batch.
#[derive(Debug)]
pub(crate) struct Contribution {
    pub(crate) partition: i32,
    /// NDJSON, each line ended.
    pub(crate) lines: Vec<u8>,
    pub(crate) events: usize,
    pub(crate) receipt: Receipt,
}

/// The way in. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Batcher {
    inbox: Arc<Inbox>,
    desk: Arc<Desk>,
    pub(crate) partitions: u32,
}

impl Batcher {
    pub(crate) fn new(desk: Arc<Desk>, partitions: u32) -> (Self, Arc<Inbox>) {
        let inbox = Arc::new(Inbox::default());
        (Self { inbox: Arc::clone(&inbox), desk, partitions }, inbox)
    }

    pub(crate) fn receipt(
        &self,
        site: &Arc<SiteState>,
        tally: Tally,
    ) -> (Receipt, oneshot::Receiver<Outcome>) {
        Receipt::new(Arc::clone(site), Arc::clone(&self.desk), tally)
    }

    /// Takes a batch or settles it as not taken: overload refuses before the ack, never drops after it.
    pub(crate) fn offer(&self, mut contribution: Contribution) {
        if contribution.receipt.hold(contribution.lines.len() + BATCH_BYTES) {
            self.inbox.push(contribution);
        } else {
            let overloaded = Retry::jittered(RetryReason::Overloaded, 500);
            contribution.receipt.settle(Err(overloaded), Instant::now());
        }
    }
}

/// Batches that wait for the shipper, who takes them all at once: none waits behind another site's. Bounded by the
/// bytes that their receipts hold.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Contribution>,
    /// The shipper sleeps: only then is waking it worth a system call.
    asleep: bool,
    closed: bool,
}

impl Inbox {
    fn push(&self, contribution: Contribution) {
        let mut queue = self.lock();
        if queue.closed {
            drop(queue);
            // Dropped, its receipt says that the node is draining.
            return;
        }
        queue.waiting.push(contribution);
        let wake = std::mem::take(&mut queue.asleep);
        drop(queue);
        if wake {
            self.came.notify_one();
        }
    }

    /// What waits, into an empty `taken`. False: there will be no more.
    pub(crate) fn take(&self, taken: &mut Vec<Contribution>) -> bool {
        let mut queue = self.lock();
        std::mem::swap(&mut queue.waiting, taken);
        !queue.closed
    }

    /// Sleeps until something comes, at most for `most`.
    pub(crate) fn wait(&self, most: Duration) {
        let mut queue = self.lock();
        if queue.waiting.is_empty() && !queue.closed {
            queue.asleep = true;
            let woken = self.came.wait_timeout(queue, most).unwrap_or_else(PoisonError::into_inner);
            queue = woken.0;
        }
        queue.asleep = false;
    }

    /// From now on batches are told that the node is draining.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.came.notify_one();
    }

    /// Nothing that could panic happens while it is held.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
