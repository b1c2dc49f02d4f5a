//! What a filtered view asks of the table `events`: one query, whose windows are those of the live view.

use std::collections::BTreeMap;

use clickhouse::{Client, Row, error::Error};
use footfall_schemas::{
    Dimension, SiteId,
    goal::Goal,
    live::{ACTIVE_WINDOW_MS, LiveState, MINUTES_SHOWN, MinuteCounts, SECONDS_SHOWN, SecondCounts, Totals},
    time::{MINUTE_MS, SECOND_MS, minute_of},
    viewer::Filter,
};
use serde::Deserialize;

use crate::{
    goals,
    selection::{Selection, within},
    view::{cut_tops, tidy},
};

/// Columns of the dimensions that are counted by event.
const COLUMNS: [(Dimension, &str); 9] = [
    (Dimension::Page, "path"),
    (Dimension::Referrer, "referrer_host"),
    (Dimension::Channel, "channel"),
    (Dimension::Campaign, "utm_campaign"),
    (Dimension::Country, "country"),
    (Dimension::Browser, "browser"),
    (Dimension::System, "system"),
    (Dimension::Device, "device"),
    (Dimension::Event, "name"),
];

/// Starts of the windows, ms since 1970: as the aggregator has them (its `panes`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Windows {
    second: i64,
    active: i64,
    /// Of the half hour by minutes.
    minute: i64,
    /// Of the half hour by seconds.
    visitors: i64,
    to: i64,
}

impl Windows {
    fn ending(clock: i64) -> Self {
        let second = clock.div_euclid(SECOND_MS) * SECOND_MS + SECOND_MS;
        Self {
            second: second - SECONDS_SHOWN * SECOND_MS,
            active: second - ACTIVE_WINDOW_MS,
            minute: minute_of(clock) - (MINUTES_SHOWN - 1) * MINUTE_MS,
            visitors: second - MINUTES_SHOWN * MINUTE_MS,
            to: clock + 1,
        }
    }
}

/// A filtered view's question.
pub(crate) struct FilterQuery<'a> {
    selection: Selection,
    goals: &'a [Goal],
    windows: Windows,
    top_values: usize,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Counted {
    pub(crate) live: LiveState,
    pub(crate) goals: BTreeMap<String, u64>,
    /// Received-at of the newest event in it (ms since 1970); 0 for none.
    pub(crate) newest: i64,
}

#[derive(Debug, Deserialize, Row)]
struct Part {
    /// `second`, `minute`, `total`, `goals`, `session` or a dimension.
    part: String,
    value: String,
    numbers: Vec<u64>,
}

impl<'a> FilterQuery<'a> {
    /// Up to `clock` (ms since 1970), log time.
    pub(crate) fn new(
        site: &SiteId,
        filter: &Filter,
        goals: &'a [Goal],
        clock: i64,
        top_values: usize,
    ) -> Self {
        let goal = filter.goal.as_ref().and_then(|name| goals.iter().find(|goal| goal.name == *name));
        let selection = Selection::new(site, filter, goal);
        Self { selection, goals, windows: Windows::ending(clock), top_values }
    }

    pub(crate) async fn run(&self, client: &Client) -> Result<Counted, Error> {
        let Windows { second, active, minute, visitors, to } = self.windows;
        let mut query = self.selection.bind(client.query(&self.sql()));
        for (name, at) in
            [("second", second), ("active", active), ("minute", minute), ("visitors", visitors), ("to", to)]
        {
            query = query.param(name, at);
        }
        for (index, goal) in self.goals.iter().enumerate() {
            let name = format!("goal{index}");
            let (_, text) = goals::condition(goal, &name);
            query = query.param(&name, text);
        }
        Ok(self.counted(query.fetch_all::<Part>().await?))
    }

