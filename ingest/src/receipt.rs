//! The promise of an ack: what a batch becomes is known when its receipt is settled, and told only then.

use std::sync::Arc;

use footfall_schemas::{RejectReason, record::DeadLetter, refusal::RetryReason};
use rand::Rng as _;
use tokio::{sync::oneshot, time::Instant};

use crate::{dead_letter::DeadLetters, metrics::Metrics, room::Room, sites::SiteState, trace::BatchSpan};

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

/// What settling needs besides the site; one for all receipts of a node.
pub(crate) struct Desk {
    pub(crate) dead_letters: DeadLetters,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) room: Room,
}

/// Goes with a batch into the log and back. Settled once: by the delivery report, by what refused it before, or, when
/// it is dropped on the way, as not taken. Its bytes are held until it is dropped or [`Receipt::release`]d.
pub(crate) struct Receipt {
    site: Arc<SiteState>,
    desk: Arc<Desk>,
    accepted: u64,
    /// Beside accepted events; most batches have nothing of it.
    rest: Option<Box<Tally>>,
    received: Instant,
    bytes: usize,
    span: Option<BatchSpan>,
    tell: Option<oneshot::Sender<Outcome>>,
}

impl Receipt {
    pub(crate) fn new(
        site: Arc<SiteState>,
        desk: Arc<Desk>,
        tally: Tally,
    ) -> (Self, oneshot::Receiver<Outcome>) {
        let (tell, outcome) = oneshot::channel();
        let accepted = tally.accepted;
        let more = tally.evicted > 0 || !tally.refused.is_empty();
        let rest = more.then(|| Box::new(Tally { accepted: 0, ..tally }));
        let received = Instant::now();
        let receipt = Self { site, desk, accepted, rest, received, bytes: 0, span: None, tell: Some(tell) };
        (receipt, outcome)
    }

    /// Whether there is room for the batch; if so, its bytes are held.
    pub(crate) fn hold(&mut self, bytes: usize) -> bool {
        let fits = self.desk.room.take(&self.site.bytes_in_flight, bytes);
        if fits {
            self.bytes += bytes;
        }
        fits
    }

    pub(crate) fn trace(&mut self, span: Option<BatchSpan>) {
        self.span = span;
    }

    /// When the batch is traced.
    pub(crate) fn span(&mut self) -> Option<&mut BatchSpan> {
        self.span.as_mut()
    }

    /// The batch is not in memory any more.
    pub(crate) fn release(&mut self) {
        self.desk.room.give_back(&self.site.bytes_in_flight, std::mem::take(&mut self.bytes));
    }

    /// The first time counts.
    pub(crate) fn settle(&mut self, outcome: Outcome, now: Instant) {
        let Some(tell) = self.tell.take() else { return };
        let rest = self.rest.take().map(|rest| *rest).unwrap_or_default();
        let ledger = &self.site.ledger;
        match outcome {
            Ok(()) => {
                ledger.accepted(self.accepted);
                for (reason, events) in &rest.refused {
                    ledger.refused(*reason, *events);
                }
                if rest.evicted > 0 {
                    ledger.evicted(rest.evicted);
                }
                for letter in rest.dead_letters {
                    self.desk.dead_letters.keep(&self.site.letters, letter);
                }
                let waited = now.saturating_duration_since(self.received);
                self.desk.metrics.ack_seconds.record(waited.as_secs_f64(), &[]);
            }
            Err(retry) => ledger.retried(retry.reason, self.accepted + rest.events()),
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
        if self.tell.is_some() {
            self.settle(Err(Retry::jittered(RetryReason::Draining, 500)), Instant::now());
        }
        self.release();
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receipt")
            .field("site", self.site.key())
            .field("accepted", &self.accepted)
            .field("rest", &self.rest)
            .finish_non_exhaustive()
    }
}
