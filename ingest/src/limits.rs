//! Who may connect and send how much.

use std::{
    collections::HashMap,
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use governor::{
    DefaultDirectRateLimiter, DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock, QuantaInstant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    config::{Limits as Settings, Rate},
    network::AddressKey,
};

pub(crate) fn quota(rate: Rate) -> Quota {
    Quota::per_second(rate.per_second).allow_burst(rate.burst)
}

/// Over a limit: free again after `wait`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Over {
    pub(crate) wait: Duration,
}

/// Open connections by address. A std mutex: no await happens while it is held.
type OpenConnections = Arc<Mutex<HashMap<AddressKey, u32>>>;

/// The limits of a node.
pub(crate) struct Limits {
    settings: Settings,
    sockets: Arc<Semaphore>,
    connects: Addresses,
    events: Addresses,
    open: OpenConnections,
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limits").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Limits {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            sockets: Arc::new(Semaphore::new(settings.sockets as usize)),
            connects: Addresses::new(settings.connects_per_address, settings.tracked_addresses),
            events: Addresses::new(settings.events_per_address, settings.tracked_addresses),
            open: Arc::default(),
            settings,
        }
    }

    fn is_exempt(&self, address: IpAddr) -> bool {
        !self.settings.limit_loopback && address.to_canonical().is_loopback()
    }

    /// One more connection from `address`, or `None` when it has too many or comes too often. The place is free again
    /// when the guard is dropped.
    pub(crate) fn connect(&self, address: IpAddr) -> Option<Place> {
        if self.is_exempt(address) {
            return Some(Place { open: None });
        }
        let key = AddressKey::from(address);
        self.connects.charge(key, NonZeroU32::MIN).ok()?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(key).or_default();
        if *count >= self.settings.connections_per_address {
            return None;
        }
        *count += 1;
        Some(Place { open: Some((Arc::clone(&self.open), key)) })
    }

    /// One more WebSocket on this node.
    pub(crate) fn socket(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.sockets).try_acquire_owned().ok()
    }

    /// The limits of one sender. A request is a connection of its own that was used once: `None` for the limiter.
    pub(crate) fn sender(&self, address: IpAddr, connection: bool) -> SenderLimits {
        let exempt = self.is_exempt(address);
        SenderLimits {
            address: (!exempt).then(|| AddressKey::from(address)),
            connection: (connection && !exempt)
                .then(|| Box::new(RateLimiter::direct(quota(self.settings.events_per_connection)))),
        }
    }

    /// Charges `events` (at least one) to the connection and to its address.
    pub(crate) fn charge(&self, sender: &SenderLimits, events: usize) -> Result<(), Over> {
        let events = u32::try_from(events).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        if let Some(connection) = &sender.connection {
            flatten(connection.check_n(events))?;
        }
        match sender.address {
            Some(key) => self.events.charge(key, events),
            None => Ok(()),
        }
    }

    /// Forgets addresses whose limit has refilled. The limiters never do it by themselves.
    pub(crate) fn sweep(&self) {
        self.connects.sweep();
        self.events.sweep();
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// What one connection or request is charged against.
pub(crate) struct SenderLimits {
    address: Option<AddressKey>,
    connection: Option<Box<DefaultDirectRateLimiter>>,
}

impl std::fmt::Debug for SenderLimits {
    /// Without the address.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SenderLimits")
    }
}

/// A connection's place among those of its address.
#[derive(Debug)]
pub(crate) struct Place {
    open: Option<(OpenConnections, AddressKey)>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((open, key)) = self.open.take() else { return };
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&key);
            }
        }
    }
}

/// A rate limit by address that holds a bounded number of them: beyond it addresses share the limit of their /16.
struct Addresses {
    limiter: DefaultKeyedRateLimiter<AddressKey>,
    most: usize,
    charges: AtomicU32,
    crowded: AtomicBool,
}

/// Counting the addresses locks every shard of the map: it is done once in so many charges.
const COUNT_EVERY: u32 = 256;

