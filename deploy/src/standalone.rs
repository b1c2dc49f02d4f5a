//! All roles in one process, on an embedded broker and an embedded engine, through the same clients and the same code
//! as a cluster. What the file names under `[kafka]` or `[clickhouse]` is used instead of the embedded part.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use footfall_schemas::{connect::KafkaSettings, directory::Directory};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::{
    directory::{Reader, Writer},
    embedded::{
        broker::{Broker, BrokerConfig},
        clickhouse::{Engine, EngineConfig},
    },
    identity::{Identity, write_private},
    load::unix_ms,
    migrate,
    ready::{READY_FILE, Ready, ReadyClickHouse, reachable},
    reload::Reloaded,
    roles::{self, Shared},
    settings::{DEMO_SITE, Settings, demo_site},
    supervisor::Role,
    telemetry::Telemetry,
};

/// `footfall standalone`: each argument wins over the file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct StandaloneArgs {
    /// Where the log, the tables and the secrets are kept [default: footfall-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where trackers connect [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub ingest: Option<SocketAddr>,
    /// Where the live page is served [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR")]
    pub dashboard: Option<SocketAddr>,
    /// Where the embedded engine speaks HTTP [default: 127.0.0.1:8123]
    #[arg(long, value_name = "ADDR")]
    pub clickhouse: Option<SocketAddr>,
    /// Where the embedded broker listens [default: 127.0.0.1:9092]
    #[arg(long, value_name = "ADDR")]
    pub kafka: Option<SocketAddr>,
    /// Holds JSON with the addresses once everything is ready; removed at stop
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

impl StandaloneArgs {
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let mut settings = Settings::load(self.config.as_deref())?;
        let listen = &mut settings.listen;
        listen.ingest = self.ingest.unwrap_or(listen.ingest);
        listen.dashboard = self.dashboard.unwrap_or(listen.dashboard);
        listen.clickhouse = self.clickhouse.unwrap_or(listen.clickhouse);
        listen.kafka = self.kafka.unwrap_or(listen.kafka);
        if let Some(data_dir) = &self.data_dir {
            settings.data_dir.clone_from(data_dir);
        }
        // The embedded parts change their working directory.
        settings.data_dir = std::path::absolute(&settings.data_dir).context("data_dir")?;
        settings.ingest.demo = true;
        Ok(settings)
    }
}

