//! The one task that merges: takes records as they come, and four times a second publishes what changed.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use footfall_schemas::{SiteId, live::LiveRecord, partition_view::Taken, presence::PresenceReport, topics};
use rdkafka::{Message, error::KafkaError};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    clock::{Moment, NodeClock},
    error::Error,
    feed::Feed,
    metrics::Metrics,
    source::{self, Source},
    view::{Limits, SiteState},
};

/// Nodes followed for [`footfall_schemas::viewer::Freshness::nodes`].
const MAX_NODES: usize = 10_000;

/// Feeds of the configured sites; never changes while the node runs.
pub(crate) type Feeds = HashMap<SiteId, Arc<Feed>>;

pub(crate) struct Hub {
    sites: HashMap<SiteId, SiteSources>,
    /// When each ingest node was last heard (monotonic ms), of whichever site.
    nodes: HashMap<String, i64>,
    limits: Limits,
    metrics: Metrics,
}

struct SiteSources {
    state: SiteState,
    feed: Arc<Feed>,
    silent: u32,
}

impl Hub {
    pub(crate) fn new(feeds: &Feeds, limits: Limits, metrics: Metrics) -> Self {
        let sources =
            |feed: &Arc<Feed>| SiteSources { state: SiteState::new(limits), feed: feed.clone(), silent: 0 };
        let sites = feeds.iter().map(|(site, feed)| (site.clone(), sources(feed))).collect();
        Self { sites, nodes: HashMap::new(), limits, metrics }
    }

    /// Reads, merges and publishes until shutdown. `caught_up` is set once everything that lay on the log was read;
    /// nothing is published before, so that no viewer sees numbers grow from zero after a restart.
    pub(crate) async fn run(
        mut self,
        mut source: Source,
        clock: NodeClock,
        tick: Duration,
        caught_up: Arc<AtomicBool>,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let mut ticks = interval(tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut disturbed = false;
        loop {
            let received = tokio::select! {
                // A flood of records must not keep the ticks away.
                biased;
                () = shutdown.cancelled() => return Ok(()),
                _ = ticks.tick() => {
                    if source.behind.is_empty() {
                        caught_up.store(true, Ordering::Release);
                        self.publish(clock.now());
                    }
                    continue;
                }
                received = source.consumer.recv() => received,
            };
            match received {
                Ok(message) => {
                    disturbed = false;
                    self.take(&message, source.behind.is_empty(), clock.now());
                    let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
                    source.behind.passed(topic, partition, offset);
                }
                Err(KafkaError::MessageConsumptionFatal(code)) => {
                    return Err(Error::Hub(format!("reading the live topics: {code}")));
                }
                // librdkafka reconnects by itself. What is on screen goes stale and says so.
                Err(error) if !disturbed => {
                    disturbed = true;
                    warn!(%error, "the live topics cannot be read at the moment");
                }
                Err(error) => debug!(%error, "still cannot read the live topics"),
            }
        }
    }

    fn take(&mut self, message: &impl Message, caught_up: bool, now: Moment) {
        let value = message.payload().unwrap_or_default();
        let outcome = match message.topic() {
            topics::LIVE => self.take_live(value, now),
            _ => {
                // What lay on the log before this node started was told then, not now.
                let age = match (caught_up, source::written_at(message)) {
                    (false, Some(written_at)) => (now.wall - written_at).max(0),
                    _ => 0,
                };
                self.take_presence(value, now.mono - age)
            }
        };
        let outcome = outcome.unwrap_or_else(|error| {
            warn!(topic = message.topic(), partition = message.partition(), offset = message.offset(), %error,
                "a record cannot be read; is another version writing?");
            "unreadable"
        });
        Metrics::count(&self.metrics.records, "footfall.outcome", outcome);
    }

    pub(crate) fn take_live(&mut self, value: &[u8], now: Moment) -> Result<&'static str, serde_json::Error> {
        let record: LiveRecord = serde_json::from_slice(value)?;
        let Some(site) = self.sites.get_mut(&record.site) else { return Ok("unknown_site") };
        self.metrics.lag.record((now.wall - record.at).max(0) as f64 / 1_000.0, &[]);
        Ok(match site.state.take_live(record, now) {
            Taken::Applied => "applied",
            Taken::Stale => "stale",
            Taken::Gap => "gap",
        })
    }

    pub(crate) fn take_presence(
        &mut self,
        value: &[u8],
        heard_at: i64,
    ) -> Result<&'static str, serde_json::Error> {
        let report: PresenceReport = serde_json::from_slice(value)?;
        if self.nodes.len() < MAX_NODES || self.nodes.contains_key(&report.node) {
            let heard = self.nodes.entry(report.node.clone()).or_insert(heard_at);
            *heard = heard_at.max(*heard);
        }
        let Some(site) = self.sites.get_mut(&report.site) else { return Ok("unknown_site") };
        site.state.take_presence(report, heard_at);
        Ok("applied")
    }

    pub(crate) fn publish(&mut self, now: Moment) {
        self.nodes.retain(|_, heard_at| now.mono - *heard_at <= self.limits.presence_silence_ms);
        let nodes = self.nodes.len() as u32;
        for site in self.sites.values_mut().filter(|site| site.state.is_due(now)) {
            let view = site.state.view(now, nodes);
            site.silent = view.freshness.silent_partitions;
            site.feed.publish(view, now.wall);
        }
        self.metrics
            .silent_partitions
            .record(self.sites.values().map(|site| u64::from(site.silent)).sum(), &[]);
    }
}
