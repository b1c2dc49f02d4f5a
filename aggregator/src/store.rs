//! ClickHouse, through the crate `clickhouse`, with every setting that matters pinned on the query.

use std::{
    collections::{BTreeSet, HashSet},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use clickhouse::{Client, Compression, Row, RowOwned, RowWrite};
use footfall_schemas::{
    EventId, SiteId,
    connect::ClickHouseSettings,
    rows::{AlertRow, DeadLetterRow, EventRow, RollingRow, SessionRow},
    time::{MINUTE_MS, RESEND_WINDOW_MS},
    topics,
};
use serde::Deserialize;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::{
    alerts::AlertTable,
    config::Config,
    error::StoreError,
    native::{self, Columns},
    partition::{Stored, StoredEvent},
    ports::Store,
    refusal,
    rows::Rows,
};

/// An INSERT is one block: not split, not queued, answered when it is done.
const ONE_BLOCK: [(&str, &str); 8] = [
    ("async_insert", "0"),
    ("wait_end_of_query", "1"),
    ("max_insert_block_size", "4194304"),
    ("min_insert_block_size_rows", "4194304"),
    ("min_insert_block_size_bytes", "0"),
    ("max_insert_threads", "1"),
    ("max_partitions_per_insert_block", "0"),
    ("input_format_parallel_parsing", "0"),
];
const REPEATABLE: (&str, &str) = ("insert_deduplicate", "0");
/// Ids asked for by one query: its text stays far below `max_query_size`.
const LOOK_UP_IDS: usize = 2_000;
const RESEND_DAYS: i64 = RESEND_WINDOW_MS / (24 * 60 * MINUTE_MS);
/// An event is sent again for as long as the resend window is, and the log that is read may be as old as it is kept: what
/// was received before need not be looked at, however large the table is.
const LOOK_UP_DAYS: i64 = 2 * RESEND_DAYS + 2;

pub(crate) struct ClickHouse {
    client: Client,
    /// Shares the connections of the other.
    inserts: Client,
    insert_timeout: Duration,
    query_timeout: Duration,
    /// Makes query ids of this process unique.
    member: String,
    queries: AtomicU64,
}

impl ClickHouse {
    pub(crate) fn new(settings: &ClickHouseSettings, config: &Config, member: &str, started_at: i64) -> Self {
        let client = settings.client();
        let inserts = with_settings(client.clone(), &ONE_BLOCK);
        Self {
            client,
            inserts,
            insert_timeout: Duration::from_millis(config.insert_timeout_ms),
            query_timeout: Duration::from_millis(config.query_timeout_ms),
            member: format!("{member}-{started_at}"),
            queries: AtomicU64::new(0),
        }
    }

    pub(crate) async fn insert_letters(&self, rows: &[DeadLetterRow]) -> Result<(), StoreError> {
        self.insert_by_row("dead_letters", rows, &[REPEATABLE]).await
    }

    /// For what is written seldom: the crate encodes it.
    async fn insert_by_row<T>(
        &self,
        table: &str,
        rows: &[T],
        settings: &[(&str, &str)],
    ) -> Result<(), StoreError>
    where
        T: RowOwned + RowWrite,
    {
        if rows.is_empty() {
            return Ok(());
        }
        let client = with_settings(self.inserts.clone(), settings);
        let insert = async {
            let mut insert = client.insert::<T>(table).await?;
            insert = insert.with_timeouts(Some(self.insert_timeout), Some(self.insert_timeout));
            for row in rows {
                insert.write(row).await?;
            }
            insert.end().await
        };
        self.within(self.insert_timeout, insert).await
    }

    /// Rows that no block on its way can hold: without a token.
    pub(crate) async fn insert_anyway(&self, rows: &[EventRow]) -> Result<(), StoreError> {
        self.insert_rows(&rows.iter().collect(), &[REPEATABLE]).await
    }

    async fn insert_rows(&self, rows: &Rows, settings: &[(&str, &str)]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let columns = Rows::COLUMNS.iter().map(|(name, _)| *name);
        self.insert_block(native::insert("events", columns), rows.encode(), settings).await
    }

    async fn insert<T: Columns>(&self, rows: &[T], settings: &[(&str, &str)]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let columns = native::columns::<T>().map(|(name, _)| name);
        self.insert_block(native::insert(T::TABLE, columns), native::encode(rows), settings).await
    }

    async fn insert_block(
        &self,
        statement: String,
        block: Vec<u8>,
        settings: &[(&str, &str)],
    ) -> Result<(), StoreError> {
        // Measured: packed with lz4 a block costs ClickHouse a tenth more, and this side no less.
        let client = with_settings(self.inserts.clone().with_compression(Compression::None), settings);
        let mut insert = client
            .insert_formatted_with(statement)
            .with_timeouts(Some(self.insert_timeout), Some(self.insert_timeout));
        let insert = async {
            insert.send(block.into()).await?;
            insert.end().await
        };
        self.within(self.insert_timeout, insert).await
    }

    pub(crate) fn query(&self, sql: &str) -> clickhouse::query::Query {
        self.client.query(sql)
    }

    pub(crate) async fn ask<T: RowOwned + clickhouse::RowRead>(
        &self,
        query: clickhouse::query::Query,
    ) -> Result<Vec<T>, StoreError> {
        self.within(self.query_timeout, query.fetch_all()).await
    }

    /// A statement that writes or deletes.
    pub(crate) async fn finish(&self, statement: clickhouse::query::Query) -> Result<(), StoreError> {
        self.within(self.insert_timeout, statement.execute()).await
    }

    /// Every place below `before` at which one of these events is stored, the last first.
    pub(crate) async fn places(
        &self,
        partition: i32,
        events: &[(SiteId, EventId)],
        before: i64,
    ) -> Result<Vec<((SiteId, EventId), StoredEvent)>, StoreError> {
        let mut places = Vec::new();
        for events in events.chunks(LOOK_UP_IDS) {
            let ids: Vec<String> = events.iter().map(|(_, id)| id.to_string()).collect();
            let sites: BTreeSet<&str> = events.iter().map(|(site, _)| site.as_str()).collect();
            let query = self
                .client
                .query(
                    "SELECT toString(site) AS site, event_id, payload_hash, _offset, _index FROM events \
                     WHERE event_id IN ? AND site IN ? AND received_at >= now64(3) - INTERVAL ? DAY \
                     AND event_time >= now64(3) - INTERVAL ? DAY \
                     AND _topic = ? AND _partition = ? AND _offset < ? ORDER BY _offset DESC, _index DESC",
                )
                .bind(ids)
                .bind(sites.into_iter().collect::<Vec<_>>())
                .bind(LOOK_UP_DAYS)
                .bind(LOOK_UP_DAYS + RESEND_DAYS)
                .bind(topics::EVENTS)
                .bind(partition)
                .bind(before);
            for found in self.ask::<Found>(query).await? {
                let site = SiteId::try_from(found.site.as_str()).map_err(|e| StoreError(e.to_string()))?;
                let id = EventId::from_uuid(found.event_id).map_err(|e| StoreError(e.to_string()))?;
                let place = (found._offset, found._index);
                places.push(((site, id), StoredEvent { place, payload_hash: found.payload_hash }));
            }
        }
        Ok(places)
    }

    async fn within<T>(
        &self,
        patience: Duration,
        done: impl Future<Output = clickhouse::error::Result<T>>,
    ) -> Result<T, StoreError> {
        match timeout(patience, done).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(StoreError(refusal::explain(&error))),
            Err(_) => {
                Err(StoreError(format!("ClickHouse did not answer within {} ms", patience.as_millis())))
            }
        }
    }
}

