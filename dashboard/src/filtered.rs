//! Views of what matches a filter: each distinct one is computed once, by ClickHouse, while somebody watches it, and
//! is a [`View`] in a [`Feed`] like a site's whole view.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use clickhouse::Client;
use footfall_schemas::{
    SiteId,
    connect::ClickHouseSettings,
    viewer::{Filter, Freshness, Online},
};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    clock::wall_ms,
    config::{Config, ms},
    feed::Feed,
    feeds::Feeds,
    filter_query::FilterQuery,
    metrics::Metrics,
    view::View,
};

/// How often a view that nobody watches, or whose site stands still, is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// A query may take one part in so many of the time.
const SHARE: u32 = 4;
/// Pages in a node's presence report when there are more (`ingest`): in a shorter list no page is missing.
const PRESENCE_PAGES: usize = 20;

type Views = HashMap<(SiteId, Filter), Arc<Feed>>;

/// The filtered views of this node.
pub(crate) struct FilteredViews {
    client: Client,
    feeds: Arc<Feeds>,
    /// Who waits here has its last view meanwhile.
    permits: Semaphore,
    most: usize,
    refresh: Duration,
    timeout: Duration,
    keep: Duration,
    top_values: usize,
    /// A std mutex: no await happens while it is held.
    views: Mutex<Views>,
    metrics: Metrics,
    shutdown: CancellationToken,
}

/// As many distinct filters are watched as this node computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany(pub(crate) usize);

impl FilteredViews {
    pub(crate) fn new(
        settings: &ClickHouseSettings,
        config: &Config,
        feeds: Arc<Feeds>,
        metrics: Metrics,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            client: settings.client(),
            feeds,
            permits: Semaphore::new(config.filter_concurrency),
            most: config.max_filters,
            refresh: ms(config.filter_refresh_ms),
            timeout: ms(config.filter_timeout_ms),
            keep: ms(config.filter_keep_ms),
            top_values: config.top_values,
            views: Mutex::default(),
            metrics,
            shutdown,
        })
    }

    /// The feed of this view, watched; it is begun if there is none.
    pub(crate) fn watch(
        self: &Arc<Self>,
        site: &SiteId,
        filter: &Filter,
    ) -> Result<(Arc<Feed>, watch::Receiver<u64>), TooMany> {
        let mut views = self.lock();
        let key = (site.clone(), filter.clone());
        let feed = match views.get(&key) {
            Some(feed) => feed.clone(),
            None if views.len() >= self.most => return Err(TooMany(self.most)),
            None => {
                let feed = self.feeds.another(site);
                views.insert(key.clone(), feed.clone());
                self.metrics.filters.record(views.len() as u64, &[]);
                let (this, of_task) = (self.clone(), feed.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = this.keep(&key, &of_task) => {}
                        () = this.shutdown.cancelled() => {}
                    }
                });
                feed
            }
        };
        let moved = feed.watch();
        Ok((feed, moved))
    }

    /// Computes the view while it is watched, until nobody has for a while or the site is no more.
    async fn keep(&self, key: &(SiteId, Filter), feed: &Arc<Feed>) {
        let mut watched_at = Instant::now();
        loop {
            let Some(whole) = self.feeds.get(&key.0) else {
                feed.end();
                self.forget(key, &mut self.lock());
                return;
            };
            if feed.is_watched() {
                self.follow(key, feed, &whole).await;
                watched_at = Instant::now();
            } else if watched_at.elapsed() >= self.keep && self.let_go(key, feed) {
                return;
            }
            sleep(LOOK).await;
        }
    }

    /// Computes the view whenever the site has moved, until nobody watches or the site is no more.
    async fn follow(&self, key: &(SiteId, Filter), feed: &Feed, whole: &Feed) {
        // Keeps the site's feed awake, too: it says up to when there is something to count.
        let mut moved = whole.watch();
        let mut failing = false;
        while feed.is_watched() && !whole.has_ended() {
            // Before the view is read: what moves it from here on is another reason to compute.
            moved.mark_unchanged();
            let Some(of_site) = whole.view() else {
                let _ = timeout(LOOK, moved.changed()).await;
                continue;
            };
            let permit = self.permits.acquire().await.expect("never closed");
            let started = Instant::now();
            let computed = timeout(self.timeout, self.compute(key, &of_site)).await;
            let took = started.elapsed();
            let outcome = match computed {
                Ok(Ok(view)) => {
                    feed.publish(view, wall_ms());
                    if std::mem::take(&mut failing) {
                        info!(site = %key.0, "the filtered view is computed again");
                    }
                    "ok"
                }
                Ok(Err(error)) => {
                    if !std::mem::replace(&mut failing, true) {
                        warn!(site = %key.0, %error, "a filtered view cannot be computed; the last one stands");
                    }
                    "store_unavailable"
                }
                Err(_) => {
                    if !std::mem::replace(&mut failing, true) {
                        warn!(site = %key.0, "a filtered view takes too long; the last one stands");
                    }
                    "timeout"
                }
            };
            drop(permit);
            Metrics::count(&self.metrics.filter_queries, "footfall.outcome", outcome);
            self.metrics.filter_time.add(took.as_secs_f64(), &[]);
            sleep_until(started + self.refresh.max(took * SHARE)).await;
            // While the site stands still there is nothing to compute, unless that failed.
            while !failing && feed.is_watched() && !whole.has_ended() {
                if timeout(LOOK, moved.changed()).await.is_ok() {
                    break;
                }
            }
        }
    }

    async fn compute(
        &self,
        (site, filter): &(SiteId, Filter),
        of_site: &View,
    ) -> Result<View, clickhouse::error::Error> {
        let goals = self.feeds.site(site).map(|site| site.goals.clone()).unwrap_or_default();
        // What the site's view tells is told up to there; without any events so far, up to now.
        let clock = match of_site.freshness.clock {
            0 => wall_ms(),
            clock => clock,
        };
        let query = FilterQuery::new(site, filter, &goals, clock, self.top_values);
        let counted = query.run(&self.client).await?;
        Ok(View {
            online: online(filter, of_site.online.as_ref()),
            freshness: Freshness { clock, newest: counted.newest, ..of_site.freshness },
            ledger: None,
            live: counted.live,
            goals: counted.goals,
            alerts: None,
        })
    }

    /// Forgets a view unless somebody has come to watch it.
    fn let_go(&self, key: &(SiteId, Filter), feed: &Feed) -> bool {
        let mut views = self.lock();
        let unwatched = !feed.is_watched();
        if unwatched {
            self.forget(key, &mut views);
        }
        unwatched
    }

    fn forget(&self, key: &(SiteId, Filter), views: &mut Views) {
        views.remove(key);
        self.metrics.filters.record(views.len() as u64, &[]);
    }

    fn lock(&self) -> MutexGuard<'_, Views> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Presence knows the visitors of a page and nothing else by which there are filters.
