//! What the listener knows of a connection; in every request's extensions.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    place::{ConnectionPlace, Denied, SocketPlace},
    sites::SiteState,
};

#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: Address,
    /// Shared by the requests of a connection, until one of them makes a socket of it.
    place: Arc<Mutex<Option<ConnectionPlace>>>,
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
        Self { address: Address(address), place: Arc::new(Mutex::new(Some(place))) }
    }

    /// A place for the socket that this connection becomes, with the connection's own in it.
    pub(crate) fn open_socket(&self, client: IpAddr, site: &Arc<SiteState>) -> Result<SocketPlace, Denied> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        SocketPlace::take(&mut place, client, site)
    }
}
