//! Writes a small MaxMind database (format 2.0): a search tree of 24-bit records over IPv6, then maps of texts.

#![allow(unreachable_pub, clippy::unwrap_used)] // a test may panic

use std::net::IpAddr;

/// A network and what the database tells of it: country, region and city.
pub type Entry<'a> = (&'a str, u8, [&'a str; 3]);

pub fn database(kind: &str, entries: &[Entry<'_>]) -> Vec<u8> {
    // Each node has a left and a right: None for nothing, Some(Ok(node)) or Some(Err(place in the data)).
    let mut nodes: Vec<[Option<Result<usize, usize>>; 2]> = vec![[None; 2]];
    let mut data = Vec::new();
    for (address, prefix, names) in entries {
        let at = data.len();
        place(&mut data, names);
        let (bits, prefix) = match address.parse().unwrap() {
            // IPv4 lies at ::/96.
            IpAddr::V4(address) => (u128::from(address.to_bits()), prefix + 96),
            IpAddr::V6(address) => (address.to_bits(), *prefix),
        };
        let mut node = 0;
        for depth in 0..prefix {
            let side = (bits >> (127 - depth) & 1) as usize;
            if depth + 1 == prefix {
                nodes[node][side] = Some(Err(at));
                continue;
            }
            node = match nodes[node][side] {
                Some(Ok(next)) => next,
                _ => {
                    // A network inside another: both halves begin as what the outer tells.
                    nodes.push([nodes[node][side]; 2]);
                    let next = nodes.len() - 1;
                    nodes[node][side] = Some(Ok(next));
                    next
                }
            };
        }
    }
    let count = nodes.len();
    let mut bytes = Vec::new();
    for record in nodes.into_iter().flatten() {
        let value = match record {
            None => count,
            Some(Ok(node)) => node,
            Some(Err(at)) => count + 16 + at,
        };
        bytes.extend_from_slice(&(value as u32).to_be_bytes()[1..]);
    }
    bytes.extend_from_slice(&[0; 16]);
    bytes.extend(data);
    bytes.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    metadata(&mut bytes, kind, count);
    bytes
}

fn metadata(out: &mut Vec<u8>, kind: &str, nodes: usize) {
    map(out, 9);
    for (key, value) in [
        ("binary_format_major_version", 2),
        ("binary_format_minor_version", 0),
        ("ip_version", 6),
        ("record_size", 24),
    ] {
        text(out, key);
        number(out, 5, value);
    }
    text(out, "node_count");
    number(out, 6, nodes as u32);
    text(out, "build_epoch");
    // An extended type: unsigned 64 bits.
    out.extend_from_slice(&[8, 2]);
    out.extend_from_slice(&1_800_000_000u64.to_be_bytes());
    text(out, "database_type");
    text(out, kind);
    text(out, "languages");
    // An extended type: an array of one.
    out.extend_from_slice(&[1, 4]);
    text(out, "en");
    text(out, "description");
    map(out, 1);
    text(out, "en");
    text(out, "A test");
}

fn place(out: &mut Vec<u8>, [country, region, city]: &[&str; 3]) {
    map(out, 1 + u8::from(!region.is_empty()) + u8::from(!city.is_empty()));
    text(out, "country");
    map(out, 1);
    text(out, "iso_code");
    text(out, country);
    if !region.is_empty() {
        text(out, "subdivisions");
        out.extend_from_slice(&[1, 4]);
        named(out, region);
    }
    if !city.is_empty() {
        text(out, "city");
        named(out, city);
    }
}

fn named(out: &mut Vec<u8>, name: &str) {
    map(out, 1);
    text(out, "names");
    map(out, 2);
    text(out, "de");
    text(out, "anders");
    text(out, "en");
    text(out, name);
}

fn map(out: &mut Vec<u8>, pairs: u8) {
    out.push(7 << 5 | pairs);
}

fn text(out: &mut Vec<u8>, text: &str) {
    assert!(text.len() < 29, "longer texts are written differently");
    out.push(2 << 5 | text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

/// `kind` is 5 for 16 bits and 6 for 32.
fn number(out: &mut Vec<u8>, kind: u8, number: u32) {
    let bytes = 2 * (kind - 4);
    out.push(kind << 5 | bytes);
    out.extend_from_slice(&number.to_be_bytes()[4 - usize::from(bytes)..]);
}
