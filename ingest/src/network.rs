//! Who a client behind proxies is, and the key under which its address is limited.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU64,
};

pub use footfall_schemas::network::{InvalidNetwork, Network};

/// Most hops of `X-Forwarded-For` looked at: nobody stands behind more proxies of his own.
const MAX_HOPS: usize = 32;

/// The client's address: the peer's, or, from a trusted proxy, the rightmost address in `X-Forwarded-For` that is not
/// itself a trusted proxy's. `forwarded_for` holds the header's lines in their order; together they are one list. What
/// does not parse ends the search at the last address that did.
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded_for: impl DoubleEndedIterator<Item = &'a [u8]>,
    trusted: &[Network],
) -> IpAddr {
    let is_trusted = |address| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    let mut hops = forwarded_for.rev().flat_map(|line| line.rsplit(|byte| *byte == b',')).take(MAX_HOPS);
    while is_trusted(client) {
        match hops.next().and_then(forwarded_hop) {
            Some(address) => client = address.to_canonical(),
            None => break,
        }
    }
    client
}

/// One hop of the header: `203.0.113.9`, `203.0.113.9:4711`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:4711`.
pub fn forwarded_hop(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    bare.unwrap_or(text).parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip())).ok()
}

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

    #[rstest]
    #[case::not_behind_a_proxy("203.0.113.9", &["198.51.100.1"], "203.0.113.9")]
    #[case::one_proxy("10.0.0.1", &["198.51.100.1"], "198.51.100.1")]
    #[case::forged_by_the_client("10.0.0.1", &["1.2.3.4, 198.51.100.1"], "198.51.100.1")]
    #[case::two_proxies("10.0.0.1", &["198.51.100.1, 10.0.0.2"], "198.51.100.1")]
    #[case::two_lines("10.0.0.1", &["1.2.3.4, 198.51.100.1", "10.0.0.2"], "198.51.100.1")]
    #[case::two_lines_the_first_forged("10.0.0.1", &["1.2.3.4", "198.51.100.1"], "198.51.100.1")]
    #[case::no_header("10.0.0.1", &[], "10.0.0.1")]
    #[case::nonsense("10.0.0.1", &["198.51.100.1, unknown"], "10.0.0.1")]
    #[case::no_text("10.0.0.1", &["198.51.100.1, \u{e9}"], "10.0.0.1")]
    #[case::empty_hop("10.0.0.1", &["198.51.100.1,"], "10.0.0.1")]
    #[case::all_trusted("10.0.0.1", &["10.0.0.3"], "10.0.0.3")]
    #[case::with_a_port("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1")]
    #[case::ipv6("10.0.0.1", &["2001:db8::1"], "2001:db8::1")]
    #[case::in_brackets("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1")]
    #[case::in_brackets_with_a_port("10.0.0.1", &["[2001:db8::1]:443"], "2001:db8::1")]
    #[case::half_a_bracket("10.0.0.1", &["[2001:db8::1"], "10.0.0.1")]
    #[case::ipv4_mapped("::ffff:10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1")]
    fn the_client_is_the_rightmost_untrusted_hop(
        #[case] peer: &str,
        #[case] forwarded: &[&str],
        #[case] client: &str,
    ) {
        let trusted = [Network::try_from("10.0.0.0/8").unwrap()];
        let lines = forwarded.iter().map(|line| line.as_bytes());
        assert_eq!(client_address(peer.parse().unwrap(), lines, &trusted), client.parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_header_of_trusted_hops_only_is_not_read_to_its_end() {
        let trusted = [Network::try_from("10.0.0.0/8").unwrap()];
        let line = format!("198.51.100.1{}", ", 10.0.0.2".repeat(100_000));
        let client = client_address("10.0.0.1".parse().unwrap(), [line.as_bytes()].into_iter(), &trusted);
        assert_eq!(client, "10.0.0.2".parse::<IpAddr>().unwrap());
    }

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
