//! What lies on Kafka: `footfall.events` and `footfall.dead-letters`.
//!
//! The value of a record on `footfall.events` is NDJSON: one [`EventRecord`] a line, several events of one partition
//! packed together. An event's coordinates are topic, partition, offset and its index in the record.

use std::{borrow::Cow, collections::BTreeMap, iter::once};

use memchr::memchr_iter;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, MapAccess, Visitor},
};

use crate::{EventId, EventKind, RejectReason, SiteId, VisitorId, ids::InvalidId, time::Clock};

/// Most events that a producer packs into one record; the index has to fit 16 bits.
pub const MAX_RECORD_EVENTS: usize = 512;

/// Longest payload kept with a dead letter, in bytes.
pub const MAX_DEAD_PAYLOAD_BYTES: usize = 4 * 1024;

/// An accepted, enriched event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct EventRecord {
    pub event_id: EventId,
    pub site: SiteId,
    pub visitor: VisitorId,
    pub kind: EventKind,
    /// ms since 1970, see [`crate::time::event_time`].
    pub event_time: i64,
    /// ms since 1970, the ingest node's clock.
    pub received_at: i64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub clock: Clock,
    /// Custom event's name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub name: String,
    pub host: String,
    /// Path of the URL, or what the site's rules make of it; at least `/`. Of the query only what the site allows.
    pub path: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub title: String,
    /// Full referrer without query; empty for none and for the site itself.
    #[serde(default, skip_serializing_if = "is_default")]
    pub referrer: String,
    /// Host of the referrer without `www.`; empty for direct.
    #[serde(default, skip_serializing_if = "is_default")]
    pub referrer_host: String,
    /// `direct`, `internal`, `search`, `social`, `email`, `assistant`, `paid`, `campaign`, `referral`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub channel: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub utm_source: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub utm_medium: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub utm_campaign: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub utm_term: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub utm_content: String,
    /// ISO 3166-1 alpha-2; empty when unknown.
    #[serde(default, skip_serializing_if = "is_default")]
    pub country: String,
    /// Largest subdivision of the country, and city, by their English names; empty without a geography database.
    #[serde(default, skip_serializing_if = "is_default")]
    pub region: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub city: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub language: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub time_zone: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub browser: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub system: String,
    /// `desktop`, `mobile`, `tablet`, `bot`, `other`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub device: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub screen_width: u16,
    #[serde(default, skip_serializing_if = "is_default")]
    pub engaged_ms: u32,
    /// Percent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scroll_depth: u8,
    /// Sequence of the page view this belongs to; 0 for none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub page_view: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub props: BTreeMap<String, String>,
    /// See [`crate::TrackerEvent::payload_hash`].
    pub payload_hash: u64,
}

/// An [`EventRecord`] as it is read: its texts stay where they lie, in the record's bytes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct EventRef<'a> {
    pub event_id: EventId,
    /// A site's key.
    #[serde(borrow, deserialize_with = "site_key")]
    pub site: Cow<'a, str>,
    pub visitor: VisitorId,
    pub kind: EventKind,
    pub event_time: i64,
    pub received_at: i64,
    #[serde(default)]
    pub clock: Clock,
    #[serde(borrow, default)]
    pub name: Cow<'a, str>,
    #[serde(borrow)]
    pub host: Cow<'a, str>,
    #[serde(borrow)]
    pub path: Cow<'a, str>,
    #[serde(borrow, default)]
    pub title: Cow<'a, str>,
    #[serde(borrow, default)]
    pub referrer: Cow<'a, str>,
    #[serde(borrow, default)]
    pub referrer_host: Cow<'a, str>,
    #[serde(borrow, default)]
    pub channel: Cow<'a, str>,
    #[serde(borrow, default)]
    pub utm_source: Cow<'a, str>,
    #[serde(borrow, default)]
    pub utm_medium: Cow<'a, str>,
    #[serde(borrow, default)]
    pub utm_campaign: Cow<'a, str>,
    #[serde(borrow, default)]
    pub utm_term: Cow<'a, str>,
    #[serde(borrow, default)]
    pub utm_content: Cow<'a, str>,
    #[serde(borrow, default)]
    pub country: Cow<'a, str>,
    #[serde(borrow, default)]
    pub region: Cow<'a, str>,
    #[serde(borrow, default)]
    pub city: Cow<'a, str>,
    #[serde(borrow, default)]
    pub language: Cow<'a, str>,
    #[serde(borrow, default)]
    pub time_zone: Cow<'a, str>,
    #[serde(borrow, default)]
    pub browser: Cow<'a, str>,
    #[serde(borrow, default)]
    pub system: Cow<'a, str>,
    #[serde(borrow, default)]
    pub device: Cow<'a, str>,
    #[serde(default)]
    pub screen_width: u16,
    #[serde(default)]
    pub engaged_ms: u32,
    #[serde(default)]
    pub scroll_depth: u8,
    #[serde(default)]
    pub page_view: u32,
    /// Ordered by name.
    #[serde(borrow, default, deserialize_with = "props")]
    pub props: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    pub payload_hash: u64,
}

