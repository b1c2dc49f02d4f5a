//! What the aggregator writes into the embedded engine, and how it tells that it could not.
#![allow(clippy::unwrap_used)] // a test may panic

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clickhouse::Client;
use footfall::{
    embedded::clickhouse::{ADMIN, DATABASE, Engine, EngineConfig, WRITER},
    migrate,
};
use footfall_aggregator::bench::{Writer, columns};
use footfall_schemas::{
    connect::ClickHouseSettings,
    rows::{EventRow, RollingRow},
};
use uuid::Uuid;

const GRACE: Duration = Duration::from_secs(10);
const PASSWORD: &str = "password";
/// Rows written through the crate, row by row, and rows written as blocks.
const BY_ROW: i32 = 1;
const BY_BLOCK: i32 = 2;

async fn engine(data_dir: &Path) -> Engine {
    let config = EngineConfig {
        executable: env!("CARGO_BIN_EXE_footfall").into(),
        reader_password: PASSWORD.to_owned(),
        writer_password: PASSWORD.to_owned(),
        admin_password: PASSWORD.to_owned(),
        ..EngineConfig::new(data_dir.to_owned()).unwrap()
    };
    let engine = Engine::start(config).await.unwrap();
    migrate::create_tables(&login(&engine, ADMIN)).await.unwrap();
    engine
}

fn login(engine: &Engine, user: &str) -> ClickHouseSettings {
    ClickHouseSettings {
        url: engine.url().to_owned(),
        database: DATABASE.to_owned(),
        user: user.to_owned(),
        password: PASSWORD.to_owned(),
    }
}

fn event(offset: i64) -> EventRow {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let text = str::to_owned;
    EventRow {
        site: text("shop"),
        event_time: now - 1_234,
        received_at: now,
        event_id: Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff + offset as u128),
        visitor: 0x8899_aabb_ccdd_eeff,
        session: u64::MAX,
        session_start: 1,
        kind: text("view"),
        name: text("name"),
        host: text("www.shop.example"),
        path: text("/a/path"),
        title: text("A title"),
        referrer: text("https://example.com/a"),
        referrer_host: text("example.com"),
        channel: text("referral"),
        utm_source: text("source"),
        utm_medium: text("medium"),
        utm_campaign: text("campaign"),
        utm_term: text("term"),
        utm_content: text("content"),
        country: text("DE"),
        region: text("Berlin"),
        city: text("Berlin-Mitte"),
        language: text("de-DE"),
        time_zone: text("Europe/Berlin"),
        browser: text("Firefox"),
        system: text("Linux"),
        device: text("desktop"),
        screen_width: 2_560,
        engaged_ms: 4_000_000_000,
        scroll_depth: 99,
        page_view: 70_000,
        props: vec![(text("plan"), text("team"))],
        clock: text("told"),
        late: 1,
        payload_hash: 0x0102_0304_0506_0708,
        _topic: text("footfall.events"),
        _partition: BY_ROW,
        _offset: offset,
        _index: 0xabcd,
    }
}

/// `count` events of which each has other texts, in columns and in keys of props.
fn distinct(first: i64, count: i64) -> Vec<EventRow> {
    let distinct = |offset: i64| EventRow {
        name: format!("name {offset}"),
        utm_term: format!("term {}", offset % 300),
        props: vec![
            (format!("key {offset}"), offset.to_string()),
            (format!("k{}", offset % 300), String::new()),
        ],
        ..event(offset)
    };
    (first..first + count).map(distinct).collect()
}

fn cases() -> Vec<(&'static str, Vec<EventRow>)> {
    let text = str::to_owned;
    let empty = EventRow {
        site: String::new(),
        path: String::new(),
        title: String::new(),
        name: String::new(),
        host: String::new(),
        props: Vec::new(),
        ..event(10)
    };
    let unicode = EventRow {
        name: text("größer \u{1F6D2}"),
        path: text("/日本語/\u{0}/'\"\\\n\t"),
        title: text("\u{202E}عربي"),
        props: vec![(text("schlüssel"), text("\u{1F469}\u{200D}\u{1F680}")), (String::new(), String::new())],
        ..event(20)
    };
    let many_keys = EventRow {
        props: (0..400).map(|key| (format!("key {key}"), "x".repeat(key))).collect(),
        path: "/long".repeat(5_000),
        ..event(30)
    };
    let ids = [Uuid::nil(), Uuid::max(), Uuid::from_u128(1), Uuid::from_u128(1 << 64)];
    let ids = (40..).zip(ids).map(|(offset, event_id)| EventRow { event_id, ..event(offset) });
    let least = EventRow {
        event_time: 0,
        received_at: 0,
        visitor: 0,
        session: 0,
        screen_width: u16::MAX,
        payload_hash: u64::MAX,
        _index: 0,
        ..event(50)
    };
    vec![
        ("one row", vec![event(0)]),
        ("empty texts", vec![empty.clone()]),
        ("unicode", vec![unicode.clone()]),
        ("many keys", vec![many_keys.clone()]),
        ("ids", ids.collect()),
        ("the least and the largest", vec![least, EventRow { _offset: i64::MAX, ..event(51) }]),
        (
            "keys in some rows only",
            vec![EventRow { _offset: 60, ..empty }, EventRow { _offset: 61, ..unicode }],
        ),
        ("256 distinct texts", distinct(1_000, 256)),
        ("257 distinct texts", distinct(2_000, 257)),
        ("65536 distinct texts", distinct(100_000, 65_536)),
        ("65537 distinct texts", distinct(200_000, 65_537)),
    ]
}

