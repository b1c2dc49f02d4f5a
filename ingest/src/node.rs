//! What every connection and request of a node shares.

use std::sync::Arc;

use footfall_schemas::{RejectReason, tracker::ServerFrame};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    batcher::Batcher,
    clock::now_ms,
    config::Config,
    dead_letter,
    dead_letter::DeadLetters,
    limits::Limits,
    log::Health,
    metrics::Metrics,
    sites::{SiteState, Sites},
    visitor::VisitorKeys,
};

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) config: Config,
    pub(crate) sites: Sites,
    pub(crate) visitors: VisitorKeys,
    pub(crate) limits: Limits,
    pub(crate) batcher: Batcher,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics_text: Arc<dyn Fn() -> String + Send + Sync>,
    /// Cancelled: drain.
    pub(crate) shutdown: CancellationToken,
    /// The connections, upgraded ones included.
    pub(crate) tasks: TaskTracker,
}

/// A refusal of something that could not be taken apart into events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) reason: RejectReason,
    pub(crate) detail: String,
}

impl Fault {
    pub(crate) fn new(reason: RejectReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    pub(crate) fn frame(&self) -> ServerFrame {
        ServerFrame::Error { reason: self.reason, detail: self.detail.clone() }
    }
}

impl Node {
    /// Counts a refusal and keeps it as a dead letter.
    pub(crate) fn refuse_whole(&self, site: &SiteState, fault: &Fault, events: u64, payload: &[u8]) {
        site.refused_whole(fault.reason, events);
        let key = site.key().as_str();
        let letter = dead_letter::letter(key, now_ms(), fault.reason, &fault.detail, None, payload);
        self.dead_letters.keep(key, letter);
    }

    /// A refusal of what names a site that is not ours: there is no ledger to count it in.
    pub(crate) fn refuse_stranger(&self, site: &str, fault: &Fault, payload: &[u8]) {
        let letter = dead_letter::letter(site, now_ms(), fault.reason, &fault.detail, None, payload);
        self.dead_letters.keep(site, letter);
    }
}
