//! Which requests the broker answers, in which versions, and what each looks like on the wire.
//!
//! The shapes are walked before a request is decoded: the decoder reserves memory for as many array elements as a
//! request claims to have, so a few bytes of nonsense could otherwise ask for gigabytes.

use bytes::Buf;
use kafka_protocol::messages::ApiKey;

/// One kind of request. The version range is what ApiVersions advertises, no more and no less.
#[derive(Debug)]
pub(super) struct Api {
    pub key: ApiKey,
    pub min: i16,
    pub max: i16,
    /// From this version on, lengths are varints and structures end in tagged fields.
    flexible_from: i16,
    /// Fields in order: a number of bytes, `s` string, `b` bytes, `u` UUID, `[ … ]` array of structures, `( … )` array
    /// of plain values; `@low-high` limits a field to those versions.
    shape: &'static str,
}

const fn api(key: ApiKey, versions: (i16, i16), flexible_from: i16, shape: &'static str) -> Api {
    Api { key, min: versions.0, max: versions.1, flexible_from, shape }
}

#[rustfmt::skip]
pub(super) const APIS: [Api; 24] = [
    api(ApiKey::Produce, (3, 11), 9, "s 2 4 [ s [ 4 b ] ]"),
    api(ApiKey::Fetch, (4, 16), 12,
        "4@4-14 4 4 4 1 8@7- [ s@4-12 u@13- [ 4 4@9- 8 4@12- 8@5- 4 ] ] [@7- s@7-12 u@13- ( 4 ) ] s@11-"),
    api(ApiKey::ListOffsets, (1, 7), 6, "4 1@2- [ s [ 4 4@4- 8 ] ]"),
    api(ApiKey::Metadata, (0, 12), 9, "[ u@10- s ] 1@4- 1@8-10 1@8-"),
    api(ApiKey::OffsetCommit, (2, 9), 8, "s 4 s s@7- 8@2-4 [ s [ 4 8 4@6- s ] ]"),
    api(ApiKey::OffsetFetch, (1, 9), 6, "s@1-7 [@1-7 s ( 4 ) ] [@8- s s@9- 4@9- [ s ( 4 ) ] ] 1@7-"),
    api(ApiKey::FindCoordinator, (0, 4), 3, "s@0-3 1@1- (@4- s )"),
    api(ApiKey::JoinGroup, (0, 9), 6, "s 4 4@1- s s@5- s [ s b ] s@8-"),
    api(ApiKey::Heartbeat, (0, 4), 4, "s 4 s s@3-"),
    api(ApiKey::LeaveGroup, (0, 5), 4, "s s@0-2 [@3- s s s@5- ]"),
    api(ApiKey::SyncGroup, (0, 5), 4, "s 4 s s@3- s@5- s@5- [ s b ]"),
    api(ApiKey::DescribeGroups, (0, 5), 5, "( s ) 1@3-"),
    api(ApiKey::ListGroups, (0, 5), 3, "(@4- s ) (@5- s )"),
    api(ApiKey::ApiVersions, (0, 3), 3, "s@3- s@3-"),
    api(ApiKey::CreateTopics, (2, 7), 5, "[ s 4 2 [ 4 ( 4 ) ] [ s s ] ] 4 1"),
    api(ApiKey::DeleteTopics, (1, 6), 4, "[@6- s u ] (@1-5 s ) 4"),
    api(ApiKey::DeleteRecords, (0, 2), 2, "[ s [ 4 8 ] ] 4"),
    api(ApiKey::InitProducerId, (0, 4), 2, "s 4 8@3- 2@3-"),
    api(ApiKey::OffsetForLeaderEpoch, (2, 4), 4, "4@3- [ s [ 4 4 4 ] ]"),
    api(ApiKey::DescribeConfigs, (1, 4), 4, "[ 1 s ( s ) ] 1 1@3-"),
    api(ApiKey::CreatePartitions, (0, 3), 2, "[ s 4 [ ( 4 ) ] ] 4 1"),
    api(ApiKey::DeleteGroups, (0, 2), 2, "( s )"),
    api(ApiKey::IncrementalAlterConfigs, (0, 1), 1, "[ 1 s [ s 1 s ] ] 1"),
    api(ApiKey::DescribeCluster, (0, 1), 0, "1 1@1-"),
];

impl Api {
    pub(super) fn of(key: i16) -> Option<&'static Self> {
        APIS.iter().find(|api| api.key as i16 == key)
    }

    pub(super) fn supports(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// Whether `body` holds at least the fields that a request of this version has.
    pub(super) fn is_shaped(&self, version: i16, mut body: &[u8]) -> bool {
        let fields: Vec<&str> = self.shape.split(' ').collect();
        let mut walk = Walk { version, flexible: version >= self.flexible_from, body: &mut body };
        walk.fields(&fields).is_some() && walk.tags().is_some()
    }
}

struct Walk<'a, 'b> {
    version: i16,
    flexible: bool,
    body: &'a mut &'b [u8],
}

impl Walk<'_, '_> {
    fn fields(&mut self, mut fields: &[&str]) -> Option<()> {
        while let Some((field, rest)) = fields.split_first() {
            let (kind, versions) = field.split_once('@').unwrap_or((field, ""));
            let present = self.has(versions);
            fields = rest;
            match kind {
                "[" | "(" => {
                    let end = closing(rest)?;
                    if present {
                        self.array(&rest[..end], kind == "[")?;
                    }
                    fields = &rest[end + 1..];
                }
                _ if !present => {}
                "s" => {
                    let length = self.length(2)?;
                    self.skip(length)?;
                }
                "b" => {
                    let length = self.length(4)?;
                    self.skip(length)?;
                }
                "u" => self.skip(16)?,
                fixed => self.skip(fixed.parse().ok()?)?,
            }
        }
        Some(())
    }

    fn has(&self, versions: &str) -> bool {
        let Some((low, high)) = versions.split_once('-') else { return true };
        let bound = |text: &str, or: i16| text.parse().unwrap_or(or);
        (bound(low, 0)..=bound(high, i16::MAX)).contains(&self.version)
    }

    fn array(&mut self, element: &[&str], structured: bool) -> Option<()> {
        for _ in 0..self.length(4)? {
            let before = self.body.len();
            self.fields(element)?;
            if structured {
                self.tags()?;
            }
            // An element of no bytes would let a short request claim any number of them.
            if self.body.len() == before {
                return None;
            }
        }
        Some(())
    }

    /// Length of a string, bytes or an array; null counts as empty.
    fn length(&mut self, width: usize) -> Option<usize> {
        if self.flexible {
            return Some(self.varint()?.saturating_sub(1));
        }
        let length = match width {
            2 => i32::from(self.body.try_get_i16().ok()?),
            _ => self.body.try_get_i32().ok()?,
        };
        Some(usize::try_from(length).unwrap_or(0))
    }

    fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.body.try_get_u8().ok()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn tags(&mut self) -> Option<()> {
        if self.flexible {
            for _ in 0..self.varint()? {
                self.varint()?;
                let length = self.varint()?;
                self.skip(length)?;
            }
        }
        Some(())
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        (length <= self.body.len()).then(|| self.body.advance(length))
    }
}

/// Index of the token that closes the array whose inside begins here.
fn closing(fields: &[&str]) -> Option<usize> {
    let mut depth = 0;
    for (index, field) in fields.iter().enumerate() {
        match field.as_bytes()[0] {
            b'[' | b'(' => depth += 1,
            b']' | b')' if depth == 0 => return Some(index),
            b']' | b')' => depth -= 1,
            _ => {}
        }
    }
    None
}
