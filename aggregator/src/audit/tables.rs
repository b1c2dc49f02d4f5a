//! What the audit asks of the tables. Every query is bounded: by a range of offsets, which the skip index on `_offset`
//! serves, or by a range of minutes, which the tables' order serves; one thread each.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt,
};

use clickhouse::{Client, Row, query::Query};
use footfall_schemas::{
    EventId, SiteId,
    connect::ClickHouseSettings,
    rows::{Coordinates, DeadLetterRow, EventRow},
    time::MINUTE_MS,
    topics,
};
use serde::Deserialize;
use uuid::Uuid;

use super::{MinuteSums, Place, SiteMinute, Sums};
use crate::{block::Letter, config::Config, error::StoreError, ports::Store, store::ClickHouse};

/// Places named by one statement: its text stays far below `max_query_size`.
const PLACES: usize = 5_000;
/// Minutes named by one statement.
const MINUTES: usize = 500;

/// Offsets `from..to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: i64,
    pub(crate) to: i64,
}

/// Rows stored of a range of offsets, and their distinct places.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Booked {
    pub rows: u64,
    pub distinct: u64,
}

/// A row of `events`, as far as the audit looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    pub place: Place,
    pub event_id: Uuid,
    /// Where it is counted.
    pub minute: SiteMinute,
}

/// What `rolling_counts` says of a minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    pub sums: MinuteSums,
    /// The newest of its cells.
    pub version: i64,
}

/// The questions of the owner of a partition.
pub(crate) trait Sample: Send + Sync + 'static {
    fn booked(&self, partition: i32, span: Span) -> impl Future<Output = Result<Booked, StoreError>> + Send;
    /// Distinct places of the events topic among the dead letters.
    fn dead(&self, partition: i32, span: Span) -> impl Future<Output = Result<u64, StoreError>> + Send;
    /// Sums of these minutes over the rows of offsets below `before`.
    fn raw(
        &self,
        partition: i32,
        minutes: &[SiteMinute],
        before: i64,
    ) -> impl Future<Output = Result<BTreeMap<SiteMinute, MinuteSums>, StoreError>> + Send;
    fn counted(
        &self,
        partition: i32,
        minutes: &[SiteMinute],
    ) -> impl Future<Output = Result<BTreeMap<SiteMinute, Counted>, StoreError>> + Send;
}

impl Sample for ClickHouse {
    async fn booked(&self, partition: i32, span: Span) -> Result<Booked, StoreError> {
        let query = self
            .bounded("SELECT count(), uniqExact(_offset, _index) FROM events WHERE _topic = ? AND _partition = ? AND _offset >= ? AND _offset < ?")
            .bind(topics::EVENTS)
            .bind(partition)
            .bind(span.from)
            .bind(span.to);
        let (rows, distinct) = self.ask::<(u64, u64)>(query).await?.first().copied().unwrap_or_default();
        Ok(Booked { rows, distinct })
    }

    async fn dead(&self, partition: i32, span: Span) -> Result<u64, StoreError> {
        // Places are part of the key, so counting them apart is what FINAL would count.
        let query = self
            .bounded("SELECT uniqExact(_offset, _index) FROM dead_letters WHERE _topic = ? AND _partition = ? AND _offset >= ? AND _offset < ?")
            .bind(topics::EVENTS)
            .bind(partition)
            .bind(span.from)
            .bind(span.to);
        Ok(self.ask::<u64>(query).await?.first().copied().unwrap_or(0))
    }

    async fn raw(
        &self,
        partition: i32,
        minutes: &[SiteMinute],
        before: i64,
    ) -> Result<BTreeMap<SiteMinute, MinuteSums>, StoreError> {
        let mut sums = BTreeMap::new();
        for minutes in minutes.chunks(MINUTES) {
            sums.extend(self.raw_sums(partition, span_of(minutes), Some(minutes), before).await?);
        }
        Ok(sums)
    }

