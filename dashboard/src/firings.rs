//! The alerts of a site that fired: what `/api/firings` answers.

use bytes::Bytes;
use clickhouse::{Client, error::Error};
use footfall_schemas::{SiteId, alert::Alert, rows::AlertRow};
use serde::Serialize;

use crate::archive::json;

/// Most that are told at once.
pub(crate) const MAX_FIRINGS: u32 = 500;
pub(crate) const FIRINGS: u32 = 50;

#[derive(Serialize)]
struct FiringsAnswer {
    /// Newest first.
    firings: Vec<Alert>,
}

pub(crate) async fn read(client: &Client, site: &SiteId, limit: u32) -> Result<Bytes, Error> {
    let rows = client.query(
        "SELECT ?fields FROM alerts FINAL WHERE site = {site:String} ORDER BY opened_at DESC, rule LIMIT {limit:UInt32}",
    );
    let rows = rows.param("site", site.as_str()).param("limit", limit).fetch_all::<AlertRow>().await?;
    Ok(json(&FiringsAnswer { firings: rows.into_iter().filter_map(AlertRow::alert).collect() }))
}
