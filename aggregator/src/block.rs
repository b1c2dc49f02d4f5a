//! A block: what offsets `start..end` of a partition became. A pure function of the log.

use std::fmt;

use footfall_schemas::{
    SiteId,
    record::DeadLetter,
    rows::{Coordinates, EventRow, RollingRow, SessionRow},
};
use xxhash_rust::xxh3::Xxh3;

/// What is committed as the offset's metadata before a block is inserted: `v1:<end>:<rows>:<hash>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Boundary {
    pub(crate) end: i64,
    pub(crate) rows: usize,
    pub(crate) hash: u64,
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v1:{}:{}:{:016x}", self.end, self.rows, self.hash)
    }
}

impl Boundary {
    /// `None` for metadata that this version did not write.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("v1:")?.split(':');
        let boundary = Self {
            end: parts.next()?.parse().ok()?,
            rows: parts.next()?.parse().ok()?,
            hash: u64::from_str_radix(parts.next()?, 16).ok()?,
        };
        parts.next().is_none().then_some(boundary)
    }
}

/// A dead letter and the place on `footfall.events` it came from; the place makes a second copy recognisable.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Letter {
    pub(crate) at: Coordinates,
    pub(crate) letter: DeadLetter,
}

/// A closed block, with all that is to be written once its rows are there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Block {
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) rows: Vec<EventRow>,
    pub(crate) letters: Vec<Letter>,
    /// State at `end`.
    pub(crate) snapshot: Option<Vec<u8>>,
}

/// Rolling counts and sessions as of an offset.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    pub(crate) rows: Vec<RollingRow>,
    /// Minutes (ms) that are not counted in memory: to be counted from the stored rows.
    pub(crate) recount: Vec<(SiteId, i64)>,
    pub(crate) sessions: Vec<SessionRow>,
}

impl Counts {
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.recount.is_empty() && self.sessions.is_empty()
    }
}

impl Block {
    pub(crate) fn boundary(&self) -> Boundary {
        let mut hash = Xxh3::new();
        for row in &self.rows {
            hash.update(row.event_id.as_bytes());
            hash.update(&row.session.to_le_bytes());
            hash.update(&row._offset.to_le_bytes());
            hash.update(&row._index.to_le_bytes());
        }
        Boundary { end: self.end, rows: self.rows.len(), hash: hash.digest() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn a_boundary_survives_its_text() {
        let boundary = Boundary { end: 1_234, rows: 56, hash: 0xab };
        assert_eq!(boundary.to_string(), "v1:1234:56:00000000000000ab");
        assert_eq!(Boundary::parse(&boundary.to_string()), Some(boundary));
    }

    #[rstest]
    #[case("")]
    #[case("v2:1:2:3")]
    #[case("v1:1:2")]
    #[case("v1:1:2:3:4")]
    #[case("v1:x:2:3")]
    fn metadata_of_somebody_else_is_no_boundary(#[case] text: &str) {
        assert_eq!(Boundary::parse(text), None);
    }
}
