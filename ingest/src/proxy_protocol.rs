//! The PROXY protocol, version 2: a header before the first byte of a connection in which a proxy names its client
//! (haproxy.org, `proxy-protocol.txt`, §2.2). The older version 1 is recognised and refused.

use std::{io, net::IpAddr};

use ppp::v2::{Addresses, Command, Header, ParseError, Protocol};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Signature, version, family and length.
const FIXED_BYTES: usize = 16;
/// The longest header read: addresses, and what proxies add of TLS and of themselves.
pub const MAX_BYTES: usize = 2 * 1024;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proxied {
    /// Whom the proxy speaks for. None: for itself (`LOCAL`, such as a health check), or it does not say.
    pub client: Option<IpAddr>,
    /// Length of the header.
    pub bytes: usize,
}

/// Why there is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoHeader {
    /// Nothing is wrong so far: read until there are so many bytes, and ask again.
    #[error("incomplete: {0} bytes are needed")]
    Incomplete(usize),
    #[error("PROXY protocol version 1; set the proxy to version 2 (haproxy: send-proxy-v2)")]
    Version1,
    #[error("no PROXY protocol header; set the proxy to send one, or use another listener")]
    Missing,
    #[error("a malformed PROXY protocol header")]
    Malformed,
    #[error("a PROXY protocol header of {0} bytes; at most {MAX_BYTES} are read")]
    TooLong(usize),
}

/// Parses what a connection begins with. Bytes after the header are not looked at.
pub fn parse(bytes: &[u8]) -> Result<Proxied, NoHeader> {
    if let Some(length) = bytes.get(FIXED_BYTES - 2..FIXED_BYTES) {
        let total = FIXED_BYTES + usize::from(u16::from_be_bytes([length[0], length[1]]));
        if bytes.starts_with(ppp::v2::PROTOCOL_PREFIX) && total > MAX_BYTES {
            return Err(NoHeader::TooLong(total));
        }
    }
    match Header::try_from(bytes) {
        Ok(header) if header.protocol == Protocol::Datagram => Err(NoHeader::Malformed),
        Ok(header) => {
            let client = match (header.command, &header.addresses) {
                (Command::Proxy, Addresses::IPv4(addresses)) => Some(addresses.source_address.into()),
                (Command::Proxy, Addresses::IPv6(addresses)) => Some(addresses.source_address.into()),
                (Command::Proxy, Addresses::Unix(_)) => return Err(NoHeader::Malformed),
                (Command::Proxy, Addresses::Unspecified) | (Command::Local, _) => None,
            };
            Ok(Proxied { client, bytes: header.as_bytes().len() })
        }
        Err(ParseError::Incomplete(_)) => Err(NoHeader::Incomplete(FIXED_BYTES)),
        Err(ParseError::Partial(_, length)) => Err(NoHeader::Incomplete(FIXED_BYTES + length)),
        Err(ParseError::Prefix) if bytes.starts_with(b"PROXY ") => Err(NoHeader::Version1),
        Err(ParseError::Prefix) => Err(NoHeader::Missing),
        Err(_) => Err(NoHeader::Malformed),
    }
}

/// Reads the header and not a byte more: what follows is TLS or HTTP.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<Proxied, NoHeader>> {
    let mut bytes = Vec::with_capacity(FIXED_BYTES + 36);
    loop {
        let needed = match parse(&bytes) {
            Err(NoHeader::Incomplete(needed)) => needed,
            parsed => return Ok(parsed),
        };
        let missing = (needed - bytes.len()) as u64;
        if stream.take(missing).read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn header(version_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = ppp::v2::PROTOCOL_PREFIX.to_vec();
        bytes.extend([version_command, family]);
        bytes.extend((rest.len() as u16).to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    fn ipv4() -> Vec<u8> {
        header(0x21, 0x11, &[203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x34, 1, 187])
    }

    fn ipv6() -> Vec<u8> {
        let mut rest = [0; 36];
        rest[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        rest[15] = 1;
        header(0x21, 0x21, &rest)
    }

    #[rstest]
    #[case::ipv4(ipv4(), Some("203.0.113.9"))]
    #[case::ipv6(ipv6(), Some("2001:db8::1"))]
    #[case::local_health_check(header(0x20, 0x00, &[]), None)]
    #[case::local_with_addresses(header(0x20, 0x11, &[203, 0, 113, 9, 10, 0, 0, 1, 0, 1, 0, 1]), None)]
    #[case::unspecified(header(0x21, 0x00, &[1, 2, 3]), None)]
    #[case::more_than_addresses(header(0x21, 0x11, &[203, 0, 113, 9, 10, 0, 0, 1, 0, 1, 0, 1, 4, 0, 1, 0]), Some("203.0.113.9"))]
    fn the_client_is_told(#[case] mut bytes: Vec<u8>, #[case] client: Option<&str>) {
        let length = bytes.len();
        bytes.extend(b"GET / HTTP/1.1\r\n");
        let client = client.map(|client| client.parse().unwrap());
        assert_eq!(parse(&bytes), Ok(Proxied { client, bytes: length }));
    }

    #[rstest]
    #[case::version_1(b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n".to_vec(), NoHeader::Version1)]
    #[case::http(b"GET / HTTP/1.1\r\n".to_vec(), NoHeader::Missing)]
    #[case::tls(vec![0x16, 0x03, 0x01], NoHeader::Missing)]
    #[case::version_3(header(0x31, 0x11, &[0; 12]), NoHeader::Malformed)]
    #[case::unknown_command(header(0x22, 0x11, &[0; 12]), NoHeader::Malformed)]
    #[case::too_short_for_addresses(header(0x21, 0x11, &[0; 11]), NoHeader::Malformed)]
    #[case::unix_socket(header(0x21, 0x31, &[0; 216]), NoHeader::Malformed)]
    #[case::datagram(header(0x21, 0x12, &[0; 12]), NoHeader::Malformed)]
    #[case::too_long(header(0x21, 0x11, &[0; 4096]), NoHeader::TooLong(4112))]
    fn what_is_no_header_is_named(#[case] bytes: Vec<u8>, #[case] expected: NoHeader) {
        assert_eq!(parse(&bytes), Err(expected));
    }

    #[test]
    fn every_beginning_of_a_header_asks_for_the_rest() {
        let whole = ipv6();
        for length in 0..whole.len() {
            let needed = if length < FIXED_BYTES { FIXED_BYTES } else { whole.len() };
            assert_eq!(parse(&whole[..length]), Err(NoHeader::Incomplete(needed)));
        }
    }

    #[tokio::test]
    async fn no_byte_behind_the_header_is_read() {
        let mut bytes = ipv4();
        bytes.extend(b"GET");
        let mut stream = bytes.as_slice();
        let read = read(&mut stream).await.unwrap().unwrap();
        assert_eq!(read.client, Some("203.0.113.9".parse().unwrap()));
        assert_eq!(stream, b"GET");
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_an_incomplete_header_always_needs_more(mut bytes in prop::collection::vec(any::<u8>(), 0..64), signed: bool) {
            if signed {
                bytes.splice(0..0, ppp::v2::PROTOCOL_PREFIX.iter().copied());
            }
            match parse(&bytes) {
                Err(NoHeader::Incomplete(needed)) => prop_assert!(needed > bytes.len() && needed <= MAX_BYTES),
                Ok(proxied) => prop_assert!(proxied.bytes <= bytes.len()),
                Err(_) => {}
            }
        }
    }
}