    /// All parts at once, so that they are of one state of the table as far as can be.
    fn sql(&self) -> String {
        let mut parts = vec![self.seconds(), self.minutes(), self.totals(), self.lists(), self.sessions()];
        if !self.goals.is_empty() {
            parts.push(self.completions());
        }
        parts.join(" UNION ALL ")
    }

    fn seconds(&self) -> String {
        format!(
            "SELECT 'second' AS part, toString(toUnixTimestamp(event_time)) AS value, \
             [countIf(kind = 'view'), count()] AS numbers FROM events WHERE {} GROUP BY value",
            self.selection.since("second")
        )
    }

    fn minutes(&self) -> String {
        format!(
            "SELECT 'minute' AS part, toString(intDiv(toUnixTimestamp(event_time), 60) * 60) AS value, \
             [countIf(kind = 'view'), count(), uniqExact(visitor), toUInt64(sum(session_start))] AS numbers \
             FROM events WHERE {} GROUP BY value",
            self.selection.since("minute")
        )
    }

    fn totals(&self) -> String {
        format!(
            "SELECT 'total' AS part, '' AS value, \
             [uniqExactIf(visitor, event_time >= fromUnixTimestamp64Milli({{active:Int64}}, 'UTC')), \
             uniqExact(visitor), toUInt64(toUnixTimestamp64Milli(max(received_at)))] AS numbers \
             FROM events WHERE {}",
            self.selection.since("visitors")
        )
    }

    fn completions(&self) -> String {
        let counts = self.goals.iter().enumerate().map(|(index, goal)| {
            let (condition, _) = goals::condition(goal, &format!("goal{index}"));
            format!("countIf({condition})")
        });
        format!(
            "SELECT 'goals' AS part, '' AS value, [{}] AS numbers FROM events WHERE {}",
            counts.collect::<Vec<_>>().join(", "),
            self.selection.since("minute")
        )
    }

    /// The table is read once for all lists. In a grouping set all columns but its own are empty, and so are the values
    /// that no list shows: the one column that is not tells the list.
    fn lists(&self) -> String {
        let columns = COLUMNS.map(|(_, column)| column).join(", ");
        let sets = COLUMNS.map(|(_, column)| format!("(kind, {column})")).join(", ");
        let list = |(list, column): (Dimension, &str)| {
            format!("{column} != '', ('{}', toString({column}))", list.as_str())
        };
        format!(
            "SELECT * FROM (SELECT pair.1 AS part, pair.2 AS value, [n] AS numbers FROM (\
             SELECT kind, {columns}, count() AS n FROM events WHERE {} AND kind IN ('view', 'custom') \
             GROUP BY GROUPING SETS ({sets})) \
             ARRAY JOIN [multiIf({}, ('', ''))] AS pair \
             WHERE part != '' AND (kind = 'custom') = (part = 'event') \
             ORDER BY n DESC, value LIMIT {} BY part)",
            self.selection.since("minute"),
            COLUMNS.map(list).join(", "),
            self.most()
        )
    }

    /// Sessions that began with what matches; what else happened in them is theirs whether it matches or not.
    fn sessions(&self) -> String {
        format!(
            "SELECT * FROM (SELECT pair.1 AS part, pair.2 AS value, \
             [count(), countIf(views = 1 AND customs = 0), sum(duration)] AS numbers FROM (\
             SELECT countIf(kind = 'view') AS views, countIf(kind = 'custom') AS customs, \
             toUInt64(toUnixTimestamp64Milli(max(event_time)) - toUnixTimestamp64Milli(min(event_time))) AS duration, \
             if(views > 0, argMinIf(path, event_time, kind = 'view'), argMin(path, event_time)) AS entry, \
             if(views > 0, argMaxIf(path, event_time, kind = 'view'), argMax(path, event_time)) AS exit \
             FROM events WHERE {} AND session IN \
             (SELECT session FROM events WHERE {} AND session_start = 1) GROUP BY session) \
             ARRAY JOIN [('session', ''), ('entry', entry), ('exit', exit)] AS pair GROUP BY part, value \
             ORDER BY numbers[1] DESC, value LIMIT {} BY part)",
            within("minute"),
            self.selection.since("minute"),
            self.most()
        )
    }

