//! Which addresses a webhook may lead to. A site's owner names the URL, but it is this node that connects: without this
//! it would speak to the operator's own network for whoever can edit a rule.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use footfall_schemas::network::Network;

/// Public addresses, and the networks that the operator allows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reach {
    allowed: Vec<Network>,
}

impl Reach {
    pub(crate) fn new(allowed: Vec<Network>) -> Self {
        Self { allowed }
    }

    pub(crate) fn includes(&self, address: IpAddr) -> bool {
        self.allowed.iter().any(|network| network.contains(address)) || is_public(address)
    }
}

/// Whether the whole internet reaches it: not private, loopback, link-local (where clouds keep their metadata), shared
/// (CGNAT), multicast, for documentation or reserved (RFC 6890 and IANA's special-purpose registries). An IPv6 address
/// that stands for an IPv4 address is as public as that.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || a == 0
        // Shared by a provider's customers (RFC 6598).
        || (a == 100 && b & 0xc0 == 64)
        // Protocol assignments (RFC 6890), 6to4 relays (RFC 7526), benchmarks (RFC 2544).
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && b & 0xfe == 18)
        // Multicast, reserved, broadcast.
        || a >= 224;
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // IPv4-mapped.
        [0, 0, 0, 0, 0, 0xffff, high, low] => embedded(high, low),
        // NAT64 (RFC 6052); that of one's own network, 64:ff9b:1::/48, is not public.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => embedded(high, low),
        // Protocol assignments, Teredo among them (RFC 2928), and documentation (RFC 3849, RFC 9637).
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        // Global unicast; everything else is not, or not yet.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("8.8.8.8", true)]
    #[case("100.63.255.255", true)]
    #[case("100.128.0.0", true)]
    #[case("172.15.0.1", true)]
    #[case("172.32.0.1", true)]
    #[case("192.0.1.1", true)]
    #[case("198.17.0.1", true)]
    #[case("198.20.0.1", true)]
    #[case("223.255.255.255", true)]
    #[case("2606:4700::1111", true)]
    #[case("2001:200::1", true)]
    #[case("3fff:1000::1", true)]
    #[case("::ffff:8.8.8.8", true)]
    #[case("64:ff9b::808:808", true)]
    #[case("2002:808:808::1", true)]
    #[case::this_network("0.0.0.0", false)]
    #[case::private("10.0.0.1", false)]
    #[case::private("172.16.0.1", false)]
    #[case::private("172.31.255.255", false)]
    #[case::private("192.168.1.1", false)]
    #[case::shared("100.64.0.1", false)]
    #[case::shared("100.127.255.255", false)]
    #[case::loopback("127.0.0.1", false)]
    #[case::loopback("127.255.0.1", false)]
    #[case::link_local("169.254.0.1", false)]
    #[case::metadata("169.254.169.254", false)]
    #[case::metadata("100.100.100.200", false)]
    #[case::metadata("192.0.0.192", false)]
    #[case::documentation("192.0.2.1", false)]
    #[case::documentation("198.51.100.1", false)]
    #[case::documentation("203.0.113.1", false)]
    #[case::relay("192.88.99.1", false)]
    #[case::benchmark("198.18.0.1", false)]
    #[case::benchmark("198.19.255.255", false)]
    #[case::multicast("224.0.0.1", false)]
    #[case::reserved("240.0.0.1", false)]
    #[case::broadcast("255.255.255.255", false)]
    #[case::unspecified("::", false)]
    #[case::loopback("::1", false)]
    #[case::ipv4_compatible("::7f00:1", false)]
    #[case::mapped_loopback("::ffff:127.0.0.1", false)]
    #[case::mapped_metadata("::ffff:169.254.169.254", false)]
    #[case::translated("::ffff:0:7f00:1", false)]
    #[case::nat64_loopback("64:ff9b::7f00:1", false)]
    #[case::nat64_private("64:ff9b::a00:1", false)]
    #[case::nat64_of_ones_own("64:ff9b:1::808:808", false)]
    #[case::sixtofour_private("2002:a00:1::1", false)]
    #[case::teredo("2001:0:808:808::1", false)]
    #[case::orchid("2001:20::1", false)]
    #[case::documentation("2001:db8::1", false)]
    #[case::documentation("3fff::1", false)]
    #[case::unique_local("fd00::1", false)]
    #[case::metadata("fd00:ec2::254", false)]
    #[case::link_local("fe80::1", false)]
    #[case::site_local("fec0::1", false)]
    #[case::multicast("ff02::1", false)]
    #[case::discard("100::1", false)]
    #[case::segment_routing("5f00::1", false)]
    fn an_address_is_public_or_refused(#[case] address: &str, #[case] public: bool) {
        assert_eq!(Reach::default().includes(address.parse().unwrap()), public);
    }

    #[rstest]
    #[case("10.1.2.3", true)]
    #[case("::ffff:10.1.2.3", true)]
    #[case("10.2.0.1", false)]
    #[case("fd12::1", true)]
    #[case("127.0.0.1", false)]
    #[case("8.8.8.8", true)]
    fn the_operator_may_allow_networks(#[case] address: &str, #[case] included: bool) {
        let reach = Reach::new(["10.1.0.0/16", "fd12::/16"].map(|text| text.try_into().unwrap()).into());
        assert_eq!(reach.includes(address.parse().unwrap()), included);
    }
}
