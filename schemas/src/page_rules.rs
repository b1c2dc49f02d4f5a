//! What a site makes of its pages' addresses: paths that stand for one page, pages that are not counted, and the query
//! parameters that belong to a page.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// One of `path_rules` of a site: `{ match = "/user/*/settings", replace = "/user/:id/settings" }` or
/// `{ match = "/private/**", drop = true }`. The first rule that matches a path holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRule {
    pattern: PathPattern,
    action: PathAction,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathAction {
    /// The page's path becomes this one.
    Replace(String),
    /// Events of the page are refused (`ignored_path`) and not kept anywhere.
    Drop,
}

/// Segments between slashes. `*` stands for any characters of one segment, at least one; `**` at the end for any
/// segments, also none. Paths are matched as browsers send them: percent-encoded, with upper and lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
    segments: Vec<Segment>,
    open_end: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Is(String),
    /// Begins and ends so, with at least one character between.
    Around(String, String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPathRule {
    #[error(
        "match = {0:?} is no pattern: begin it with /, percent-encoded, one * in a segment, ** alone and last"
    )]
    Pattern(String),
    #[error("replace = {0:?} is no path: begin it with /, in printable ASCII without quotes and backslashes")]
    Replace(String),
    #[error("the rule for {0:?} has to do one thing: give either replace = \"/path\" or drop = true")]
    Action(String),
}

impl PathRule {
    /// What to do with a page of this path; none when the rule does not match it.
    pub fn apply(&self, path: &str) -> Option<&PathAction> {
        self.pattern.matches(path).then_some(&self.action)
    }
}

impl TryFrom<&str> for PathPattern {
    type Error = InvalidPathRule;

    fn try_from(text: &str) -> Result<Self, InvalidPathRule> {
        let invalid = || InvalidPathRule::Pattern(text.to_owned());
        let rest = text.strip_prefix('/').ok_or_else(invalid)?;
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains(['?', '#']) {
            return Err(invalid());
        }
        let (rest, open_end) = match rest.strip_suffix("**") {
            Some("") => (None, true),
            Some(rest) => (Some(rest.strip_suffix('/').ok_or_else(invalid)?), true),
            None => (Some(rest), false),
        };
        let segments =
            rest.into_iter().flat_map(|rest| rest.split('/')).map(|segment| match segment.split_once('*') {
                None => Ok(Segment::Is(segment.to_owned())),
                Some((_, after)) if after.contains('*') => Err(invalid()),
                Some((before, after)) => Ok(Segment::Around(before.to_owned(), after.to_owned())),
            });
        let segments = segments.collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), segments, open_end })
    }
}

impl PathPattern {
    pub fn matches(&self, path: &str) -> bool {
        let Some(rest) = path.strip_prefix('/') else { return false };
        let mut parts = rest.split('/');
        let fits = self.segments.iter().all(|segment| parts.next().is_some_and(|part| segment.matches(part)));
        fits && (self.open_end || parts.next().is_none())
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Segment {
    fn matches(&self, part: &str) -> bool {
        match self {
            Self::Is(text) => part == text,
            Self::Around(before, after) => {
                part.len() > before.len() + after.len() && part.starts_with(before) && part.ends_with(after)
            }
        }
    }
}

/// As it stands in the configuration.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    r#match: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replace: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    drop: bool,
}

impl TryFrom<Written> for PathRule {
    type Error = InvalidPathRule;

    fn try_from(written: Written) -> Result<Self, InvalidPathRule> {
        let pattern = PathPattern::try_from(written.r#match.as_str())?;
        let action = match (written.replace, written.drop) {
            (Some(path), false) => {
                let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
                if !path.starts_with('/') || !path.bytes().all(fits) {
                    return Err(InvalidPathRule::Replace(path));
                }
                PathAction::Replace(path)
            }
            (None, true) => PathAction::Drop,
            _ => return Err(InvalidPathRule::Action(written.r#match)),
        };
        Ok(Self { pattern, action })
    }
}

impl Serialize for PathRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let replace = match &self.action {
            PathAction::Replace(path) => Some(path.clone()),
            PathAction::Drop => None,
        };
        let drop = self.action == PathAction::Drop;
        Written { r#match: self.pattern.text.clone(), replace, drop }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PathRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Written::deserialize(deserializer)?.try_into().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("/user/*/settings", "/user/7/settings", true)]
    #[case("/user/*/settings", "/user/7", false)]
    #[case("/user/*/settings", "/user//settings", false)]
    #[case("/user/*/settings", "/user/7/x/settings", false)]
    #[case("/user/*/settings", "/user/7/settings/", false)]
    #[case("/order-*", "/order-17", true)]
    #[case("/order-*", "/order-", false)]
    #[case("/*.html", "/a.html", true)]
    #[case("/*.html", "/.html", false)]
    #[case("/private/**", "/private", true)]
    #[case("/private/**", "/private/", true)]
    #[case("/private/**", "/private/a/b", true)]
    #[case("/private/**", "/privateer", false)]
    #[case("/**", "/", true)]
    #[case("/**", "/a/b", true)]
    #[case("/", "/", true)]
    #[case("/", "/a", false)]
    #[case("/A", "/a", false)]
    fn a_path_matches_its_pattern(#[case] pattern: &str, #[case] path: &str, #[case] expected: bool) {
        assert_eq!(PathPattern::try_from(pattern).unwrap().matches(path), expected);
    }

    #[rstest]
    #[case::relative(r#"{"match":"a","drop":true}"#, "match")]
    #[case::two_stars(r#"{"match":"/a*b*","drop":true}"#, "match")]
    #[case::open_in_between(r#"{"match":"/**/a","drop":true}"#, "match")]
    #[case::open_in_a_segment(r#"{"match":"/a**","drop":true}"#, "match")]
    #[case::not_encoded(r#"{"match":"/käse","drop":true}"#, "match")]
    #[case::query(r#"{"match":"/a?b","drop":true}"#, "match")]
    #[case::no_action(r#"{"match":"/a"}"#, "one thing")]
    #[case::two_actions(r#"{"match":"/a","replace":"/b","drop":true}"#, "one thing")]
    #[case::no_path(r#"{"match":"/a","replace":"b"}"#, "replace")]
    #[case::quote(r#"{"match":"/a","replace":"/\""}"#, "replace")]
    #[case::unknown(r#"{"match":"/a","drpo":true}"#, "drpo")]
    fn a_wrong_rule_is_refused_at_boot(#[case] json: &str, #[case] says: &str) {
        let error = serde_json::from_str::<PathRule>(json).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    #[rstest]
    #[case(r#"{"match":"/user/*","replace":"/user/:id"}"#)]
    #[case(r#"{"match":"/private/**","drop":true}"#)]
    fn a_rule_is_written_as_it_was_read(#[case] json: &str) {
        let rule: PathRule = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&rule).unwrap(), json);
    }
}