fn with_settings(client: Client, settings: &[(&str, &str)]) -> Client {
    settings.iter().fold(client, |client, (name, value)| client.with_setting(*name, *value))
}

#[derive(Row, Deserialize)]
struct Place {
    _offset: i64,
    _index: u16,
}

#[derive(Row, Deserialize)]
struct Found {
    site: String,
    #[serde(with = "clickhouse::serde::uuid")]
    event_id: Uuid,
    payload_hash: u64,
    _offset: i64,
    _index: u16,
}

impl AlertTable for ClickHouse {
    async fn insert_alert(&self, row: &AlertRow) -> Result<(), StoreError> {
        self.insert_by_row("alerts", std::slice::from_ref(row), &[REPEATABLE]).await
    }
}

impl Store for ClickHouse {
    async fn insert_events(&self, _partition: i32, token: &str, rows: &Rows) -> Result<(), StoreError> {
        let query = self.queries.fetch_add(1, Ordering::Relaxed);
        let query_id = format!("{token}/{}/{query}", self.member);
        let settings = [
            ("query_id", query_id.as_str()),
            ("insert_deduplicate", "1"),
            ("insert_deduplication_token", token),
            ("deduplicate_blocks_in_dependent_materialized_views", "1"),
        ];
        self.insert_rows(rows, &settings).await
    }

