//! `[[sites.goals]]`: what visitors are wanted to do.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::page_rules::{InvalidPathRule, PathPattern};

/// Most goals of a site.
pub const MAX_GOALS: usize = 50;
const MAX_NAME_CHARS: usize = 64;

/// `{ name = "Signed up", event = "signup" }` or `{ name = "Thanks", page = "/thanks/**" }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    /// Unique in its site; without control characters.
    pub name: String,
    pub reached_by: ReachedBy,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReachedBy {
    /// A custom event of this name.
    Event(String),
    /// A view of a page that matches, its query left aside.
    Page(PathPattern),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("goal {goal:?}: {key}: {reason}")]
pub struct InvalidGoal {
    goal: String,
    key: &'static str,
    reason: String,
}

/// As it stands in the settings.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    page: Option<String>,
}

impl TryFrom<Written> for Goal {
    type Error = InvalidGoal;

    fn try_from(written: Written) -> Result<Self, InvalidGoal> {
        let goal = written.name.clone();
        let invalid = |key, reason: &str| InvalidGoal { goal: goal.clone(), key, reason: reason.to_owned() };
        let is_named = !written.name.trim().is_empty() && !written.name.contains(char::is_control);
        if !is_named || written.name.chars().count() > MAX_NAME_CHARS {
            return Err(invalid("name", "write 1 to 64 characters on one line"));
        }
        let reached_by = match (written.event, written.page) {
            (Some(event), None) if !event.is_empty() => ReachedBy::Event(event),
            (Some(_), None) => return Err(invalid("event", "write the event's name")),
            (None, Some(page)) => {
                let pattern = PathPattern::try_from(page.as_str()).map_err(|_| {
                    let says = InvalidPathRule::Pattern(page).to_string();
                    invalid("page", says.trim_start_matches("match = "))
                })?;
                ReachedBy::Page(pattern)
            }
            _ => return Err(invalid("event / page", "give one of them")),
        };
        Ok(Self { name: written.name, reached_by })
    }
}

impl<'de> Deserialize<'de> for Goal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Written::deserialize(deserializer)?.try_into().map_err(D::Error::custom)
    }
}

impl Serialize for Goal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (event, page) = match &self.reached_by {
            ReachedBy::Event(event) => (Some(event.clone()), None),
            ReachedBy::Page(page) => (None, Some(page.as_str().to_owned())),
        };
        Written { name: self.name.clone(), event, page }.serialize(serializer)
    }
}

/// The goals of a site: at most [`MAX_GOALS`], each with a name of its own.
pub(crate) fn goals_of_a_site<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Goal>, D::Error> {
    let goals = Vec::<Goal>::deserialize(deserializer)?;
    if goals.len() > MAX_GOALS {
        return Err(D::Error::custom(format!("goals: {} goals; a site may have {MAX_GOALS}", goals.len())));
    }
    let mut names: Vec<&str> = goals.iter().map(|goal| goal.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(D::Error::custom(format!("goal {:?}: name: is there twice", twice[0])));
    }
    Ok(goals)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    #[rstest]
    #[case(json!({"name": "Signed up", "event": "signup"}))]
    #[case(json!({"name": "Thanks", "page": "/thanks/**"}))]
    fn a_goal_is_written_as_it_was_read(#[case] written: Value) {
        let goal: Goal = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(&goal).unwrap(), written);
    }

    #[rstest]
    #[case::no_name(json!({"name": " ", "event": "a"}), "name: write 1 to 64")]
    #[case::long_name(json!({"name": "x".repeat(65), "event": "a"}), "name: write 1 to 64")]
    #[case::neither(json!({"name": "a"}), "give one of them")]
    #[case::both(json!({"name": "a", "event": "b", "page": "/"}), "give one of them")]
    #[case::no_event(json!({"name": "a", "event": ""}), "event: write the event's name")]
    #[case::no_pattern(json!({"name": "a", "page": "thanks"}), "page: \"thanks\" is no pattern")]
    #[case::unknown_key(json!({"name": "a", "path": "/"}), "unknown field `path`")]
    fn a_wrong_goal_is_refused_and_named(#[case] written: Value, #[case] says: &str) {
        let error = serde_json::from_value::<Goal>(written).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    #[test]
    fn a_site_has_so_many_goals_and_each_its_name() {
        let goals = |count: usize, name: fn(usize) -> String| {
            let goals: Vec<Value> = (0..count).map(|n| json!({"name": name(n), "event": "e"})).collect();
            goals_of_a_site(json!(goals)).map_err(|error| error.to_string())
        };
        assert_eq!(goals(50, |n| n.to_string()).unwrap().len(), 50);
        assert!(goals(51, |n| n.to_string()).unwrap_err().contains("51 goals"));
        assert!(goals(2, |_| "same".into()).unwrap_err().contains("\"same\": name: is there twice"));
    }
}
