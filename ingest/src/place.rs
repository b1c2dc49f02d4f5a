//! A place among the connections that a node may have: in all, by address and by site. Whoever holds one gives it back
//! when it is dropped.

use std::{
    collections::HashMap,
    future::Future,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::sync::Notify;

use crate::{limits::Limits, network::AddressKey, sites::SiteState};

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The address connects too often.
    ConnectRate,
    /// The address, or the IPv6 /48 around it, has too many connections.
    Address,
    /// The site has too many sockets.
    Site,
    /// The node has too many sockets.
    Node,
}

impl Denied {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ConnectRate => "connect_rate",
            Self::Address => "address_limit",
            Self::Site => "site_limit",
            Self::Node => "socket_limit",
        }
    }
}

/// How much is open now.
#[derive(Debug, Default)]
pub(crate) struct Open {
    connections: AtomicU32,
    sockets: AtomicU32,
    by_address: Mutex<OpenByAddress>,
    room: Notify,
}

/// Bounded by the connections.
#[derive(Debug, Default)]
struct OpenByAddress {
    near: HashMap<AddressKey, u32>,
    /// By IPv6 /48.
    wide: HashMap<AddressKey, u32>,
}

impl Open {
    /// Waits until somebody left, or the limits changed.
    pub(crate) fn room(&self) -> impl Future<Output = ()> {
        self.room.notified()
    }

    pub(crate) fn room_changed(&self) {
        self.room.notify_one();
    }

    pub(crate) fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn sweep(&self) {
        let mut by_address = self.by_address();
        by_address.near.shrink_to_fit();
        by_address.wide.shrink_to_fit();
    }

    /// A std mutex: no await happens while it is held. Counts are sound even after a panic.
    fn by_address(&self) -> MutexGuard<'_, OpenByAddress> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenByAddress {
    fn enter(&mut self, key: AddressKey, most: u32, most_wide: u32) -> Result<(), Denied> {
        let prefix = key.site_prefix();
        let is_full = |open: &HashMap<_, u32>, key, most| open.get(&key).is_some_and(|count| *count >= most);
        if is_full(&self.near, key, most)
            || prefix.is_some_and(|prefix| is_full(&self.wide, prefix, most_wide))
        {
            return Err(Denied::Address);
        }
        *self.near.entry(key).or_default() += 1;
        if let Some(prefix) = prefix {
            *self.wide.entry(prefix).or_default() += 1;
        }
        Ok(())
    }

    fn leave(&mut self, key: AddressKey) {
        let leave = |open: &mut HashMap<_, u32>, key| {
            if let Some(count) = open.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    open.remove(&key);
                }
            }
        };
        leave(&mut self.near, key);
        if let Some(prefix) = key.site_prefix() {
            leave(&mut self.wide, prefix);
        }
    }
}

/// A connection's, from accept to close.
#[derive(Debug)]
pub(crate) struct ConnectionPlace {
    limits: Arc<Limits>,
    address: Option<AddressKey>,
}

impl ConnectionPlace {
    pub(crate) fn new(limits: Arc<Limits>) -> Self {
        limits.open.connections.fetch_add(1, Ordering::Relaxed);
        Self { limits, address: None }
    }

    /// Takes a place among those of `address` as well, unless there is one already.
    pub(crate) fn claim(&mut self, address: IpAddr) -> Result<(), Denied> {
        if self.address.is_some() || self.limits.is_exempt(address) {
            return Ok(());
        }
        let key = AddressKey::from(address);
        self.limits.charge_connect(key)?;
        let settings = self.limits.settings();
        let most = settings.connections_per_address;
        let most_wide = most.saturating_mul(settings.ipv6_48_times);
        self.limits.open.by_address().enter(key, most, most_wide)?;
        self.address = Some(key);
        Ok(())
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let open = &self.limits.open;
        if let Some(key) = self.address {
            open.by_address().leave(key);
        }
        open.connections.fetch_sub(1, Ordering::Relaxed);
        open.room_changed();
        self.limits.left();
    }
}

/// A WebSocket's, with that of the connection it came from.
#[derive(Debug)]
pub(crate) struct SocketPlace {
    connection: ConnectionPlace,
    site: Arc<SiteState>,
}

impl SocketPlace {
    /// Takes the connection's place only when there is one for the socket.
    pub(crate) fn take(
        connection: &mut Option<ConnectionPlace>,
        address: IpAddr,
        site: &Arc<SiteState>,
    ) -> Result<Self, Denied> {
        // One connection becomes one socket, once.
        let mut place = connection.take().ok_or(Denied::Node)?;
        match place.enter(address, site) {
            Ok(()) => Ok(Self { connection: place, site: Arc::clone(site) }),
            Err(denied) => {
                *connection = Some(place);
                Err(denied)
            }
        }
    }
}