/// How long the roles may take to become ready. An aggregator replays the log since its last snapshot first.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Runs until `stop`, then drains in order: sockets and their batches, pages, aggregator, log, engine.
pub async fn run(
    settings: Settings,
    ready_file: Option<&Path>,
    telemetry: &Telemetry,
    reloaded: Reloaded,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    // Sockets first: an address in use is told before anything slow is started.
    let ingest_sockets = roles::bind_ingest("listen.ingest (--ingest)", &settings, None)?;
    let dashboard_socket = roles::bind("listen.dashboard (--dashboard)", settings.listen.dashboard).await?;
    let identity = Identity::load_or_create(&settings.data_dir)?;

    eprintln!("footfall: starting the log and the engine");
    let (broker, engine) = tokio::try_join!(start_broker(&settings), start_engine(&settings, &identity))?;
    let kafka = match &broker {
        Some(broker) => {
            KafkaSettings { brokers: broker.address().to_string(), properties: Default::default() }
        }
        None => settings.kafka()?,
    };
    let mut clickhouse = settings.clickhouse.clone();
    if let Some(engine) = &engine {
        clickhouse = identity.clickhouse(engine.engine.url());
    }
    let mut settings = Settings { clickhouse, ..settings };

    eprintln!("footfall: making topics and tables");
    migrate::create_topics(&kafka, settings.kafka.partitions, settings.kafka.replication).await?;
    migrate::create_tables(&settings.clickhouse("admin", &settings.clickhouse.admin)?).await?;

    let directory_reader = Reader::spawn(&kafka, reloaded.declared)?;
    let writer = Arc::new(Writer::new(&kafka, &directory_reader)?);
    directory_reader.caught_up(READY_WITHIN).await?;
    let directory = directory_reader.directory();
    // Not borrowed while it is written: the reader could not show it then.
    let listed = directory.borrow().clone();
    make_demo_site(&listed, &writer).await?;

    let (ingest_address, dashboard_address) =
        (ingest_sockets[0].socket.local_addr()?, dashboard_socket.local_addr()?);
    let reader = settings.clickhouse("reader", &settings.clickhouse.reader)?;
    let ingest_url = format!("http://{}", reachable(ingest_address));
    let dashboard_url = format!("http://{}", reachable(dashboard_address));
    let public_url = settings.dashboard.public_url.as_ref().unwrap_or(&dashboard_url);
    settings.ingest.dashboard_url.clone_from(public_url);
    let shared = Shared {
        settings: &settings,
        directory: directory.clone(),
        kafka: kafka.clone(),
        secret: identity.secret,
        metrics_text: telemetry.metrics_text(),
        trace_ratio: telemetry.trace_ratio(),
        worker: None,
        ingest_url: ingest_url.clone(),
        dashboard_url: dashboard_url.clone(),
    };
    let grace = settings.grace_period();
    let engine = engine.map(|engine| Role::spawn("engine", |stop| engine.keep_running(stop, grace)));
    let (aggregator, counting) = roles::aggregator(&shared)?;
    let mut roles = Roles {
        ingest: roles::ingest(&shared, ingest_sockets, Some(reloaded.ingest)),
        dashboard: roles::dashboard(&shared, dashboard_socket, writer)?,
        aggregator,
        engine,
    };
    let ready = Ready {
        demo: format!("{ingest_url}/demo/"),
        login: footfall_dashboard::login_url(&identity.secret, &dashboard_url, unix_ms()),
        set_up: (!directory.borrow().has_owner())
            .then(|| footfall_dashboard::set_up_url(&identity.secret, &dashboard_url, unix_ms())),
        clickhouse: ReadyClickHouse {
            url: reader.url,
            user: reader.user,
            password: reader.password,
            database: reader.database,
        },
        kafka: kafka.brokers,
        site: shown_site(&directory.borrow()),
        ingest: ingest_url,
        dashboard: dashboard_url,
    };

    eprintln!("footfall: waiting for the roles");
    let outcome = tokio::select! {
        error = roles.failed() => Err(error),
        () = stop.cancelled() => Ok(()),
        outcome = async {
            roles::wait_until_ready(reachable(ingest_address), READY_WITHIN).await?;
            roles::wait_until_ready(reachable(dashboard_address), READY_WITHIN).await?;
            roles::wait_until_counting(&counting, READY_WITHIN).await?;
            announce_and_wait(&ready, &settings.data_dir, ready_file).await
        } => outcome,
    };
    eprintln!("footfall: draining");
    let drained = roles.stop(grace).await;
    drop(directory_reader);
    if let Some(broker) = broker {
        broker.shutdown().await;
    }
    outcome.and(drained)
}

/// A fresh node has a site to click around in. Who has sites or users has begun, and may have removed it.
async fn make_demo_site(directory: &Directory, writer: &Writer) -> anyhow::Result<()> {
    if !directory.sites.is_empty() || !directory.users.is_empty() {
        return Ok(());
    }
    let demo = demo_site();
    writer.write_all([(demo.key(), Some(demo.value()))]).await.context("the demo site")
}

/// The demo site, or the first.
fn shown_site(directory: &Directory) -> Option<String> {
    let demo = directory.sites.get_key_value(DEMO_SITE).or_else(|| directory.sites.first_key_value());
    demo.map(|(key, _)| key.to_string())
}

/// Tells that everything is ready. Ends only with an error.
async fn announce_and_wait(ready: &Ready, data_dir: &Path, ready_file: Option<&Path>) -> anyhow::Result<()> {
    // `footfall login` and `footfall audit` find the running node by this one.
    let _own = ready.write(&data_dir.join(READY_FILE))?;
    let _asked = ready_file.map(|path| ready.write(path)).transpose()?;
    println!("{}", ready.banner(data_dir));
    std::future::pending().await
}

struct Roles {
    ingest: Role,
    dashboard: Role,
    aggregator: Role,
    engine: Option<Role>,
}

