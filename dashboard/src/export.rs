//! The values of a dimension as CSV (RFC 4180): what `/api/export` answers.

use bytes::Bytes;
use clickhouse::{Client, Row, error::Error};
use footfall_schemas::{Dimension, SiteId, time::MINUTE_MS};
use serde::Deserialize;

/// Longest window.
pub(crate) const MAX_HOURS: u32 = 31 * 24;
/// The largest values; what is beyond is left out.
const MAX_ROWS: u32 = 10_000;

#[derive(Deserialize, Row)]
struct ValueRow {
    value: String,
    count: u64,
    visitors: u64,
}

/// The table and column that a dimension is counted by, and the name of what is counted.
fn source(dimension: Dimension) -> Option<(&'static str, &'static str, &'static str)> {
    const VIEWS: &str = "events WHERE kind = 'view'";
    const SESSIONS: &str = "sessions FINAL WHERE 1";
    Some(match dimension {
        Dimension::Total => return None,
        Dimension::Page => (VIEWS, "path", "views"),
        Dimension::Referrer => (VIEWS, "referrer_host", "views"),
        Dimension::Channel => (VIEWS, "channel", "views"),
        Dimension::Campaign => (VIEWS, "utm_campaign", "views"),
        Dimension::Country => (VIEWS, "country", "views"),
        Dimension::Browser => (VIEWS, "browser", "views"),
        Dimension::System => (VIEWS, "system", "views"),
        Dimension::Device => (VIEWS, "device", "views"),
        Dimension::Event => ("events WHERE kind = 'custom'", "name", "events"),
        Dimension::Entry => (SESSIONS, "entry_path", "sessions"),
        Dimension::Exit => (SESSIONS, "exit_path", "sessions"),
    })
}

/// Whether it can be exported: a dimension that has values.
pub(crate) fn is_exportable(dimension: Dimension) -> bool {
    source(dimension).is_some()
}

/// The lines, largest count first.
pub(crate) async fn read(
    client: &Client,
    site: &SiteId,
    dimension: Dimension,
    hours: u32,
    now: i64,
) -> Result<Bytes, Error> {
    let Some((table, column, counted)) = source(dimension) else { return Ok(Bytes::new()) };
    let times: &[&str] = if counted == "sessions" { &["start", "opened"] } else { &["event_time"] };
    let since: String = times
        .iter()
        .map(|time| format!(" AND {time} >= fromUnixTimestamp64Milli({{from:Int64}}, 'UTC')"))
        .collect();
    let query = client.query(&format!(
        "SELECT toString({column}) AS value, count() AS count, uniqExact(visitor) AS visitors FROM {table} \
         AND site = {{site:String}}{since} AND {column} != '' GROUP BY value ORDER BY count DESC, value LIMIT {MAX_ROWS}"
    ));
    let query = query.param("site", site.as_str()).param("from", now - i64::from(hours) * 60 * MINUTE_MS);
    let rows = query.fetch_all::<ValueRow>().await?;
    let mut csv = format!("{},{counted},visitors\r\n", dimension.as_str());
    for ValueRow { value, count, visitors } in rows {
        csv.push_str(&cell(&value));
        csv.push_str(&format!(",{count},{visitors}\r\n"));
    }
    Ok(csv.into())
}

/// A text as a cell. One that a spreadsheet would take for a formula gets a leading quote: visitors write these texts.
fn cell(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if is_formula { format!("'{text}") } else { text.to_owned() };
    if text.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain("/shop", "/shop")]
    #[case::comma("a,b", "\"a,b\"")]
    #[case::quote("a\"b", "\"a\"\"b\"")]
    #[case::lines("a\r\nb", "\"a\r\nb\"")]
    #[case::formula("=HYPERLINK(\"http://evil\",1)", "\"'=HYPERLINK(\"\"http://evil\"\",1)\"")]
    #[case::plus("+1", "'+1")]
    #[case::minus("-1", "'-1")]
    #[case::at("@SUM(1)", "'@SUM(1)")]
    #[case::tab("\t=1", "'\t=1")]
    #[case::carriage_return("\r=1", "\"'\r=1\"")]
    #[case::later("a=1", "a=1")]
    fn a_cell_is_text_to_every_spreadsheet(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(cell(text), expected);
    }
}
