//! Networks, and the key under which a client's address is limited.

use std::{net::IpAddr, num::NonZeroU64};

pub use footfall_schemas::network::{InvalidNetwork, Network, client_address, forwarded_hop};

/// What shares a limit: an IPv4 address, or an IPv6 /64 (one household or one machine).
///
/// Eight bytes: the first half of an IPv6 address. An IPv4 address is the same number in `::/32`, which is reserved and
/// never the source of a connection (RFC 4291 §4); that half of `ff00::/8`, multicast, stands for zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressKey(NonZeroU64);

impl std::fmt::Debug for AddressKey {
    /// Never shown: no address reaches a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AddressKey")
    }
}

impl From<IpAddr> for AddressKey {
    fn from(address: IpAddr) -> Self {
        Self::new(match address.to_canonical() {
            IpAddr::V4(address) => address.to_bits().into(),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        })
    }
}

impl AddressKey {
    fn new(bits: u64) -> Self {
        Self(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MAX))
    }

    fn is_v4(self) -> bool {
        u32::try_from(self.0.get()).is_ok()
    }

    /// The IPv6 /48 (one customer of a provider) around it.
    pub fn site_prefix(self) -> Option<Self> {
        (!self.is_v4()).then(|| Self::new(self.0.get() >> 16 << 16))
    }

    /// A /16, of which there are 65,536 of each kind: what remains distinguishable when too many addresses come at once.
    pub fn coarse(self) -> Self {
        let bits = self.0.get();
        Self::new(if self.is_v4() { bits >> 16 << 16 } else { bits >> 48 << 48 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn key(text: &str) -> AddressKey {
        AddressKey::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn an_ipv6_64_shares_one_key() {
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:203.0.113.9"), key("203.0.113.9"));
        assert_eq!(size_of::<Option<AddressKey>>(), 8);
    }

    #[test]
    fn an_ipv6_48_is_around_its_64s() {
        let around = key("2001:db8:1:2::1").site_prefix();
        assert_eq!(around, key("2001:db8:1:ffff::1").site_prefix());
        assert_ne!(around, key("2001:db8:2:2::1").site_prefix());
        assert_eq!(key("203.0.113.9").site_prefix(), None);
    }

    #[rstest]
    #[case("203.0.113.9", "203.0.200.1", "203.1.113.9")]
    #[case("2001:db8:1:2::1", "2001:ffff::1", "2002:db8:1:2::1")]
    fn a_coarse_key_is_a_16(#[case] one: &str, #[case] same: &str, #[case] other: &str) {
        assert_eq!(key(one).coarse(), key(same).coarse());
        assert_ne!(key(one).coarse(), key(other).coarse());
    }
}
