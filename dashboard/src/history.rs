//! The past from ClickHouse: what `/api/history` answers. The live page goes on without it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use clickhouse::{Client, Row};
use footfall_schemas::{
    SiteId,
    connect::ClickHouseSettings,
    time::{MINUTE_MS, SECOND_MS},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::config::{Config, ms};

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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Row)]
struct Counts {
    views: u64,
    events: u64,
    /// Distinct in this interval; does not add up over intervals.
    visitors: u64,
    /// Sessions that started.
    sessions: u64,
}

#[derive(Debug, Serialize)]
struct TopValue {
    value: String,
    count: u64,
}

#[derive(Debug, Deserialize, Row)]
struct PointRow {
    /// s since 1970.
    start: u32,
    views: u64,
    events: u64,
    visitors: u64,
    sessions: u64,
}

#[derive(Debug, Deserialize, Row)]
struct TopRow {
    dimension: String,
    value: String,
    count: u64,
}

const COUNTS: &str = "countIf(kind = 'view') AS views, count() AS events, uniqExact(visitor) AS visitors, \
     toUInt64(sum(session_start)) AS sessions";
const WINDOW: &str = "site = {site:String} AND event_time >= fromUnixTimestamp64Milli({from:Int64}, 'UTC') \
     AND event_time < fromUnixTimestamp64Milli({to:Int64}, 'UTC')";
/// Counted as the live lists are: see `footfall_schemas::Dimension::value_of`.
const DIMENSIONS: &str = "multiIf(kind = 'view', [('page', path), ('referrer', toString(referrer_host)), \
     ('channel', toString(channel)), ('campaign', toString(utm_campaign)), ('country', toString(country)), \
     ('browser', toString(browser)), ('system', toString(system)), ('device', toString(device))], \
     kind = 'custom', [('event', toString(name))], [])";

/// Why there is no history now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HistoryError {
    #[error("ClickHouse did not answer within {0} ms")]
    Timeout(u128),
    #[error("ClickHouse: {0}")]
    Store(#[from] clickhouse::error::Error),
}

impl HistoryError {
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Store(_) => "store_unavailable",
        }
    }
}

#[derive(Debug)]
pub(crate) struct History {
    client: ClientBox,
    timeout: Duration,
    cache_for: Duration,
    /// Who waits here waits within the timeout.
    permits: Semaphore,
    /// By site and hours: as many entries as there are sites times [`MAX_HOURS`].
    cache: Mutex<HashMap<(SiteId, u32), (Instant, Bytes)>>,
}

struct ClientBox(Client);

impl std::fmt::Debug for ClientBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl History {
    pub(crate) fn new(settings: &ClickHouseSettings, config: &Config) -> Self {
        Self {
            client: ClientBox(settings.client()),
            timeout: ms(config.history_timeout_ms),
            cache_for: ms(config.history_cache_ms),
            permits: Semaphore::new(config.history_concurrency),
            cache: Mutex::default(),
        }
    }

    /// The JSON body for `site` over the last `hours` up to `now` (ms since 1970).
    pub(crate) async fn read(&self, site: &SiteId, hours: u32, now: i64) -> Result<Bytes, HistoryError> {
        let answer = async {
            let _permit = self.permits.acquire().await.expect("never closed");
            // Asked for here so that those who waited for a permit take what the one before them read.
            if let Some(body) = self.cached(site, hours) {
                return Ok(body);
            }
            let body = self.query(site, hours, now).await?;
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.insert((site.clone(), hours), (Instant::now(), body.clone()));
            Ok(body)
        };
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(HistoryError::Timeout(self.timeout.as_millis())),
        }
    }

    fn cached(&self, site: &SiteId, hours: u32) -> Option<Bytes> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let (read_at, body) = cache.get(&(site.clone(), hours))?;
        (read_at.elapsed() < self.cache_for).then(|| body.clone())
    }

    async fn query(&self, site: &SiteId, hours: u32, now: i64) -> Result<Bytes, HistoryError> {
        let window = Window::ending(now, hours);
        let sql = |text: String| {
            let query = self.client.0.query(&text).param("site", site.as_str());
            query.param("from", window.from).param("to", window.to)
        };
        let points = sql(format!(
            "SELECT toUInt32(intDiv(toUnixTimestamp(event_time), {{step:UInt32}}) * {{step:UInt32}}) AS start, {COUNTS} \
             FROM events WHERE {WINDOW} GROUP BY start ORDER BY start"
        ))
        .param("step", window.step_ms / SECOND_MS)
        .fetch_all::<PointRow>();
        let totals = sql(format!("SELECT {COUNTS} FROM events WHERE {WINDOW}")).fetch_one::<Counts>();
        let tops = sql(format!(
            "SELECT pair.1 AS dimension, pair.2 AS value, count() AS count FROM events ARRAY JOIN {DIMENSIONS} AS pair \
             WHERE {WINDOW} AND value != '' GROUP BY dimension, value ORDER BY count DESC, value \
             LIMIT {TOP_VALUES} BY dimension"
        ))
        .fetch_all::<TopRow>();
        // One after another: a history costs one core of ClickHouse at a time.
        let (points, totals, tops) = (points.await?, totals.await?, tops.await?);

        let mut by_dimension: BTreeMap<String, Vec<TopValue>> = BTreeMap::new();
        for TopRow { dimension, value, count } in tops {
            by_dimension.entry(dimension).or_default().push(TopValue { value, count });
        }
        let answer = HistoryAnswer {
            site,
            from: window.from,
            to: window.to,
            point_ms: window.step_ms,
            points: window.fill(&points),
            totals,
            tops: by_dimension,
        };
        Ok(serde_json::to_vec(&answer).expect("plain fields with text keys always serialise").into())
    }
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
    fn fill(self, rows: &[PointRow]) -> Vec<Point> {
        let counts: HashMap<i64, Counts> = rows
            .iter()
            .map(|row| {
                let PointRow { start, views, events, visitors, sessions } = *row;
                (i64::from(start) * SECOND_MS, Counts { views, events, visitors, sessions })
            })
            .collect();
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
        assert_eq!(window.fill(&[]).len(), points);
    }

    #[test]
    fn intervals_without_events_are_zero() {
        let window = Window::ending(EIGHT + 1, 1);
        let row =
            PointRow { start: (EIGHT / SECOND_MS) as u32, views: 2, events: 3, visitors: 1, sessions: 1 };
        let points = window.fill(&[row]);
        let (last, before) = points.split_last().unwrap();
        assert_eq!(
            last,
            &Point { at: EIGHT, counts: Counts { views: 2, events: 3, visitors: 1, sessions: 1 } }
        );
        assert!(before.iter().all(|point| point.counts == Counts::default()));
    }
}