impl ConnectionPlace {
    fn enter(&mut self, address: IpAddr, site: &SiteState) -> Result<(), Denied> {
        // Behind a proxy, every client has a place of its own; otherwise this one has it since it was accepted.
        self.claim(address)?;
        let settings = self.limits.settings();
        count_up(&site.limits.sockets, settings.sockets_per_site, Denied::Site)?;
        count_up(&self.limits.open.sockets, settings.sockets, Denied::Node).inspect_err(|_| {
            site.limits.sockets.fetch_sub(1, Ordering::Relaxed);
        })
    }
}

impl Drop for SocketPlace {
    fn drop(&mut self) {
        self.site.limits.sockets.fetch_sub(1, Ordering::Relaxed);
        self.connection.limits.open.sockets.fetch_sub(1, Ordering::Relaxed);
    }
}

fn count_up(count: &AtomicU32, most: u32, denied: Denied) -> Result<(), Denied> {
    let more = |count| (count < most).then_some(count + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map(drop).map_err(|_| denied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config,
        metrics::Metrics,
        sites::{Sites, tests::sites_of},
    };
    use footfall_schemas::site::Site;
    use rstest::rstest;

    fn limits(change: impl FnOnce(&mut config::Limits)) -> Arc<Limits> {
        let mut settings = config::Limits { limit_loopback: true, ..config::Limits::default() };
        change(&mut settings);
        Arc::new(Limits::new(settings, Arc::new(Metrics::new())))
    }

    fn connect(limits: &Arc<Limits>, address: &str) -> Result<ConnectionPlace, Denied> {
        let mut place = limits.accept();
        place.claim(address.parse().unwrap()).map(|()| place)
    }

    fn sites() -> Sites {
        let site = |key: &str| Site::new(key.parse().unwrap(), Vec::new());
        sites_of([site("shop"), site("blog")])
    }

    #[test]
    fn a_place_is_small_and_has_no_heap_of_its_own() {
        assert_eq!((size_of::<ConnectionPlace>(), size_of::<SocketPlace>()), (16, 24));
    }

    #[test]
    fn an_address_has_so_many_places_and_a_left_one_is_free_again() {
        let limits = limits(|settings| settings.connections_per_address = 2);
        let first = connect(&limits, "2001:db8::1").unwrap();
        let _second = connect(&limits, "2001:db8::2").unwrap();
        assert_eq!(connect(&limits, "2001:db8::3").unwrap_err(), Denied::Address, "the same /64");
        let _neighbour = connect(&limits, "2001:db8:0:1::1").unwrap();
        assert_eq!(limits.open.connections(), 3);
        drop(first);
        connect(&limits, "2001:db8::3").unwrap();
    }

    #[test]
    fn an_ipv6_48_has_more_places_but_not_without_end() {
        let limits = limits(|settings| {
            settings.connections_per_address = 1;
            settings.ipv6_48_times = 3;
        });
        let open: Vec<_> = (0..4).map(|n| connect(&limits, &format!("2001:db8:0:{n}::1"))).collect();
        assert_eq!(open.iter().filter(|place| place.is_ok()).count(), 3);
        assert_eq!(open[3].as_ref().unwrap_err(), &Denied::Address);
        connect(&limits, "2001:db8:1::1").unwrap();
        drop(open);
        connect(&limits, "2001:db8:0:9::1").unwrap();
    }

    #[test]
    fn an_address_that_comes_too_often_is_denied() {
        let limits = limits(|settings| settings.connects_per_address = config::Rate::new(1, 2));
        let come = || connect(&limits, "203.0.113.9").map(drop);
        assert_eq!([come(), come(), come()], [Ok(()), Ok(()), Err(Denied::ConnectRate)]);
    }

    #[rstest]
    #[case::of_the_site(2, 1, Denied::Site)]
    #[case::of_the_node(1, 2, Denied::Node)]
    fn sockets_have_a_cap(#[case] sockets: u32, #[case] by_site: u32, #[case] denied: Denied) {
        let limits = limits(|settings| {
            settings.sockets = sockets;
            settings.sockets_per_site = by_site;
        });
        let sites = sites();
        let shop = &sites.get("shop").unwrap();
        let address = "203.0.113.9".parse().unwrap();
        let open = || SocketPlace::take(&mut Some(limits.accept()), address, shop);
        let first = open().unwrap();
        assert_eq!([open().unwrap_err(), open().unwrap_err()], [denied; 2], "who gets none takes none");
        let blog = SocketPlace::take(&mut Some(limits.accept()), address, &sites.get("blog").unwrap());
        assert_eq!(blog.is_ok(), denied == Denied::Site, "the neighbour");
        drop((first, blog));
        open().unwrap();
        assert_eq!(limits.open.connections(), 0);
    }

    #[test]
    fn a_connection_keeps_its_place_when_there_is_none_for_a_socket() {
        let limits = limits(|settings| settings.sockets = 0);
        let mut connection = Some(limits.accept());
        let sites = sites();
        let address = "203.0.113.9".parse().unwrap();
        SocketPlace::take(&mut connection, address, &sites.get("shop").unwrap()).unwrap_err();
        assert_eq!(limits.open.connections(), 1);
        drop(connection);
        assert_eq!(limits.open.connections(), 0);
    }
}