impl Addresses {
    fn new(rate: Rate, most: usize) -> Self {
        let limiter = RateLimiter::keyed(quota(rate));
        Self { limiter, most, charges: AtomicU32::new(0), crowded: AtomicBool::new(false) }
    }

    fn charge(&self, key: AddressKey, events: NonZeroU32) -> Result<(), Over> {
        if self.charges.fetch_add(1, Ordering::Relaxed).is_multiple_of(COUNT_EVERY) {
            self.crowded.store(self.limiter.len() >= self.most, Ordering::Relaxed);
        }
        let key = if self.crowded.load(Ordering::Relaxed) { key.coarse() } else { key };
        flatten(self.limiter.check_key_n(&key, events))
    }

    fn sweep(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

fn flatten<C>(checked: Result<Result<(), NotUntil<QuantaInstant>>, C>) -> Result<(), Over> {
    match checked {
        Ok(Ok(())) => Ok(()),
        Ok(Err(until)) => Err(Over { wait: until.wait_time_from(DefaultClock::default().now()) }),
        // More than the burst at once never passes; the config check keeps whole batches below it.
        Err(_) => Err(Over { wait: Duration::from_secs(60) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(change: impl FnOnce(&mut Settings)) -> Limits {
        let mut settings = Settings { limit_loopback: true, ..Settings::default() };
        change(&mut settings);
        Limits::new(settings)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_so_many_places_and_a_left_one_is_free_again() {
        let limits = limits(|settings| settings.connections_per_address = 2);
        let first = limits.connect(address("2001:db8::1")).unwrap();
        let _second = limits.connect(address("2001:db8::2")).unwrap();
        assert!(limits.connect(address("2001:db8::3")).is_none(), "the same /64");
        assert!(limits.connect(address("2001:db8:0:1::1")).is_some(), "a neighbour");
        drop(first);
        assert!(limits.connect(address("2001:db8::3")).is_some());
    }

    #[test]
    fn events_are_charged_by_their_number() {
        let limits = limits(|settings| settings.events_per_connection = Rate::new(1, 300));
        let sender = limits.sender(address("203.0.113.9"), true);
        assert_eq!(limits.charge(&sender, 256), Ok(()));
        let over = limits.charge(&sender, 256).unwrap_err();
        assert!(over.wait > Duration::from_secs(200), "{over:?}");
        assert_eq!(limits.charge(&limits.sender(address("203.0.113.9"), true), 256), Ok(()), "a neighbour");
    }

    #[test]
    fn connections_share_the_limit_of_their_address() {
        let limits = limits(|settings| settings.events_per_address = Rate::new(1, 300));
        let sender = |text| limits.sender(address(text), true);
        assert_eq!(limits.charge(&sender("203.0.113.9"), 256), Ok(()));
        assert!(limits.charge(&sender("203.0.113.9"), 256).is_err());
        assert_eq!(limits.charge(&sender("203.0.113.8"), 256), Ok(()));
    }

    #[test]
    fn loopback_is_exempt_unless_told_otherwise() {
        let limits = limits(|settings| {
            settings.limit_loopback = false;
            settings.events_per_connection = Rate::new(1, 300);
        });
        let sender = limits.sender(address("127.0.0.1"), true);
        assert!((0..100).all(|_| limits.charge(&sender, 256).is_ok()));
    }

    #[test]
    fn an_attack_from_many_addresses_leaves_memory_bounded() {
        let limits = limits(|settings| settings.tracked_addresses = 1_000);
        for n in (0..u32::MAX).step_by(30_011) {
            let _ = limits.connects.charge(AddressKey::from(IpAddr::V4(n.into())), NonZeroU32::MIN);
        }
        assert!(
            limits.connects.limiter.len() < 1_000 + COUNT_EVERY as usize + 65_536,
            "{}",
            limits.connects.limiter.len()
        );
        limits.sweep();
    }
}
