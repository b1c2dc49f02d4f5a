//! A filter as SQL over the table `events`: what a viewer writes is bound to parameters, never put into the text.

use std::fmt::Write as _;

use clickhouse::query::Query;
use footfall_schemas::{SiteId, goal::Goal, record::EventRef, viewer::Filter};

use crate::goals;

/// Rows of `events` that match, within a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    site: SiteId,
    /// Begins with ` AND`, or is empty.
    condition: String,
    /// Parameters with their values.
    texts: Vec<(String, String)>,
}

/// The part of a filter that an event tells by itself: its column, and what is asked for.
fn columns(filter: &Filter) -> [(&'static str, &Option<String>); 8] {
    [
        ("path", &filter.page),
        ("referrer_host", &filter.referrer),
        ("channel", &filter.channel),
        ("utm_campaign", &filter.campaign),
        ("country", &filter.country),
        ("browser", &filter.browser),
        ("system", &filter.system),
        ("device", &filter.device),
    ]
}

/// Whether an event matches all but the filter's goal, which is of its visitor.
pub(crate) fn matches(filter: &Filter, event: &EventRef<'_>) -> bool {
    let values = [
        &event.path,
        &event.referrer_host,
        &event.channel,
        &event.utm_campaign,
        &event.country,
        &event.browser,
        &event.system,
        &event.device,
    ];
    columns(filter).iter().zip(values).all(|((_, wanted), value)| wanted.as_ref().is_none_or(|w| w == value))
}

impl Selection {
    /// `goal`: the one that the filter names; none when the site has none of that name (any more), and then nothing
    /// matches.
    pub(crate) fn new(site: &SiteId, filter: &Filter, goal: Option<&Goal>) -> Self {
        let mut selection = Self { site: site.clone(), condition: String::new(), texts: Vec::new() };
        for (column, wanted) in columns(filter) {
            if let Some(wanted) = wanted {
                let _ = write!(selection.condition, " AND {column} = {{{column}:String}}");
                selection.texts.push((column.to_owned(), wanted.clone()));
            }
        }
        match (&filter.goal, goal) {
            (None, _) => {}
            (Some(_), None) => selection.condition.push_str(" AND 0"),
            (Some(_), Some(goal)) => {
                let (condition, text) = goals::condition(goal, "goal");
                let _ = write!(
                    selection.condition,
                    " AND visitor IN (SELECT visitor FROM events WHERE {} AND {condition})",
                    within("minute")
                );
                selection.texts.push(("goal".to_owned(), text.into_owned()));
            }
        }
        selection
    }

    /// The condition on rows from the instant that the parameter `from` is bound to.
    pub(crate) fn since(&self, from: &str) -> String {
        format!("{}{}", within(from), self.condition)
    }

    pub(crate) fn bind(&self, query: Query) -> Query {
        let query = query.param("site", self.site.as_str());
        self.texts.iter().fold(query, |query, (name, text)| query.param(name, text.as_str()))
    }
}

/// Rows of the site from an instant up to `to`, both bound as ms since 1970.
pub(crate) fn within(from: &str) -> String {
    format!(
        "site = {{site:String}} AND event_time >= fromUnixTimestamp64Milli({{{from}:Int64}}, 'UTC') \
         AND event_time < fromUnixTimestamp64Milli({{to:Int64}}, 'UTC')"
    )
}

#[cfg(test)]
mod tests {
    use footfall_schemas::EventRecord;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn filter(json: Value) -> Filter {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn what_a_viewer_writes_is_in_no_query() {
        let hostile = "x' OR 1 = 1 --";
        let all = json!({
            "page": hostile, "referrer": hostile, "channel": hostile, "campaign": hostile, "country": hostile,
            "browser": hostile, "system": hostile, "device": hostile, "goal": hostile,
        });
        let goal: Goal = serde_json::from_value(json!({"name": hostile, "event": hostile})).unwrap();
        let selection = Selection::new(&"demo".parse().unwrap(), &filter(all), Some(&goal));
        assert!(!selection.since("minute").contains(hostile), "{selection:?}");
        assert_eq!(selection.texts.iter().filter(|(_, text)| text == hostile).count(), 9);
    }

    #[rstest]
    #[case::everything(json!({}), true)]
    #[case::its_page(json!({"page": "/shop"}), true)]
    #[case::another_page(json!({"page": "/shop/"}), false)]
    #[case::all_of_it(json!({"page": "/shop", "country": "DE", "browser": "Chrome", "device": "desktop"}), true)]
    #[case::not_all_of_it(json!({"page": "/shop", "country": "AT"}), false)]
    #[case::a_referrer_that_it_has_not(json!({"referrer": "example.com"}), false)]
    #[case::a_goal_is_of_the_visitor(json!({"goal": "any"}), true)]
    fn an_event_matches_a_filter(#[case] wanted: Value, #[case] expected: bool) {
        let golden = include_str!("../../schemas/golden/event_record.json");
        let event: EventRecord = serde_json::from_str(golden).unwrap();
        assert_eq!(matches(&filter(wanted), &event.borrowed()), expected);
    }

    #[test]
    fn a_goal_that_is_not_there_selects_nothing() {
        let selection = Selection::new(&"demo".parse().unwrap(), &filter(json!({"goal": "gone"})), None);
        assert!(selection.since("minute").ends_with(" AND 0"));
    }
}
