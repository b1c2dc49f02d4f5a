//! Which goals were reached: in the lists of the live view, by an event, and as a condition of SQL.

use std::{borrow::Cow, collections::BTreeMap};

use footfall_schemas::{
    Dimension, EventKind,
    goal::{Goal, ReachedBy},
    live::LiveState,
    record::EventRef,
};

/// Completions of each goal in the lists, 0 included.
pub(crate) fn reached(goals: &[Goal], live: &LiveState) -> BTreeMap<String, u64> {
    let values = |dimension| live.tops.get(&dimension).into_iter().flatten();
    let count = |goal: &Goal| match &goal.reached_by {
        ReachedBy::Event(name) => {
            values(Dimension::Event).find(|(event, _)| *event == name).map_or(0, |(_, count)| *count)
        }
        ReachedBy::Page(page) => values(Dimension::Page)
            .filter(|(path, _)| page.matches(without_query(path)))
            .map(|(_, count)| count)
            .sum(),
    };
    goals.iter().map(|goal| (goal.name.clone(), count(goal))).collect()
}

pub(crate) fn is_reached_by(goal: &Goal, event: &EventRef<'_>) -> bool {
    match &goal.reached_by {
        ReachedBy::Event(name) => event.kind == EventKind::Custom && event.name == *name,
        ReachedBy::Page(page) => {
            event.kind == EventKind::PageView && page.matches(without_query(&event.path))
        }
    }
}

/// The condition on a row of `events`; `parameter` is bound to the text returned.
pub(crate) fn condition<'g>(goal: &'g Goal, parameter: &str) -> (String, Cow<'g, str>) {
    match &goal.reached_by {
        ReachedBy::Event(name) => {
            (format!("(kind = 'custom' AND name = {{{parameter}:String}})"), name.into())
        }
        ReachedBy::Page(page) => (
            format!("(kind = 'view' AND match(cutQueryString(path), {{{parameter}:String}}))"),
            regex(page.as_str()).into(),
        ),
    }
}

fn without_query(path: &str) -> &str {
    path.split('?').next().unwrap_or_default()
}

/// A pattern of paths (`footfall_schemas::page_rules::PathPattern`) as RE2 writes it.
fn regex(pattern: &str) -> String {
    let (segments, end) = match pattern.strip_suffix("/**") {
        Some(segments) => (segments, "(/.*)?"),
        None => (pattern, ""),
    };
    let mut regex = String::from("^(?s)");
    for character in segments.chars() {
        match character {
            '*' => regex.push_str("[^/]+"),
            plain if plain.is_ascii_alphanumeric() || matches!(plain, '/' | '_') => regex.push(plain),
            special => {
                regex.push('\\');
                regex.push(special);
            }
        }
    }
    regex + end + "$"
}

#[cfg(test)]
mod tests {
    use footfall_schemas::EventRecord;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn goal(key: &str, value: &str) -> Goal {
        serde_json::from_value(json!({ "name": "goal", key: value })).unwrap()
    }

    #[rstest]
    #[case("/thanks/*", r"^(?s)/thanks/[^/]+$")]
    #[case("/a.b-c/**", r"^(?s)/a\.b\-c(/.*)?$")]
    #[case("/**", r"^(?s)(/.*)?$")]
    #[case("/", r"^(?s)/$")]
    fn a_pattern_has_its_regular_expression(#[case] pattern: &str, #[case] expected: &str) {
        assert_eq!(regex(pattern), expected);
    }

    #[rstest]
    #[case::of_that_name("event", "signup", EventKind::Custom, "signup", "/", true)]
    #[case::of_another("event", "signup", EventKind::Custom, "signups", "/", false)]
    #[case::no_custom("event", "signup", EventKind::PageView, "signup", "/", false)]
    #[case::the_page("page", "/a/*", EventKind::PageView, "", "/a/b", true)]
    #[case::whatever_its_query("page", "/a/*", EventKind::PageView, "", "/a/b?c=/d/e", true)]
    #[case::another_page("page", "/a/*", EventKind::PageView, "", "/a", false)]
    #[case::no_view("page", "/a/*", EventKind::Engagement, "", "/a/b", false)]
    fn a_goal_is_reached_by_an_event(
        #[case] key: &str,
        #[case] value: &str,
        #[case] kind: EventKind,
        #[case] name: &str,
        #[case] path: &str,
        #[case] reached: bool,
    ) {
        let golden = include_str!("../../schemas/golden/event_record.json");
        let golden: EventRecord = serde_json::from_str(golden).unwrap();
        let event = EventRecord { kind, name: name.into(), path: path.into(), ..golden };
        assert_eq!(is_reached_by(&goal(key, value), &event.borrowed()), reached);
    }
}
