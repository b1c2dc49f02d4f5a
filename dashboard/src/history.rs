//! The last hours of a site: what `/api/history` answers.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use clickhouse::{Client, Row, error::Error};
use footfall_schemas::{
    SiteId,
    time::{MINUTE_MS, SECOND_MS},
};
use serde::{Deserialize, Serialize};

use crate::archive::json;

/// Longest window.
pub(crate) const MAX_HOURS: u32 = 24;
/// Up to here a point is a minute, beyond a quarter of an hour.
const HOURS_BY_MINUTE: u32 = 3;
const TOP_VALUES: u32 = 50;

/// Body of `/api/history`. Instants are ms since 1970.
#[derive(Debug, Serialize)]
struct HistoryAnswer<'a> {
    site: &'a SiteId,
    /// Start of the first point.
    from: i64,
    /// When this was read; the last point ends here.
    to: i64,
    point_ms: i64,
    /// One per interval, those without events included.
    points: Vec<Point>,
    totals: Counts,
    /// Page views (events for `event`) by value, largest first.
    tops: BTreeMap<String, Vec<TopValue>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Point {
    at: i64,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
struct Counts {
    views: u64,
    events: u64,
    /// Distinct in this interval; does not add up over intervals.
    visitors: u64,
    /// Sessions that started. Their table is written within five minutes.
    sessions: u64,
}

#[derive(Debug, Serialize)]
struct TopValue {
    value: String,
    count: u64,
}

#[derive(Debug, Deserialize, Row)]
struct TotalsRow {
    views: u64,
    events: u64,
    visitors: u64,
}

#[derive(Debug, Deserialize, Row)]
struct PointRow {
    /// s since 1970.
    start: u32,
    views: u64,
    events: u64,
    visitors: u64,
}

#[derive(Debug, Deserialize, Row)]
struct SessionsRow {
    /// s since 1970.
    at: u32,
    sessions: u64,
}

#[derive(Debug, Deserialize, Row)]
struct TopRow {
    dimension: String,
    value: String,
    count: u64,
}

const COUNTS: &str = "countIf(kind = 'view') AS views, count() AS events, uniqExact(visitor) AS visitors";
const WINDOW: &str = "site = {site:String} AND event_time >= fromUnixTimestamp64Milli({from:Int64}, 'UTC') \
     AND event_time < fromUnixTimestamp64Milli({to:Int64}, 'UTC')";
/// `opened` is what the table is ordered by.
const SESSIONS: &str = "site = {site:String} AND opened >= fromUnixTimestamp64Milli({from:Int64}, 'UTC') \
     AND start >= fromUnixTimestamp64Milli({from:Int64}, 'UTC') AND start < fromUnixTimestamp64Milli({to:Int64}, 'UTC')";
/// Counted as the live lists are: see `footfall_schemas::Dimension::value_of`.
const DIMENSIONS: &str = "multiIf(kind = 'view', [('page', path), ('referrer', toString(referrer_host)), \
     ('channel', toString(channel)), ('campaign', toString(utm_campaign)), ('country', toString(country)), \
     ('browser', toString(browser)), ('system', toString(system)), ('device', toString(device))], \
     kind = 'custom', [('event', toString(name))], [])";

/// The JSON body for `site` over the last `hours` up to `now` (ms since 1970).
pub(crate) async fn read(client: &Client, site: &SiteId, hours: u32, now: i64) -> Result<Bytes, Error> {
    let window = Window::ending(now, hours);
    let sql = |text: String| {
        let query =
            client.query(&text).param("site", site.as_str()).param("step", window.step_ms / SECOND_MS);
        query.param("from", window.from).param("to", window.to)
    };
    let points = sql(format!(
        "SELECT {} AS start, {COUNTS} FROM events WHERE {WINDOW} GROUP BY start ORDER BY start",
        step_of("event_time")
    ))
    .fetch_all::<PointRow>();
    let totals = sql(format!("SELECT {COUNTS} FROM events WHERE {WINDOW}")).fetch_one::<TotalsRow>();
    let sessions = sql(format!(
        "SELECT {} AS at, count() AS sessions FROM sessions FINAL WHERE {SESSIONS} GROUP BY at",
        step_of("start")
    ))
    .fetch_all::<SessionsRow>();
    let tops = sql(format!(
        "SELECT pair.1 AS dimension, pair.2 AS value, count() AS count FROM events ARRAY JOIN {DIMENSIONS} AS pair \
         WHERE {WINDOW} AND value != '' GROUP BY dimension, value ORDER BY count DESC, value \
         LIMIT {TOP_VALUES} BY dimension"
    ))
    .fetch_all::<TopRow>();
    // One after another: a history costs one core of ClickHouse at a time.
    let (points, totals) = (points.await?, totals.await?);
    let (sessions, tops) = (sessions.await?, tops.await?);

    let TotalsRow { views, events, visitors } = totals;
    let totals = Counts { views, events, visitors, sessions: sessions.iter().map(|row| row.sessions).sum() };
    let mut by_dimension: BTreeMap<String, Vec<TopValue>> = BTreeMap::new();
    for TopRow { dimension, value, count } in tops {
        by_dimension.entry(dimension).or_default().push(TopValue { value, count });
    }
    Ok(json(&HistoryAnswer {
        site,
        from: window.from,
        to: window.to,
        point_ms: window.step_ms,
        points: window.fill(&points, &sessions),
        totals,
        tops: by_dimension,
    }))
}

/// The start (s since 1970) of the interval that an instant lies in.
fn step_of(column: &str) -> String {
    format!("toUInt32(intDiv(toUnixTimestamp({column}), {{step:UInt32}}) * {{step:UInt32}})")
}

/// The intervals asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    from: i64,
    to: i64,
    step_ms: i64,
}

