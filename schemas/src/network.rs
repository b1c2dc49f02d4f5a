//! An IP network as configured, and who a client behind proxies is.

use std::net::{IpAddr, SocketAddr};

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
}
