//! The four roles, built from the settings.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use bytes::Bytes;
use footfall_aggregator::{Phase, Status};
use footfall_schemas::connect::KafkaSettings;
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep, timeout},
};

use crate::{settings::Settings, supervisor::Role, telemetry::MetricsText};

/// What the roles of one process have in common.
#[allow(missing_debug_implementations)] // holds the secret
pub struct Shared<'a> {
    pub settings: &'a Settings,
    pub kafka: KafkaSettings,
    pub secret: [u8; 32],
    pub metrics_text: MetricsText,
    /// As a browser reaches them.
    pub ingest_url: String,
    pub dashboard_url: String,
}

/// The ingest role on a bound socket.
pub fn ingest(shared: &Shared<'_>, listener: TcpListener) -> Role {
    let mut config = shared.settings.ingest.clone();
    config.spool.path.get_or_insert_with(|| shared.settings.data_dir.join("spool"));
    let parts = footfall_ingest::Parts {
        config,
        sites: shared.settings.sites.clone(),
        kafka: shared.kafka.clone(),
        secret: shared.secret,
        node: node_name(shared.settings),
        metrics_text: shared.metrics_text.clone(),
    };
    Role::spawn("ingest", |stop| footfall_ingest::run(listener, parts, stop))
}

/// The dashboard role on a bound socket.
pub fn dashboard(shared: &Shared<'_>, listener: TcpListener) -> anyhow::Result<Role> {
    let settings = shared.settings;
    let config = settings.dashboard.clone();
    let parts = footfall_dashboard::Parts {
        ingest_url: shared.ingest_url.clone(),
        demo_url: settings.ingest.demo.then(|| format!("{}/demo/", shared.ingest_url)),
        config,
        sites: settings.sites.clone(),
        kafka: shared.kafka.clone(),
        clickhouse: settings.clickhouse("reader", &settings.clickhouse.reader)?,
        secret: shared.secret,
        metrics_text: shared.metrics_text.clone(),
    };
    Ok(Role::spawn("dashboard", |stop| footfall_dashboard::run(listener, parts, stop)))
}

/// The aggregator role, and how it is doing.
pub fn aggregator(shared: &Shared<'_>) -> anyhow::Result<(Role, Arc<Status>)> {
    let settings = shared.settings;
    let status = Arc::new(Status::default());
    let parts = footfall_aggregator::Parts {
        config: settings.aggregator.clone(),
        kafka: shared.kafka.clone(),
        clickhouse: settings.clickhouse("writer", &settings.clickhouse.writer)?,
        member: node_name(settings),
        status: status.clone(),
    };
    Ok((Role::spawn("aggregator", |stop| footfall_aggregator::run(parts, stop)), status))
}

fn node_name(settings: &Settings) -> String {
    if let Some(name) = &settings.node {
        return name.clone();
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("{}-{}", if host.is_empty() { "node" } else { host }, std::process::id())
}

/// Binds; the error names the setting.
pub async fn bind(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let fix = match error.kind() {
            io::ErrorKind::AddrInUse => "is in use: stop the other program, or choose another port",
            io::ErrorKind::PermissionDenied => "is not allowed: choose a port above 1023",
            io::ErrorKind::AddrNotAvailable => "is no address of this machine",
            _ => "cannot be bound",
        };
        anyhow::Error::new(error).context(format!("{setting}: {address} {fix}"))
    })
}

/// Asks `/readyz` until it says yes.
pub async fn wait_until_ready(address: SocketAddr, within: Duration) -> anyhow::Result<()> {
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let url: http::Uri = format!("http://{address}/readyz").parse().context("an address is a URL")?;
    let deadline = Instant::now() + within;
    loop {
        let answer = timeout(Duration::from_secs(2), client.get(url.clone())).await;
        if matches!(&answer, Ok(Ok(response)) if response.status().is_success()) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("{url} does not say ready within {within:?}: {answer:?}");
        }
        sleep(Duration::from_millis(25)).await;
    }
}

/// Waits until the aggregator has partitions and has rebuilt their state.
pub async fn wait_until_counting(status: &Status, within: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + within;
    loop {
        let partitions = status.partitions();
        if !partitions.is_empty() && partitions.values().all(|partition| partition.phase == Phase::Running) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let reason = status.last_error().unwrap_or_else(|| format!("its partitions: {partitions:?}"));
            bail!("the aggregator does not count within {within:?}: {reason}");
        }
        sleep(Duration::from_millis(25)).await;
    }
}
