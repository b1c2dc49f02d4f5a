//! Puts the role together and runs it.

use std::sync::{Arc, atomic::AtomicBool};

use bytes::Bytes;
use footfall_schemas::{
    connect::{ClickHouseSettings, KafkaSettings},
    directory::Directory,
    site::Site,
    snippet::script_tag,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    archive::Archive,
    assets::Assets,
    auth::{Links, Sessions},
    clock::{NodeClock, wall_ms},
    config::{Config, ms},
    error::Error,
    feed::Kept,
    feeds::Feeds,
    filtered::FilteredViews,
    hub::{self, Hub},
    metrics::Metrics,
    routes::{LoginLimiter, Node},
    server,
    source::Source,
    subscription::Shared,
    tails::Tails,
    view::Limits,
};

/// Renders this process's metrics as Prometheus text.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// What the role is given.
#[derive(Clone)]
pub struct Parts {
    pub config: Config,
    /// The sites that there are. They may come and go.
    pub directory: watch::Receiver<Arc<Directory>>,
    pub kafka: KafkaSettings,
    /// With the reader's user.
    pub clickhouse: ClickHouseSettings,
    /// Signs login links and sessions; the same on all nodes.
    pub secret: [u8; 32],
    pub metrics_text: MetricsText,
    /// Where browsers reach ingest: goes into the snippet.
    pub ingest_url: String,
    /// The demo site's address, where there is one.
    pub demo_url: Option<String>,
}

impl std::fmt::Debug for Parts {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("config", &self.config)
            .field("sites", &self.directory.borrow().sites.keys())
            .field("kafka", &self.kafka.brokers)
            .field("clickhouse", &self.clickhouse)
            .finish_non_exhaustive()
    }
}

/// Serves the dashboard on `listener` until `shutdown`, then ends the connections within `grace_ms`. While Kafka or
/// ClickHouse cannot be reached it goes on and says so; an `Err` is a fault that waiting does not heal.
pub async fn run(listener: TcpListener, parts: Parts, shutdown: CancellationToken) -> Result<(), Error> {
    parts.config.validate()?;
    let config = &parts.config;
    let metrics = Metrics::new();
    let clock = NodeClock::start();
    // Ends everything when one half fails.
    let stop = shutdown.child_token();

    let kept = Kept { frames: config.kept_changes, bytes: config.kept_bytes };
    let feeds = Arc::new(Feeds::new(parts.directory.clone(), kept));
    let limits = Limits {
        partition_silence_ms: config.partition_silence_ms as i64,
        presence_silence_ms: config.presence_silence_ms as i64,
        top_values: config.top_values,
    };
    let hub = Hub::new(feeds.clone(), limits, metrics.clone());
    let filtered =
        FilteredViews::new(&parts.clickhouse, config, feeds.clone(), metrics.clone(), stop.clone());
    let tails = Tails::new(&parts.kafka, &parts.clickhouse, config, feeds.clone(), metrics.clone());
    let caught_up = Arc::new(AtomicBool::new(false));

    let node = Arc::new(Node {
        links: Links::new(&parts.secret, config.login_link_ms, wall_ms()),
        logins: LoginLimiter::new(config.logins_per_minute),
        archive: Archive::new(&parts.clickhouse, config),
        assets: Assets::embedded(),
        sites: Box::new({
            let parts = parts.clone();
            move || sites_body(&parts)
        }),
        metrics_text: parts.metrics_text.clone(),
        caught_up: caught_up.clone(),
        viewers: Arc::new(Semaphore::new(config.max_viewers)),
        tasks: TaskTracker::new(),
        shared: Arc::new(Shared {
            feeds,
            filtered,
            tails: tails.clone(),
            sessions: Sessions::new(&parts.secret, config.session_ms),
            config: config.clone(),
            metrics,
            shutdown: stop.clone(),
        }),
    });

    let merging = tokio::spawn({
        let (stop, kafka) = (stop.clone(), parts.kafka.clone());
        let (tick, lookback_ms) = (ms(config.tick_ms), config.lookback_ms);
        async move {
            match Source::open(&kafka, &hub::reads(lookback_ms), &stop).await? {
                Some(source) => hub.run(source, clock, tick, caught_up, stop).await,
                None => Ok(()),
            }
        }
    });
    let tailing = tokio::spawn(tails.run(stop.clone()));
    let merged = async {
        let merged = merging.await.unwrap_or_else(|panic| Err(Error::Hub(panic.to_string())));
        stop.cancel();
        merged
    };
    let served = async {
        let served = server::serve(listener, node, stop.clone()).await;
        stop.cancel();
        served
    };
    let (merged, served) = tokio::join!(merged, served);
    // Its consumer is let go before the process may end.
    let _ = tailing.await;
    merged.and(served)
}

/// Body of `/api/sites`: what can be watched and how to install the tracker.
fn sites_body(parts: &Parts) -> Bytes {
    let ingest = parts.ingest_url.trim_end_matches('/');
    let site = |site: &Site| {
        let key = site.key.as_str();
        let demo = parts.demo_url.as_ref().filter(|_| key == "demo");
        serde_json::json!({
            "key": key,
            "name": if site.name.is_empty() { key } else { &site.name },
            "origins": site.origins,
            "snippet": script_tag(ingest, key),
            "demo": demo,
        })
    };
    let directory = parts.directory.borrow().clone();
    let sites: Vec<_> = directory.sites.values().map(|listed| site(&listed.site)).collect();
    serde_json::json!({ "sites": sites, "ingest": ingest }).to_string().into()
}
