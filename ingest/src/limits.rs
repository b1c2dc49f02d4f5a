//! Who may connect and send how much. The limits change while the node runs: what is open stays and counts, what
//! was used is forgotten.

use std::{
    net::IpAddr,
    num::NonZeroU32,
    ops::Deref,
    sync::{Arc, atomic::AtomicU32},
};

use arc_swap::{ArcSwap, Guard};

use crate::{
    config::{Limits as Settings, Rate},
    metrics::Metrics,
    network::AddressKey,
    place::{ConnectionPlace, Denied, Open},
    rates::{ByAddress, InUsed, Limiter, Over, Pressure, Used},
};

/// The limits of a node.
pub(crate) struct Limits {
    current: ArcSwap<Current>,
    pub(crate) open: Open,
    metrics: Arc<Metrics>,
}

/// Everything that is made from the settings.
struct Current {
    settings: Settings,
    connects: Addresses,
    events: Addresses,
    events_by_connection: Limiter<InUsed>,
    bytes_by_connection: Limiter<InUsed>,
    events_by_site: Limiter<InUsed>,
}

/// What a site's connections hold and have used, on this node.
#[derive(Debug, Default)]
pub(crate) struct SiteLimits {
    pub(crate) sockets: AtomicU32,
    events: Used,
}

/// What one connection or request is charged against.
#[derive(Default)]
pub(crate) struct SenderLimits {
    /// None: exempt.
    address: Option<AddressKey>,
    events: Used,
    bytes: Used,
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limits").field("settings", &*self.settings()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for SenderLimits {
    /// Without the address.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SenderLimits")
    }
}

impl Limits {
    pub(crate) fn new(settings: Settings, metrics: Arc<Metrics>) -> Self {
        Self { current: ArcSwap::from_pointee(Current::new(settings)), open: Open::default(), metrics }
    }

    /// Connections that are open stay, also above a lower cap.
    pub(crate) fn reload(&self, settings: Settings) {
        self.current.store(Arc::new(Current::new(settings)));
        self.open.room_changed();
    }

    pub(crate) fn settings(&self) -> impl Deref<Target = Settings> {
        Loaded(self.current.load())
    }

    pub(crate) fn is_exempt(&self, address: IpAddr) -> bool {
        !self.settings().limit_loopback && address.to_canonical().is_loopback()
    }

    /// One more connection, counted from now on. Its address is not known yet, or stands for many.
    pub(crate) fn accept(self: &Arc<Self>) -> ConnectionPlace {
        self.metrics.connections.add(1, &[]);
        ConnectionPlace::new(Arc::clone(self))
    }

    /// A connection and all that it held is gone.
    pub(crate) fn left(&self) {
        self.metrics.connections.add(-1, &[]);
    }

    /// One more connect from an address.
    pub(crate) fn charge_connect(&self, key: AddressKey) -> Result<(), Denied> {
        match self.current.load().connects.charge(key, NonZeroU32::MIN) {
            Ok(_) => Ok(()),
            Err(_) => Err(Denied::ConnectRate),
        }
    }

    /// The limits of one connection. A request is a connection that is used once.
    pub(crate) fn sender(&self, address: IpAddr) -> SenderLimits {
        let address = (!self.is_exempt(address)).then(|| AddressKey::from(address));
        SenderLimits { address, ..SenderLimits::default() }
    }

    /// Charges `events` and `bytes` (at least one each) to the connection, then `events` to its address and its site.
    pub(crate) fn charge(
        &self,
        sender: &SenderLimits,
        site: &SiteLimits,
        events: usize,
        bytes: usize,
    ) -> Result<Pressure, Over> {
        let amount = |count| u32::try_from(count).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        let (events, bytes) = (amount(events), amount(bytes));
        let current = self.current.load();
        let mut pressure = Pressure::Low;
        if let Some(address) = sender.address {
            // From the narrowest: a flood is stopped where it comes from, and costs its neighbours nothing.
            pressure = pressure
                .max(current.events_by_connection.charge(&sender.events, events)?)
                .max(current.bytes_by_connection.charge(&sender.bytes, bytes)?)
                .max(current.events.charge(address, events)?);
        }
        let of_site = current.events_by_site.charge(&site.events, events);
        Ok(pressure.max(of_site.map_err(|over| Over { of_site: true, ..over })?))
    }

    /// Forgets addresses whose limit has refilled. The limiters never do it by themselves.
    pub(crate) fn sweep(&self) {
        let current = self.current.load_full();
        current.connects.sweep();
        current.events.sweep();
        self.open.sweep();
    }
}

impl Current {
    fn new(settings: Settings) -> Self {
        Self {
            connects: Addresses::new(settings.connects_per_address, &settings),
            events: Addresses::new(settings.events_per_address, &settings),
            events_by_connection: Limiter::by_holder(settings.events_per_connection),
            bytes_by_connection: Limiter::by_holder(settings.bytes_per_connection),
            events_by_site: Limiter::by_holder(settings.events_per_site),
            settings,
        }
    }
}

struct Loaded(Guard<Arc<Current>>);

impl Deref for Loaded {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.0.settings
    }
}

/// A rate by address, and a wider one by the IPv6 /48 around it: who has a /48 has 65,536 addresses of the first kind.
struct Addresses {
    near: Limiter<ByAddress>,
    wide: Limiter<ByAddress>,
}

