//! What the listener knows of a connection; in every request's extensions.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::{
    place::{ConnectionPlace, Denied, SocketPlace},
    sites::SiteState,
};

#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: Address,
    shared: Arc<Shared>,
}

/// By the requests of a connection.
#[derive(Debug)]
struct Shared {
    /// Until one of them makes a socket of it.
    place: Mutex<Option<ConnectionPlace>>,
    asked: Notify,
}

/// Never shown: no address reaches a log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) IpAddr);

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Address")
    }
}

impl Peer {
    pub(crate) fn new(address: IpAddr, place: ConnectionPlace) -> Self {
        let shared = Shared { place: Mutex::new(Some(place)), asked: Notify::new() };
        Self { address: Address(address), shared: Arc::new(shared) }
    }

    /// A request is there.
    pub(crate) fn asks(&self) {
        self.shared.asked.notify_one();
    }

    /// Waits for a request, unless there was one since the last wait.
    pub(crate) async fn asked(&self) {
        self.shared.asked.notified().await;
    }

    /// A place for the socket that this connection becomes, with the connection's own in it.
    pub(crate) fn open_socket(&self, client: IpAddr, site: &Arc<SiteState>) -> Result<SocketPlace, Denied> {
        let mut place = self.shared.place.lock().unwrap_or_else(PoisonError::into_inner);
        SocketPlace::take(&mut place, client, site)
    }
}
