//! What became of a site's events, for whoever looks why none are shown: what `/api/doctor` answers.

use std::collections::BTreeMap;

use bytes::Bytes;
use clickhouse::{Client, Row, error::Error};
use footfall_schemas::{
    SiteId,
    site::{OriginPattern, Site},
    time::MINUTE_MS,
    viewer::SiteLedger,
};
use serde::{Deserialize, Serialize};

use crate::{archive::json, view::View};

const HOUR_MS: i64 = 60 * MINUTE_MS;

/// `received` and `accepted` as the ingest nodes that run now have counted since they started; the rest of the last
/// hour. Instants are ms since 1970.
#[derive(Debug, Serialize)]
struct DoctorAnswer<'a> {
    received: u64,
    accepted: u64,
    /// Rows.
    stored: u64,
    /// Visitors connected now.
    connected: u64,
    refused: Vec<Refused>,
    /// Of all events that are rows.
    last_event_at: Option<i64>,
    /// The pages' origins that the site allows.
    origins: Vec<&'a str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Row)]
struct Refused {
    reason: String,
    /// Events, or where that is more what the nodes have counted: not each is kept.
    count: u64,
    /// Null when none was kept in the last hour.
    last_at: Option<i64>,
    /// Of the last: names the field and the fix.
    detail: String,
}

/// What the tables tell.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    stored: u64,
    last_event_at: Option<i64>,
    refused: Vec<Refused>,
}

#[derive(Deserialize, Row)]
struct RowsRow {
    stored: u64,
}

#[derive(Deserialize, Row)]
struct LastRow {
    received_at: i64,
}

/// The part that ClickHouse knows, as JSON for [`answer`].
pub(crate) async fn read(client: &Client, site: &SiteId, now: i64) -> Result<Bytes, Error> {
    let sql = |text: &str| {
        let query = client.query(text).param("site", site.as_str());
        query.param("from", now - HOUR_MS)
    };
    let since = "fromUnixTimestamp64Milli({from:Int64}, 'UTC')";
    let stored = sql(&format!(
        "SELECT count() AS stored FROM events WHERE site = {{site:String}} AND received_at >= {since}"
    ));
    let last =
        sql("SELECT received_at FROM events WHERE site = {site:String} ORDER BY event_time DESC LIMIT 1");
    let refused = sql(&format!(
        "SELECT toString(reason) AS reason, count() AS count, \
         CAST(toUnixTimestamp64Milli(max(received_at)), 'Nullable(Int64)') AS last_at, \
         argMax(detail, received_at) AS detail FROM dead_letters FINAL \
         WHERE site = {{site:String}} AND received_at >= {since} GROUP BY reason ORDER BY reason"
    ));
    let stored = stored.fetch_one::<RowsRow>().await?.stored;
    let last_event_at = last.fetch_optional::<LastRow>().await?.map(|row| row.received_at);
    let refused = refused.fetch_all::<Refused>().await?;
    Ok(json(&Stored { stored, last_event_at, refused }))
}

/// The whole answer: what is stored, and what the site's view knows of its presence.
pub(crate) fn answer(stored: &[u8], view: Option<&View>, site: &Site) -> Bytes {
    let Stored { stored, last_event_at, refused } = serde_json::from_slice(stored).unwrap_or_default();
    let of_nothing = SiteLedger::default();
    let ledger = view.and_then(|view| view.ledger.as_ref()).unwrap_or(&of_nothing);
    json(&DoctorAnswer {
        received: ledger.received,
        accepted: ledger.accepted,
        stored,
        connected: view.and_then(|view| view.online.as_ref()).map_or(0, |online| online.visitors),
        refused: with_ledger(refused, ledger),
        last_event_at,
        origins: site.origins.iter().map(OriginPattern::as_str).collect(),
    })
}

fn with_ledger(kept: Vec<Refused>, ledger: &SiteLedger) -> Vec<Refused> {
    let mut refused: BTreeMap<String, Refused> =
        kept.into_iter().map(|refused| (refused.reason.clone(), refused)).collect();
    for (reason, counted) in ledger.refused.iter().filter(|(_, counted)| **counted > 0) {
        let reason = reason.as_str().to_owned();
        let none = Refused { reason: reason.clone(), count: 0, last_at: None, detail: String::new() };
        let refused = refused.entry(reason).or_insert(none);
        refused.count = refused.count.max(*counted);
    }
    refused.into_values().collect()
}

#[cfg(test)]
mod tests {
    use footfall_schemas::{RejectReason, viewer::Online};
    use serde_json::{Value, json};

    use super::{json as encoded, *};

    #[test]
    fn what_the_nodes_counted_and_what_the_tables_keep_is_one_answer() {
        let site: Site =
            serde_json::from_value(json!({"key": "shop", "origins": ["https://shop.example"]})).unwrap();
        let ledger = SiteLedger {
            received: 9,
            accepted: 5,
            refused: BTreeMap::from([(RejectReason::BadUrl, 3), (RejectReason::TooLarge, 1)]),
            ..SiteLedger::default()
        };
        let online = Online { visitors: 2, ..Online::default() };
        let view = View { ledger: Some(ledger), online: Some(online), ..View::default() };
        let kept = |reason: &str, count| Refused {
            reason: reason.into(),
            count,
            last_at: Some(7),
            detail: "u".into(),
        };
        let stored = Stored {
            stored: 4,
            last_event_at: Some(8),
            refused: vec![kept("bad_url", 2), kept("wrong_origin", 6)],
        };
        let answer = answer(&encoded(&stored), Some(&view), &site);
        let expected = json!({
            "received": 9, "accepted": 5, "stored": 4, "connected": 2, "last_event_at": 8,
            "origins": ["https://shop.example"],
            "refused": [
                {"reason": "bad_url", "count": 3, "last_at": 7, "detail": "u"},
                {"reason": "too_large", "count": 1, "last_at": null, "detail": ""},
                {"reason": "wrong_origin", "count": 6, "last_at": 7, "detail": "u"},
            ],
        });
        assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap(), expected);
    }
}