    /// One value more than is shown, to tell how much one that was cut may have.
    fn most(&self) -> usize {
        self.top_values + 1
    }

    fn counted(&self, parts: Vec<Part>) -> Counted {
        let mut counted = Counted::default();
        let live = &mut counted.live;
        let totals = live.totals.get_or_insert_default();
        let mut reached = Vec::new();
        for Part { part, value, numbers } in parts {
            let number = |index: usize| numbers.get(index).copied().unwrap_or_default();
            let start = || value.parse::<i64>().unwrap_or_default();
            match part.as_str() {
                "second" => {
                    live.seconds.insert(start(), SecondCounts { views: number(0), events: number(1) });
                }
                "minute" => {
                    let counts = MinuteCounts {
                        views: number(0),
                        events: number(1),
                        visitors: number(2),
                        sessions: number(3),
                    };
                    live.minutes.insert(start(), counts);
                }
                "total" => {
                    (totals.active, totals.visitors) = (number(0), number(1));
                    counted.newest = i64::try_from(number(2)).unwrap_or_default();
                }
                "session" => {
                    let Totals { sessions, bounces, duration_ms, .. } = totals;
                    (*sessions, *bounces, *duration_ms) = (number(0), number(1), number(2));
                }
                "goals" => reached = numbers,
                of => {
                    let dimension = Dimension::ALL.iter().find(|dimension| dimension.as_str() == of);
                    if let Some(dimension) = dimension {
                        live.tops.entry(*dimension).or_default().insert(value, number(0));
                    }
                }
            }
        }
        tidy(live);
        cut_tops(live, self.top_values);
        let names = self.goals.iter().map(|goal| goal.name.clone());
        counted.goals = names.zip(reached).collect();
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_query_has_a_question_mark() {
        let goals: Vec<Goal> = ["/thanks/*", "/**"]
            .map(|page| serde_json::from_value(serde_json::json!({ "name": page, "page": page })).unwrap())
            .into();
        let filter = Filter { goal: Some("/thanks/*".into()), ..Filter::default() };
        let sql = FilterQuery::new(&"demo".parse().unwrap(), &filter, &goals, 1, 1).sql();
        // The client would take it for a place of its own to fill in.
        assert!(!sql.contains('?'), "{sql}");
    }

    #[test]
    fn the_windows_are_those_of_the_live_view() {
        // A full minute, 2027-01-15 08:00 UTC, and 30.5 s.
        let clock = 1_800_000_000_000 + 30_500;
        let windows = Windows::ending(clock);
        assert_eq!(windows.to - 1, clock);
        assert_eq!(windows.second, 1_800_000_000_000 + 31_000 - 60_000);
        assert_eq!(windows.active, 1_800_000_000_000 + 31_000 - 5 * 60_000);
        assert_eq!(windows.minute, 1_800_000_000_000 - 29 * 60_000);
        assert_eq!(windows.visitors, 1_800_000_000_000 + 31_000 - 30 * 60_000);
        // `LiveState::prune` keeps exactly these.
        let mut state = LiveState::default();
        for second in windows.second / 1_000 - 2..=clock / 1_000 {
            state.seconds.insert(second, SecondCounts { views: 1, events: 1 });
        }
        for minute in (windows.minute / 1_000 - 120..=clock / 1_000).step_by(60) {
            state.minutes.insert(minute, MinuteCounts { views: 1, ..MinuteCounts::default() });
        }
        state.prune(clock);
        assert_eq!(state.seconds.first_key_value().unwrap().0, &(windows.second / 1_000));
        assert_eq!(state.minutes.first_key_value().unwrap().0, &(windows.minute / 1_000));
    }
}
