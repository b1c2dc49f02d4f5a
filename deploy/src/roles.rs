//! The four roles, built from the settings.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use bytes::Bytes;
use footfall_aggregator::{Phase, Status};
use footfall_ingest::{Listener, Reload, Speaks};
use footfall_schemas::{connect::KafkaSettings, directory::Directory};
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
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
    pub trace_ratio: f64,
    /// Number of this process among the `--workers` of a node, from one.
    pub worker: Option<u16>,
    /// As a browser reaches them.
    pub ingest_url: String,
    pub dashboard_url: String,
}

/// The ingest role on bound sockets.
pub fn ingest(shared: &Shared<'_>, listeners: Vec<Listener>, reload: Reload) -> Role {
    let mut config = shared.settings.ingest.clone();
    config.spool.path.get_or_insert_with(|| shared.settings.data_dir.join("spool"));
    let parts = footfall_ingest::Parts {
        config,
        sites: shared.settings.sites.clone(),
        kafka: shared.kafka.clone(),
        secret: shared.secret,
        node: node_name(shared.settings, shared.worker),
        metrics_text: shared.metrics_text.clone(),
        trace_ratio: shared.trace_ratio,
        reload,
    };
    Role::spawn("ingest", |stop| footfall_ingest::run(listeners, parts, stop))
}

/// The sites of the settings file, which do not change while the node runs.
fn declared_sites(settings: &Settings) -> watch::Receiver<Arc<Directory>> {
    let sites = settings.sites.iter().map(|site| (site.clone(), serde_json::Value::Null));
    watch::channel(Arc::new(Directory::declaring(sites))).1
}

/// The dashboard role on a bound socket.
pub fn dashboard(shared: &Shared<'_>, listener: TcpListener) -> anyhow::Result<Role> {
    let settings = shared.settings;
    let config = settings.dashboard.clone();
    let parts = footfall_dashboard::Parts {
        ingest_url: shared.ingest_url.clone(),
        demo_url: settings.ingest.demo.then(|| format!("{}/demo/", shared.ingest_url)),
        config,
        directory: declared_sites(settings),
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
        sites: settings.sites.clone(),
        kafka: shared.kafka.clone(),
        clickhouse: settings.clickhouse("writer", &settings.clickhouse.writer)?,
        member: node_name(settings, None),
        status: status.clone(),
    };
    Ok((Role::spawn("aggregator", |stop| footfall_aggregator::run(parts, stop)), status))
}

/// Of this process, also when it is one of several workers.
pub(crate) fn node_name(settings: &Settings, worker: Option<u16>) -> String {
    let name = settings.node.clone().unwrap_or_else(|| {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = host.trim();
        format!("{}-{}", if host.is_empty() { "node" } else { host }, std::process::id())
    });
    match worker {
        Some(worker) => format!("{name}-{worker}"),
        None => name,
    }
}

/// How many connections the kernel keeps for a socket until they are accepted: enough for a storm of reconnects.
const BACKLOG: u32 = 4_096;

/// The sockets of the ingest role, the plain one first. Those of a worker are shared with the other workers.
pub fn bind_ingest(setting: &str, settings: &Settings, worker: Option<u16>) -> anyhow::Result<Vec<Listener>> {
    let shared = settings.listen.reuse_port || worker.is_some();
    ingest_addresses(setting, settings, worker)?
        .into_iter()
        .map(|(setting, address, speaks)| {
            let socket = open(setting, address, shared)?;
            let socket = socket.listen(BACKLOG).map_err(|error| cannot_bind(setting, address, error))?;
            Ok(Listener { socket, speaks })
        })
        .collect()
}

/// Takes the addresses that `--workers` will share, so that a fault is told before any worker starts.
pub fn reserve_ingest(settings: &Settings, workers: u16) -> anyhow::Result<Vec<TcpSocket>> {
    let mut reserved = Vec::new();
    for worker in 1..=workers {
        for (setting, address, _) in ingest_addresses("listen.ingest", settings, Some(worker))? {
            if address.port() == 0 {
                bail!("{setting}: {address}: workers share an address, so it needs a port");
            }
            reserved.push(open(setting, address, true)?);
        }
    }
    Ok(reserved)
}

fn ingest_addresses<'a>(
    setting: &'a str,
    settings: &Settings,
    worker: Option<u16>,
) -> anyhow::Result<Vec<(&'a str, SocketAddr, Speaks)>> {
    let listen = &settings.listen;
    let mut addresses = vec![(setting, listen.ingest, Speaks::Http)];
    for (setting, address, speaks) in [
        ("listen.ingest_tls", listen.ingest_tls, Speaks::Tls),
        ("listen.ingest_proxy", listen.ingest_proxy, Speaks::Proxy),
        ("listen.ingest_proxy_tls", listen.ingest_proxy_tls, Speaks::ProxyTls),
        ("listen.ingest_metrics", listen.ingest_metrics, Speaks::Operator),
    ] {
        addresses.extend(address.map(|address| (setting, address, speaks)));
    }
    for (setting, address, speaks) in &mut addresses {
        if let (Speaks::Operator, Some(worker)) = (*speaks, worker) {
            let port = address.port().checked_add(worker - 1);
            address
                .set_port(port.with_context(|| format!("{setting}: no port is left for worker {worker}"))?);
        }
    }
    Ok(addresses)
}

/// Binds; the error names the setting.
pub async fn bind(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let socket = open(setting, address, false)?;
    socket.listen(BACKLOG).map_err(|error| cannot_bind(setting, address, error))
}

fn open(setting: &str, address: SocketAddr, shared: bool) -> anyhow::Result<TcpSocket> {
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(shared)?;
        socket.bind(address)?;
        Ok(socket)
    };
    open().map_err(|error| cannot_bind(setting, address, error))
}

fn cannot_bind(setting: &str, address: SocketAddr, error: io::Error) -> anyhow::Error {
    let fix = match error.kind() {
        io::ErrorKind::AddrInUse => "is in use: stop the other program, or choose another port",
        io::ErrorKind::PermissionDenied => "is not allowed: choose a port above 1023",
        io::ErrorKind::AddrNotAvailable => "is no address of this machine",
        _ => "cannot be bound",
    };
    anyhow::Error::new(error).context(format!("{setting}: {address} {fix}"))
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