    async fn counted(
        &self,
        partition: i32,
        minutes: &[SiteMinute],
    ) -> Result<BTreeMap<SiteMinute, Counted>, StoreError> {
        let mut counted = BTreeMap::new();
        for minutes in minutes.chunks(MINUTES) {
            counted.extend(self.counted_sums(partition, span_of(minutes), Some(minutes)).await?);
        }
        Ok(counted)
    }
}

/// From the first minute to the end of the last (ms).
fn span_of(minutes: &[SiteMinute]) -> Span {
    let from = minutes.iter().map(|(_, minute)| *minute).min().unwrap_or(0);
    let last = minutes.iter().map(|(_, minute)| *minute).max().unwrap_or(0);
    Span { from, to: last + MINUTE_MS }
}

impl ClickHouse {
    fn bounded(&self, sql: &str) -> Query {
        self.query(sql).with_setting("max_threads", "1")
    }

    async fn raw_sums(
        &self,
        partition: i32,
        time: Span,
        only: Option<&[SiteMinute]>,
        before: i64,
    ) -> Result<BTreeMap<SiteMinute, MinuteSums>, StoreError> {
        let start = "toInt64(toUnixTimestamp(toStartOfMinute(event_time))) * 1000";
        let sql = format!(
            "SELECT toString(site), {start}, count(), countIf(kind = 'view'), uniqExact(visitor), \
                uniqExact(path, visitor) \
             FROM events WHERE _topic = ? AND _partition = ? AND _offset < ? \
                AND event_time >= fromUnixTimestamp64Milli(toInt64(?), 'UTC') \
                AND event_time < fromUnixTimestamp64Milli(toInt64(?), 'UTC') {} \
             GROUP BY 1, 2",
            among(only, start)
        );
        let query = self
            .bounded(&sql)
            .bind(topics::EVENTS)
            .bind(partition)
            .bind(before)
            .bind(time.from)
            .bind(time.to);
        let rows = self.ask::<(String, i64, u64, u64, u64, u64)>(listed(query, only)).await?;
        Ok(rows
            .into_iter()
            .map(|(site, minute, events, views, visitors, page_visitors)| {
                let total = Sums { events, views, visitors };
                ((site, minute), MinuteSums { total, page: Sums { visitors: page_visitors, ..total } })
            })
            .collect())
    }

    async fn counted_sums(
        &self,
        partition: i32,
        time: Span,
        only: Option<&[SiteMinute]>,
    ) -> Result<BTreeMap<SiteMinute, Counted>, StoreError> {
        let start = "toInt64(toUnixTimestamp(minute)) * 1000";
        let sql = format!(
            "SELECT toString(site), {start}, toString(dimension), sum(events), sum(views), sum(visitors), \
                toInt64(max(version)) \
             FROM rolling_counts FINAL WHERE _partition = ? AND dimension IN ('total', 'page') \
                AND minute >= fromUnixTimestamp(toInt64(?)) AND minute < fromUnixTimestamp(toInt64(?)) {} \
             GROUP BY 1, 2, 3",
            among(only, start)
        );
        let query = self.bounded(&sql).bind(partition).bind(time.from / 1_000).bind(time.to / 1_000);
        let rows = self.ask::<(String, i64, String, u64, u64, u64, i64)>(listed(query, only)).await?;
        let mut minutes: BTreeMap<SiteMinute, Counted> = BTreeMap::new();
        for (site, minute, dimension, events, views, visitors, version) in rows {
            let counted = minutes.entry((site, minute)).or_default();
            let sums = Sums { events, views, visitors };
            if dimension == "total" {
                counted.sums.total = sums;
            } else {
                counted.sums.page = sums;
            }
            counted.version = counted.version.max(version);
        }
        Ok(minutes)
    }
}

fn among(only: Option<&[SiteMinute]>, start: &str) -> String {
    // The sites by themselves, too: the tables are ordered by them.
    only.map(|_| format!("AND site IN ? AND (toString(site), {start}) IN ?")).unwrap_or_default()
}

