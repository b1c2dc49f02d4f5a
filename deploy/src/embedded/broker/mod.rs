//! A single-node broker that speaks the Kafka protocol on a real socket, so that `standalone` runs on the same
//! client and the same code path as production.
//!
//! - socket: [`connection`] reads frames, [`api`] says which requests there are, [`requests`] hands them on;
//! - data: [`produce`], [`fetch`], [`lookup`] over [`partition`] → [`log`] → [`segment`] → [`batch`], with
//!   [`producer_state`] for idempotence and [`compaction`];
//! - groups: [`membership`], [`commits`] over [`groups`] → [`group`] and [`offsets`];
//! - the rest: [`metadata`], [`admin`] over [`topics`]; [`node`] holds it all together.
//!
//! What is acknowledged has been through fdatasync. What is not there, transactions and ACLs above all, is refused
//! with the protocol's own error codes.

mod admin;
mod api;
mod batch;
mod commits;
mod compaction;
mod config;
mod connection;
mod durable;
mod error;
mod fetch;
mod group;
mod groups;
mod log;
mod lookup;
mod member;
mod membership;
mod metadata;
mod node;
mod offsets;
mod partition;
mod produce;
mod producer_state;
mod requests;
mod segment;
mod topics;

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{BrokerConfig, InvalidTopicConfig, TopicConfig};
pub use error::BrokerError;

use node::Node;

/// Connections get this long to end after a stop was asked for.
const GRACE: Duration = Duration::from_secs(5);

/// A running broker. Dropped without [`Broker::shutdown`] it stops like a killed one: nothing acknowledged is lost.
#[derive(Debug)]
pub struct Broker {
    address: SocketAddr,
    node: Arc<Node>,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Held for as long as the data directory is in use.
    _lock: File,
}

impl Broker {
    /// Takes the data directory, recovers what is there, and serves once this returns.
    pub async fn start(config: BrokerConfig) -> Result<Self, BrokerError> {
        let address = config.listen;
        let listener = TcpListener::bind(address).await.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BrokerError::PortInUse { address },
            _ => BrokerError::Listen { address, source },
        })?;
        let address = listener.local_addr().map_err(|source| BrokerError::Listen { address, source })?;
        let data_dir = config.data_dir.clone();
        let recovering = tokio::task::spawn_blocking(move || {
            let lock = lock(&config.data_dir)?;
            Ok((lock, Node::recover(config)?))
        });
        let recovered = recovering
            .await
            .unwrap_or_else(|error| Err(BrokerError::Io { path: data_dir, source: io::Error::other(error) }));
        let (lock, node) = recovered?;
        let node = Arc::new(node);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(stop.clone().run_until_cancelled_owned(Arc::clone(&node.groups).keep_deadlines()));
        tasks.spawn(stop.clone().run_until_cancelled_owned(maintain(Arc::clone(&node))));
        tasks.spawn(accept(listener, Arc::clone(&node), stop.clone(), tasks.clone()));
        Ok(Self { address, node, stop, tasks, _lock: lock })
    }

    /// Where clients reach it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, ends the connections, lets what is queued reach the disk.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "connections did not end in time");
        }
        for topic in self.node.topics.all() {
            for partition in &topic.partitions {
                partition.close().await;
            }
        }
        self.node.offsets.close().await;
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Runs a broker in the foreground until `stopped` resolves. Once it serves, its address is written to `ready_file`,
/// which is removed at the end.
pub async fn serve(
    config: BrokerConfig,
    ready_file: Option<&Path>,
    stopped: impl Future<Output = ()>,
) -> Result<(), BrokerError> {
    let broker = Broker::start(config).await?;
    tracing::info!(address = %broker.address(), "broker is ready");
    if let Some(path) = ready_file {
        durable::replace(path, broker.address().to_string().as_bytes())
            .map_err(|source| BrokerError::at(path, source))?;
    }
    stopped.await;
    broker.shutdown().await;
    if let Some(path) = ready_file
        && let Err(error) = fs::remove_file(path)
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove the ready file");
    }
    Ok(())
}

/// Creates the data directory and makes sure that this process is the only one to use it.
fn lock(data_dir: &Path) -> Result<File, BrokerError> {
    fs::create_dir_all(data_dir).map_err(|source| BrokerError::at(data_dir, source))?;
    let path: PathBuf = data_dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|source| BrokerError::at(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BrokerError::Locked { directory: data_dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(BrokerError::at(&path, source)),
    }
}

async fn accept(listener: TcpListener, node: Arc<Node>, stop: CancellationToken, tasks: TaskTracker) {
    let connections = Arc::new(Semaphore::new(node.config.max_connections));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely; trying again at once would only burn a core.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            tracing::warn!(%peer, limit = node.config.max_connections, "too many connections; this one is closed");
            continue;
        };
        let (node, stop) = (Arc::clone(&node), stop.clone());
        tasks.spawn(async move {
            if let Some(ended) = stop.run_until_cancelled(connection::serve(node, stream)).await {
                tracing::debug!(%peer, %ended, "connection ended");
            }
            drop(permit);
        });
    }
}

/// Retention and compaction, one partition after the other.
async fn maintain(node: Arc<Node>) {
    loop {
        tokio::time::sleep(node.config.maintenance_interval).await;
        for partition in node.topics.all().iter().flat_map(|topic| &topic.partitions) {
            let now = partition::now_ms();
            partition.apply_retention(now).await;
            let partition = Arc::clone(partition);
            let _ = tokio::task::spawn_blocking(move || partition.compact(now)).await;
        }
    }
}
