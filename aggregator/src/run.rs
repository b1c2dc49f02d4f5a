//! The role: one source, one driver a partition.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use footfall_schemas::{
    connect::{ClickHouseSettings, KafkaSettings},
    directory::Directory,
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    alerts,
    config::Config,
    driver::{Driver, WallClock},
    error::Error,
    keep::Keeper,
    letters::Letters,
    metrics::Metrics,
    outlet::Topics,
    ports::Ports,
    source::{Assignment, Event, Source},
    status::Status,
    store::ClickHouse,
};

/// What the role is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    pub config: Config,
    /// Its sites, each with the gap of its sessions, and with the rules that are held against its live windows, as it
    /// says at any time.
    pub directory: watch::Receiver<Arc<Directory>>,
    pub kafka: KafkaSettings,
    /// The writer.
    pub clickhouse: ClickHouseSettings,
    /// Names this process among the group's members: unique, and the same after a restart.
    pub member: String,
    /// Shared with whoever asks how the role is doing.
    pub status: Arc<Status>,
}

/// Runs until `shutdown`, then writes what is open and leaves the group. The topics and tables must exist.
///
/// # Errors
/// A setting that cannot work, or a log that no longer holds what is to be read next. Everything else is tried again
/// for ever, and told by [`Status`].
pub async fn run(parts: Parts, shutdown: CancellationToken) -> Result<(), Error> {
    parts.config.check()?;
    let wall: WallClock = Arc::new(wall_clock);
    let config = Arc::new(parts.config);
    let metrics = Metrics::new(&parts.status);
    let store = Arc::new(ClickHouse::new(&parts.clickhouse, &config, &parts.member, wall()));
    let outlet = Arc::new(Topics::new(&parts.kafka, &parts.member)?);

    let stop_letters = CancellationToken::new();
    let letters = Letters::new(&parts.kafka, &parts.member, store.clone(), config.clone(), metrics.clone())?;
    let letters = tokio::spawn(letters.run(stop_letters.clone()));
    let stop_alerts = CancellationToken::new();
    let alerts = alerts::evaluator(
        parts.directory.clone(),
        (&parts.kafka, &parts.member),
        &config,
        store.clone(),
        parts.status.clone(),
        wall.clone(),
    )?;
    let alerts = tokio::spawn(alerts.run(stop_alerts.clone()));
    let source = Source::spawn(&parts.kafka, &config, &parts.member, parts.status.clone(), wall.clone())?;

    let mut group = Group {
        config,
        directory: parts.directory,
        status: parts.status,
        metrics,
        store,
        outlet: outlet.clone(),
        wall,
        audits: Arc::new(Semaphore::new(1)),
        drivers: JoinSet::new(),
        owned: HashMap::new(),
    };
    let result = group.run(source, &shutdown).await;
    stop_letters.cancel();
    stop_alerts.cancel();
    let _ = letters.await;
    let _ = alerts.await;
    let _ = tokio::task::spawn_blocking(move || outlet.flush(Duration::from_secs(1))).await;
    result
}

fn wall_clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The partitions of this member.
struct Group {
    config: Arc<Config>,
    directory: watch::Receiver<Arc<Directory>>,
    status: Arc<Status>,
    metrics: Metrics,
    store: Arc<ClickHouse>,
    outlet: Arc<Topics>,
    wall: WallClock,
    audits: Arc<Semaphore>,
    drivers: JoinSet<Result<(), Error>>,
    owned: HashMap<i32, Owned>,
}

struct Owned {
    drain: CancellationToken,
    revoked: CancellationToken,
    /// Cancelled when the driver has ended.
    ended: CancellationToken,
}

impl Group {
    async fn run(&mut self, mut source: Source, shutdown: &CancellationToken) -> Result<(), Error> {
        let result = loop {
            tokio::select! {
                () = shutdown.cancelled() => break Ok(()),
                event = source.events.recv() => match event {
                    Some(Event::Assigned(assignment)) => self.assigned(assignment),
                    Some(Event::Revoked(partitions, done)) => self.revoked(&partitions, done),
                    Some(Event::Fault(fault)) => break Err(fault),
                    None => break Err(Error::Ended("consumer thread")),
                },
                Some(ended) = self.drivers.join_next() => match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(fault)) => break Err(fault),
                    Err(panic) => {
                        error!(%panic, "a partition's driver has failed");
                        break Err(Error::Ended("driver of a partition"));
                    }
                },
            }
        };
        if let Err(fault) = &result {
            error!(%fault, "the aggregator stops");
        }
        self.drain().await;
        source.stop().await;
        result
    }

    fn assigned(&mut self, assignment: Assignment) {
        let Assignment { partition, epoch, log, inbox } = assignment;
        let owned = Owned {
            drain: CancellationToken::new(),
            revoked: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        let driver = Driver {
            keeper: Keeper {
                partition,
                ports: Ports { log: Arc::new(log), store: self.store.clone(), outlet: self.outlet.clone() },
                config: self.config.clone(),
                status: self.status.clone(),
                metrics: self.metrics.clone(),
            },
            directory: self.directory.clone(),
            inbox,
            wall: self.wall.clone(),
            epoch,
            audits: self.audits.clone(),
            drain: owned.drain.clone(),
            revoked: owned.revoked.clone(),
        };
        let ended = owned.ended.clone().drop_guard();
        self.owned.insert(partition, owned);
        self.drivers.spawn(async move {
            let _ended = ended;
            Box::pin(driver.run()).await
        });
    }

    fn revoked(&mut self, partitions: &[i32], done: std::sync::mpsc::Sender<()>) {
        let leaving: Vec<Owned> =
            partitions.iter().filter_map(|partition| self.owned.remove(partition)).collect();
        tokio::spawn(async move {
            for owned in &leaving {
                owned.revoked.cancel();
            }
            for owned in &leaving {
                owned.ended.cancelled().await;
            }
            // The consumer may have stopped waiting.
            let _ = done.send(());
        });
    }

    /// Lets every partition write what is open.
    async fn drain(&mut self) {
        self.owned.values().for_each(|owned| owned.drain.cancel());
        let patience = Duration::from_millis(self.config.drain_ms);
        let drivers = &mut self.drivers;
        let drained = timeout(patience, async {
            while let Some(ended) = drivers.join_next().await {
                if let Ok(Err(fault)) = ended {
                    error!(%fault, "a partition could not be put down");
                }
            }
        });
        match drained.await {
            Ok(()) => info!("drained"),
            Err(_) => warn!(
                drain_ms = self.config.drain_ms,
                "not everything was written in time; the next start finishes it"
            ),
        }
        self.drivers.shutdown().await;
    }
}
