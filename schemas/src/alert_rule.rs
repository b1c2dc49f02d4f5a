//! `[[sites.alerts]]`: when somebody is to be told.

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    alert::AlertKind,
    live::MINUTES_SHOWN,
    page_rules::{InvalidPathRule, PathPattern},
};

/// Most rules of a site.
pub const MAX_RULES: usize = 50;
/// The longest window of each kind, in minutes, so that what it is held against still lies in the live half hour.
pub const MAX_THRESHOLD_MINUTES: u32 = MINUTES_SHOWN as u32 - 1;
pub const MAX_CHANGE_MINUTES: u32 = 14;
pub const MAX_SILENCE_MINUTES: u32 = 25;
const MAX_NAME_CHARS: usize = 64;
const DEFAULT_COOLDOWN_MINUTES: u32 = 5;
const MAX_COOLDOWN_MINUTES: u32 = 24 * 60;

/// A rule, checked when it is read: `{ name = "404s", kind = "threshold", page = "/404", at_least = 50, minutes = 5 }`.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertRule {
    /// Unique in its site; without control characters.
    pub name: String,
    pub condition: Condition,
    pub subject: Subject,
    /// Length of the window: the newest minutes, sliding.
    pub minutes: u32,
    /// A firing is over once the condition has not held for so long.
    pub cooldown_minutes: u32,
}

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Condition {
    /// At least so many in the window.
    Threshold { at_least: u64 },
    /// `factor` times as many as the minutes before let expect: so many or more when it is above 1, so many or fewer when
    /// it is below. The larger of the two numbers is at least `min`.
    Change { factor: f64, min: u64 },
    /// None in the window, after some in the half hour.
    Silence,
}

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    Views,
    /// Events of every kind.
    Events,
    /// Views of the pages that match, their queries left aside.
    Page(PathPattern),
    /// Custom events of this name.
    Event(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("alert {rule:?}: {key}: {reason}")]
pub struct InvalidRule {
    rule: String,
    key: &'static str,
    reason: String,
}

impl AlertRule {
    pub fn kind(&self) -> AlertKind {
        match self.condition {
            Condition::Threshold { .. } => AlertKind::Threshold,
            Condition::Change { .. } => AlertKind::Change,
            Condition::Silence => AlertKind::Silence,
        }
    }
}

/// As it stands in the settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    kind: AlertKind,
    minutes: u32,
    measure: Option<Measure>,
    page: Option<String>,
    event: Option<String>,
    at_least: Option<u64>,
    factor: Option<f64>,
    min: Option<u64>,
    #[serde(default = "default_cooldown")]
    cooldown_minutes: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Measure {
    Views,
    Events,
}

fn default_cooldown() -> u32 {
    DEFAULT_COOLDOWN_MINUTES
}

impl TryFrom<Written> for AlertRule {
    type Error = InvalidRule;

