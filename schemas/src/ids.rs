//! Identity: who sent what. An event's id is made in the browser and never changes on its way, so that a resend over
//! any transport is recognised.

use std::{fmt, num::NonZeroU32, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use uuid::Uuid;

/// One page load of one tracker: 48 bits of page-load time (ms since 1970, the browser's wall clock) followed by 48
/// random bits. Written as 24 lower-case hex digits. Ordered by page-load time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId([u8; 12]);

/// Position of an event in its stream, from 1.
pub type Sequence = NonZeroU32;

/// [`StreamId`] and [`Sequence`]: 128 bits, stored as a UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId {
    pub stream: StreamId,
    pub sequence: Sequence,
}

/// Anonymous visitor of one site, derived at ingest; 64 bits, written as 16 hex digits in JSON because JavaScript
/// cannot hold them as a number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VisitorId(pub u64);

/// A visitor's activity without a silence of the site's `session_gap_minutes`; a function of the site, the visitor and
/// the id of the event that was the first to arrive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// The public key of a site: 1 to 64 characters of `a-z`, `0-9`, `_`, `-`, `.`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteId(Arc<str>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    #[error("a stream is 24 hexadecimal digits")]
    Stream,
    #[error("a visitor or session is 16 hexadecimal digits")]
    Hex64,
    #[error("a sequence starts at 1 and ends at 4294967295")]
    Sequence,
    #[error("a site key is 1 to 64 characters of a-z 0-9 _ - .")]
    Site,
}

impl StreamId {
    pub const fn new(bytes: [u8; 12]) -> Self {
        Self(bytes)
    }

    /// From page-load time (ms since 1970, the low 48 bits are used) and 48 random bits.
    pub fn from_parts(loaded_at_ms: u64, random: u64) -> Self {
        let mut bytes = [0; 12];
        bytes[..6].copy_from_slice(&loaded_at_ms.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&random.to_be_bytes()[2..]);
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }

    /// Page-load time by the browser's wall clock, in ms since 1970. Not to be trusted as a time; it orders streams.
    pub fn loaded_at_ms(&self) -> u64 {
        let mut wide = [0; 8];
        wide[2..].copy_from_slice(&self.0[..6]);
        u64::from_be_bytes(wide)
    }
}

impl EventId {
    pub fn new(stream: StreamId, sequence: Sequence) -> Self {
        Self { stream, sequence }
    }

    pub fn to_uuid(self) -> Uuid {
        let mut bytes = [0; 16];
        bytes[..12].copy_from_slice(&self.stream.0);
        bytes[12..].copy_from_slice(&self.sequence.get().to_be_bytes());
        Uuid::from_bytes(bytes)
    }

    /// Errors when the last 32 bits are zero: no event has sequence 0.
    pub fn from_uuid(uuid: Uuid) -> Result<Self, InvalidId> {
        let bytes = uuid.as_bytes();
        let mut stream = [0; 12];
        stream.copy_from_slice(&bytes[..12]);
        let sequence = u32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        Ok(Self { stream: StreamId(stream), sequence: Sequence::new(sequence).ok_or(InvalidId::Sequence)? })
    }
}

impl SessionId {
    /// Session that was made for `first`.
    pub fn starting_with(site: &SiteId, visitor: VisitorId, first: EventId) -> Self {
        let mut bytes = Vec::with_capacity(96);
        bytes.extend_from_slice(site.as_str().as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&visitor.0.to_le_bytes());
        bytes.extend_from_slice(first.to_uuid().as_bytes());
        Self(xxhash_rust::xxh3::xxh3_64(&bytes))
    }
}

impl SiteId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for SiteId {
    type Error = InvalidId;

    fn try_from(text: &str) -> Result<Self, InvalidId> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.');
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidId::Site)
        }
    }
}

impl FromStr for SiteId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::try_from(text)
    }
}

