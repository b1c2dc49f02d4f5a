//! The command line.

use std::{
    net::SocketAddr,
    num::NonZeroU16,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    audit::{self, AuditArgs},
    descriptors::raise_limit,
    directory::{
        Reader, Writer,
        command::{DirectoryCommand, LinkCommand, Place, SiteCommand, UserCommand},
    },
    embedded::broker::{self, BrokerConfig},
    identity::Identity,
    load::{self, LoadArgs},
    migrate, operator, prefork, process,
    ready::Ready,
    reload::{Reloaded, Reloader},
    roles::{self, Shared},
    settings::Settings,
    snippet::{self, SnippetArgs},
    standalone::{self, StandaloneArgs},
    supervisor::{Role, stop_on_signal},
    telemetry::Telemetry,
};

/// How long a role that needs the directory waits for it.
const DIRECTORY_WITHIN: Duration = Duration::from_secs(60);

/// Real-time web analytics that its owner runs.
#[derive(Debug, Parser)]
#[command(name = "footfall", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// All roles on one machine, with a log and a store of their own
    Standalone(StandaloneArgs),
    /// Takes events from browsers and writes them to Kafka
    Ingest(IngestArgs),
    /// Counts what is on Kafka into ClickHouse and into the live view
    Aggregator(RoleArgs),
    /// Serves the live page
    Dashboard(RoleArgs),
    /// Makes the Kafka topics and ClickHouse tables that are missing
    Migrate(RoleArgs),
    /// Prints a login link for the dashboard that works once
    Login(LoginArgs),
    /// Prints the script tag for a site's pages
    Snippet(SnippetArgs),
    /// The sites: list, show, set, remove
    Site {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: SiteCommand,
    },
    /// The users: list, add, password, remove
    User {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: UserCommand,
    },
    /// The share links: list, revoke
    Link {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: LinkCommand,
    },
    /// Sites, users, keys and links as a whole: export, import
    Directory {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: DirectoryCommand,
    },
    /// Sends the events of synthetic visitors and keeps a ledger
    Load(LoadArgs),
    /// Holds the tables against the log, or a ledger against the tables: what is missing, doubled or altered
    Audit(AuditArgs),
    /// The embedded broker alone
    #[command(hide = true)]
    Broker(BrokerArgs),
    /// The embedded engine alone
    #[command(hide = true)]
    Clickhouse(EngineArgs),
}

#[derive(Debug, clap::Args)]
struct RoleArgs {
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, clap::Args)]
struct IngestArgs {
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// So many processes that share the addresses, where one may not open enough files
    #[arg(long, value_name = "processes=N", value_parser = workers)]
    workers: Option<NonZeroU16>,
    /// Which of them this is
    #[arg(long, hide = true, conflicts_with = "workers")]
    worker: Option<NonZeroU16>,
}

/// `processes=4` or `4`.
fn workers(text: &str) -> Result<NonZeroU16, String> {
    let number = text.strip_prefix("processes=").unwrap_or(text);
    number.parse().map_err(|_| "write processes=N, N from 1".to_owned())
}

