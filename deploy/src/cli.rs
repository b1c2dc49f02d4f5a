//! The command line.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::{self, AuditArgs},
    embedded::broker::{self, BrokerConfig},
    identity::Identity,
    load::{self, LoadArgs},
    migrate, process,
    ready::Ready,
    roles::{self, Shared},
    settings::Settings,
    standalone::{self, READY_FILE, StandaloneArgs},
    supervisor::{Role, stop_on_signal},
    telemetry::Telemetry,
};

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
    Ingest(RoleArgs),
    /// Counts what is on Kafka into ClickHouse and into the live view
    Aggregator(RoleArgs),
    /// Serves the live page
    Dashboard(RoleArgs),
    /// Makes the Kafka topics and ClickHouse tables that are missing
    Migrate(RoleArgs),
    /// Prints a login link for the dashboard that works once
    Login(LoginArgs),
    /// Sends the events of synthetic visitors and keeps a ledger
    Load(LoadArgs),
    /// Holds a ledger against ClickHouse: what is lost, doubled or altered
    Audit(AuditArgs),
    /// The embedded broker alone
    #[command(hide = true)]
    Broker(BrokerArgs),
}

#[derive(Debug, clap::Args)]
struct RoleArgs {
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
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
    match runtime.block_on(command.run()) {
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
                let telemetry = install_telemetry(&settings, "standalone")?;
                let stop = stop_on_signal()?;
                let outcome = standalone::run(settings, args.ready_file.as_deref(), &telemetry, stop).await;
                finish(telemetry, outcome).await
            }
            Self::Ingest(args) => run_role(args, "ingest").await,
            Self::Aggregator(args) => run_role(args, "aggregator").await,
            Self::Dashboard(args) => run_role(args, "dashboard").await,
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
        }
    }
}

fn install_telemetry(settings: &Settings, role: &'static str) -> anyhow::Result<Telemetry> {
    let telemetry = Telemetry::install(&settings.telemetry, role, roles::node_name(settings))?;
    process::observe();
    Ok(telemetry)
}

async fn run_role(args: RoleArgs, name: &'static str) -> anyhow::Result<bool> {
    let settings = Settings::load(Some(&args.config))?;
    let telemetry = install_telemetry(&settings, name)?;
    let stop = stop_on_signal()?;
    let outcome = serve_role(&settings, name, &telemetry, stop).await;
    finish(telemetry, outcome).await
}

async fn serve_role(
    settings: &Settings,
    name: &'static str,
    telemetry: &Telemetry,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let shared = Shared {
        settings,
        kafka: settings.kafka()?,
        secret: if name == "aggregator" { [0; 32] } else { settings.shared_secret()? },
        metrics_text: telemetry.metrics_text(),
        trace_ratio: telemetry.trace_ratio(),
        ingest_url: format!("http://{}", settings.listen.ingest),
        dashboard_url: format!("http://{}", settings.listen.dashboard),
    };
    let mut role: Role = match name {
        "ingest" => roles::ingest(&shared, roles::bind("listen.ingest", settings.listen.ingest).await?),
        "dashboard" => {
            roles::dashboard(&shared, roles::bind("listen.dashboard", settings.listen.dashboard).await?)?
        }
        _ => roles::aggregator(&shared)?.0,
    };
    tokio::select! {
        error = role.failed() => Err(error),
        () = stop.cancelled() => role.stop(settings.grace_period() * 3).await,
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
            let path = args.data_dir.join(READY_FILE);
            let ready = std::fs::read(&path).with_context(|| {
                format!("{}: no footfall runs on --data-dir {}", path.display(), args.data_dir.display())
            })?;
            let ready: Ready =
                serde_json::from_slice(&ready).with_context(|| format!("{}", path.display()))?;
            let identity = Identity::load_or_create(&args.data_dir)?;
            footfall_dashboard::login_url(&identity.secret, &ready.dashboard, now)
        }
    };
    println!("{link}");
    Ok(())
}