    fn try_from(written: Written) -> Result<Self, InvalidRule> {
        let rule = written.name.clone();
        let invalid = |key, reason: &str| InvalidRule { rule: rule.clone(), key, reason: reason.to_owned() };
        let is_named = !written.name.trim().is_empty() && !written.name.contains(char::is_control);
        if !is_named || written.name.chars().count() > MAX_NAME_CHARS {
            return Err(invalid("name", "write 1 to 64 characters on one line"));
        }
        let Written { at_least, factor, min, .. } = written;
        let unused = |key, told: bool, kind: &str| match told {
            true => Err(invalid(key, &format!("belongs to kind = {kind:?} alone; take it out"))),
            false => Ok(()),
        };
        let (condition, longest) = match written.kind {
            AlertKind::Threshold => {
                let at_least = at_least.filter(|least| *least > 0);
                let at_least =
                    at_least.ok_or_else(|| invalid("at_least", "say how many must come, 1 or more"))?;
                (Condition::Threshold { at_least }, MAX_THRESHOLD_MINUTES)
            }
            AlertKind::Change => {
                let is_change = |factor: &f64| (0.0..=1_000.0).contains(factor) && *factor != 1.0;
                let factor = factor.filter(is_change).ok_or_else(|| {
                    invalid(
                        "factor",
                        "write 3.0 for three times as many, 0.2 for a fifth; 0 to 1000 and not 1",
                    )
                })?;
                let min = min.filter(|min| *min > 0);
                let min = min.ok_or_else(|| {
                    invalid("min", "say how many are worth a word, 1 or more: few numbers change by chance")
                })?;
                (Condition::Change { factor, min }, MAX_CHANGE_MINUTES)
            }
            AlertKind::Silence => (Condition::Silence, MAX_SILENCE_MINUTES),
        };
        if written.kind != AlertKind::Threshold {
            unused("at_least", at_least.is_some(), "threshold")?;
        }
        if written.kind != AlertKind::Change {
            unused("factor", factor.is_some(), "change")?;
            unused("min", min.is_some(), "change")?;
        }
        if written.minutes == 0 || written.minutes > longest {
            let kind = written.kind.as_str();
            return Err(invalid(
                "minutes",
                &format!("{} is not 1 to {longest}, of kind {kind:?}", written.minutes),
            ));
        }
        if !(1..=MAX_COOLDOWN_MINUTES).contains(&written.cooldown_minutes) {
            let reason = format!("{} is not 1 to {MAX_COOLDOWN_MINUTES}", written.cooldown_minutes);
            return Err(invalid("cooldown_minutes", &reason));
        }
        let subject = match (written.measure, written.page, written.event) {
            (None, None, None) if written.kind == AlertKind::Silence => Subject::Events,
            (None | Some(Measure::Views), None, None) => Subject::Views,
            (Some(Measure::Events), None, None) => Subject::Events,
            (None, Some(page), None) => {
                let pattern = PathPattern::try_from(page.as_str());
                Subject::Page(pattern.map_err(|_| {
                    let says = InvalidPathRule::Pattern(page).to_string();
                    invalid("page", says.trim_start_matches("match = "))
                })?)
            }
            (None, None, Some(event)) if !event.is_empty() => Subject::Event(event),
            (None, None, Some(_)) => return Err(invalid("event", "write the event's name")),
            _ => return Err(invalid("measure / page / event", "give one of them, or none")),
        };
        Ok(Self {
            name: written.name,
            condition,
            subject,
            minutes: written.minutes,
            cooldown_minutes: written.cooldown_minutes,
        })
    }
}

impl<'de> Deserialize<'de> for AlertRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Written::deserialize(deserializer)?.try_into().map_err(D::Error::custom)
    }
}

