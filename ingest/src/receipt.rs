//! The promise of an ack: what a batch becomes is known when its receipt is settled, and told only then.

use std::sync::Arc;

use footfall_schemas::{RejectReason, record::DeadLetter, refusal::RetryReason};
use rand::Rng as _;
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};

use crate::{dead_letter::DeadLetters, metrics::Metrics, sites::SiteState, trace::BatchSpan};

/// Not taken: come again after `after_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retry {
    pub(crate) reason: RetryReason,
    pub(crate) after_ms: u32,
}

/// `Ok`: every event of the batch is in the log or refused for good.
pub(crate) type Outcome = Result<(), Retry>;

impl Retry {
    /// With jitter: trackers refused together must not come back together.
    pub(crate) fn jittered(reason: RetryReason, at_least_ms: u32) -> Self {
        let after_ms = at_least_ms + rand::rng().random_range(0..=at_least_ms);
        Self { reason, after_ms }
    }
}

/// What a batch will count as.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) accepted: u64,
    pub(crate) refused: Vec<(RejectReason, u64)>,
    /// Lost in the tracker's outbox before.
    pub(crate) evicted: u64,
    /// Of the refused events.
    pub(crate) dead_letters: Vec<DeadLetter>,
}

impl Tally {
    pub(crate) fn refuse(&mut self, reason: RejectReason) {
        match self.refused.iter_mut().find(|(counted, _)| *counted == reason) {
            Some((_, events)) => *events += 1,
            None => self.refused.push((reason, 1)),
        }
    }

    fn events(&self) -> u64 {
        self.accepted + self.refused.iter().map(|(_, events)| events).sum::<u64>()
    }
}

/// Goes with a batch into the log and back. Settled once: by the delivery report, by what refused it before, or, when
/// it is dropped on the way, as not taken.
pub(crate) struct Receipt {
    site: Arc<SiteState>,
    dead_letters: DeadLetters,
    metrics: Arc<Metrics>,
    tally: Tally,
    received: Instant,
    /// Its share of the bytes in flight.
    bytes: Option<OwnedSemaphorePermit>,
    span: Option<BatchSpan>,
    tell: Option<oneshot::Sender<Outcome>>,
}

impl Receipt {
    pub(crate) fn new(
        site: Arc<SiteState>,
        dead_letters: DeadLetters,
        metrics: Arc<Metrics>,
        tally: Tally,
    ) -> (Self, oneshot::Receiver<Outcome>) {
        let (tell, outcome) = oneshot::channel();
        let received = Instant::now();
        let receipt =
            Self { site, dead_letters, metrics, tally, received, bytes: None, span: None, tell: Some(tell) };
        (receipt, outcome)
    }

    pub(crate) fn hold(&mut self, bytes: OwnedSemaphorePermit) {
        self.bytes = Some(bytes);
    }

    pub(crate) fn trace(&mut self, span: Option<BatchSpan>) {
        self.span = span;
    }

    /// When the batch is traced.
    pub(crate) fn span(&mut self) -> Option<&mut BatchSpan> {
        self.span.as_mut()
    }

    pub(crate) fn settle(mut self, outcome: Outcome) {
        self.settle_once(outcome);
    }

    fn settle_once(&mut self, outcome: Outcome) {
        let Some(tell) = self.tell.take() else { return };
        let tally = std::mem::take(&mut self.tally);
        let ledger = &self.site.ledger;
        match outcome {
            Ok(()) => {
                ledger.accepted(tally.accepted);
                for (reason, events) in &tally.refused {
                    ledger.refused(*reason, *events);
                }
                if tally.evicted > 0 {
                    ledger.evicted(tally.evicted);
                }
                for letter in tally.dead_letters {
                    self.dead_letters.keep(self.site.key().as_str(), letter);
                }
                self.metrics.ack_seconds.record(self.received.elapsed().as_secs_f64(), &[]);
            }
            Err(retry) => ledger.retried(retry.reason, tally.events()),
        }
        if let Some(span) = self.span.take() {
            span.end(&outcome);
        }
        // The connection may be gone; the ledger is right all the same, and the tracker will send again.
        let _ = tell.send(outcome);
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.settle_once(Err(Retry::jittered(RetryReason::Draining, 500)));
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receipt")
            .field("site", self.site.key())
            .field("tally", &self.tally)
            .finish_non_exhaustive()
    }
}
