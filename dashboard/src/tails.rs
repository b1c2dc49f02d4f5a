//! Reads `footfall.events` while somebody watches events go by, and only then.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use clickhouse::{Client, Row, error::Error as StoreError};
use footfall_schemas::{
    EventId, EventKind, SiteId,
    connect::{ClickHouseSettings, KafkaSettings},
    live::MINUTES_SHOWN,
    record::parse_lines,
    time::MINUTE_MS,
    topics,
    viewer::{FeedEvent, Filter},
};
use rdkafka::Message;
use serde::Deserialize;
use tokio::{
    sync::{Notify, watch},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    clock::wall_ms,
    config::{Config, ms},
    feeds::Feeds,
    goals,
    metrics::Metrics,
    selection::{Selection, within},
    source::{From, Source},
    tail::{Backlog, MOST_EVENTS, MOST_VISITORS, Tail},
};

const TICK: Duration = Duration::from_millis(250);
const RETRY: Duration = Duration::from_secs(1);
/// How far back the list may begin.
const BACKLOG_MS: i64 = 24 * 60 * MINUTE_MS;

type Watched = HashMap<(SiteId, Filter), Arc<Tail>>;

/// The tails of this node.
pub(crate) struct Tails {
    kafka: KafkaSettings,
    client: Client,
    /// For what came before. Without an answer the list begins empty.
    timeout: Duration,
    feeds: Arc<Feeds>,
    /// A std mutex: no await happens while it is held.
    watched: Mutex<Watched>,
    /// Somebody has come.
    wanted: Notify,
    metrics: Metrics,
}

#[derive(Deserialize, Row)]
struct EventRow {
    id: String,
    /// ms since 1970.
    received_at: i64,
    kind: String,
    name: String,
    path: String,
    referrer_host: String,
    channel: String,
    country: String,
    browser: String,
    device: String,
}

#[derive(Deserialize, Row)]
struct ReachedRow {
    visitor: u64,
    at: i64,
}

