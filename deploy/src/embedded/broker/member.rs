//! A member of a consumer group: what it says of itself when it joins, and what it is told.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use tokio::sync::oneshot;

pub(super) type JoinAnswer = Result<Joined, ResponseError>;
pub(super) type SyncAnswer = Result<Synced, ResponseError>;

/// What a member asks for when it joins.
#[derive(Debug)]
pub(super) struct Join {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout: Duration,
    pub rebalance_timeout: Duration,
    pub protocol_type: String,
    /// Name and subscription, in the member's order of preference.
    pub protocols: Vec<(String, Bytes)>,
    /// A member without an id is given one and asked to come again, so that a lost answer leaves no ghost.
    pub id_required: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Joined {
    pub generation: i32,
    pub protocol_type: String,
    pub protocol: String,
    pub leader: String,
    pub member_id: String,
    /// Everyone's id, instance id and subscription; for the leader only.
    pub members: Vec<(String, Option<String>, Bytes)>,
}

#[derive(Debug, Clone)]
pub(super) struct Synced {
    pub protocol_type: String,
    pub protocol: String,
    pub assignment: Bytes,
}

/// Who speaks, in every request after the join.
#[derive(Debug, Clone, Copy)]
pub(super) struct Speaker<'a> {
    pub member_id: &'a str,
    pub instance_id: Option<&'a str>,
    pub generation: i32,
}

#[derive(Debug)]
pub(super) struct Member {
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub protocols: Vec<(String, Bytes)>,
    pub assignment: Bytes,
    pub session_timeout: Duration,
    pub rebalance_timeout: Duration,
    pub expires: Instant,
    pub join: Option<oneshot::Sender<JoinAnswer>>,
    pub sync: Option<oneshot::Sender<SyncAnswer>>,
}

impl Member {
    pub(super) fn is_waiting(&self) -> bool {
        self.join.is_some() || self.sync.is_some()
    }

    pub(super) fn subscription(&self, protocol: &str) -> Bytes {
        let chosen = self.protocols.iter().find(|(name, _)| name == protocol);
        chosen.map(|(_, subscription)| subscription.clone()).unwrap_or_default()
    }
}
