//! The sites served here, each with what became of its events and who is on it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize},
};

use footfall_schemas::{
    RejectReason, SiteId,
    presence::{IngestLedger, PresenceReport},
    site::Site,
};
use tokio::time::Instant;

use crate::presence::Presence;

#[derive(Debug)]
pub(crate) struct SiteState {
    pub(crate) site: Site,
    pub(crate) presence: Arc<Mutex<Presence>>,
    /// Accepted and not yet in the log: its part of the [`Room`](crate::room::Room).
    pub(crate) bytes_in_flight: AtomicUsize,
    ledger: Mutex<IngestLedger>,
}

#[derive(Debug)]
pub(crate) struct Sites {
    by_key: HashMap<SiteId, Arc<SiteState>>,
    first: Option<SiteId>,
}

impl Sites {
    pub(crate) fn new(sites: Vec<Site>) -> Self {
        let first = sites.first().map(|site| site.key.clone());
        let by_key =
            sites.into_iter().map(|site| (site.key.clone(), Arc::new(SiteState::new(site)))).collect();
        Self { by_key, first }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Arc<SiteState>> {
        self.by_key.get(&SiteId::try_from(key).ok()?)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<SiteState>> {
        self.by_key.values()
    }

    /// The site of the demo pages.
    pub(crate) fn first(&self) -> Option<&SiteId> {
        self.first.as_ref()
    }
}

impl SiteState {
    fn new(site: Site) -> Self {
        Self {
            site,
            presence: Arc::default(),
            bytes_in_flight: AtomicUsize::new(0),
            ledger: Mutex::default(),
        }
    }

    pub(crate) fn key(&self) -> &SiteId {
        &self.site.key
    }

    /// Events that arrived. Each of them is accepted, refused or retried later.
    pub(crate) fn received(&self, events: u64) {
        self.ledger().received += events;
    }

    /// A batch is settled. One lock, so that no report tells half of it.
    pub(crate) fn settled(&self, accepted: u64, refused: &[(RejectReason, u64)], evicted: u64) {
        let mut ledger = self.ledger();
        ledger.accepted += accepted;
        ledger.evicted += evicted;
        for (reason, events) in refused {
            *ledger.refused.entry(*reason).or_default() += events;
        }
    }

    pub(crate) fn retried(&self, events: u64) {
        self.ledger().retried += events;
    }

    /// What could not be taken apart into events (a malformed frame, a denied origin) counts as one.
    pub(crate) fn refused_whole(&self, reason: RejectReason, events: u64) {
        let mut ledger = self.ledger();
        ledger.received += events;
        *ledger.refused.entry(reason).or_default() += events;
    }

    pub(crate) fn report(&self, node: &str, started_at: i64, at: i64, now: Instant) -> PresenceReport {
        let census = self.presence.lock().unwrap_or_else(PoisonError::into_inner).census(now);
        PresenceReport {
            node: node.to_owned(),
            started_at,
            site: self.key().clone(),
            at,
            online: census.online,
            visible: census.visible,
            pages: census.pages,
            ledger: self.ledger().clone(),
        }
    }

    /// A std Mutex: no await happens while it is held. Counters are sound even after a panic.
    fn ledger(&self) -> MutexGuard<'_, IngestLedger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
