//! Who the client is: a header believed only from a trusted peer, and nothing that a client writes gets past the
//! proxies that stand before it. The input is three lines: the peer, the trusted networks, the header.
#![no_main]

use std::net::IpAddr;

use footfall_ingest::network::{Network, client_address, forwarded_hop};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let mut lines = input.splitn(3, '\n');
    let (Some(peer), Some(networks), Some(header)) = (lines.next(), lines.next(), lines.next()) else {
        return;
    };
    let Ok(peer) = peer.parse::<IpAddr>() else { return };
    let trusted: Vec<Network> = networks.split(' ').filter_map(|text| Network::try_from(text).ok()).collect();
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));

    let client = client_address(peer, [header.as_bytes()].into_iter(), &trusted);
    assert_eq!(client, client.to_canonical());
    if !is_trusted(peer) {
        assert_eq!(client, peer.to_canonical(), "a stranger's header is not looked at");
    }
    let hops: Vec<_> = header.rsplit(',').map(|hop| forwarded_hop(hop.as_bytes())).collect();
    if client != peer.to_canonical() {
        let place = hops.iter().position(|hop| hop.is_some_and(|hop| hop.to_canonical() == client));
        let place = place.expect("it is one of the hops");
        assert!(hops[..place].iter().all(|hop| hop.is_some_and(is_trusted)), "a proxy was skipped");
    }
    if !is_trusted(client) {
        // What the client put in front of what the proxies wrote.
        for forged in ["203.0.113.66, ", "10.0.0.1, 127.0.0.1,", ",,"] {
            let forged = format!("{forged}{header}");
            assert_eq!(client_address(peer, [forged.as_bytes()].into_iter(), &trusted), client, "{forged}");
        }
    }
});
