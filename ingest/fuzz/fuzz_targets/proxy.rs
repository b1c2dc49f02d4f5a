//! The PROXY header: whatever a connection begins with is decided once, by the header's own bytes and no others.
#![no_main]

use footfall_ingest::proxy_protocol::{MAX_BYTES, NoHeader, parse};
use libfuzzer_sys::fuzz_target;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fuzz_target!(|input: &[u8]| {
    check(input);
    // Random bytes hardly ever begin with the signature.
    check(&[SIGNATURE, input].concat());
});

fn check(bytes: &[u8]) {
    let parsed = parse(bytes);
    match parsed {
        Ok(header) => {
            assert!(header.bytes <= bytes.len() && header.bytes <= MAX_BYTES);
            assert_eq!(parse(&bytes[..header.bytes]), parsed, "what follows is not looked at");
        }
        Err(NoHeader::Incomplete(needed)) => assert!(needed > bytes.len() && needed <= MAX_BYTES),
        Err(_) => {}
    }
    for length in 0..bytes.len().min(MAX_BYTES) {
        match parse(&bytes[..length]) {
            Err(NoHeader::Incomplete(_)) => {}
            // Too little is there to tell the old version from no header at all.
            Err(NoHeader::Missing | NoHeader::Version1) => {
                assert!(matches!(parsed, Err(NoHeader::Missing | NoHeader::Version1)));
            }
            decided => assert_eq!(decided, parsed, "decided by {length} bytes, otherwise by {}", bytes.len()),
        }
    }
}
