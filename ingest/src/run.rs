//! The life of an ingest node: connect, serve, drain.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use arc_swap::ArcSwap;
use footfall_schemas::{
    SiteId, connect::KafkaSettings, directory::Directory, presence::IngestLedger, record::DeadLetter,
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, spawn_blocking},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    batcher::{Batcher, Inbox},
    clock::now_ms,
    config::{Config, GeographyConfig},
    dead_letter::DeadLetters,
    enrich::geography::Geography,
    error::Error,
    limits::Limits,
    listener::{self, Listeners},
    log::Log,
    metrics::Metrics,
    node::Node,
    receipt::Desk,
    reload::{self, Reload},
    room::Room,
    seldom::Seldom,
    shipper::Shipper,
    sites::Sites,
    spool::Spool,
    tls::Certificate,
    trace::Sampling,
    visitor::VisitorKeys,
    wheel::Wheel,
};

const REPORT: Duration = Duration::from_secs(1);
const SWEEP: Duration = Duration::from_secs(30);
const PROBE: Duration = Duration::from_secs(5);

/// What an ingest node is made of.
pub struct Parts {
    pub config: Config,
    /// Its sites are served, as it says at any time.
    pub directory: watch::Receiver<Arc<Directory>>,
    pub kafka: KafkaSettings,
    /// The deployment's secret, equal on every node.
    pub secret: [u8; 32],
    /// Name of this node, unique among those that run.
    pub node: String,
    /// Answers `/metrics`.
    pub metrics_text: Arc<dyn Fn() -> String + Send + Sync>,
    /// Share of the batches that are traced, 0 to 1; 0 when nobody takes traces.
    pub trace_ratio: f64,
    /// New settings while the node runs.
    pub reload: Reload,
}

impl std::fmt::Debug for Parts {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("node", &self.node)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Serves on `listeners` until `shutdown` is cancelled, then drains: no new connection, no further frame; what is in
/// flight is delivered and acked; sockets close with 1012. Connections that come before Kafka is there wait.
pub async fn run(
    listeners: impl Into<Listeners>,
    parts: Parts,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let listeners = listeners.into();
    parts.config.check()?;
    let certificate = listeners.need_tls().then(|| Certificate::load(&parts.config.tls)).transpose()?;
    let acceptor = certificate.as_ref().map(Certificate::acceptor).transpose().map_err(Error::TlsSettings)?;
    let metrics = Arc::new(Metrics::new());
    let (log, spool) = match connect(&parts, &metrics, &shutdown).await {
        // Stopped before it began: nothing was taken, nothing is left to do.
        Err(_) if shutdown.is_cancelled() => return Ok(()),
        connected => connected?,
    };
    let geography = open_geography(&parts.config.geography).await?;
    let rate = parts.config.limits.dead_letters_per_site;
    let (dead_letters, letters) = DeadLetters::new(rate, Arc::clone(&metrics));
    let sites = Arc::new(Sites::new(&parts.directory.borrow(), rate));
    metrics.observe(&sites);
    let desk = Desk {
        dead_letters: dead_letters.clone(),
        metrics: Arc::clone(&metrics),
        room: Room::new(parts.config.batcher.in_flight_bytes as usize),
    };
    let (batcher, inbox) = Batcher::new(Arc::new(desk), log.partitions());
    let shipper =
        Shipper::new(&parts.config, Arc::clone(&inbox), Arc::clone(&log), spool, Arc::clone(&metrics));
    let node = Arc::new(Node {
        name: parts.node,
        sites,
        visitors: VisitorKeys::derive(&parts.secret),
        geography: Arc::clone(&geography),
        steps: Arc::default(),
        limits: Arc::new(Limits::new(parts.config.limits.clone(), Arc::clone(&metrics))),
        trusted_proxies: ArcSwap::from_pointee(parts.config.trusted_proxies.clone()),
        complaints: Seldom::default(),
        wheel: Arc::new(Wheel::new()),
        batcher,
        dead_letters,
        metrics,
        sampling: Sampling::new(parts.trace_ratio),
        health: Arc::clone(log.health()),
        metrics_text: parts.metrics_text,
        // Of our own, so that a fault that cannot be healed drains as well.
        shutdown: shutdown.child_token(),
        tasks: TaskTracker::new(),
        config: parts.config,
    });
    for (address, speaks) in listeners.addresses().map_err(Error::Listener)? {
        info!(node = %node.name, %address, ?speaks, "ingest serves");
    }

    let turning = tokio::spawn(Arc::clone(&node.wheel).run(node.shutdown.clone()));
    node.steps.observe(&opentelemetry::global::meter("footfall.ingest"));
    if geography.is_configured() {
        let every = Duration::from_millis(node.config.geography.check_ms);
        node.tasks.spawn(watch_geography(geography, every, node.shutdown.clone()));
    }
    let _closed = CloseWhenDropped(Arc::clone(&inbox));
    let shipping = spawn_blocking(move || shipper.run());
    let writing = tokio::spawn(write_dead_letters(letters, Arc::clone(&log)));
    let reporting = tokio::spawn(report(Arc::clone(&node), Arc::clone(&log)));
    let probing = tokio::spawn(probe(Arc::clone(&node), Arc::clone(&log)));
    tokio::spawn(reload::follow(Arc::clone(&node), certificate, parts.reload, parts.directory));
    let served = listener::serve(listeners, acceptor, Arc::clone(&node)).await.map_err(Error::Listener);
    node.shutdown.cancel();

    drain(node, &inbox, shipping, writing, reporting, log).await;
    turning.abort();
    served.and(probing.await.unwrap_or(Ok(())))
}

/// A node that is dropped instead of drained must not leave the shipper's thread behind: a runtime waits for it.
struct CloseWhenDropped(Arc<Inbox>);

impl Drop for CloseWhenDropped {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn connect(
    parts: &Parts,
    metrics: &Arc<Metrics>,
    shutdown: &CancellationToken,
) -> Result<(Arc<Log>, Option<Spool>), Error> {
    let (kafka, config) = (parts.kafka.clone(), parts.config.clone());
    let (metrics, shutdown) = (Arc::clone(metrics), shutdown.clone());
    let connected = spawn_blocking(move || {
        let log = Log::connect(&kafka, &config.batcher, metrics, &shutdown)?;
        let spool = Spool::open(&config.spool, log.partitions()).map_err(|source| {
            let path = config.spool.path.unwrap_or_default();
            Error::Spool { path, source }
        })?;
        Ok((Arc::new(log), spool))
    });
    connected.await.expect("connecting does not panic and is not aborted")
}

async fn open_geography(config: &GeographyConfig) -> Result<Arc<Geography>, Error> {
    let path = config.database.clone();
    let opened = spawn_blocking(move || Geography::open(path)).await;
    Ok(Arc::new(opened.expect("reading does not panic and is not aborted")?))
}

/// Follows the database file: whoever updates it need not restart anything.
async fn watch_geography(geography: Arc<Geography>, every: Duration, shutdown: CancellationToken) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let reading = Arc::clone(&geography);
        match spawn_blocking(move || reading.refresh()).await {
            Ok(Ok(true)) => info!("the geography database was read again"),
            Ok(Err(error)) => warn!(%error, "the geography database cannot be read; the one before stays"),
            Ok(Ok(false)) | Err(_) => {}
        }
    }
}