impl EventRecord {
    pub fn borrowed(&self) -> EventRef<'_> {
        let text = |text| Cow::Borrowed(String::as_str(text));
        EventRef {
            event_id: self.event_id,
            site: Cow::Borrowed(self.site.as_str()),
            visitor: self.visitor,
            kind: self.kind,
            event_time: self.event_time,
            received_at: self.received_at,
            clock: self.clock,
            name: text(&self.name),
            host: text(&self.host),
            path: text(&self.path),
            title: text(&self.title),
            referrer: text(&self.referrer),
            referrer_host: text(&self.referrer_host),
            channel: text(&self.channel),
            utm_source: text(&self.utm_source),
            utm_medium: text(&self.utm_medium),
            utm_campaign: text(&self.utm_campaign),
            utm_term: text(&self.utm_term),
            utm_content: text(&self.utm_content),
            country: text(&self.country),
            region: text(&self.region),
            city: text(&self.city),
            language: text(&self.language),
            time_zone: text(&self.time_zone),
            browser: text(&self.browser),
            system: text(&self.system),
            device: text(&self.device),
            screen_width: self.screen_width,
            engaged_ms: self.engaged_ms,
            scroll_depth: self.scroll_depth,
            page_view: self.page_view,
            props: self.props.iter().map(|(name, value)| (text(name), text(value))).collect(),
            payload_hash: self.payload_hash,
        }
    }
}

fn site_key<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'a, str>, D::Error> {
    let Text(key) = Text::deserialize(deserializer)?;
    if SiteId::is_key(&key) { Ok(key) } else { Err(D::Error::custom(InvalidId::Site)) }
}

/// Cow alone would copy what lies inside another type.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

type Props<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

fn props<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Props<'a>, D::Error> {
    struct Pairs;

    impl<'de> Visitor<'de> for Pairs {
        type Value = Props<'de>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object of texts")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Props<'de>, A::Error> {
            let mut pairs = Props::new();
            while let Some((Text(name), Text(value))) = map.next_entry()? {
                // As they are written; another writer's order is mended, and of a name told twice the last value holds.
                match pairs.binary_search_by(|(other, _)| other.cmp(&name)) {
                    Ok(at) => pairs[at].1 = value,
                    Err(at) => pairs.insert(at, (name, value)),
                }
            }
            Ok(pairs)
        }
    }
    deserializer.deserialize_map(Pairs)
}

/// Which side refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Ingest,
    Aggregator,
}

/// Something refused, kept with its reason. Value of a record on `footfall.dead-letters`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DeadLetter {
    /// As told; may be a site that does not exist.
    pub site: String,
    pub received_at: i64,
    pub stage: Stage,
    pub reason: RejectReason,
    /// Names the field and the fix.
    pub detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<EventId>,
    /// What was sent, as text, cut at [`MAX_DEAD_PAYLOAD_BYTES`].
    pub payload: String,
}

/// The partition of a visitor's events: the same on every node, for as long as the number of partitions is.
pub fn partition_for(site: &SiteId, visitor: VisitorId, partitions: u32) -> i32 {
    let mut bytes = [0; 72];
    let key = site.as_str().as_bytes();
    bytes[..key.len()].copy_from_slice(key);
    bytes[key.len()..key.len() + 8].copy_from_slice(&visitor.0.to_le_bytes());
    let hash = xxhash_rust::xxh3::xxh3_64(&bytes[..key.len() + 8]);
    // Multiply-shift spreads the hash over any number of partitions (Lemire 2016).
    ((u128::from(hash) * u128::from(partitions.max(1))) >> 64) as i32
}

