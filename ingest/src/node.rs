//! What every connection and request of a node shares.

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use footfall_schemas::{RejectReason, tracker::ServerFrame};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    batcher::Batcher,
    clock::now_ms,
    config::Config,
    dead_letter,
    dead_letter::DeadLetters,
    enrich::{geography::Geography, steps::Steps},
    limits::Limits,
    log::Health,
    metrics::Metrics,
    network::Network,
    seldom::Seldom,
    sites::{SiteState, Sites},
    trace::Sampling,
    visitor::VisitorKeys,
    wheel::Wheel,
};

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) config: Config,
    pub(crate) sites: Arc<Sites>,
    pub(crate) visitors: VisitorKeys,
    pub(crate) geography: Arc<Geography>,
    pub(crate) steps: Arc<Steps>,
    pub(crate) limits: Arc<Limits>,
    /// As configured, or as loaded since.
    pub(crate) trusted_proxies: ArcSwap<Vec<Network>>,
    /// Of the listener, about strangers.
    pub(crate) complaints: Seldom,
    /// The deadlines of the sockets.
    pub(crate) wheel: Arc<Wheel>,
    pub(crate) batcher: Batcher,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) sampling: Sampling,
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
    pub(crate) fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted_proxies.load().iter().any(|network| network.contains(address))
    }

    /// Counts a refusal and keeps it as a dead letter.
    pub(crate) fn refuse_whole(&self, site: &SiteState, fault: &Fault, events: u64, payload: &[u8]) {
        site.ledger.received(events);
        site.ledger.refused(fault.reason, events);
        let key = site.key().as_str();
        let letter = dead_letter::letter(key, now_ms(), fault.reason, &fault.detail, None, payload);
        self.dead_letters.keep(&site.letters, letter);
    }

    /// A refusal of what names a site that is not ours: there is no ledger to count it in.
    pub(crate) fn refuse_stranger(&self, site: &str, fault: &Fault, payload: &[u8]) {
        let letter = dead_letter::letter(site, now_ms(), fault.reason, &fault.detail, None, payload);
        self.dead_letters.keep_of_a_stranger(letter);
    }
}