/// The rules of a site: at most [`MAX_RULES`], each with a name of its own.
pub(crate) fn rules_of_a_site<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<AlertRule>, D::Error> {
    let rules = Vec::<AlertRule>::deserialize(deserializer)?;
    if rules.len() > MAX_RULES {
        return Err(D::Error::custom(format!("alerts: {} rules; a site may have {MAX_RULES}", rules.len())));
    }
    let mut names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(D::Error::custom(format!(
            "alert {:?}: name: is there twice; firings are kept by it, so each rule has its own",
            twice[0]
        )));
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn rule(more: Value) -> Result<AlertRule, serde_json::Error> {
        let mut rule = json!({"name": "a", "minutes": 5});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(rule)
    }

    #[rstest]
    #[case(json!({"kind": "threshold", "at_least": 9}), Condition::Threshold { at_least: 9 }, Subject::Views)]
    #[case(json!({"kind": "threshold", "at_least": 1, "event": "signup"}), Condition::Threshold { at_least: 1 }, Subject::Event("signup".into()))]
    #[case(json!({"kind": "change", "factor": 3, "min": 100, "measure": "events"}), Condition::Change { factor: 3.0, min: 100 }, Subject::Events)]
    #[case(json!({"kind": "change", "factor": 0.0, "min": 1, "measure": "views"}), Condition::Change { factor: 0.0, min: 1 }, Subject::Views)]
    #[case(json!({"kind": "silence"}), Condition::Silence, Subject::Events)]
    #[case(json!({"kind": "silence", "page": "/a/**"}), Condition::Silence, Subject::Page("/a/**".try_into().unwrap()))]
    fn a_rule_is_read(#[case] more: Value, #[case] condition: Condition, #[case] subject: Subject) {
        let expected = AlertRule { name: "a".into(), condition, subject, minutes: 5, cooldown_minutes: 5 };
        assert_eq!(rule(more).unwrap(), expected);
    }

    #[rstest]
    #[case::kind(json!({"kind": "spike"}), "unknown variant `spike`, expected one of `threshold`, `change`, `silence`")]
    #[case::unknown_key(json!({"kind": "silence", "at_most": 1}), "unknown field `at_most`")]
    #[case::no_name(json!({"kind": "silence", "name": " "}), "name: write 1 to 64")]
    #[case::two_lines(json!({"kind": "silence", "name": "a\nb"}), "name: write 1 to 64")]
    #[case::long_name(json!({"kind": "silence", "name": "x".repeat(65)}), "name: write 1 to 64")]
    #[case::no_number(json!({"kind": "threshold"}), "\"a\": at_least: say how many")]
    #[case::at_least_none(json!({"kind": "threshold", "at_least": 0}), "at_least: say how many")]
    #[case::no_change(json!({"kind": "change", "factor": 1, "min": 1}), "factor: write 3.0")]
    #[case::negative(json!({"kind": "change", "factor": -2, "min": 1}), "factor: write 3.0")]
    #[case::no_min(json!({"kind": "change", "factor": 2}), "min: say how many")]
    #[case::of_another_kind(json!({"kind": "silence", "factor": 2}), "factor: belongs to kind = \"change\"")]
    #[case::of_another_kind(json!({"kind": "change", "factor": 2, "min": 1, "at_least": 1}), "at_least: belongs to kind = \"threshold\"")]
    #[case::no_minute(json!({"kind": "silence", "minutes": 0}), "minutes: 0 is not 1 to 25")]
    #[case::too_long(json!({"kind": "change", "factor": 2, "min": 1, "minutes": 15}), "minutes: 15 is not 1 to 14")]
    #[case::too_long(json!({"kind": "threshold", "at_least": 1, "minutes": 30}), "minutes: 30 is not 1 to 29")]
    #[case::cooldown(json!({"kind": "silence", "cooldown_minutes": 0}), "cooldown_minutes: 0 is not")]
    #[case::two_subjects(json!({"kind": "silence", "page": "/", "event": "a"}), "give one of them")]
    #[case::measure_of_a_page(json!({"kind": "silence", "page": "/", "measure": "views"}), "give one of them")]
    #[case::no_pattern(json!({"kind": "silence", "page": "404"}), "page: \"404\" is no pattern")]
    #[case::no_event(json!({"kind": "silence", "event": ""}), "event: write the event's name")]
    fn a_wrong_rule_is_refused_and_named(#[case] more: Value, #[case] says: &str) {
        let error = rule(more).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    #[test]
    fn a_site_has_so_many_rules_and_each_its_name() {
        let rules = |count: usize, name: fn(usize) -> String| {
            let rules: Vec<Value> =
                (0..count).map(|n| json!({"name": name(n), "minutes": 1, "kind": "silence"})).collect();
            rules_of_a_site(json!(rules)).map_err(|error| error.to_string())
        };
        assert_eq!(rules(50, |n| n.to_string()).unwrap().len(), 50);
        assert!(rules(51, |n| n.to_string()).unwrap_err().contains("51 rules"));
        assert!(rules(2, |_| "same".into()).unwrap_err().contains("\"same\": name: is there twice"));
    }
}
