//! The curve of a day beside those of yesterday and of a week ago: what `/api/day` answers.

use std::collections::HashMap;

use bytes::Bytes;
use clickhouse::{Client, Row, error::Error};
use footfall_schemas::{
    SiteId,
    time::{MINUTE_MS, SECOND_MS},
};
use serde::{Deserialize, Serialize};

use crate::archive::json;

const STEP_MS: i64 = 5 * MINUTE_MS;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

/// Days end at midnight UTC, as those of the tables do.
#[derive(Debug, PartialEq, Serialize)]
struct DayAnswer {
    step_ms: i64,
    series: Vec<Series>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Series {
    label: &'static str,
    /// Start of the first point, ms since 1970.
    from: i64,
    /// Distinct visitors in each step; null for those that have not begun.
    points: Vec<Option<u64>>,
}

#[derive(Deserialize, Row)]
struct StepRow {
    /// s since 1970.
    start: u32,
    visitors: u64,
}

/// The days shown: by how many days before today each begins.
const DAYS: [(&str, i64); 3] = [("today", 0), ("yesterday", 1), ("last_week", 7)];

pub(crate) async fn read(client: &Client, site: &SiteId, now: i64) -> Result<Bytes, Error> {
    let today = now.div_euclid(DAY_MS) * DAY_MS;
    let at = |parameter: &str| format!("fromUnixTimestamp64Milli({{{parameter}:Int64}}, 'UTC')");
    let sql = format!(
        "SELECT toUInt32(intDiv(toUnixTimestamp(event_time), {{step:UInt32}}) * {{step:UInt32}}) AS start, \
         uniq(visitor) AS visitors FROM events WHERE site = {{site:String}} \
         AND ((event_time >= {} AND event_time < {}) OR (event_time >= {} AND event_time < {})) GROUP BY start",
        at("yesterday"),
        at("tomorrow"),
        at("last_week"),
        at("next_day"),
    );
    let query = client.query(&sql).param("site", site.as_str()).param("step", STEP_MS / SECOND_MS);
    let query = query.param("yesterday", today - DAY_MS).param("tomorrow", today + DAY_MS);
    let query = query.param("last_week", today - 7 * DAY_MS).param("next_day", today - 6 * DAY_MS);
    Ok(json(&answer(query.fetch_all::<StepRow>().await?, now)))
}

fn answer(rows: Vec<StepRow>, now: i64) -> DayAnswer {
    let today = now.div_euclid(DAY_MS) * DAY_MS;
    let visitors: HashMap<i64, u64> =
        rows.into_iter().map(|row| (i64::from(row.start) * SECOND_MS, row.visitors)).collect();
    let point = |at: i64| (at <= now).then(|| visitors.get(&at).copied().unwrap_or_default());
    let series = DAYS.map(|(label, days)| {
        let from = today - days * DAY_MS;
        let steps = (from..from + DAY_MS).step_by(STEP_MS as usize);
        Series { label, from, points: steps.map(point).collect() }
    });
    DayAnswer { step_ms: STEP_MS, series: series.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_288_steps_and_what_has_not_begun_is_not_told() {
        // 2027-01-15 08:07:30 UTC
        let now = 1_800_000_000_000 + 7 * MINUTE_MS + 30_000;
        let today = now.div_euclid(DAY_MS) * DAY_MS;
        let row = |at: i64, visitors| StepRow { start: (at / SECOND_MS) as u32, visitors };
        let week_ago = today - 7 * DAY_MS;
        let answer =
            answer(vec![row(today, 1), row(now - now % STEP_MS, 2), row(week_ago + STEP_MS, 3)], now);
        let [of_today, yesterday, last_week] = &answer.series[..] else { panic!("{answer:?}") };
        assert!(answer.series.iter().all(|series| series.points.len() == 288));
        assert_eq!((of_today.from, yesterday.from, last_week.from), (today, today - DAY_MS, week_ago));
        let told = 8 * 12 + 1;
        assert_eq!(of_today.points[..2], [Some(1), Some(0)]);
        assert_eq!(of_today.points[told..told + 2], [Some(2), None]);
        assert!(yesterday.points.iter().all(|point| *point == Some(0)));
        assert_eq!(last_week.points[..2], [Some(0), Some(3)]);
    }
}