/// Parses the lines of a record's value. Each line stands for itself: `Err` names the index.
pub fn parse_lines(value: &[u8]) -> impl Iterator<Item = (u16, Result<EventRef<'_>, BadLine>)> + '_ {
    let mut begin = 0;
    let ends = memchr_iter(b'\n', value).chain(once(value.len()));
    let lines = ends.map(move |end| &value[std::mem::replace(&mut begin, end + 1)..end]);
    lines.filter(|line| !line.is_empty()).enumerate().map(|(index, line)| match u16::try_from(index) {
        Ok(index) => (index, parse_line(line)),
        Err(_) => (u16::MAX, Err(BadLine("more events in a record than 65,535".into()))),
    })
}

fn parse_line(line: &[u8]) -> Result<EventRef<'_>, BadLine> {
    // Checked once, the line costs less than its fields checked one by one.
    let parsed = match std::str::from_utf8(line) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(line),
    };
    parsed.map_err(BadLine::from)
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadLine(pub String);

impl From<serde_json::Error> for BadLine {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<InvalidId> for BadLine {
    fn from(error: InvalidId) -> Self {
        Self(error.to_string())
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visitors_spread_evenly_over_partitions() {
        let site = SiteId::try_from("demo").unwrap();
        let mut counts = [0u32; 7];
        for visitor in 0..7_000 {
            counts[partition_for(&site, VisitorId(visitor), 7) as usize] += 1;
        }
        // 1,000 expected each; six standard deviations of a binomial are about 176.
        assert!(counts.iter().all(|count| (824..=1_176).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_longest_site_key_fits() {
        let site = SiteId::try_from("x".repeat(64).as_str()).unwrap();
        assert!((0..3).contains(&partition_for(&site, VisitorId(u64::MAX), 3)));
    }

    #[test]
    fn a_line_read_in_place_is_the_record() {
        let golden = include_str!("../golden/event_record.json");
        let record: EventRecord = serde_json::from_str(golden).unwrap();
        let small = EventRecord { path: "/a\n\"b\u{1f431}".into(), props: BTreeMap::new(), ..record.clone() };
        for record in [record, small] {
            let line = serde_json::to_vec(&record).unwrap();
            let read: Vec<_> = parse_lines(&line).collect();
            assert_eq!(read, [(0, Ok(record.borrowed()))]);
            let (_, Ok(event)) = &read[0] else { panic!("read above") };
            assert!(matches!(event.host, Cow::Borrowed(_)), "a plain text is not copied");
        }
    }

    #[test]
    fn props_are_in_order_and_the_last_of_a_name_holds() {
        let golden = include_str!("../golden/event_record.json");
        let mut record: serde_json::Value = serde_json::from_str(golden).unwrap();
        record["props"] = serde_json::json!({});
        let line = record.to_string().replace("\"props\":{}", r#""props":{"b":"1","a":"2","b":"3"}"#);
        let read: Vec<_> = parse_lines(line.as_bytes()).map(|(_, event)| event.unwrap().props).collect();
        assert_eq!(read, [[("a".into(), "2".into()), ("b".into(), "3".into())]]);
    }

    #[test]
    fn a_site_that_is_no_key_is_refused() {
        let golden = include_str!("../golden/event_record.json");
        let line = golden.replace("\n", "").replace("\"demo\"", "\"De mo\"");
        let (_, read) = parse_lines(line.as_bytes()).next().unwrap();
        assert!(read.unwrap_err().0.contains("site key"));
    }

    #[test]
    fn a_poisoned_line_leaves_its_siblings() {
        let good = include_str!("../golden/event_record.json");
        let good = serde_json::to_string(&serde_json::from_str::<EventRecord>(good).unwrap()).unwrap();
        let value = format!("{good}\nnot json\n{good}\n");
        let parsed: Vec<_> =
            parse_lines(value.as_bytes()).map(|(index, line)| (index, line.is_ok())).collect();
        assert_eq!(parsed, [(0, true), (1, false), (2, true)]);
    }
}
