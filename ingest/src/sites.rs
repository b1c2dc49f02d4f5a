//! The sites served here, each with what became of its events and who is on it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicUsize},
    },
};

use footfall_schemas::{SiteId, presence::PresenceReport, site::Site};
use tokio::time::Instant;

use crate::{
    excess::{Excess, Share},
    ledger::Ledger,
    limits::SiteLimits,
    presence::Presence,
};

#[derive(Debug)]
pub(crate) struct SiteState {
    pub(crate) site: Site,
    pub(crate) limits: SiteLimits,
    /// Locked only when the site is over its rate.
    excess: Mutex<Excess>,
    presence: Mutex<Presence>,
    /// Accepted and not yet in the log: its part of the [`Room`](crate::room::Room).
    pub(crate) bytes_in_flight: AtomicUsize,
    pub(crate) ledger: Ledger,
    /// Visitors connected, as last reported.
    pub(crate) online: AtomicU32,
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
            limits: SiteLimits::default(),
            excess: Mutex::default(),
            presence: Mutex::default(),
            bytes_in_flight: AtomicUsize::new(0),
            ledger: Ledger::default(),
            online: AtomicU32::default(),
        }
    }

    pub(crate) fn key(&self) -> &SiteId {
        &self.site.key
    }

    pub(crate) fn report(&self, node: &str, started_at: i64, at: i64, now: Instant) -> PresenceReport {
        let census = self.presence().census(now);
        PresenceReport {
            node: node.to_owned(),
            started_at,
            site: self.key().clone(),
            at,
            online: census.online,
            visible: census.visible,
            pages: census.pages,
            ledger: self.ledger.read(),
        }
    }

    /// The site is over its rate: what to tell who sends, if it has been for a while.
    pub(crate) fn exceeded(&self) -> Option<Share> {
        self.excess.lock().unwrap_or_else(PoisonError::into_inner).exceeded(Instant::now())
    }

    /// A std Mutex: no await happens while it is held. Every change under it is whole, so a poisoned one is sound.
    pub(crate) fn presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