impl Window {
    fn ending(now: i64, hours: u32) -> Self {
        let step_ms = if hours <= HOURS_BY_MINUTE { MINUTE_MS } else { 15 * MINUTE_MS };
        let from = now - i64::from(hours) * 60 * MINUTE_MS;
        Self { from: from.div_euclid(step_ms) * step_ms, to: now, step_ms }
    }

    /// A point per interval.
    fn fill(self, rows: &[PointRow], sessions: &[SessionsRow]) -> Vec<Point> {
        let mut counts: HashMap<i64, Counts> = HashMap::new();
        for PointRow { start, views, events, visitors } in rows {
            let of_events = Counts { views: *views, events: *events, visitors: *visitors, sessions: 0 };
            counts.insert(i64::from(*start) * SECOND_MS, of_events);
        }
        for row in sessions {
            counts.entry(i64::from(row.at) * SECOND_MS).or_default().sessions = row.sessions;
        }
        let starts = (self.from..self.to).step_by(self.step_ms as usize);
        starts.map(|at| Point { at, counts: counts.get(&at).copied().unwrap_or_default() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// 2027-01-15 08:00:00 UTC
    const EIGHT: i64 = 1_800_000_000_000;

    #[rstest]
    #[case::a_day(EIGHT + 1, 24, EIGHT - 24 * 60 * MINUTE_MS, 97)]
    #[case::a_day_on_the_dot(EIGHT, 24, EIGHT - 24 * 60 * MINUTE_MS, 96)]
    #[case::an_hour(EIGHT + 1, 1, EIGHT - 60 * MINUTE_MS, 61)]
    fn a_window_starts_with_a_whole_interval(
        #[case] now: i64,
        #[case] hours: u32,
        #[case] from: i64,
        #[case] points: usize,
    ) {
        let window = Window::ending(now, hours);
        assert_eq!((window.from, window.to), (from, now));
        assert_eq!(window.fill(&[], &[]).len(), points);
    }

    #[test]
    fn intervals_without_events_are_zero() {
        let window = Window::ending(EIGHT + 1, 1);
        let at = (EIGHT / SECOND_MS) as u32;
        let row = PointRow { start: at, views: 2, events: 3, visitors: 1 };
        let points = window.fill(&[row], &[SessionsRow { at, sessions: 1 }]);
        let (last, before) = points.split_last().unwrap();
        assert_eq!(
            last,
            &Point { at: EIGHT, counts: Counts { views: 2, events: 3, visitors: 1, sessions: 1 } }
        );
        assert!(before.iter().all(|point| point.counts == Counts::default()));
    }
}
