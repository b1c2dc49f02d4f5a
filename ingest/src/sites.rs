//! The sites served here, each with what became of its events and who is on it. They come, change and go with the
//! directory while the node runs.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
};

use arc_swap::{ArcSwap, Guard};
use footfall_schemas::{SiteId, directory::Directory, presence::PresenceReport, site::Site};
use governor::{DefaultDirectRateLimiter, RateLimiter};
use tokio::time::Instant;

use crate::{
    config::Rate,
    excess::{Excess, Share},
    ledger::Ledger,
    limits::SiteLimits,
    presence::Presence,
    rates::quota,
};

/// Shown on the demo pages where there is one of this key.
const DEMO: &str = "demo";

#[derive(Debug)]
pub(crate) struct SiteState {
    /// As the directory has it now; switched off when it was removed.
    settings: ArcSwap<Site>,
    is_listed: AtomicBool,
    pub(crate) limits: SiteLimits,
    /// Its share of the dead letters.
    pub(crate) letters: DefaultDirectRateLimiter,
    /// Locked only when the site is over its rate.
    excess: Mutex<Excess>,
    presence: Mutex<Presence>,
    /// Accepted and not yet in the log: its part of the [`Room`](crate::room::Room).
    pub(crate) bytes_in_flight: AtomicUsize,
    pub(crate) ledger: Ledger,
    /// Visitors connected, as last reported.
    pub(crate) online: AtomicU32,
    key: SiteId,
}

type Known = HashMap<SiteId, Arc<SiteState>>;

#[derive(Debug)]
pub(crate) struct Sites {
    /// Those that were removed, too: what became of their events is told as long as the node runs, and goes on when
    /// they come back.
    known: ArcSwap<Known>,
    letters: Rate,
}

impl Sites {
    /// `letters`: dead letters of each site.
    pub(crate) fn new(directory: &Directory, letters: Rate) -> Self {
        let sites = Self { known: ArcSwap::default(), letters };
        sites.update(directory);
        sites
    }

    /// Takes over what the directory says. Whether a site is served no more, which its connections are to be told. By
    /// one at a time.
    pub(crate) fn update(&self, directory: &Directory) -> bool {
        let mut known = Known::clone(&self.known.load());
        let mut ended = false;
        for (key, state) in &known {
            if !directory.sites.contains_key(key) {
                ended |= state.remove();
            }
        }
        for (key, listed) in &directory.sites {
            match known.get(key) {
                Some(state) => ended |= state.change(&listed.site),
                None => {
                    let state = SiteState::new(Arc::clone(&listed.site), self.letters);
                    known.insert(key.clone(), Arc::new(state));
                }
            }
        }
        self.known.store(Arc::new(known));
        ended
    }

    pub(crate) fn get(&self, key: &str) -> Option<Arc<SiteState>> {
        self.known.load().get(key).filter(|site| site.is_listed()).cloned()
    }

    /// Those that were removed as well.
    pub(crate) fn known(&self) -> Arc<Known> {
        self.known.load_full()
    }

    /// The site of the demo pages.
    pub(crate) fn demo(&self) -> Option<SiteId> {
        let known = self.known.load();
        let listed = || known.values().filter(|site| site.is_listed()).map(|site| site.key());
        listed().find(|key| key.as_str() == DEMO).or_else(|| listed().min()).cloned()
    }
}

impl SiteState {
    fn new(site: Arc<Site>, letters: Rate) -> Self {
        Self {
            key: site.key.clone(),
            settings: ArcSwap::new(site),
            is_listed: AtomicBool::new(true),
            limits: SiteLimits::default(),
            letters: RateLimiter::direct(quota(letters)),
            excess: Mutex::default(),
            presence: Mutex::default(),
            bytes_in_flight: AtomicUsize::new(0),
            ledger: Ledger::default(),
            online: AtomicU32::default(),
        }
    }

    /// Whether it was served until now and is no more.
    fn change(&self, site: &Arc<Site>) -> bool {
        self.is_listed.store(true, Ordering::Release);
        let before = self.settings.swap(Arc::clone(site));
        before.enabled && !site.enabled
    }

    /// As above.
    fn remove(&self) -> bool {
        if !self.is_listed.swap(false, Ordering::AcqRel) {
            return false;
        }
        let off = Site { enabled: false, ..Site::clone(&self.settings()) };
        self.settings.swap(Arc::new(off)).enabled
    }

    fn is_listed(&self) -> bool {
        self.is_listed.load(Ordering::Acquire)
    }

    pub(crate) fn key(&self) -> &SiteId {
        &self.key
    }

    /// Of now: the next call may give others.
    pub(crate) fn settings(&self) -> Guard<Arc<Site>> {
        self.settings.load()
    }

    /// Whether anything is taken: it is listed, and switched on.
    pub(crate) fn is_served(&self) -> bool {
        self.settings().enabled
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

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::Value;

    use super::*;
    use crate::config;

    /// Of these sites, with the settings' own limits.
    pub(crate) fn sites_of(sites: impl IntoIterator<Item = Site>) -> Sites {
        Sites::new(&directory(sites), config::Limits::default().dead_letters_per_site)
    }

    fn directory(sites: impl IntoIterator<Item = Site>) -> Directory {
        Directory::declaring(sites.into_iter().map(|site| (site, Value::Null)))
    }

    fn site(key: &str, enabled: bool) -> Site {
        Site { enabled, ..Site::new(key.try_into().unwrap(), Vec::new()) }
    }

    #[test]
    fn a_site_comes_changes_and_goes_and_its_ledger_goes_on() {
        let sites = sites_of([site("shop", true)]);
        let shop = sites.get("shop").unwrap();
        shop.ledger.received(3);
        assert!(sites.get("blog").is_none());

        assert!(!sites.update(&directory([site("shop", true), site("blog", true)])), "nobody is to be told");
        assert!(sites.get("blog").unwrap().is_served());

        assert!(sites.update(&directory([site("shop", false), site("blog", true)])));
        assert!(!shop.is_served() && sites.get("shop").is_some(), "it is known, and switched off");

        assert!(sites.update(&directory([site("shop", false)])), "the blog was removed");
        assert!(!sites.update(&directory([])), "who was there was told already");
        assert!(sites.get("shop").is_none() && sites.demo().is_none());
        assert_eq!(sites.known().len(), 2, "their last counts are still told");

        assert!(!sites.update(&directory([site("shop", true)])));
        assert!(shop.is_served() && sites.get("shop").unwrap().ledger.received_so_far() == 3);
    }

    #[test]
    fn the_demo_pages_are_of_the_site_that_is_named_so_or_of_the_first() {
        let sites = sites_of(["shop", "blog"].map(|key| site(key, true)));
        assert_eq!(sites.demo().unwrap().as_str(), "blog");
        sites.update(&directory(["shop", "demo", "blog"].map(|key| site(key, true))));
        assert_eq!(sites.demo().unwrap().as_str(), "demo");
    }
}
