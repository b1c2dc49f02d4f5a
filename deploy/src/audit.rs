//! The oracle. With a ledger of `footfall load`, holds it against ClickHouse: lost = acked − stored, duplicated =
//! counted − distinct. Without one, holds ClickHouse against the log ([`log`]).

mod log;
mod records;
mod report;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use clickhouse::{Client, Row};
use footfall_schemas::{EventId, SiteId, StreamId, connect};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use crate::{
    directory::Reader,
    identity::Identity,
    ledger::{Fate, Ledger},
    ready::Ready,
    settings::Settings,
};

pub use report::{LogReport, Outcome, PartitionReport, Repairs};

/// `footfall audit`: replays the log and holds the tables against it; with --ledger, holds that against the tables.
#[derive(Debug, Clone, clap::Args)]
pub struct AuditArgs {
    /// Settings that name Kafka and ClickHouse
    #[arg(long, value_name = "FILE", conflicts_with = "ledger")]
    pub config: Option<PathBuf>,
    /// Data directory of a `footfall standalone` that runs on this machine [default: footfall-data]
    #[arg(long, value_name = "DIR", conflicts_with = "ledger")]
    pub data_dir: Option<PathBuf>,
    /// Mend what differs: insert missing rows, delete wrong ones, count their minutes again
    #[arg(long, conflicts_with = "ledger")]
    pub repair: bool,
    /// Ledger that `footfall load` wrote
    #[arg(long, value_name = "FILE", requires = "clickhouse")]
    pub ledger: Option<PathBuf>,
    /// ClickHouse's HTTP endpoint, for example http://127.0.0.1:8123
    #[arg(long, value_name = "URL", default_value = "", requires = "ledger")]
    pub clickhouse: String,
    #[arg(long, default_value = "footfall_reader")]
    pub user: String,
    #[arg(long, default_value = "", env = "FOOTFALL_CLICKHOUSE_PASSWORD", hide_env_values = true)]
    pub password: String,
    #[arg(long, default_value = "footfall")]
    pub database: String,
    /// Ask again until everything agrees, for at most this long (for example 90s)
    #[arg(long, value_name = "T", default_value = "0s", value_parser = crate::duration::parse_duration)]
    pub wait: Duration,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

const DIRECTORY_WITHIN: Duration = Duration::from_secs(30);

/// What the comparison found. Counts are events.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct AuditReport {
    pub issued: u64,
    pub acked: u64,
    pub refused: u64,
    /// Neither acked nor refused, as far as the client knows.
    pub unacked: u64,
    /// Distinct events of the ledger that are rows.
    pub stored: u64,
    /// Acked, but no row.
    pub lost: u64,
    /// Rows beyond one an event.
    pub duplicated: u64,
    /// Rows whose payload differs from what was issued.
    pub altered: u64,
    /// Rows of the ledger's streams that were never issued.
    pub unknown: u64,
    /// Refused by ingest, and a row nevertheless.
    pub refused_but_stored: u64,
    /// Unacked, and a row: allowed, the ack was lost.
    pub unacked_but_stored: u64,
    /// |rows − rolling counts|, in events and page views, over all minutes that hold the ledger's rows; by the
    /// dimensions that count every event.
    pub rolling_mismatch: u64,
    /// Distinct minutes compared.
    pub minutes: u64,
}

impl AuditReport {
    pub fn is_clean(&self) -> bool {
        let wrong = [self.lost, self.duplicated, self.altered, self.unknown, self.refused_but_stored];
        wrong.iter().all(|count| *count == 0) && self.rolling_mismatch == 0
    }
}

/// A row of `events`, as far as the audit looks.
#[derive(Debug, Clone, Row, Deserialize)]
pub struct StoredEvent {
    #[serde(with = "clickhouse::serde::uuid")]
    pub event_id: Uuid,
    pub payload_hash: u64,
    /// s since 1970.
    pub minute: u32,
}

/// Events and page views of a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MinuteSum {
    pub events: u64,
    pub views: u64,
}

/// What a table says of a site, by minute (s since 1970).
pub type MinuteSums = BTreeMap<u32, MinuteSum>;