    async fn settle(&self, token_prefix: &str) -> Result<(), StoreError> {
        let kill = self
            .client
            .query("KILL QUERY WHERE user = currentUser() AND startsWith(query_id, ?) SYNC")
            .bind(token_prefix);
        self.within(self.query_timeout, kill.execute()).await?;
        loop {
            let running = self
                .client
                .query("SELECT count() FROM system.processes WHERE startsWith(query_id, ?)")
                .bind(token_prefix);
            match self.ask::<u64>(running).await?.first() {
                Some(0) | None => return Ok(()),
                Some(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn present(&self, partition: i32, start: i64, end: i64) -> Result<HashSet<(i64, u16)>, StoreError> {
        let query = self
            .client
            .query(
                "SELECT _offset, _index FROM events \
                 WHERE _topic = ? AND _partition = ? AND _offset >= ? AND _offset < ?",
            )
            .bind(topics::EVENTS)
            .bind(partition)
            .bind(start)
            .bind(end);
        Ok(self.ask::<Place>(query).await?.into_iter().map(|place| (place._offset, place._index)).collect())
    }

    async fn end(&self, partition: i32) -> Result<i64, StoreError> {
        let query = self
            .client
            .query(
                "SELECT if(count() = 0, 0, max(_offset) + 1) FROM events WHERE _topic = ? AND _partition = ?",
            )
            .bind(topics::EVENTS)
            .bind(partition);
        Ok(self.ask::<i64>(query).await?.first().copied().unwrap_or(0))
    }

    async fn look_up(
        &self,
        partition: i32,
        events: &[(SiteId, EventId)],
        before: i64,
    ) -> Result<Stored, StoreError> {
        // The first one stored holds: it comes last.
        Ok(self.places(partition, events, before).await?.into_iter().collect())
    }

    async fn insert_counts(&self, rows: &[RollingRow]) -> Result<(), StoreError> {
        self.insert(rows, &[REPEATABLE]).await
    }

    async fn insert_sessions(&self, rows: &[SessionRow]) -> Result<(), StoreError> {
        self.insert(rows, &[REPEATABLE]).await
    }

    async fn recount(
        &self,
        partition: i32,
        minutes: &[(SiteId, i64)],
        before: i64,
    ) -> Result<(), StoreError> {
        let (Some(first), Some(last)) =
            (minutes.iter().map(|m| m.1).min(), minutes.iter().map(|m| m.1).max())
        else {
            return Ok(());
        };
        let cells: Vec<(&str, i64)> =
            minutes.iter().map(|(site, minute)| (site.as_str(), minute / 1_000)).collect();
        let query = self
            .client
            .query(RECOUNT)
            .bind(partition)
            .bind(before)
            .bind(topics::EVENTS)
            .bind(partition)
            .bind(before)
            .bind(first)
            .bind(last + MINUTE_MS)
            .bind(cells)
            .with_setting("async_insert", "0")
            .with_setting("insert_deduplicate", "0")
            .with_setting("wait_end_of_query", "1");
        self.within(self.insert_timeout, query.execute()).await
    }
}

/// The same cells and measures as `Dimension::value_of` and the minutes in memory.
const RECOUNT: &str = "\
INSERT INTO rolling_counts \
    (site, minute, dimension, value, _partition, events, views, visitors, engaged_ms, version) \
SELECT site, toStartOfMinute(event_time) AS minute_start, cell.1, cell.2, toInt32(?), \
    count(), countIf(kind = 'view'), uniqExact(visitor), sum(engaged_ms), toUInt64(?) \
FROM events \
ARRAY JOIN arrayConcat( \
    [('total', ''), ('page', path)], \
    if(kind = 'custom', [('event', toString(name))], []), \
    if(kind = 'view', arrayFilter(c -> c.2 != '', [ \
        ('referrer', toString(referrer_host)), ('channel', toString(channel)), \
        ('campaign', toString(utm_campaign)), ('country', toString(country)), \
        ('browser', toString(browser)), ('system', toString(system)), ('device', toString(device))]), []) \
) AS cell \
WHERE _topic = ? AND _partition = ? AND _offset < ? \
    AND event_time >= fromUnixTimestamp64Milli(toInt64(?), 'UTC') \
    AND event_time < fromUnixTimestamp64Milli(toInt64(?), 'UTC') \
    AND (toString(site), toInt64(toUnixTimestamp(toStartOfMinute(event_time)))) IN ? \
GROUP BY site, minute_start, cell";

#[cfg(test)]
mod tests {
    use super::*;
    use footfall_schemas::Dimension;

    #[test]
    fn the_recount_knows_every_dimension_of_events() {
        for dimension in Dimension::OF_EVENTS {
            assert!(RECOUNT.contains(&format!("('{}', ", dimension.as_str())), "{dimension:?}");
        }
    }
}