#[tokio::test]
async fn a_block_is_the_same_rows_as_rows_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path()).await;
    let settings = login(&engine, WRITER);
    let (client, writer) = (settings.client(), Writer::new(&settings));

    for (case, by_row) in cases() {
        let mut insert = client.insert::<EventRow>("events").await.unwrap();
        for row in &by_row {
            insert.write(row).await.unwrap();
        }
        insert.end().await.unwrap();
        let by_block: Vec<_> =
            by_row.iter().map(|row| EventRow { _partition: BY_BLOCK, ..row.clone() }).collect();
        writer.events(case, &by_block).await.unwrap();

        let offsets = (by_row[0]._offset, by_row[by_row.len() - 1]._offset);
        for (partition, written) in [(BY_ROW, by_row), (BY_BLOCK, by_block)] {
            let stored = stored(&client, partition, offsets).await;
            let same = stored.len() == written.len() && stored.iter().zip(&written).all(|(a, b)| a == b);
            assert!(same, "{case}, partition {partition}: {:?}", stored.first());
        }
    }
    engine.shutdown(GRACE).await;
}

async fn stored(client: &Client, partition: i32, (first, last): (i64, i64)) -> Vec<EventRow> {
    let rows = client.query(
        "SELECT ?fields FROM events WHERE _partition = ? AND _offset BETWEEN ? AND ? ORDER BY _offset, _index",
    );
    rows.bind(partition).bind(first).bind(last).fetch_all().await.unwrap()
}

#[tokio::test]
async fn a_block_has_the_types_of_its_table() {
    #[derive(clickhouse::Row, serde::Deserialize)]
    struct Column {
        name: String,
        r#type: String,
    }

    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path()).await;
    let client = login(&engine, ADMIN).client();
    for (table, written) in columns() {
        let columns: Vec<Column> = client
            .query("SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = ?")
            .bind(table)
            .fetch_all()
            .await
            .unwrap();
        for (name, r#type) in written {
            let column = columns.iter().find(|column| column.name == name);
            assert_eq!(column.map(|column| column.r#type.as_str()), Some(r#type), "{table}.{name}");
        }
    }
    engine.shutdown(GRACE).await;
}

#[tokio::test]
async fn counts_come_back_as_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path()).await;
    let settings = login(&engine, WRITER);
    let row = |number: u64| RollingRow {
        site: format!("site {}", number % 3),
        minute: 1_800_000_000 + 60 * number as u32,
        dimension: "page".to_owned(),
        value: format!("/{number}"),
        _partition: 7,
        events: number,
        views: number + 1,
        visitors: number + 2,
        engaged_ms: u64::MAX - number,
        version: number + 4,
    };
    let rows: Vec<_> = (0..400).map(row).collect();
    Writer::new(&settings).counts(&rows).await.unwrap();
    let query = settings.client().query("SELECT ?fields FROM rolling_counts ORDER BY events");
    assert_eq!(query.fetch_all::<RollingRow>().await.unwrap(), rows);
    engine.shutdown(GRACE).await;
}

#[tokio::test]
async fn a_token_seen_before_changes_nothing_and_a_column_added_later_takes_its_default() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path()).await;
    let settings = login(&engine, WRITER);
    let (client, writer) = (settings.client(), Writer::new(&settings));
    let admin = login(&engine, ADMIN).client();
    admin.query("ALTER TABLE events ADD COLUMN later UInt8 DEFAULT 5 AFTER site").execute().await.unwrap();

    writer.events("nothing", &[]).await.unwrap();
    for (token, offset) in [("one", 1), ("one", 2), ("two", 3)] {
        writer.events(token, &[event(offset)]).await.unwrap();
    }
    let rows: Vec<(i64, u8)> =
        client.query("SELECT _offset, later FROM events ORDER BY _offset").fetch_all().await.unwrap();
    assert_eq!(rows, [(1, 5), (3, 5)]);
    engine.shutdown(GRACE).await;
}

#[tokio::test]
async fn a_refusal_is_told_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path()).await;
    let settings = login(&engine, WRITER);
    let failure = async |settings: &ClickHouseSettings| {
        Writer::new(settings).events("token", &[event(1)]).await.unwrap_err()
    };

    let stranger = ClickHouseSettings { password: "wrong".to_owned(), ..settings.clone() };
    let told = failure(&stranger).await;
    assert!(told.starts_with("ClickHouse refuses the login (code 516): check [clickhouse]"), "{told}");

    let admin = login(&engine, ADMIN).client();
    admin.query("ALTER TABLE events DROP COLUMN late").execute().await.unwrap();
    let told = failure(&settings).await;
    assert!(told.starts_with("ClickHouse lacks a column (code 16): run `footfall migrate`"), "{told}");

    admin.query("DROP TABLE events SYNC").execute().await.unwrap();
    let told = failure(&settings).await;
    assert!(told.starts_with("ClickHouse lacks a table (code 60): run `footfall migrate`"), "{told}");

    engine.shutdown(GRACE).await;
    let told = failure(&settings).await;
    assert!(told.starts_with("ClickHouse cannot be reached: "), "{told}");
}
