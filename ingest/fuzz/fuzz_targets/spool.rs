//! The spool's reader: no bytes panic it; of a segment that was cut or damaged it gives the frames before that place,
//! unaltered, and nothing else.
//!
//! The first byte of the input chooses: 0, the rest is a segment behind the magic; else, the rest are payloads that are
//! framed here, for random bytes have no checksum. The next two say where the segment is cut, or one bit of it turned.
#![no_main]

use footfall_ingest::spool::{Ending, Frame, frames};
use libfuzzer_sys::fuzz_target;

const MAGIC: &[u8] = b"FFSPOOL1";

fuzz_target!(|input: &[u8]| {
    let [kind, high, low, rest @ ..] = input else { return };
    if *kind == 0 {
        let segment = [MAGIC, rest].concat();
        let (read, _) = read(&segment);
        let ends = read.iter().map(|frame| frame.offset + 24 + frame.payload.len());
        let starts = read.iter().map(|frame| frame.offset).skip(1).chain([segment.len()]);
        assert!(ends.zip(starts).all(|(end, next)| end <= next));
        return;
    }
    let segment = segment(rest);
    let (all, ending) = read(&segment);
    assert_eq!(ending, Ending::Whole);
    let at = usize::from(u16::from_be_bytes([*high, *low])) % segment.len();
    let before = |place: usize| {
        all.iter()
            .filter(|frame| frame.offset + 24 + frame.payload.len() <= place)
            .copied()
            .collect::<Vec<_>>()
    };
    let (cut, ending) = read(&segment[..at]);
    assert_eq!(cut, before(at), "cut at {at}");
    let boundary = at == MAGIC.len() || at > MAGIC.len() && all.iter().any(|frame| frame.offset == at);
    assert_eq!(ending == Ending::Whole, boundary, "cut at {at}: {ending:?}");
    assert!(!matches!(ending, Ending::Corrupt { .. }), "cut at {at}: {ending:?}");

    let mut damaged = segment.clone();
    damaged[at] ^= 1 << (kind % 8);
    let (kept, ending) = read(&damaged);
    assert_eq!(kept, before(at), "damaged at {at}");
    assert_ne!(ending, Ending::Whole, "damaged at {at}");
});

fn read(segment: &[u8]) -> (Vec<Frame<'_>>, Ending) {
    let mut frames = frames(segment);
    let read: Vec<_> = frames.by_ref().collect();
    (read, frames.ending().expect("all frames are read"))
}

/// Each payload is its length and its bytes.
fn segment(mut recipe: &[u8]) -> Vec<u8> {
    let mut segment = MAGIC.to_vec();
    let mut number = 7_u64;
    while let [length, rest @ ..] = recipe {
        let (payload, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        recipe = rest;
        let start = segment.len();
        segment.extend(number.to_le_bytes());
        segment.extend(3_u32.to_le_bytes());
        segment.extend((payload.len() as u32).to_le_bytes());
        segment.extend(crc32c::crc32c(payload).to_le_bytes());
        let checksum = crc32c::crc32c(&segment[start..]);
        segment.extend(checksum.to_le_bytes());
        segment.extend_from_slice(payload);
        number += 1;
    }
    segment
}
