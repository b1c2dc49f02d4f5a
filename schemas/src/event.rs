//! An event as the tracker sends it, before ingest enriches it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::payload::{Payload, Prop};

/// The kinds of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A page was shown, by a load or by a route change.
    #[serde(rename = "view")]
    PageView,
    /// Visible and focused time on a page view, and how far it was scrolled. Counted as an event, never as a view.
    #[serde(rename = "engagement")]
    Engagement,
    /// Anything the site names itself.
    #[serde(rename = "custom")]
    Custom,
}

impl EventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PageView => "view",
            Self::Engagement => "engagement",
            Self::Custom => "custom",
        }
    }
}

/// A property's value. Kept as text in ClickHouse (`true`, `12.5`, `blue`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum PropValue {
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
}

/// One event inside a batch. Unknown fields are ignored: an older node understands a newer tracker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TrackerEvent {
    /// Kind.
    pub k: EventKind,
    /// When it happened: ms on the tracker's monotonic clock (0 = page load). Negative for events of an earlier page
    /// load that were kept and are sent now.
    pub at: i64,
    /// The page's URL, http or https, at most 2,048 bytes.
    pub u: String,
    /// Referrer (page views).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r: Option<String>,
    /// Title (page views), at most 512 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub t: Option<String>,
    /// Name of a custom event, 1 to 64 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    /// Properties of a custom event or page view: at most 30, keys of at most 64 bytes, values of at most 512.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub p: BTreeMap<String, PropValue>,
    /// Engaged time in ms (engagement).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub d: Option<u32>,
    /// Largest scroll depth in percent, 0 to 100 (engagement).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s: Option<u8>,
    /// Sequence of the page view that this event belongs to, in the same stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pv: Option<u32>,
}

impl TrackerEvent {
    /// Hash of what the event says, without when: equal for every resend, so that the same id with another payload
    /// can be told. See [`crate::payload`].
    pub fn payload_hash(&self) -> u64 {
        let payload = Payload {
            kind: self.k,
            url: &self.u,
            referrer: self.r.as_deref(),
            title: self.t.as_deref(),
            name: self.n.as_deref(),
            engaged_ms: self.d,
            scroll_depth: self.s,
            page_view: self.pv,
        };
        let props = self.p.iter().map(|(key, value)| (key.as_str(), value.borrowed()));
        payload.hash(props, &mut Vec::with_capacity(512))
    }
}

impl PropValue {
    fn borrowed(&self) -> Prop<'_> {
        match self {
            Self::Bool(value) => Prop::Bool(*value),
            Self::Number(value) => Prop::Number(value),
            Self::Text(value) => Prop::Text(value),
        }
    }

    pub fn to_text(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::Text(value) => value.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn view(at: i64, url: &str) -> TrackerEvent {
        serde_json::from_value(serde_json::json!({"k": "view", "at": at, "u": url})).unwrap()
    }

    #[test]
    fn a_resend_with_another_age_has_the_same_payload_hash() {
        assert_eq!(view(10, "https://a/").payload_hash(), view(99, "https://a/").payload_hash());
        assert_ne!(view(10, "https://a/").payload_hash(), view(10, "https://a/b").payload_hash());
    }

    #[rstest]
    #[case(
        r#"{"k":"custom","at":1,"u":"https://a/","n":"n"}"#,
        r#"{"k":"custom","at":2,"u":"https://a/","n":"n"}"#,
        true
    )]
    #[case::null(
        r#"{"k":"view","at":1,"u":"https://a/"}"#,
        r#"{"k":"view","at":1,"u":"https://a/","r":null}"#,
        true
    )]
    #[case::newer(
        r#"{"k":"view","at":1,"u":"https://a/"}"#,
        r#"{"k":"view","at":1,"u":"https://a/","zz":1}"#,
        true
    )]
    #[case::escaped(
        r#"{"k":"view","at":1,"u":"https://a/"}"#,
        r#"{"k":"view","at":1,"u":"https:\/\/a\/"}"#,
        true
    )]
    #[case::order(
        r#"{"k":"view","at":1,"u":"u","p":{"a":1,"b":2}}"#,
        r#"{"k":"view","at":1,"u":"u","p":{"b":2,"a":1}}"#,
        true
    )]
    #[case::kind(r#"{"k":"view","at":1,"u":"u"}"#, r#"{"k":"custom","at":1,"u":"u"}"#, false)]
    #[case::moved(r#"{"k":"view","at":1,"u":"u","r":"x"}"#, r#"{"k":"view","at":1,"u":"u","t":"x"}"#, false)]
    #[case::cut(r#"{"k":"view","at":1,"u":"ur","t":"x"}"#, r#"{"k":"view","at":1,"u":"u","t":"rx"}"#, false)]
    #[case::empty(r#"{"k":"view","at":1,"u":"u","t":""}"#, r#"{"k":"view","at":1,"u":"u"}"#, false)]
    #[case::zero(r#"{"k":"view","at":1,"u":"u","d":0}"#, r#"{"k":"view","at":1,"u":"u"}"#, false)]
    #[case::page_view(r#"{"k":"view","at":1,"u":"u","d":7}"#, r#"{"k":"view","at":1,"u":"u","pv":7}"#, false)]
    #[case::typed(
        r#"{"k":"view","at":1,"u":"u","p":{"a":1}}"#,
        r#"{"k":"view","at":1,"u":"u","p":{"a":"1"}}"#,
        false
    )]
    #[case::signed(
        r#"{"k":"view","at":1,"u":"u","p":{"a":-1}}"#,
        r#"{"k":"view","at":1,"u":"u","p":{"a":18446744073709551615}}"#,
        false
    )]
    #[case::bool(
        r#"{"k":"view","at":1,"u":"u","p":{"a":true}}"#,
        r#"{"k":"view","at":1,"u":"u","p":{"a":false}}"#,
        false
    )]
    #[case::fraction(
        r#"{"k":"view","at":1,"u":"u","p":{"a":1.5}}"#,
        r#"{"k":"view","at":1,"u":"u","p":{"a":1.25}}"#,
        false
    )]
    fn the_payload_hash_tells_payloads_apart(#[case] one: &str, #[case] other: &str, #[case] same: bool) {
        let hash = |json: &str| serde_json::from_str::<TrackerEvent>(json).unwrap().payload_hash();
        assert_eq!(hash(one) == hash(other), same);
    }

    /// Kept with every event: a change of it would make each resend over the change a conflict.
    #[test]
    fn the_payload_hash_does_not_change() {
        let json = r#"{"k":"custom","at":1,"u":"https://a/?b","r":"https://c/","t":"T","n":"buy","p":{"a":true,"b":-1,"c":2,"d":0.5,"e":"x"},"d":1,"s":2,"pv":3}"#;
        let event: TrackerEvent = serde_json::from_str(json).unwrap();
        assert_eq!(event.payload_hash(), 5_768_338_507_854_975_098);
    }

    #[test]
    fn fields_of_a_newer_tracker_are_ignored() {
        let newer = r#"{"k":"custom","at":1,"u":"https://a/","n":"buy","future":{"deep":[1]}}"#;
        assert_eq!(serde_json::from_str::<TrackerEvent>(newer).unwrap().n.as_deref(), Some("buy"));
    }
}
