//! The feeds of the sites that there are. Sites come and go while the node runs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use footfall_schemas::{SiteId, directory::Directory, site::Site};
use tokio::sync::watch;

use crate::{
    clock::wall_ms,
    feed::{Epochs, Feed, Kept},
};

#[derive(Debug)]
pub(crate) struct Feeds {
    directory: watch::Receiver<Arc<Directory>>,
    kept: Kept,
    epochs: Epochs,
    /// A std mutex: no await happens while it is held.
    sites: Mutex<HashMap<SiteId, Arc<Feed>>>,
}

impl Feeds {
    pub(crate) fn new(directory: watch::Receiver<Arc<Directory>>, kept: Kept) -> Self {
        Self { directory, kept, epochs: Epochs::default(), sites: Mutex::default() }
    }

    /// The site as it is set up now.
    pub(crate) fn site(&self, site: &SiteId) -> Option<Arc<Site>> {
        self.directory.borrow().sites.get(site).map(|listed| listed.site.clone())
    }

    /// The feed of a site's whole view, if there is such a site.
    pub(crate) fn get(&self, site: &SiteId) -> Option<Arc<Feed>> {
        let mut sites = self.lock();
        self.site(site)?;
        Some(sites.entry(site.clone()).or_insert_with(|| self.another(site)).clone())
    }

    /// A feed for another view of a site.
    pub(crate) fn another(&self, site: &SiteId) -> Arc<Feed> {
        Arc::new(Feed::new(site.clone(), self.epochs.next(wall_ms()), self.kept))
    }

    /// Ends the feeds of sites that are no more.
    pub(crate) fn end_those_gone(&self) {
        self.lock().retain(|site, feed| {
            let stays = self.site(site).is_some();
            if !stays {
                feed.end();
            }
            stays
        });
    }

    pub(crate) fn directory(&self) -> watch::Receiver<Arc<Directory>> {
        self.directory.clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SiteId, Arc<Feed>>> {
        self.sites.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
