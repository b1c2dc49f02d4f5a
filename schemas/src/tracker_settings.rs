//! What a site asks of its trackers: `[sites.tracker]`, sent in the welcome.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Every field has a default, and what is at its default is left out on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct TrackerSettings {
    /// Count nobody who sends Do Not Track or Global Privacy Control.
    #[serde(skip_serializing_if = "is_default")]
    pub respect_dnt: bool,
    /// The part behind `#` is a route: a change of it is a page view.
    #[serde(skip_serializing_if = "is_default")]
    pub hash_routes: bool,
    /// Query parameters that stay in a page's URL. `utm_*` and click ids are read in any case, all others are cut off.
    #[serde(skip_serializing_if = "is_default")]
    pub query_params: Vec<String>,
    /// Pages of which nothing is sent.
    #[serde(skip_serializing_if = "is_default")]
    pub ignore_paths: Vec<PathPattern>,
    /// Pages whose path is sent as the pattern that it matches: `/users/*` in place of `/users/4711`.
    #[serde(skip_serializing_if = "is_default")]
    pub mask_paths: Vec<PathPattern>,
}

/// A path in which a segment `*` stands for any one segment, and `**` at the end for any number of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no path pattern: write /admin/** or /users/*/orders, at most 256 bytes, without ? and #")]
pub struct InvalidPattern(String);

const MAX_PATTERN_BYTES: usize = 256;

impl PathPattern {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl schemars::JsonSchema for PathPattern {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PathPattern".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^/", "maxLength": MAX_PATTERN_BYTES })
    }
}

impl TrackerSettings {
    const FIELDS: &[&str] = &["respect_dnt", "hash_routes", "query_params", "ignore_paths", "mask_paths"];

    /// As [`Deserialize`], but closed: a setting that does not exist is the operator's typing error, while on the wire
    /// it is one of a newer node.
    pub(crate) fn deserialize_closed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
        if let Some(unknown) = fields.keys().find(|name| !Self::FIELDS.contains(&name.as_str())) {
            return Err(D::Error::custom(format!(
                "unknown field `{unknown}` of tracker, expected one of {}",
                Self::FIELDS.join(", ")
            )));
        }
        serde_json::from_value(fields.into_iter().collect()).map_err(D::Error::custom)
    }

    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl TryFrom<&str> for PathPattern {
    type Error = InvalidPattern;

    fn try_from(text: &str) -> Result<Self, InvalidPattern> {
        let invalid = || InvalidPattern(text.chars().take(MAX_PATTERN_BYTES).collect());
        let path = text.strip_prefix('/').ok_or_else(invalid)?;
        let is_bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#');
        if text.len() > MAX_PATTERN_BYTES || text.contains(is_bad) {
            return Err(invalid());
        }
        let mut segments = path.split('/').peekable();
        while let Some(segment) = segments.next() {
            let is_last = segments.peek().is_none();
            match segment {
                "*" => {}
                "**" if is_last => {}
                _ if segment.contains('*') => return Err(invalid()),
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl Serialize for PathPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PathPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::try_from(text.as_str()).map_err(D::Error::custom)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("/", true)]
    #[case("/admin", true)]
    #[case("/admin/**", true)]
    #[case("/users/*/orders", true)]
    #[case("/**", true)]
    #[case("admin", false)]
    #[case("", false)]
    #[case("/a/**/b", false)]
    #[case("/user*", false)]
    #[case("/a?b", false)]
    #[case("/a#b", false)]
    #[case("/a b", false)]
    #[case(&format!("/{}", "x".repeat(255)), true)]
    #[case(&format!("/{}", "x".repeat(256)), false)]
    fn a_path_pattern_has_stars_for_whole_segments(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(PathPattern::try_from(text).is_ok(), valid);
    }

    #[test]
    fn a_setting_that_does_not_exist_is_refused_in_the_configuration_and_ignored_on_the_wire() {
        let every = r#"{"respect_dnt":true,"hash_routes":true,"query_params":["q"],"ignore_paths":["/a"],"mask_paths":["/b"]}"#;
        let closed =
            |json: &str| TrackerSettings::deserialize_closed(&mut serde_json::Deserializer::from_str(json));
        let settings = closed(every).unwrap();
        assert_eq!(serde_json::to_string(&settings).unwrap(), every, "every field is known");
        let newer = r#"{"hash_routes":true,"future":1}"#;
        assert!(closed(newer).unwrap_err().to_string().contains("`future`"));
        assert!(serde_json::from_str::<TrackerSettings>(newer).unwrap().hash_routes);
    }

    #[test]
    fn settings_at_their_defaults_take_no_room_on_the_wire() {
        assert_eq!(serde_json::to_string(&TrackerSettings::default()).unwrap(), "{}");
        let masked: TrackerSettings = serde_json::from_str(r#"{"mask_paths":["/users/*"]}"#).unwrap();
        assert_eq!(serde_json::to_string(&masked).unwrap(), r#"{"mask_paths":["/users/*"]}"#);
    }
}