fn listed(query: Query, only: Option<&[SiteMinute]>) -> Query {
    let Some(minutes) = only else { return query };
    let sites: BTreeSet<&str> = minutes.iter().map(|(site, _)| site.as_str()).collect();
    query.bind(sites.into_iter().collect::<Vec<_>>()).bind(minutes)
}

/// ClickHouse, as `footfall audit` uses it: reads and inserts as the writer, deletes as the admin.
pub struct Tables {
    writer: ClickHouse,
    admin: Client,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables").finish_non_exhaustive()
    }
}

impl Tables {
    pub fn new(writer: &ClickHouseSettings, admin: &ClickHouseSettings, config: &Config) -> Self {
        Self { writer: ClickHouse::new(writer, config, "audit", 0), admin: admin.client() }
    }

    /// The rows stored of offsets `from..to`.
    ///
    /// # Errors
    /// ClickHouse does not answer; so for all methods.
    pub async fn rows(&self, partition: i32, from: i64, to: i64) -> Result<Vec<StoredRow>, StoreError> {
        let query = self
            .writer
            .bounded(
                "SELECT _offset, _index, event_id, toString(site) AS site_key, \
                    toInt64(toUnixTimestamp(toStartOfMinute(event_time))) * 1000 AS minute_ms \
                 FROM events WHERE _topic = ? AND _partition = ? AND _offset >= ? AND _offset < ?",
            )
            .bind(topics::EVENTS)
            .bind(partition)
            .bind(from)
            .bind(to);
        let rows = self.writer.ask::<Found>(query).await?;
        Ok(rows
            .into_iter()
            .map(|row| StoredRow {
                place: (row._offset, row._index),
                event_id: row.event_id,
                minute: (row.site_key, row.minute_ms),
            })
            .collect())
    }

    /// Offset after the last row stored of the partition; 0 without one.
    pub async fn end(&self, partition: i32) -> Result<i64, StoreError> {
        Store::end(&self.writer, partition).await
    }

    /// Distinct places of the events topic among the dead letters of `from..to`.
    pub async fn dead(&self, partition: i32, from: i64, to: i64) -> Result<HashSet<Place>, StoreError> {
        let query = self
            .writer
            .bounded("SELECT _offset, _index FROM dead_letters WHERE _topic = ? AND _partition = ? AND _offset >= ? AND _offset < ?")
            .bind(topics::EVENTS)
            .bind(partition)
            .bind(from)
            .bind(to);
        Ok(self.writer.ask::<Place>(query).await?.into_iter().collect())
    }

    /// Starts (ms) of the spans of `every_ms` in which the partition has rows or rolling counts.
    pub async fn spans(&self, partition: i32, every_ms: i64) -> Result<BTreeSet<i64>, StoreError> {
        let rows = self
            .writer
            .bounded(
                "SELECT DISTINCT intDiv(toUnixTimestamp64Milli(event_time), ?) FROM events \
                 WHERE _topic = ? AND _partition = ?",
            )
            .bind(every_ms)
            .bind(topics::EVENTS)
            .bind(partition);
        let counts = self
            .writer
            .bounded(
                "SELECT DISTINCT intDiv(toInt64(toUnixTimestamp(minute)) * 1000, ?) FROM rolling_counts \
                 WHERE _partition = ?",
            )
            .bind(every_ms)
            .bind(partition);
        let mut spans = BTreeSet::new();
        for query in [rows, counts] {
            spans.extend(self.writer.ask::<i64>(query).await?.into_iter().map(|span| span * every_ms));
        }
        Ok(spans)
    }

    /// Sums of the minutes of `from..to` (ms), over the rows of offsets below `before`.
    pub async fn raw(
        &self,
        partition: i32,
        from: i64,
        to: i64,
        before: i64,
    ) -> Result<BTreeMap<SiteMinute, MinuteSums>, StoreError> {
        self.writer.raw_sums(partition, Span { from, to }, None, before).await
    }