/// What ClickHouse holds for a ledger.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    pub rows: Vec<StoredEvent>,
    /// Of the raw table, all events of the site.
    pub raw: MinuteSums,
    /// Of `rolling_counts`, by dimension that counts every event.
    pub rolling: BTreeMap<String, MinuteSums>,
}

/// Dimensions in which each event is counted exactly once.
const FULL_DIMENSIONS: [&str; 2] = ["total", "page"];

/// Pure comparison.
pub fn compare(ledger: &Ledger, stored: &Stored) -> AuditReport {
    let mut report = AuditReport { issued: ledger.events.len() as u64, ..AuditReport::default() };
    let streams: HashSet<StreamId> = ledger.events.keys().map(|id| id.stream).collect();
    let mut copies: HashMap<EventId, u64> = HashMap::with_capacity(ledger.events.len());
    let mut minutes = HashSet::new();
    for row in &stored.rows {
        let Ok(id) = EventId::from_uuid(row.event_id) else { continue };
        match ledger.events.get(&id) {
            Some(issued) => {
                *copies.entry(id).or_default() += 1;
                minutes.insert(row.minute);
                report.altered += u64::from(issued.payload_hash != row.payload_hash);
            }
            None if streams.contains(&id.stream) => report.unknown += 1,
            None => {}
        }
    }
    report.stored = copies.len() as u64;
    report.duplicated = copies.values().map(|count| count - 1).sum();
    for (id, issued) in &ledger.events {
        let is_row = u64::from(copies.contains_key(id));
        match issued.fate {
            Fate::Acked => {
                report.acked += 1;
                report.lost += 1 - is_row;
            }
            Fate::Refused(_) => {
                report.refused += 1;
                report.refused_but_stored += is_row;
            }
            Fate::Unacked => {
                report.unacked += 1;
                report.unacked_but_stored += is_row;
            }
        }
    }
    report.minutes = minutes.len() as u64;
    let none = MinuteSums::new();
    for dimension in FULL_DIMENSIONS {
        let rolling = stored.rolling.get(dimension).unwrap_or(&none);
        for minute in &minutes {
            let raw = stored.raw.get(minute).copied().unwrap_or_default();
            let counted = rolling.get(minute).copied().unwrap_or_default();
            report.rolling_mismatch +=
                raw.events.abs_diff(counted.events) + raw.views.abs_diff(counted.views);
        }
    }
    report
}

/// Reads what ClickHouse holds since the ledger began. Event times reach back at most by the resend window.
pub async fn read_store(client: &Client, ledger: &Ledger) -> anyhow::Result<Stored> {
    const SLACK_MS: i64 = 60_000;
    let since = ledger.started_at - SLACK_MS;
    let rows = client
        .query(
            "SELECT event_id, payload_hash, toUnixTimestamp(toStartOfMinute(event_time)) AS minute FROM events \
             WHERE site = ? AND received_at >= fromUnixTimestamp64Milli(?)",
        )
        .bind(ledger.site.as_str())
        .bind(since)
        .fetch_all::<StoredEvent>()
        .await?;
    let first = rows.iter().map(|row| row.minute).min().unwrap_or(0);
    let mut raw = MinuteSums::new();
    let mut rolling: BTreeMap<String, MinuteSums> = BTreeMap::new();
    for (dimension, minute, events, views) in minute_sums(client, &ledger.site, first).await? {
        let sums = if dimension.is_empty() { &mut raw } else { rolling.entry(dimension).or_default() };
        sums.insert(minute, MinuteSum { events, views });
    }
    Ok(Stored { rows, raw, rolling })
}

