//! An event as the tracker sends it, before ingest enriches it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
    /// can be told. xxh3-64 of the event's JSON with `at` set to 0.
    pub fn payload_hash(&self) -> u64 {
        let timeless = Self { at: 0, ..self.clone() };
        let json = serde_json::to_vec(&timeless).expect("plain fields with text keys always serialise");
        xxhash_rust::xxh3::xxh3_64(&json)
    }
}

impl PropValue {
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

    fn view(at: i64, url: &str) -> TrackerEvent {
        serde_json::from_value(serde_json::json!({"k": "view", "at": at, "u": url})).unwrap()
    }

    #[test]
    fn a_resend_with_another_age_has_the_same_payload_hash() {
        assert_eq!(view(10, "https://a/").payload_hash(), view(99, "https://a/").payload_hash());
        assert_ne!(view(10, "https://a/").payload_hash(), view(10, "https://a/b").payload_hash());
    }

    #[test]
    fn fields_of_a_newer_tracker_are_ignored() {
        let newer = r#"{"k":"custom","at":1,"u":"https://a/","n":"buy","future":{"deep":[1]}}"#;
        assert_eq!(serde_json::from_str::<TrackerEvent>(newer).unwrap().n.as_deref(), Some("buy"));
    }
}