#[derive(Debug, clap::Args)]
struct LoginArgs {
    /// Data directory of a `footfall standalone` that runs on this machine
    #[arg(long, value_name = "DIR", default_value = "footfall-data", conflicts_with = "config")]
    data_dir: PathBuf,
    /// Settings of a dashboard node
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct BrokerArgs {
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Holds the address once it is bound
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// How often retention and compaction run
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    maintenance_ms: u64,
}

#[derive(Debug, clap::Args)]
struct EngineArgs {
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Holds JSON with the section [clickhouse] of a settings file once the engine answers
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// Parses and runs; an error is one line on stderr, from the outermost context to the cause.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("footfall: no threads to be had: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(command.run());
    // Not waited for: a Kafka client waits for its brokers when it is let go, for ever if they are gone.
    runtime.shutdown_background();
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("footfall: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Command {
    /// `Ok(false)`: it ran, and what it found is bad.
    async fn run(self) -> anyhow::Result<bool> {
        match self {
            Self::Standalone(args) => {
                let settings = args.settings()?;
                let telemetry = install_telemetry(&settings, "standalone", None)?;
                raise_limit(settings.ingest.limits.connections);
                let stop = stop_on_signal()?;
                let reloader = Reloader::new(args.config.as_deref(), &settings)?;
                let reloaded = reloader.reloaded();
                reloader.spawn()?;
                let ready_file = args.ready_file.as_deref();
                let outcome = standalone::run(settings, ready_file, &telemetry, reloaded, stop).await;
                finish(telemetry, outcome).await
            }
            Self::Ingest(IngestArgs { config, workers: Some(workers), .. }) => {
                run_workers(&config, workers.get()).await
            }
            Self::Ingest(IngestArgs { config, worker, .. }) => {
                run_role(&config, "ingest", worker.map(NonZeroU16::get)).await
            }
            Self::Aggregator(args) => run_role(&args.config, "aggregator", None).await,
            Self::Dashboard(args) => run_role(&args.config, "dashboard", None).await,
            Self::Migrate(args) => {
                let settings = Settings::load(Some(&args.config))?;
                let admin = settings.clickhouse("admin", &settings.clickhouse.admin)?;
                migrate::create_topics(
                    &settings.kafka()?,
                    settings.kafka.partitions,
                    settings.kafka.replication,
                )
                .await?;
                migrate::create_tables(&admin).await?;
                println!("topics and tables are there");
                Ok(true)
            }
            Self::Login(args) => login(&args).map(|()| true),
            Self::Snippet(args) => snippet::command(&args).map(|()| true),
            Self::Site { place, command } => command.run(&place).await.map(|()| true),
            Self::User { place, command } => command.run(&place).await.map(|()| true),
            Self::Link { place, command } => command.run(&place).await.map(|()| true),
            Self::Directory { place, command } => command.run(&place).await.map(|()| true),
            Self::Load(args) => load::command(args, stop_on_signal()?).await,
            Self::Audit(args) => audit::command(args).await,
            Self::Broker(args) => {
                let config = BrokerConfig {
                    data_dir: args.data_dir,
                    listen: args.listen,
                    maintenance_interval: Duration::from_millis(args.maintenance_ms),
                    ..Default::default()
                };
                let stop = stop_on_signal()?;
                broker::serve(config, args.ready_file.as_deref(), stop.cancelled_owned()).await?;
                Ok(true)
            }
            Self::Clickhouse(args) => {
                let stop = stop_on_signal()?;
                standalone::engine_alone(&args.data_dir, args.listen, args.ready_file.as_deref(), stop)
                    .await?;
                Ok(true)
            }
        }
    }
}

fn install_telemetry(
    settings: &Settings,
    role: &'static str,
    worker: Option<u16>,
) -> anyhow::Result<Telemetry> {
    let telemetry = Telemetry::install(&settings.telemetry, role, roles::node_name(settings, worker))?;
    process::observe();
    Ok(telemetry)
}

async fn run_role(config: &Path, name: &'static str, worker: Option<u16>) -> anyhow::Result<bool> {
    let settings = Settings::load(Some(config))?;
    let telemetry = install_telemetry(&settings, name, worker)?;
    if name == "ingest" {
        raise_limit(settings.ingest.limits.connections);
    }
    let stop = stop_on_signal()?;
    let reloader = Reloader::new(Some(config), &settings)?;
    let reloaded = reloader.reloaded();
    let trigger = reloader.spawn()?;
    if worker.is_some() {
        prefork::obey(stop.clone(), trigger)?;
    }
    let outcome = serve_role(&settings, name, worker, reloaded, &telemetry, stop).await;
    finish(telemetry, outcome).await
}

/// The process that the workers of `--workers` belong to.
async fn run_workers(config: &Path, workers: u16) -> anyhow::Result<bool> {
    let settings = Settings::load(Some(config))?;
    let telemetry = install_telemetry(&settings, "ingest", None)?;
    let _reserved = roles::reserve_ingest(&settings, workers)?;
    let program = std::env::current_exe().context("this program's own path")?;
    let command = |worker: u16| {
        let mut command = tokio::process::Command::new(&program);
        command.arg("ingest").arg("--config").arg(config).arg("--worker").arg(worker.to_string());
        command
    };
    // A worker stops hanging parts by itself after this; then it tells its last metrics.
    let within = settings.grace_period() * 3 + Duration::from_secs(10);
    let outcome = prefork::run(workers, command, within).await;
    finish(telemetry, outcome).await
}

async fn serve_role(
    settings: &Settings,
    name: &'static str,
    worker: Option<u16>,
    reloaded: Reloaded,
    telemetry: &Telemetry,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let kafka = settings.kafka()?;
    let reader = Reader::spawn(&kafka, reloaded.declared)?;
    let shared = Shared {
        settings,
        directory: reader.directory(),
        kafka,
        secret: if name == "aggregator" { [0; 32] } else { settings.shared_secret()? },
        metrics_text: telemetry.metrics_text(),
        trace_ratio: telemetry.trace_ratio(),
        worker,
        ingest_url: format!("http://{}", settings.listen.ingest),
        dashboard_url: format!("http://{}", settings.listen.dashboard),
    };
    let mut role: Role = match name {
        "ingest" => {
            let listeners = roles::bind_ingest("listen.ingest", settings, worker)?;
            let within = Duration::from_millis(settings.ingest.batcher.start_timeout_ms);
            tokio::select! {
                read = reader.caught_up(within) => if let Err(error) = read {
                    warn!("serving the sites of the settings file alone until the directory is read: {error:#}");
                },
                () = stop.cancelled() => return Ok(()),
            }
            roles::ingest(&shared, listeners, Some(reloaded.ingest))
        }
        "dashboard" => {
            let listener = roles::bind("listen.dashboard", settings.listen.dashboard).await?;
            let writer = Arc::new(Writer::new(&shared.kafka, &reader)?);
            tokio::select! {
                read = reader.caught_up(DIRECTORY_WITHIN) => read?,
                () = stop.cancelled() => return Ok(()),
            }
            roles::dashboard(&shared, listener, writer)?
        }
        _ => return serve_aggregator(&shared, &reader, stop).await,
    };
    tokio::select! {
        error = role.failed() => Err(error),
        () = stop.cancelled() => role.stop(settings.grace_period() * 3).await,
    }
}

/// The aggregator, and beside it what tells how it is doing, until it has drained.
async fn serve_aggregator(
    shared: &Shared<'_>,
    reader: &Reader,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let told = match shared.settings.listen.aggregator {
        Some(address) => Some(roles::bind("listen.aggregator", address).await?),
        None => None,
    };
    // Sessions that were split by other settings would stay so.
    tokio::select! {
        read = reader.caught_up(DIRECTORY_WITHIN) => read?,
        () = stop.cancelled() => return Ok(()),
    }
    let (mut role, status) = roles::aggregator(shared)?;
    let over = CancellationToken::new();
    let _over = over.clone().drop_guard();
    if let Some(listener) = told {
        tokio::spawn(operator::serve(listener, status, shared.metrics_text.clone(), over));
    }
    tokio::select! {
        error = role.failed() => Err(error),
        () = stop.cancelled() => role.stop(shared.settings.grace_period() * 3).await,
    }
}

/// Sends the last metrics; that may block for some seconds.
async fn finish(telemetry: Telemetry, outcome: anyhow::Result<()>) -> anyhow::Result<bool> {
    tokio::task::spawn_blocking(|| telemetry.shutdown()).await?;
    outcome.map(|()| true)
}

fn login(args: &LoginArgs) -> anyhow::Result<()> {
    let now = load::unix_ms();
    let link = match &args.config {
        Some(file) => {
            let settings = Settings::load(Some(file))?;
            let own = format!("http://{}", settings.listen.dashboard);
            let url = settings.dashboard.public_url.as_deref().unwrap_or(&own);
            footfall_dashboard::login_url(&settings.shared_secret()?, url, now)
        }
        None => {
            let ready = Ready::read(&args.data_dir)?;
            let identity = Identity::load_or_create(&args.data_dir)?;
            footfall_dashboard::login_url(&identity.secret, &ready.dashboard, now)
        }
    };
    println!("{link}");
    Ok(())
}