/// The raw table (dimension empty) and the rolling counts in one statement, so that both are read close together.
async fn minute_sums(
    client: &Client,
    site: &SiteId,
    first: u32,
) -> anyhow::Result<Vec<(String, u32, u64, u64)>> {
    let sql = "SELECT '' AS dimension, toUnixTimestamp(toStartOfMinute(event_time)) AS minute, count() AS events, \
                      countIf(kind = 'view') AS views \
               FROM events WHERE site = ? AND event_time >= fromUnixTimestamp(?) GROUP BY minute \
               UNION ALL \
               SELECT toString(dimension) AS dimension, toUnixTimestamp(minute) AS minute, sum(events) AS events, \
                      sum(views) AS views \
               FROM rolling_counts FINAL WHERE site = ? AND minute >= fromUnixTimestamp(?) \
                 AND dimension IN ('total', 'page') GROUP BY dimension, minute";
    let query = client.query(sql).bind(site.as_str()).bind(first).bind(site.as_str()).bind(first);
    Ok(query.fetch_all::<(String, u32, u64, u64)>().await?)
}

/// Compares until clean or the wait is over.
pub async fn audit(args: &AuditArgs, ledger: &Path) -> anyhow::Result<AuditReport> {
    let ledger = Ledger::read(ledger)?;
    let settings = connect::ClickHouseSettings {
        url: args.clickhouse.clone(),
        database: args.database.clone(),
        user: args.user.clone(),
        password: args.password.clone(),
    };
    let client = settings.client();
    let deadline = Instant::now() + args.wait;
    loop {
        let outcome = match read_store(&client, &ledger).await {
            Ok(stored) => Ok(compare(&ledger, &stored)),
            Err(error) => Err(error.context(format!("--clickhouse {}: cannot be asked", args.clickhouse))),
        };
        if outcome.as_ref().is_ok_and(AuditReport::is_clean) || Instant::now() >= deadline {
            return outcome;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Runs the command; `Ok(false)` when something is lost, doubled or altered.
pub async fn command(args: AuditArgs) -> anyhow::Result<bool> {
    match &args.ledger {
        Some(ledger) => {
            let report = audit(&args, ledger).await?;
            print(&report, args.json)?;
            Ok(report.is_clean())
        }
        None => {
            let outcome = log::audit(&node(&args).await?).await?;
            print(&outcome, args.json)?;
            Ok(outcome.clean)
        }
    }
}

fn print(report: &(impl Serialize + std::fmt::Display), json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(report).context("a report is plain numbers and text")?);
    } else {
        print!("{report}");
    }
    Ok(())
}

/// What the settings name; where they name nothing, what a running `standalone` brings along.
async fn node(args: &AuditArgs) -> anyhow::Result<log::Node> {
    let mut settings = Settings::load(args.config.as_deref())?;
    let is_apart = !settings.kafka.brokers.is_empty() && !settings.clickhouse.url.is_empty();
    if is_apart && args.data_dir.is_some() {
        bail!("--data-dir: the settings name Kafka and ClickHouse; leave one of them out");
    }
    if !is_apart {
        let data_dir = args.data_dir.as_ref().unwrap_or(&settings.data_dir);
        let ready = Ready::read(data_dir)?;
        let identity = Identity::load_or_create(data_dir)?;
        if settings.kafka.brokers.is_empty() {
            settings.kafka.brokers = ready.kafka;
        }
        if settings.clickhouse.url.is_empty() {
            settings.clickhouse = identity.clickhouse(&ready.clickhouse.url);
        }
    }
    let admin = args.repair.then(|| settings.clickhouse("admin", &settings.clickhouse.admin)).transpose()?;
    let kafka = settings.kafka()?;
    let reader = Reader::spawn(&kafka, watch::channel(settings.declared()).1)?;
    reader.caught_up(DIRECTORY_WITHIN).await?;
    let directory = reader.directory().borrow().clone();
    Ok(log::Node {
        kafka,
        writer: settings.clickhouse("writer", &settings.clickhouse.writer)?,
        admin,
        config: settings.aggregator.clone(),
        directory,
    })
}

impl std::fmt::Display for AuditReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "issued {}, acked {}, refused {}, unacked {}",
            self.issued, self.acked, self.refused, self.unacked
        )?;
        writeln!(f, "stored {} ({} of them unacked)", self.stored, self.unacked_but_stored)?;
        writeln!(
            f,
            "lost {}, duplicated {}, altered {}, unknown {}",
            self.lost, self.duplicated, self.altered, self.unknown
        )?;
        writeln!(f, "rolling counts differ by {} over {} minutes", self.rolling_mismatch, self.minutes)?;
        writeln!(f, "{}", if self.is_clean() { "clean" } else { "NOT clean" })
    }
}