impl FromStr for StreamId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let digits = text.as_bytes();
        if digits.len() != 24 {
            return Err(InvalidId::Stream);
        }
        let mut bytes = [0; 12];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let high = (pair[0] as char).to_digit(16).ok_or(InvalidId::Stream)?;
            let low = (pair[1] as char).to_digit(16).ok_or(InvalidId::Stream)?;
            *byte = (high << 4 | low) as u8;
        }
        Ok(Self(bytes))
    }
}

fn hex64(text: &str) -> Result<u64, InvalidId> {
    // `from_str_radix` would take a sign.
    if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(InvalidId::Hex64);
    }
    u64::from_str_radix(text, 16).map_err(|_| InvalidId::Hex64)
}

impl FromStr for VisitorId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        hex64(text).map(Self)
    }
}

impl FromStr for SessionId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        hex64(text).map(Self)
    }
}

impl FromStr for EventId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::from_uuid(Uuid::parse_str(text).map_err(|_| InvalidId::Stream)?)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_uuid().fmt(f)
    }
}

impl fmt::Display for VisitorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text on the wire, `Display` in a log: one form everywhere.
macro_rules! as_text {
    ($($id:ty),*) => {$(
        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl Serialize for $id {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $id {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    )*};
}

as_text!(StreamId, EventId, VisitorId, SessionId, SiteId);

/// In a schema, an id is a text of its form.
macro_rules! as_pattern {
    ($($id:ty, $name:literal, $pattern:literal;)*) => {$(
        impl schemars::JsonSchema for $id {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    )*};
}

as_pattern! {
    StreamId, "StreamId", "^[0-9a-fA-F]{24}$";
    EventId, "EventId", "^[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}$";
    VisitorId, "VisitorId", "^[0-9a-fA-F]{16}$";
    SiteId, "SiteId", "^[a-z0-9_.-]{1,64}$";
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn an_event_id_is_the_stream_then_the_sequence() {
        let stream = StreamId::from_parts(0x0192_aabb_ccdd, 0x1122_3344_5566);
        let id = EventId::new(stream, Sequence::new(7).unwrap());
        assert_eq!(stream.to_string(), "0192aabbccdd112233445566");
        assert_eq!(id.to_string(), "0192aabb-ccdd-1122-3344-556600000007");
        assert_eq!(id.to_string().parse::<EventId>().unwrap(), id);
        assert_eq!(stream.loaded_at_ms(), 0x0192_aabb_ccdd);
    }

    #[test]
    fn streams_order_by_page_load_time() {
        assert!(StreamId::from_parts(1, u64::MAX) < StreamId::from_parts(2, 0));
    }

    #[rstest]
    #[case("")]
    #[case("0192aabbccdd11223344556")]
    #[case("0192aabbccdd1122334455667")]
    #[case("0192aabbccdd11223344556g")]
    #[case("+192aabbccdd112233445566")]
    fn a_stream_that_is_not_24_hex_digits_is_refused(#[case] text: &str) {
        assert_eq!(text.parse::<StreamId>(), Err(InvalidId::Stream));
    }

    #[rstest]
    #[case("", false)]
    #[case("demo", true)]
    #[case("shop.example-1_a", true)]
    #[case("Demo", false)]
    #[case("a/b", false)]
    #[case("a b", false)]
    fn a_site_key_has_a_closed_alphabet(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(SiteId::try_from(text).is_ok(), valid);
    }

    #[test]
    fn sequence_zero_is_no_event() {
        assert_eq!(EventId::from_uuid(Uuid::nil()), Err(InvalidId::Sequence));
    }

    #[test]
    fn a_visitor_survives_json_although_it_has_64_bits() {
        let visitor = VisitorId(u64::MAX - 1);
        let text = serde_json::to_string(&visitor).unwrap();
        assert_eq!(text, "\"fffffffffffffffe\"");
        assert_eq!(serde_json::from_str::<VisitorId>(&text).unwrap(), visitor);
    }
}