impl Roles {
    async fn failed(&mut self) -> anyhow::Error {
        let engine = async {
            match &mut self.engine {
                Some(engine) => engine.failed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            error = self.ingest.failed() => error,
            error = self.dashboard.failed() => error,
            error = self.aggregator.failed() => error,
            error = engine => error,
        }
    }

    /// All are stopped, whatever fails on the way; the first fault is told.
    async fn stop(self, grace: Duration) -> anyhow::Result<()> {
        // Each drains within its own grace periods, ingest's sockets first and then its batches; past this it hangs.
        let within = grace * 3;
        let ingest = self.ingest.stop(within).await;
        let dashboard = self.dashboard.stop(within).await;
        let aggregator = self.aggregator.stop(within).await;
        let engine = match self.engine {
            Some(engine) => engine.stop(within).await,
            None => Ok(()),
        };
        ingest.and(dashboard).and(aggregator).and(engine)
    }
}

async fn start_broker(settings: &Settings) -> anyhow::Result<Option<Broker>> {
    if !settings.kafka.brokers.is_empty() {
        return Ok(None);
    }
    let config = BrokerConfig {
        data_dir: settings.data_dir.join("kafka"),
        listen: settings.listen.kafka,
        ..Default::default()
    };
    Ok(Some(Broker::start(config).await.context("listen.kafka (--kafka): the embedded broker")?))
}

async fn start_engine(settings: &Settings, identity: &Identity) -> anyhow::Result<Option<EmbeddedEngine>> {
    if !settings.clickhouse.url.is_empty() {
        return Ok(None);
    }
    let mut config =
        EngineConfig::new(settings.data_dir.join("clickhouse")).context("this program's own path")?;
    config.listen = settings.listen.clickhouse;
    config.reader_password.clone_from(&identity.reader_password);
    config.writer_password.clone_from(&identity.writer_password);
    config.admin_password.clone_from(&identity.admin_password);
    let engine = Engine::start(config.clone())
        .await
        .context("listen.clickhouse (--clickhouse): the embedded engine")?;
    // A restart must come back where its clients look for it.
    config.listen.set_port(
        engine.url().rsplit_once(':').and_then(|(_, port)| port.parse().ok()).context("engine port")?,
    );
    Ok(Some(EmbeddedEngine { config, engine }))
}

/// The engine without roles, until `stop`.
pub async fn engine_alone(
    data_dir: &Path,
    listen: SocketAddr,
    ready_file: Option<&Path>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    // The engine changes its working directory.
    let data_dir = std::path::absolute(data_dir).context("--data-dir")?;
    let identity = Identity::load_or_create(&data_dir)?;
    let mut settings = Settings { data_dir, ..Settings::default() };
    settings.listen.clickhouse = listen;
    let grace = settings.grace_period();
    let engine = start_engine(&settings, &identity).await?.context("nobody else's engine is set")?;
    if let Some(path) = ready_file {
        write_private(path, &serde_json::to_vec(&identity.clickhouse(engine.engine.url()))?)?;
    }
    engine.keep_running(stop, grace).await
}

struct EmbeddedEngine {
    config: EngineConfig,
    engine: Engine,
}

impl EmbeddedEngine {
    /// Starts the engine again when it crashes; the aggregator finds out by itself what was written.
    async fn keep_running(mut self, stop: CancellationToken, grace: Duration) -> anyhow::Result<()> {
        const MOST_CRASHES: u32 = 5;
        const CALM: Duration = Duration::from_secs(600);
        let mut crashes = 0;
        loop {
            let started = Instant::now();
            let status = tokio::select! {
                status = self.engine.exited() => status,
                () = stop.cancelled() => break,
            };
            crashes = if started.elapsed() > CALM { 1 } else { crashes + 1 };
            error!(?status, crashes, "the engine ended by itself");
            if crashes > MOST_CRASHES {
                anyhow::bail!(
                    "the engine crashed {crashes} times in a row; its log is in {}",
                    self.config.data_dir.display()
                );
            }
            self.engine =
                Engine::start(self.config.clone()).await.context("the engine does not come back")?;
            warn!("the engine runs again");
        }
        self.engine.shutdown(grace).await;
        Ok(())
    }
}
