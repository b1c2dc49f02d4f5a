//! What every request works on: the topics, the groups, the offsets, and who this broker is.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use kafka_protocol::messages::BrokerId;
use kafka_protocol::protocol::StrBytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::config::BrokerConfig;
use super::connection::PERMIT_BYTES;
use super::durable;
use super::error::BrokerError;
use super::groups::Groups;
use super::offsets::Offsets;
use super::topics::Topics;

/// The one broker there is.
pub(super) const NODE_ID: BrokerId = BrokerId(1);
/// There is never a change of leadership to tell of.
pub(super) const LEADER_EPOCH: i32 = 0;

#[derive(Debug)]
pub(super) struct Node {
    pub config: BrokerConfig,
    pub identity: Identity,
    pub topics: Arc<Topics>,
    pub groups: Arc<Groups>,
    pub offsets: Offsets,
    /// Memory that requests may hold, in units of [`PERMIT_BYTES`].
    pub in_flight: Arc<Semaphore>,
    pub in_flight_permits: usize,
}

impl Node {
    /// Recovers everything below the data directory. Blocks.
    pub(super) fn recover(config: BrokerConfig) -> Result<Self, BrokerError> {
        let in_flight_permits = (config.max_in_flight_bytes / PERMIT_BYTES).clamp(1, 1 << 28);
        Ok(Self {
            identity: Identity::recover(config.data_dir.join("identity.json"))?,
            topics: Arc::new(Topics::open(&config)?),
            groups: Arc::default(),
            offsets: Offsets::open(&config.data_dir)?,
            in_flight: Arc::new(Semaphore::new(in_flight_permits)),
            in_flight_permits,
            config,
        })
    }

    /// Host and port for a client that reached the broker at `local`.
    pub(super) fn endpoint(&self, local: SocketAddr) -> (StrBytes, i32) {
        let (host, port) = match &self.config.advertised {
            Some((host, port)) => (host.clone(), *port),
            None => (local.ip().to_string(), local.port()),
        };
        (StrBytes::from_string(host), i32::from(port))
    }
}

/// An id that nothing had before.
pub(super) fn fresh_id() -> Uuid {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid()
}

/// Who the broker is, and which producer ids it has given out.
#[derive(Debug)]
pub(super) struct Identity {
    path: PathBuf,
    pub cluster_id: String,
    ids: Mutex<ProducerIds>,
}

#[derive(Debug)]
struct ProducerIds {
    next: i64,
    /// Ids from here on have not been reserved on disk.
    reserved: i64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    cluster_id: String,
    /// Every producer id below this may have been given out.
    next_producer_id: i64,
}

/// Producer ids reserved with one write.
const RESERVED_IDS: i64 = 1_000;

impl Identity {
    fn recover(path: PathBuf) -> Result<Self, BrokerError> {
        let stored = durable::read(&path).map_err(|source| BrokerError::at(&path, source))?;
        let file = match stored {
            Some(json) => {
                serde_json::from_slice(&json).map_err(|e| BrokerError::corrupt(&path, e.to_string()))?
            }
            None => IdentityFile { cluster_id: fresh_id().simple().to_string(), next_producer_id: 1 },
        };
        let ids = ProducerIds { next: file.next_producer_id, reserved: file.next_producer_id };
        let identity = Self { path, cluster_id: file.cluster_id, ids: Mutex::new(ids) };
        identity.store(file.next_producer_id).map_err(|source| BrokerError::at(&identity.path, source))?;
        Ok(identity)
    }

    /// An id that no producer has had before, restarts included. Blocks now and then.
    pub(super) fn next_producer_id(&self) -> std::io::Result<i64> {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.next >= ids.reserved {
            self.store(ids.next + RESERVED_IDS)?;
            ids.reserved = ids.next + RESERVED_IDS;
        }
        ids.next += 1;
        Ok(ids.next - 1)
    }

    fn store(&self, next_producer_id: i64) -> std::io::Result<()> {
        let file = IdentityFile { cluster_id: self.cluster_id.clone(), next_producer_id };
        let json = serde_json::to_vec_pretty(&file).expect("a string and a number serialise");
        durable::replace(&self.path, &json)
    }
}
