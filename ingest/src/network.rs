//! An IP network as configured, and the key under which an address is limited.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// `10.0.0.0/8`, `fd00::/8`, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network: write 10.0.0.0/8, fd00::/8 or a single address")]
pub struct InvalidNetwork(String);

impl TryFrom<&str> for Network {
    type Error = InvalidNetwork;

    fn try_from(text: &str) -> Result<Self, InvalidNetwork> {
        let invalid = || InvalidNetwork(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| invalid())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(longest);
        if bits > longest { Err(invalid()) } else { Ok(Self { address, bits }) }
    }
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                u64::from(differing) >> (32 - u32::from(self.bits)) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}/{}", self.address, self.bits))
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::try_from(text.as_str()).map_err(D::Error::custom)
    }
}

/// The client's address: the peer's, or, from a trusted proxy, the rightmost address in `X-Forwarded-For` that is not
/// itself a trusted proxy's. What does not parse ends the search at the last address that did.
pub fn client_address(peer: IpAddr, forwarded_for: Option<&str>, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    let mut hops = forwarded_for.unwrap_or_default().rsplit(',').map(str::trim);
    while is_trusted(client) {
        match hops.next().and_then(|hop| hop.parse::<IpAddr>().ok()) {
            Some(hop) => client = hop.to_canonical(),
            None => break,
        }
    }
    client
}

/// What shares a limit: an IPv4 address, or an IPv6 /64 (one household or one machine).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressKey {
    v6: bool,
    bits: u64,
}

impl std::fmt::Debug for AddressKey {
    /// Never shown: no address reaches a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AddressKey")
    }
}

impl From<IpAddr> for AddressKey {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self { v6: false, bits: address.to_bits().into() },
            IpAddr::V6(address) => Self { v6: true, bits: (address.to_bits() >> 64) as u64 },
        }
    }
}

impl AddressKey {
    /// A /16, of which there are 65,536: what remains distinguishable when too many addresses come at once.
    pub fn coarse(self) -> Self {
        let bits = if self.v6 { self.bits >> 48 << 48 } else { self.bits >> 16 << 16 };
        Self { bits, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("10.0.0.0/8", "10.255.0.1", true)]
    #[case("10.0.0.0/8", "11.0.0.1", false)]
    #[case("10.0.0.0/8", "::ffff:10.1.1.1", true)]
    #[case("0.0.0.0/0", "203.0.113.9", true)]
    #[case("0.0.0.0/0", "2001:db8::1", false)]
    #[case("203.0.113.9", "203.0.113.9", true)]
    #[case("203.0.113.9", "203.0.113.8", false)]
    #[case("fd00::/8", "fd12::1", true)]
    #[case("fd00::/8", "fe80::1", false)]
    #[case("::/0", "2001:db8::1", true)]
    fn a_network_contains_its_addresses(
        #[case] network: &str,
        #[case] address: &str,
        #[case] expected: bool,
    ) {
        assert_eq!(Network::try_from(network).unwrap().contains(address.parse().unwrap()), expected);
    }

    #[rstest]
    #[case("10.0.0.0/33")]
    #[case("10.0.0/8")]
    #[case("fd00::/129")]
    #[case("proxy.example")]
    fn what_is_no_network_is_refused_at_boot(#[case] text: &str) {
        assert!(Network::try_from(text).is_err());
    }

    #[rstest]
    #[case::not_behind_a_proxy("203.0.113.9", Some("198.51.100.1"), "203.0.113.9")]
    #[case::one_proxy("10.0.0.1", Some("198.51.100.1"), "198.51.100.1")]
    #[case::forged_by_the_client("10.0.0.1", Some("1.2.3.4, 198.51.100.1"), "198.51.100.1")]
    #[case::two_proxies("10.0.0.1", Some("198.51.100.1, 10.0.0.2"), "198.51.100.1")]
    #[case::no_header("10.0.0.1", None, "10.0.0.1")]
    #[case::nonsense("10.0.0.1", Some("198.51.100.1, unknown"), "10.0.0.1")]
    #[case::all_trusted("10.0.0.1", Some("10.0.0.3"), "10.0.0.3")]
    fn the_client_is_the_rightmost_untrusted_hop(
        #[case] peer: &str,
        #[case] forwarded: Option<&str>,
        #[case] client: &str,
    ) {
        let trusted = [Network::try_from("10.0.0.0/8").unwrap()];
        assert_eq!(
            client_address(peer.parse().unwrap(), forwarded, &trusted),
            client.parse::<IpAddr>().unwrap()
        );
    }

    #[test]
    fn an_ipv6_64_shares_one_key() {
        let key = |text: &str| AddressKey::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:203.0.113.9"), key("203.0.113.9"));
    }
}