    /// What `rolling_counts` says of the minutes of `from..to` (ms).
    pub async fn counted(
        &self,
        partition: i32,
        from: i64,
        to: i64,
    ) -> Result<BTreeMap<SiteMinute, Counted>, StoreError> {
        self.writer.counted_sums(partition, Span { from, to }, None).await
    }

    /// Every place below `before` at which one of these events is stored.
    pub(super) async fn places(
        &self,
        partition: i32,
        events: &[(SiteId, EventId)],
        before: i64,
    ) -> Result<Vec<((SiteId, EventId), Place)>, StoreError> {
        let found = self.writer.places(partition, events, before).await?;
        Ok(found.into_iter().map(|(event, stored)| (event, stored.place)).collect())
    }

    /// Inserts rows as they are: without a token, so only rows that no block on its way can hold.
    pub async fn insert(&self, rows: &[EventRow]) -> Result<(), StoreError> {
        self.writer.insert_anyway(rows).await
    }

    pub async fn insert_dead(&self, letters: &[(Coordinates, DeadLetterRow)]) -> Result<(), StoreError> {
        let rows: Vec<DeadLetterRow> = letters.iter().map(|(_, row)| row.clone()).collect();
        self.writer.insert_letters(&rows).await
    }

    /// Deletes every row at these places, as the admin.
    pub async fn delete(&self, partition: i32, places: &[Place]) -> Result<(), StoreError> {
        for places in places.chunks(PLACES) {
            let first = places.iter().map(|(offset, _)| *offset).min().unwrap_or(0);
            let last = places.iter().map(|(offset, _)| *offset).max().unwrap_or(0);
            let delete = self
                .admin
                .query(
                    "DELETE FROM events WHERE _topic = ? AND _partition = ? AND _offset >= ? AND _offset <= ? \
                     AND (_offset, _index) IN ?",
                )
                .bind(topics::EVENTS)
                .bind(partition)
                .bind(first)
                .bind(last)
                .bind(places);
            self.writer.finish(delete).await?;
        }
        Ok(())
    }

    /// Counts these minutes again from the rows of offsets below `before`. Cells whose rows are gone go, too; cells that
    /// a version of `before..=end` wrote stay, for they know of later rows. `end`: of the log; a version beyond it is
    /// nobody's.
    pub async fn recount(
        &self,
        partition: i32,
        minutes: &[SiteMinute],
        before: i64,
        end: i64,
    ) -> Result<(), StoreError> {
        for minutes in minutes.chunks(MINUTES) {
            let Span { from, to } = span_of(minutes);
            let cells: Vec<(&str, i64)> =
                minutes.iter().map(|(site, minute)| (site.as_str(), minute / 1_000)).collect();
            let delete = self
                .admin
                .query(
                    "DELETE FROM rolling_counts WHERE _partition = ? AND minute >= fromUnixTimestamp(toInt64(?)) \
                     AND minute < fromUnixTimestamp(toInt64(?)) \
                     AND (toString(site), toInt64(toUnixTimestamp(minute))) IN ? \
                     AND (version <= ? OR version > ?)",
                )
                .bind(partition)
                .bind(from / 1_000)
                .bind(to / 1_000)
                .bind(cells)
                .bind(before)
                .bind(end);
            self.writer.finish(delete).await?;
            let sites: Vec<(SiteId, i64)> = minutes
                .iter()
                .filter_map(|(site, minute)| Some((SiteId::try_from(site.as_str()).ok()?, *minute)))
                .collect();
            Store::recount(&self.writer, partition, &sites, before).await?;
        }
        Ok(())
    }
}

/// A dead letter's row, at its place.
pub(super) fn letter_row(Letter { at, letter }: Letter) -> (Coordinates, DeadLetterRow) {
    (at, DeadLetterRow::new(letter, topics::EVENTS, at))
}

#[derive(Row, Deserialize)]
struct Found {
    _offset: i64,
    _index: u16,
    #[serde(with = "clickhouse::serde::uuid")]
    event_id: Uuid,
    site_key: String,
    minute_ms: i64,
}