impl Addresses {
    fn new(rate: Rate, settings: &Settings) -> Self {
        let wide = |value: NonZeroU32| value.get().saturating_mul(settings.ipv6_48_times);
        Self {
            near: Limiter::by_address(rate, settings.tracked_addresses),
            wide: Limiter::by_address(
                Rate::new(wide(rate.per_second), wide(rate.burst)),
                settings.tracked_addresses,
            ),
        }
    }

    fn charge(&self, key: AddressKey, amount: NonZeroU32) -> Result<Pressure, Over> {
        let pressure = self.near.charge(&key, amount)?;
        match key.site_prefix() {
            Some(prefix) => Ok(pressure.max(self.wide.charge(&prefix, amount)?)),
            None => Ok(pressure),
        }
    }

    fn sweep(&self) {
        self.near.sweep();
        self.wide.sweep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::time::Duration;

    fn limits(change: impl FnOnce(&mut Settings)) -> Limits {
        let mut settings = Settings { limit_loopback: true, ..Settings::default() };
        change(&mut settings);
        Limits::new(settings, Arc::new(Metrics::new()))
    }

    fn sender(limits: &Limits, text: &str) -> SenderLimits {
        limits.sender(text.parse().unwrap())
    }

    #[test]
    fn what_a_connection_and_a_site_hold_of_limits_is_small() {
        assert_eq!(size_of::<SenderLimits>(), 24);
        assert_eq!(size_of::<SiteLimits>(), 16);
    }

    #[test]
    fn events_and_bytes_are_charged_by_their_number() {
        let limits = limits(|settings| {
            settings.events_per_connection = Rate::new(1, 300);
            settings.bytes_per_connection = Rate::new(1_000, 70_000);
        });
        let site = SiteLimits::default();
        let one = sender(&limits, "203.0.113.9");
        assert_eq!(limits.charge(&one, &site, 200, 1), Ok(Pressure::Low));
        assert_eq!(limits.charge(&one, &site, 56, 1), Ok(Pressure::High));
        let over = limits.charge(&one, &site, 256, 1).unwrap_err();
        assert!(over.wait > Duration::from_secs(200), "{over:?}");
        let neighbour = sender(&limits, "203.0.113.9");
        assert_eq!(limits.charge(&neighbour, &site, 1, 60_000), Ok(Pressure::High));
        let over = limits.charge(&neighbour, &site, 1, 60_000).unwrap_err();
        assert!((49..=50).contains(&over.wait.as_secs()), "{over:?}");
    }

    #[rstest]
    #[case::an_ipv4_address("203.0.113.9", "203.0.113.9", false)]
    #[case::its_neighbour("203.0.113.9", "203.0.113.8", true)]
    #[case::a_64("2001:db8:1:2::1", "2001:db8:1:2::2", false)]
    #[case::its_neighbour_in_the_48("2001:db8:1:2::1", "2001:db8:1:3::2", true)]
    fn connections_share_the_limit_of_their_address(
        #[case] first: &str,
        #[case] second: &str,
        #[case] passes: bool,
    ) {
        let limits = limits(|settings| settings.events_per_address = Rate::new(1, 300));
        let site = SiteLimits::default();
        assert!(limits.charge(&sender(&limits, first), &site, 256, 1).is_ok());
        assert_eq!(limits.charge(&sender(&limits, second), &site, 256, 1).is_ok(), passes);
    }

    #[test]
    fn the_64s_of_a_48_share_a_wider_limit() {
        let limits = limits(|settings| {
            settings.events_per_address = Rate::new(1, 300);
            settings.ipv6_48_times = 4;
        });
        let site = SiteLimits::default();
        let from =
            |n: u32| limits.charge(&sender(&limits, &format!("2001:db8:1:{n:x}::1")), &site, 300, 1).is_ok();
        assert_eq!([from(1), from(2), from(3), from(4), from(5)], [true, true, true, true, false]);
        assert!(limits.charge(&sender(&limits, "2001:db8:2::1"), &site, 300, 1).is_ok(), "another /48");
    }

    #[test]
    fn a_site_has_a_limit_of_its_own() {
        let limits = limits(|settings| settings.events_per_site = Rate::new(1, 300));
        let (shop, blog) = (SiteLimits::default(), SiteLimits::default());
        assert!(limits.charge(&sender(&limits, "203.0.113.1"), &shop, 256, 1).is_ok());
        assert!(limits.charge(&sender(&limits, "203.0.113.2"), &shop, 256, 1).is_err());
        assert!(limits.charge(&sender(&limits, "203.0.113.2"), &blog, 256, 1).is_ok());
    }

    #[test]
    fn loopback_is_exempt_unless_told_otherwise() {
        let limits = limits(|settings| {
            settings.limit_loopback = false;
            settings.events_per_connection = Rate::new(1, 300);
        });
        let (site, sender) = (SiteLimits::default(), sender(&limits, "127.0.0.1"));
        assert!((0..100).all(|_| limits.charge(&sender, &site, 256, 1).is_ok()));
    }

    #[test]
    fn a_connection_that_is_open_gets_the_new_limits() {
        let limits = limits(|settings| settings.events_per_connection = Rate::new(1, 300));
        let (site, sender) = (SiteLimits::default(), sender(&limits, "203.0.113.9"));
        limits.charge(&sender, &site, 256, 1).unwrap();
        limits.charge(&sender, &site, 256, 1).unwrap_err();
        limits.reload(Settings {
            events_per_connection: Rate::new(1_000, 600),
            limit_loopback: true,
            ..Settings::default()
        });
        limits.charge(&sender, &site, 600, 1).unwrap();
        limits.charge(&sender, &site, 600, 1).unwrap_err();
    }
}
