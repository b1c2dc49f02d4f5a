//! The life of an ingest node: connect, serve, drain.

use std::{collections::HashMap, sync::Arc, time::Duration};

use footfall_schemas::{
    SiteId, connect::KafkaSettings, presence::IngestLedger, record::DeadLetter, site::Site,
};
use opentelemetry::KeyValue;
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    batcher::{Batcher, Inbox},
    clock::now_ms,
    config::Config,
    dead_letter::DeadLetters,
    error::Error,
    limits::Limits,
    listener,
    log::Log,
    metrics::Metrics,
    node::Node,
    receipt::Desk,
    room::Room,
    shipper::Shipper,
    sites::Sites,
    spool::Spool,
    visitor::VisitorKeys,
};

const REPORT: Duration = Duration::from_secs(1);
const SWEEP: Duration = Duration::from_secs(30);
const PROBE: Duration = Duration::from_secs(5);

/// What an ingest node is made of.
pub struct Parts {
    pub config: Config,
    pub sites: Vec<Site>,
    pub kafka: KafkaSettings,
    /// The deployment's secret, equal on every node.
    pub secret: [u8; 32],
    /// Name of this node, unique among those that run.
    pub node: String,
    /// Answers `/metrics`.
    pub metrics_text: Arc<dyn Fn() -> String + Send + Sync>,
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

/// Serves on `listener` until `shutdown` is cancelled, then drains: no new connection, no further frame; what is in
/// flight is delivered and acked; sockets close with 1012. Connections that come before Kafka is there wait.
pub async fn run(listener: TcpListener, parts: Parts, shutdown: CancellationToken) -> Result<(), Error> {
    parts.config.check()?;
    let metrics = Arc::new(Metrics::new());
    let (log, spool) = match connect(&parts, &metrics, &shutdown).await {
        // Stopped before it began: nothing was taken, nothing is left to do.
        Err(_) if shutdown.is_cancelled() => return Ok(()),
        connected => connected?,
    };
    let (dead_letters, letters) =
        DeadLetters::new(&parts.sites, parts.config.limits.dead_letters_per_site, Arc::clone(&metrics));
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
        sites: Sites::new(parts.sites),
        visitors: VisitorKeys::derive(&parts.secret),
        limits: Limits::new(parts.config.limits.clone()),
        batcher,
        dead_letters,
        metrics,
        health: Arc::clone(log.health()),
        metrics_text: parts.metrics_text,
        // Of our own, so that a fault that cannot be healed drains as well.
        shutdown: shutdown.child_token(),
        tasks: TaskTracker::new(),
        config: parts.config,
    });
    let address = listener.local_addr().map_err(Error::Listener)?;
    info!(node = %node.name, %address, "ingest serves");

    let shipping = spawn_blocking(move || shipper.run());
    let writing = tokio::spawn(write_dead_letters(letters, Arc::clone(&log)));
    let reporting = tokio::spawn(report(Arc::clone(&node), Arc::clone(&log)));
    let probing = tokio::spawn(probe(Arc::clone(&node), Arc::clone(&log)));
    let served = listener::serve(listener, Arc::clone(&node)).await.map_err(Error::Listener);
    node.shutdown.cancel();

    drain(node, &inbox, shipping, writing, reporting, log).await;
    served.and(probing.await.unwrap_or(Ok(())))
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
        for site in node.sites.iter() {
            let mut report = site.report(&node.name, started_at, now_ms(), Instant::now());
            if last {
                (report.online, report.visible) = (0, 0);
                report.pages.clear();
            }
            node.metrics
                .online
                .record(report.online.into(), &[KeyValue::new("site", site.key().to_string())]);
            let (online, ledger) = told.entry(site.key().clone()).or_default();
            node.metrics.ledger(site.key().as_str(), ledger, &report.ledger);
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