fn online(filter: &Filter, of_site: Option<&Online>) -> Option<Online> {
    let page = filter.page.as_ref()?;
    let only_page = Filter { page: Some(page.clone()), ..Filter::default() };
    // A page is told without its query.
    if *filter != only_page || page.contains('?') {
        return None;
    }
    let pages = &of_site?.pages;
    match pages.get(page) {
        Some(visitors) => {
            Some(Online { visitors: *visitors, visible: None, pages: [(page.clone(), *visitors)].into() })
        }
        None => (pages.len() < PRESENCE_PAGES).then(Online::default),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    #[rstest]
    #[case::of_the_page(json!({"page": "/"}), 2, Some(3))]
    #[case::of_a_page_nobody_is_on(json!({"page": "/x"}), 2, Some(0))]
    #[case::of_a_page_that_may_have_been_left_out(json!({"page": "/x"}), 20, None)]
    #[case::of_a_page_with_a_query(json!({"page": "/?q=1"}), 2, None)]
    #[case::of_more_than_a_page(json!({"page": "/", "country": "DE"}), 2, None)]
    #[case::of_something_else(json!({"country": "DE"}), 2, None)]
    fn who_is_online_is_told_only_where_presence_knows_it(
        #[case] filter: Value,
        #[case] pages: usize,
        #[case] visitors: Option<u64>,
    ) {
        let filter: Filter = serde_json::from_value(filter).unwrap();
        let other = (1..pages).map(|page| (format!("/{page}"), 1));
        let pages = other.chain([("/".to_owned(), 3)]).collect();
        let of_site = Online { visitors: 9, visible: Some(9), pages };
        let online = online(&filter, Some(&of_site));
        assert_eq!(online.as_ref().map(|online| online.visitors), visitors);
        assert!(online.is_none_or(|online| online.visible.is_none()));
    }
}