#[cfg(test)]
mod tests {
    use footfall_schemas::Sequence;

    use super::*;
    use crate::ledger::Issued;

    const MINUTE: u32 = 1_800_000_000;

    fn id(seq: u32) -> EventId {
        EventId::new(StreamId::from_parts(1, 2), Sequence::new(seq).unwrap())
    }

    /// Events 1 to 3 acked, 4 refused, 5 unacked.
    fn ledger() -> Ledger {
        let fate = |seq| match seq {
            1..=3 => Fate::Acked,
            4 => Fate::Refused(footfall_schemas::RejectReason::BadUrl),
            _ => Fate::Unacked,
        };
        let events =
            (1..=5).map(|seq| (id(seq), Issued { payload_hash: seq.into(), fate: fate(seq) })).collect();
        Ledger { seed: 1, site: "demo".parse().unwrap(), started_at: 0, events }
    }

    fn row(seq: u32) -> StoredEvent {
        StoredEvent { event_id: id(seq).to_uuid(), payload_hash: seq.into(), minute: MINUTE }
    }

    fn stored(seqs: &[u32]) -> Stored {
        let sums = MinuteSums::from([(MINUTE, MinuteSum { events: seqs.len() as u64, views: 0 })]);
        let rolling = FULL_DIMENSIONS.map(|dimension| (dimension.to_owned(), sums.clone())).into();
        Stored { rows: seqs.iter().map(|seq| row(*seq)).collect(), raw: sums, rolling }
    }

    #[test]
    fn everything_acked_once_is_clean() {
        let report = compare(&ledger(), &stored(&[1, 2, 3]));
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(
            (report.issued, report.acked, report.refused, report.unacked, report.stored),
            (5, 3, 1, 1, 3)
        );
    }

    #[test]
    fn an_event_whose_ack_was_lost_may_be_stored() {
        let report = compare(&ledger(), &stored(&[1, 2, 3, 5]));
        assert!(report.is_clean());
        assert_eq!(report.unacked_but_stored, 1);
    }

    #[test]
    fn a_missing_row_is_lost() {
        let report = compare(&ledger(), &stored(&[1, 3]));
        assert_eq!((report.lost, report.is_clean()), (1, false));
    }

    #[test]
    fn a_doubled_row_is_duplicated() {
        let report = compare(&ledger(), &stored(&[1, 2, 2, 3]));
        assert_eq!((report.duplicated, report.stored, report.is_clean()), (1, 3, false));
    }

    #[test]
    fn an_altered_row_is_told() {
        let mut stored = stored(&[1, 2, 3]);
        stored.rows[1].payload_hash = 99;
        let report = compare(&ledger(), &stored);
        assert_eq!((report.altered, report.is_clean()), (1, false));
    }

    #[test]
    fn a_row_that_nobody_issued_is_unknown_unless_it_is_somebody_elses() {
        let mut stored = stored(&[1, 2, 3]);
        stored.rows.push(row(9));
        assert_eq!(compare(&ledger(), &stored).unknown, 1);
        stored.rows[3].event_id = EventId::new(StreamId::from_parts(7, 7), Sequence::MIN).to_uuid();
        assert_eq!(compare(&ledger(), &stored).unknown, 0);
    }

    #[test]
    fn a_refused_event_must_not_be_stored() {
        let report = compare(&ledger(), &stored(&[1, 2, 3, 4]));
        assert_eq!((report.refused_but_stored, report.is_clean()), (1, false));
    }

    #[test]
    fn rolling_counts_that_differ_from_the_rows_are_told() {
        let mut stored = stored(&[1, 2, 3]);
        stored.rolling.get_mut("page").unwrap().get_mut(&MINUTE).unwrap().events = 2;
        assert_eq!(compare(&ledger(), &stored).rolling_mismatch, 1);
        stored.rolling.clear();
        assert_eq!(compare(&ledger(), &stored).rolling_mismatch, 6);
    }
}
