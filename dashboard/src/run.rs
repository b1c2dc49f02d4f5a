//! Puts the role together and runs it.

use std::sync::{Arc, atomic::AtomicBool};

use footfall_schemas::{
    connect::{ClickHouseSettings, KafkaSettings},
    directory::Directory,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    accounts::Accounts,
    archive::Archive,
    assets::Assets,
    clock::NodeClock,
    config::{Config, ms},
    directory::Edit,
    error::Error,
    feed::Kept,
    feeds::Feeds,
    filtered::FilteredViews,
    hub::{self, Hub},
    metrics::Metrics,
    routes::Node,
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
    /// Sites, users, keys and links as they stand; at the start, all that lay on its topic.
    pub directory: watch::Receiver<Arc<Directory>>,
    pub edit: Arc<dyn Edit>,
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
        accounts: Accounts::new(parts.directory.clone(), parts.edit.clone(), &parts.secret, config),
        archive: Archive::new(&parts.clickhouse, config),
        assets: Assets::embedded(),
        ingest_url: parts.ingest_url.trim_end_matches('/').to_owned(),
        demo_url: parts.demo_url.clone(),
        metrics_text: parts.metrics_text.clone(),
        caught_up: caught_up.clone(),
        viewers: Arc::new(Semaphore::new(config.max_viewers)),
        public_viewers: Arc::new(Semaphore::new(config.max_public_viewers)),
        tasks: TaskTracker::new(),
        shared: Arc::new(Shared {
            feeds,
            filtered,
            tails: tails.clone(),
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
