//! The one task that merges: takes records as they come, and publishes what changed, of the sites that somebody watches:
//! at once, but a site no oftener than once a tick.

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
    alerts::AlertBoard,
    clock::{Moment, NodeClock},
    error::Error,
    feed::Feed,
    feeds::Feeds,
    metrics::Metrics,
    source::{self, From, Read, Source},
    view::{Limits, SiteState},
};

/// Nodes followed for [`footfall_schemas::viewer::Freshness::nodes`].
const MAX_NODES: usize = 10_000;
/// Looks at the sites in a tick.
const PULSES: u32 = 10;

pub(crate) struct Hub {
    feeds: Arc<Feeds>,
    sites: HashMap<SiteId, SiteSources>,
    alerts: AlertBoard,
    /// When each ingest node was last heard (monotonic ms), of whichever site.
    nodes: HashMap<String, i64>,
    limits: Limits,
    metrics: Metrics,
    /// When the sites that nobody watches were last looked after (monotonic ms).
    tidied_at: i64,
}

struct SiteSources {
    state: SiteState,
    feed: Arc<Feed>,
    silent: u32,
    /// When something was last published (monotonic ms).
    published_at: i64,
}

/// What the hub reads. An alert's state is told once and then lies there.
pub(crate) fn reads(lookback_ms: u64) -> [Read; 3] {
    let ago = From::Ago(lookback_ms);
    [(topics::LIVE, ago), (topics::PRESENCE, ago), (topics::ALERTS, From::Beginning)]
}

impl Hub {
    pub(crate) fn new(feeds: Arc<Feeds>, limits: Limits, metrics: Metrics) -> Self {
        let (sites, alerts, nodes) = (HashMap::new(), AlertBoard::default(), HashMap::new());
        let mut hub = Self { feeds, sites, alerts, nodes, limits, metrics, tidied_at: i64::MIN / 2 };
        hub.follow_directory();
        hub
    }

    /// Takes up the sites that have come, lets go those that are gone, and their goals as they are now.
    pub(crate) fn follow_directory(&mut self) {
        self.feeds.end_those_gone();
        let directory = self.feeds.directory().borrow().clone();
        self.sites.retain(|site, sources| directory.sites.contains_key(site) && !sources.feed.has_ended());
        for (site, listed) in &directory.sites {
            if !self.sites.contains_key(site) {
                let Some(feed) = self.feeds.get(site) else { continue };
                let state = SiteState::new(self.limits);
                let sources = SiteSources { state, feed, silent: 0, published_at: i64::MIN / 2 };
                self.sites.insert(site.clone(), sources);
            }
            let sources = self.sites.get_mut(site).expect("inserted above");
            sources.state.set_goals(&listed.site.goals);
        }
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
        // A change that comes after a pause is shown at the next of these, not at the end of a tick.
        let mut ticks = interval((tick / PULSES).max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut disturbed = false;
        let mut directory = self.feeds.directory();
        loop {
            let received = tokio::select! {
                // A flood of records must not keep the ticks away.
                biased;
                () = shutdown.cancelled() => return Ok(()),
                _ = ticks.tick() => {
                    if source.behind.is_empty() {
                        caught_up.store(true, Ordering::Release);
                        self.publish(clock.now(), tick);
                    }
                    continue;
                }
                Ok(()) = directory.changed() => {
                    self.follow_directory();
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
            topics::ALERTS => self.take_alert(message.key().unwrap_or_default(), message.payload()),
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

    fn take_alert(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<&'static str, serde_json::Error> {
        let changed = self.alerts.take(&String::from_utf8_lossy(key), value)?;
        let Some(site) = changed else { return Ok("stale") };
        let Some(site) = self.sites.get_mut(&site) else { return Ok("unknown_site") };
        site.state.touch();
        Ok("applied")
    }

    /// Publishes what is watched and changed, unless it was published less than a tick ago. What is not watched is not
    /// merged: it sleeps until somebody comes.
    pub(crate) fn publish(&mut self, now: Moment, tick: Duration) {
        let tick = tick.as_millis() as i64;
        let tidies = now.mono - self.tidied_at >= tick;
        if tidies {
            self.tidied_at = now.mono;
            self.nodes.retain(|_, heard_at| now.mono - *heard_at <= self.limits.presence_silence_ms);
            self.alerts.forget_old(now.wall);
        }
        let nodes = self.nodes.len() as u32;
        for (site, sources) in &mut self.sites {
            let SiteSources { state, feed, silent, published_at } = sources;
            if !feed.is_watched() {
                if tidies {
                    *silent = state.rest(now);
                    feed.sleep();
                }
            } else if feed.is_asleep() || (now.mono - *published_at >= tick && state.is_due(now)) {
                let view = state.view(now, nodes, self.alerts.shown(site, now.wall));
                *silent = view.freshness.silent_partitions;
                if feed.publish(view, now.wall) {
                    *published_at = now.mono;
                }
            }
        }
        if tidies {
            let silent = self.sites.values().map(|site| u64::from(site.silent)).sum();
            self.metrics.silent_partitions.record(silent, &[]);
        }
    }
}

#[cfg(test)]
mod tests {
    use footfall_schemas::{
        directory::Directory,
        live::{LiveState, Totals},
    };
    use serde_json::json;
    use tokio::sync::watch;

    use super::*;
    use crate::feed::Kept;

    const TICK: Duration = Duration::from_millis(250);

    fn live(seq: u64) -> Vec<u8> {
        let totals = Totals { active: seq, ..Totals::default() };
        let state = LiveState { totals: Some(totals), ..LiveState::default() };
        let site = SiteId::try_from("demo").unwrap();
        let record =
            LiveRecord { site, partition: 0, epoch: 1, seq, full: true, clock: 0, newest: 0, at: 0, state };
        serde_json::to_vec(&record).unwrap()
    }

    #[test]
    fn a_change_after_a_pause_is_shown_at_once_and_a_flood_once_a_tick() {
        let written = json!({ "key": "demo", "origins": ["*"] });
        let site = serde_json::from_value(written.clone()).unwrap();
        let (_change, directory) = watch::channel(Arc::new(Directory::declaring([(site, written)])));
        let feeds = Arc::new(Feeds::new(directory, Kept { frames: 100, bytes: 1_000_000 }));
        let limits = Limits { partition_silence_ms: 10_000, presence_silence_ms: 5_000, top_values: 4 };
        let mut hub = Hub::new(feeds.clone(), limits, Metrics::new());
        let watcher = feeds.get(&SiteId::try_from("demo").unwrap()).unwrap().watch();
        let mut seq = 0;
        let mut published_at = Vec::new();
        for mono in (0..2_000).step_by(25) {
            // One after a pause, then one every 25 ms.
            if mono == 300 || mono >= 1_000 {
                seq += 1;
                hub.take_live(&live(seq), Moment { wall: mono, mono }).unwrap();
            }
            let before = *watcher.borrow();
            hub.publish(Moment { wall: mono, mono }, TICK);
            if *watcher.borrow() > before {
                published_at.push(mono);
            }
        }
        assert_eq!(published_at, [0, 300, 1_000, 1_250, 1_500, 1_750]);
    }
}