/// In the order of the flow, each step with its deadline: sockets, shipper, dead letters, log.
async fn drain(
    node: Arc<Node>,
    inbox: &Inbox,
    shipping: JoinHandle<()>,
    writing: JoinHandle<()>,
    mut reporting: JoinHandle<()>,
    log: Arc<Log>,
) {
    let grace = Duration::from_millis(node.config.grace_period_ms);
    node.tasks.close();
    // Sockets give up by themselves at the grace period; a second more for their close frames.
    if timeout(grace + Duration::from_secs(2), node.tasks.wait()).await.is_err() {
        warn!(connections = node.tasks.len(), "connections outlived the grace period and are cut");
    }
    if timeout(Duration::from_secs(1), &mut reporting).await.is_err() {
        reporting.abort();
    }
    drop(node);
    // It gives up by itself at the grace period; two seconds more for what comes back then.
    inbox.close();
    if timeout(grace + Duration::from_secs(2), shipping).await.is_err() {
        warn!("the log's thread did not end in time");
    }
    // Refusals that were settled by the last deliveries have been told by now.
    let _ = timeout(Duration::from_secs(1), writing).await;
    let _ = spawn_blocking(move || log.close(Duration::from_secs(1))).await;
    info!("ingest has drained");
}

async fn write_dead_letters(mut letters: mpsc::Receiver<DeadLetter>, log: Arc<Log>) {
    while let Some(letter) = letters.recv().await {
        log.send_dead_letter(&letter);
    }
}

/// Once a second and per site: who is there, and what became of the events. One last report at the end.
async fn report(node: Arc<Node>, log: Arc<Log>) {
    let started_at = now_ms();
    let mut told: HashMap<SiteId, (u32, IngestLedger)> = HashMap::new();
    let mut ticks = interval(REPORT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut swept = Instant::now();
    loop {
        let last = tokio::select! {
            _ = ticks.tick() => false,
            () = node.shutdown.cancelled() => {
                // When the sockets are gone: the last word is of an empty site and a complete ledger.
                node.tasks.wait().await;
                true
            }
        };
        for site in node.sites.known().values() {
            let mut report = site.report(&node.name, started_at, now_ms(), Instant::now());
            if last {
                (report.online, report.visible) = (0, 0);
                report.pages.clear();
            }
            site.online.store(report.online, Ordering::Relaxed);
            let (online, ledger) = told.entry(site.key().clone()).or_default();
            // One zero after the last visitor, then silence.
            if report.online > 0 || *online > 0 || *ledger != report.ledger {
                log.send_presence(&report);
                (*online, *ledger) = (report.online, report.ledger);
            }
        }
        if last {
            return;
        }
        if swept.elapsed() >= SWEEP {
            swept = Instant::now();
            node.limits.sweep();
        }
    }
}

/// Looks after Kafka; when the producer is dead for good, the node drains and ends with the reason.
async fn probe(node: Arc<Node>, log: Arc<Log>) -> Result<(), Error> {
    let shutdown = node.shutdown.clone();
    // Dead letters are written until the last node handle is gone: this task must not keep one.
    drop(node);
    let mut ticks = interval(PROBE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let log = Arc::clone(&log);
        if let Ok(Err(fatal)) = spawn_blocking(move || log.probe()).await {
            shutdown.cancel();
            return Err(fatal);
        }
    }
}
