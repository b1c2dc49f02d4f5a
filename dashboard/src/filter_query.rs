//! What a filtered view asks of the table `events`: one query, whose windows are those of the live view.

use std::{collections::BTreeMap, fmt::Write as _};

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
    selection::Selection,
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
        let by_minute = self.selection.since("minute");
        // One more than is shown, to tell how much a value that was cut may have.
        let most = self.top_values + 1;
        let mut sql = format!(
            "SELECT 'second' AS part, toString(toUnixTimestamp(event_time)) AS value, \
             [countIf(kind = 'view'), count()] AS numbers FROM events WHERE {} GROUP BY value \
             UNION ALL SELECT 'minute', toString(intDiv(toUnixTimestamp(event_time), 60) * 60) AS value, \
             [countIf(kind = 'view'), count(), uniqExact(visitor), toUInt64(sum(session_start))] \
             FROM events WHERE {by_minute} GROUP BY value \
             UNION ALL SELECT 'total', '', \
             [uniqExactIf(visitor, event_time >= fromUnixTimestamp64Milli({{active:Int64}}, 'UTC')), \
             uniqExact(visitor), toUInt64(toUnixTimestamp64Milli(max(received_at)))] FROM events WHERE {}",
            self.selection.since("second"),
            self.selection.since("visitors"),
        );
        if !self.goals.is_empty() {
            let counts = self.goals.iter().enumerate().map(|(index, goal)| {
                let (condition, _) = goals::condition(goal, &format!("goal{index}"));
                format!("countIf({condition})")
            });
            let counts = counts.collect::<Vec<_>>().join(", ");
            let _ = write!(sql, " UNION ALL SELECT 'goals', '', [{counts}] FROM events WHERE {by_minute}");
        }
        // Read once for all lists. In a grouping set all columns but its own are empty, and so are the values that no
        // list shows: the one column that is not tells the list.
        let columns = COLUMNS.map(|(_, column)| column).join(", ");
        let sets = COLUMNS.map(|(_, column)| format!("(kind, {column})")).join(", ");
        let lists = COLUMNS
            .map(|(list, column)| format!("{column} != '', ('{}', toString({column}))", list.as_str()));
        let _ = write!(
            sql,
            " UNION ALL SELECT * FROM (SELECT pair.1 AS part, pair.2 AS value, [n] AS numbers FROM (\
             SELECT kind, {columns}, count() AS n FROM events WHERE {by_minute} AND kind IN ('view', 'custom') \
             GROUP BY GROUPING SETS ({sets})) \
             ARRAY JOIN [multiIf({}, ('', ''))] AS pair \
             WHERE part != '' AND (kind = 'custom') = (part = 'event') ORDER BY n DESC, value LIMIT {most} BY part)",
            lists.join(", ")
        );
        // Sessions that began with what matches; what else happened in them is theirs whether it matches or not.
        let of_site = crate::selection::within("minute");
        let _ = write!(
            sql,
            " UNION ALL SELECT * FROM (SELECT pair.1 AS part, pair.2 AS value, \
             [count(), countIf(views = 1 AND customs = 0), sum(duration)] AS numbers FROM (\
             SELECT countIf(kind = 'view') AS views, countIf(kind = 'custom') AS customs, \
             toUInt64(toUnixTimestamp64Milli(max(event_time)) - toUnixTimestamp64Milli(min(event_time))) AS duration, \
             if(views > 0, argMinIf(path, event_time, kind = 'view'), argMin(path, event_time)) AS entry, \
             if(views > 0, argMaxIf(path, event_time, kind = 'view'), argMax(path, event_time)) AS exit \
             FROM events WHERE {of_site} AND session IN \
             (SELECT session FROM events WHERE {by_minute} AND session_start = 1) GROUP BY session) \
             ARRAY JOIN [('session', ''), ('entry', entry), ('exit', exit)] AS pair GROUP BY part, value \
             ORDER BY numbers[1] DESC, value LIMIT {most} BY part)"
        );
        sql
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
