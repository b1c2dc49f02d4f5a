//! How records lie in a segment: `FFSPOOL1`, then frames.
//!
//! ```text
//! number u64 | partition u32 | length u32 | CRC-32C of the payload u32 | CRC-32C of the 20 bytes before u32 | payload
//! ```
//!
//! All little-endian. The header has a checksum of its own, so that a damaged length cannot pass for a frame that the
//! end of the file has cut off.

pub(super) const MAGIC: &[u8; 8] = b"FFSPOOL1";
pub(super) const HEADER_BYTES: usize = 24;

/// A record as it was to be written to Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Microseconds since 1970 when it was packed, and above every number given before: the order of a partition.
    pub number: u64,
    pub partition: u32,
    /// NDJSON.
    pub payload: &'a [u8],
    /// Where the frame begins in the segment.
    pub offset: usize,
}

/// Why there are no more frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The last frame ends with the segment.
    Whole,
    /// The writer was stopped within the frame that begins at `at`: an unfinished write and nothing behind it.
    Torn { at: usize },
    /// What begins at `at` is damaged, and there are bytes behind it.
    Corrupt { at: usize },
}

/// The frames of a segment, up to its end or the first that is not whole; then [`Frames::ending`] says why. Never
/// panics, whatever the bytes.
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    segment: &'a [u8],
    at: usize,
    ending: Option<Ending>,
}

pub fn frames(segment: &[u8]) -> Frames<'_> {
    let start = segment.len().min(MAGIC.len());
    let ending = match &segment[..start] {
        magic if magic == MAGIC => None,
        start if segment.len() <= MAGIC.len() && (MAGIC.starts_with(start) || is_zero(start)) => {
            Some(Ending::Torn { at: 0 })
        }
        _ if is_zero(segment) => Some(Ending::Torn { at: 0 }),
        _ => Some(Ending::Corrupt { at: 0 }),
    };
    Frames { segment, at: start, ending }
}

impl<'a> Frames<'a> {
    /// None while there may be more frames.
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    fn parse(&self) -> Result<Frame<'a>, Ending> {
        if self.at == self.segment.len() { Err(Ending::Whole) } else { parse(self.segment, self.at) }
    }
}

fn parse(segment: &[u8], at: usize) -> Result<Frame<'_>, Ending> {
    let Some((header, body)) = segment[at..].split_at_checked(HEADER_BYTES) else {
        return Err(Ending::Torn { at });
    };
    // A file may have grown by an unfinished write before its bytes were there: then they are zero.
    let broken = |behind: &[u8]| {
        if is_zero(behind) { Ending::Torn { at } } else { Ending::Corrupt { at } }
    };
    let word = |from: usize| {
        u32::from_le_bytes([header[from], header[from + 1], header[from + 2], header[from + 3]])
    };
    if crc32c::crc32c(&header[..20]) != word(20) {
        return Err(broken(body));
    }
    let Some((payload, behind)) = body.split_at_checked(word(12) as usize) else {
        return Err(Ending::Torn { at });
    };
    if crc32c::crc32c(payload) != word(16) {
        return Err(broken(behind));
    }
    let number = u64::from(word(0)) | u64::from(word(4)) << 32;
    Ok(Frame { number, partition: word(8), payload, offset: at })
}

/// A frame that was read by its place.
pub(super) fn parse_one(bytes: &[u8]) -> Option<Frame<'_>> {
    parse(bytes, 0).ok()
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        if self.ending.is_some() {
            return None;
        }
        match self.parse() {
            Ok(frame) => {
                self.at += HEADER_BYTES + frame.payload.len();
                Some(frame)
            }
            Err(ending) => {
                self.ending = Some(ending);
                None
            }
        }
    }
}

/// Appends a frame.
pub(super) fn put(into: &mut Vec<u8>, number: u64, partition: u32, payload: &[u8]) {
    let start = into.len();
    into.extend_from_slice(&number.to_le_bytes());
    into.extend_from_slice(&partition.to_le_bytes());
    into.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    into.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    let checksum = crc32c::crc32c(&into[start..]);
    into.extend_from_slice(&checksum.to_le_bytes());
    into.extend_from_slice(payload);
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn segment(payloads: &[&[u8]]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (number, payload) in (7..).zip(payloads) {
            put(&mut bytes, number, 3, payload);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> (Vec<u64>, Ending) {
        let mut frames = frames(bytes);
        let numbers = frames.by_ref().map(|frame| frame.number).collect();
        (numbers, frames.ending().unwrap())
    }

    #[test]
    fn what_was_put_is_read() {
        let bytes = segment(&[b"one\n", b"", b"three\n"]);
        let mut frames = frames(&bytes);
        let payloads: Vec<_> =
            frames.by_ref().map(|frame| (frame.number, frame.partition, frame.payload)).collect();
        let expected: [(u64, u32, &[u8]); 3] = [(7, 3, b"one\n"), (8, 3, b""), (9, 3, b"three\n")];
        assert_eq!((payloads, frames.ending()), (expected.to_vec(), Some(Ending::Whole)));
    }

    #[test]
    fn a_segment_cut_anywhere_has_a_torn_tail_and_every_frame_before() {
        let bytes = segment(&[b"one\n", b"two\n", b"three\n"]);
        let second = MAGIC.len() + HEADER_BYTES + 4;
        let third = second + HEADER_BYTES + 4;
        for length in 0..bytes.len() {
            let (numbers, ending) = read(&bytes[..length]);
            let whole = [MAGIC.len(), second, third].iter().position(|end| *end == length);
            match whole {
                Some(frames) => assert_eq!((numbers.len(), ending), (frames, Ending::Whole), "{length}"),
                None => assert!(matches!(ending, Ending::Torn { .. }), "{length}: {ending:?}"),
            }
        }
    }

    #[rstest]
    #[case::payload(MAGIC.len() + HEADER_BYTES + 1)]
    #[case::number(MAGIC.len())]
    #[case::length(MAGIC.len() + 14)]
    #[case::checksum(MAGIC.len() + 16)]
    fn damage_in_the_middle_is_no_torn_tail(#[case] at: usize) {
        let mut bytes = segment(&[b"one\n", b"two\n"]);
        bytes[at] ^= 0x40;
        assert_eq!(read(&bytes), (vec![], Ending::Corrupt { at: MAGIC.len() }));
    }

    #[test]
    fn zeros_at_the_end_are_an_unfinished_write() {
        let mut bytes = segment(&[b"one\n"]);
        let end = bytes.len();
        bytes.resize(end + 4_096, 0);
        assert_eq!(read(&bytes), (vec![7], Ending::Torn { at: end }));
        assert_eq!(read(&[0; 64]), (vec![], Ending::Torn { at: 0 }));
        assert_eq!(read(b"something else"), (vec![], Ending::Corrupt { at: 0 }));
    }

    proptest! {
        #[test]
        fn any_bytes_end_somewhere(bytes in proptest::collection::vec(any::<u8>(), 0..256), magic: bool) {
            let bytes = if magic { [&MAGIC[..], &bytes].concat() } else { bytes };
            let mut frames = frames(&bytes);
            let read: usize = frames.by_ref().map(|frame| HEADER_BYTES + frame.payload.len()).sum();
            prop_assert!(read <= bytes.len() && frames.ending().is_some());
        }
    }
}