impl Tails {
    pub(crate) fn new(
        kafka: &KafkaSettings,
        clickhouse: &ClickHouseSettings,
        config: &Config,
        feeds: Arc<Feeds>,
        metrics: Metrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            kafka: kafka.clone(),
            client: clickhouse.client(),
            timeout: ms(config.filter_timeout_ms),
            feeds,
            watched: Mutex::default(),
            wanted: Notify::new(),
            metrics,
        })
    }

    /// The tail of this site and filter, watched; it is begun if there is none.
    pub(crate) fn watch(
        self: &Arc<Self>,
        site: &SiteId,
        filter: &Filter,
    ) -> (Arc<Tail>, watch::Receiver<u64>) {
        let mut watched = self.lock();
        let tail = watched.entry((site.clone(), filter.clone())).or_insert_with(|| {
            let site_now = self.feeds.site(site);
            let goals = site_now.iter().flat_map(|site| &site.goals);
            let goal = goals.into_iter().find(|goal| filter.goal.as_ref() == Some(&goal.name)).cloned();
            let tail = Arc::new(Tail::new(site.clone(), filter.clone(), goal));
            tokio::spawn({
                let (this, tail) = (self.clone(), tail.clone());
                async move { tail.fill(this.backlog(&tail).await) }
            });
            tail
        });
        let moved = tail.watch();
        let tail = tail.clone();
        drop(watched);
        self.wanted.notify_one();
        (tail, moved)
    }

    /// Reads whenever somebody watches, until shutdown.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = self.wanted.notified() => {}
                () = shutdown.cancelled() => return,
            }
            while self.drop_unwatched() {
                match Source::open(&self.kafka, &[(topics::EVENTS, From::End)], &shutdown).await {
                    Ok(Some(source)) => {
                        let source = self.read(source, &shutdown).await;
                        // Its threads are waited for.
                        let _ = tokio::task::spawn_blocking(move || drop(source)).await;
                    }
                    Ok(None) => return,
                    Err(error) => {
                        warn!(%error, "events cannot be shown as they come");
                        sleep(RETRY).await;
                    }
                }
                if shutdown.is_cancelled() {
                    return;
                }
            }
        }
    }

    /// Until nobody watches any more, or the consumer cannot go on.
    async fn read(&self, source: Source, shutdown: &CancellationToken) -> Source {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let received = tokio::select! {
                biased;
                () = shutdown.cancelled() => return source,
                _ = ticks.tick() => {
                    if !self.drop_unwatched() {
                        return source;
                    }
                    self.tails().iter().for_each(|tail| tail.flush());
                    continue;
                }
                received = source.consumer.recv() => received,
            };
            match received {
                Ok(message) => self.offer(message.payload().unwrap_or_default()),
                // librdkafka reconnects by itself.
                Err(error) if error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::Fatal) => {
                    warn!(%error, "events cannot be read; trying with another consumer");
                    return source;
                }
                Err(error) => debug!(%error, "events cannot be read at the moment"),
            }
        }
    }

    fn offer(&self, value: &[u8]) {
        let tails = self.tails();
        // What cannot be read is the aggregator's to refuse.
        for event in parse_lines(value).filter_map(|(_, event)| event.ok()) {
            self.metrics.tailed.add(1, &[]);
            tails.iter().filter(|tail| tail.site.as_str() == event.site).for_each(|tail| tail.offer(&event));
        }
    }

    /// False when nobody is left.
    fn drop_unwatched(&self) -> bool {
        let mut watched = self.lock();
        watched.retain(|_, tail| tail.is_watched());
        !watched.is_empty()
    }

    fn tails(&self) -> Vec<Arc<Tail>> {
        self.lock().values().cloned().collect()
    }

    async fn backlog(&self, tail: &Tail) -> Backlog {
        match timeout(self.timeout, self.ask(tail)).await {
            Ok(Ok(backlog)) => backlog,
            Ok(Err(error)) => {
                debug!(site = %tail.site, %error, "the newest events are not to be had: the list begins empty");
                Backlog::default()
            }
            Err(_) => Backlog::default(),
        }
    }

    async fn ask(&self, tail: &Tail) -> Result<Backlog, StoreError> {
        let now = wall_ms();
        let selection = Selection::new(&tail.site, &tail.filter, tail.goal());
        let asked = |sql: &str| {
            let query = selection.bind(self.client.query(sql)).param("to", now + 1);
            query.param("from", now - BACKLOG_MS).param("minute", now - MINUTES_SHOWN * MINUTE_MS)
        };
        let newest = asked(&format!(
            "SELECT toString(event_id) AS id, received_at, kind, name, path, referrer_host, channel, country, browser, device \
             FROM events WHERE {} ORDER BY event_time DESC LIMIT {MOST_EVENTS}",
            selection.since("from")
        ));
        let rows = newest.fetch_all::<EventRow>().await?;
        let mut reached = HashMap::new();
        if let Some(goal) = tail.goal() {
            let (condition, _) = goals::condition(goal, "goal");
            let rows = asked(&format!(
                "SELECT visitor, toUnixTimestamp64Milli(max(event_time)) AS at FROM events \
                 WHERE {} AND {condition} GROUP BY visitor LIMIT {MOST_VISITORS}",
                within("minute")
            ));
            reached =
                rows.fetch_all::<ReachedRow>().await?.into_iter().map(|row| (row.visitor, row.at)).collect();
        }
        Ok(Backlog { events: rows.into_iter().rev().filter_map(told_of).collect(), reached })
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// None of a row that another version has written.
fn told_of(row: EventRow) -> Option<FeedEvent> {
    let kinds = [EventKind::PageView, EventKind::Engagement, EventKind::Custom];
    Some(FeedEvent {
        id: row.id.parse::<EventId>().ok()?,
        received_at: row.received_at,
        kind: kinds.into_iter().find(|kind| kind.as_str() == row.kind)?,
        name: row.name,
        page: row.path,
        referrer: row.referrer_host,
        channel: row.channel,
        country: row.country,
        browser: row.browser,
        device: row.device,
    })
}
