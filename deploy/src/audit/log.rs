//! Holds the tables against the log: replays it with the aggregator's own code, partition by partition, range by
//! range, and compares; repairs on request.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use footfall_aggregator::{
    Config, StoreError,
    audit::{
        Expected, Place, Replay, RowDifferences, SiteMinute, StoredRow, Tables, compare_rows, differing,
    },
};
use footfall_schemas::{
    connect::{ClickHouseSettings, KafkaSettings},
    directory::Directory,
    rows::EventRow,
    time::{MINUTE_MS, minute_of},
};
use tokio::time::{Instant, sleep};

use super::{
    records::{Log, Reach},
    report::{LogReport, Outcome, PartitionReport, Repairs},
};

/// What differs is asked for again before it is believed: replicas, dead letters and counts may be behind.
const LOOKS: usize = 4;
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// Time whose minutes are asked for at once.
const SPAN_MS: i64 = 6 * 60 * MINUTE_MS;
const PROGRESS: Duration = Duration::from_secs(2);
/// More foreign rows than this, and than a tenth of the right ones, in one range are not deleted: then the log is
/// rather another one than the tables wrong.
const FOREIGN: usize = 100;

/// What is compared with what.
pub(super) struct Node {
    pub(super) kafka: KafkaSettings,
    pub(super) writer: ClickHouseSettings,
    /// Deletes; `None` when nothing is to be repaired.
    pub(super) admin: Option<ClickHouseSettings>,
    pub(super) config: Config,
    pub(super) directory: Arc<Directory>,
}

/// Compares; repairs and compares again when there is an admin to do it.
pub(super) async fn audit(node: &Node) -> anyhow::Result<Outcome> {
    let mut repairs = node.admin.is_some().then(Repairs::default);
    let found = Comparison::new(node)?.run(repairs.as_mut()).await?;
    let after = match &repairs {
        Some(_) if !found.is_clean() => Some(Comparison::new(node)?.run(None).await?),
        _ => None,
    };
    let clean = after.as_ref().unwrap_or(&found).is_clean();
    Ok(Outcome { clean, found, repairs: repairs.filter(|_| after.is_some()), after })
}

struct Comparison<'a> {
    node: &'a Node,
    log: Log,
    tables: Tables,
    report: LogReport,
}

impl<'a> Comparison<'a> {
    fn new(node: &'a Node) -> anyhow::Result<Self> {
        let admin = node.admin.as_ref().unwrap_or(&node.writer);
        let tables = Tables::new(&node.writer, admin, &node.config);
        Ok(Self { node, log: Log::new(&node.kafka)?, tables, report: LogReport::default() })
    }

    async fn run(mut self, mut repairs: Option<&mut Repairs>) -> anyhow::Result<LogReport> {
        for partition in 0..self.log.partitions().await? {
            let report = self.partition(partition, repairs.as_deref_mut()).await?;
            self.report.partitions.push(report);
        }
        Ok(self.report)
    }

    async fn partition(
        &mut self,
        partition: i32,
        mut repairs: Option<&mut Repairs>,
    ) -> anyhow::Result<PartitionReport> {
        let stored_end = self.tables.end(partition).await.with_context(|| self.unreachable())?;
        let reach = self.log.reach(partition).await?;
        let mut report =
            PartitionReport { partition, from: reach.low, to: reach.written, ..PartitionReport::default() };
        report.beyond = stored_end > reach.high;
        if report.beyond {
            self.report.tell(|| {
                format!(
                    "partition {partition}: rows up to offset {stored_end}, the log ends at {}",
                    reach.high
                )
            });
        }
        let mut affected = BTreeSet::new();
        let log_time = self.rows(&mut report, reach, &mut affected, repairs.as_deref_mut()).await?;
        self.minutes(&mut report, log_time, &mut affected).await?;
        if let Some(repairs) = repairs.filter(|_| !affected.is_empty()) {
            let Reach { written, high, .. } = self.log.reach(partition).await?;
            let affected: Vec<SiteMinute> = affected.into_iter().collect();
            self.tables
                .recount(partition, &affected, written, high)
                .await
                .with_context(|| self.unrepaired())?;
            repairs.minutes_recounted += affected.len() as u64;
        }
        Ok(report)
    }

    fn unreachable(&self) -> String {
        format!("clickhouse.url: {} cannot be asked", self.node.writer.url)
    }

    fn unrepaired(&self) -> String {
        format!("clickhouse.url: {} does not take the repair; run it again", self.node.writer.url)
    }

    /// Replays the log; returns received-at (ms) of its newest event.
    async fn rows(
        &mut self,
        report: &mut PartitionReport,
        reach: Reach,
        affected: &mut BTreeSet<SiteMinute>,
        mut repairs: Option<&mut Repairs>,
    ) -> anyhow::Result<i64> {
        let partition = report.partition;
        let mut replay = Replay::new(partition, reach.low, &self.node.config, &self.node.directory);
        let mut batches = self.log.read(partition, reach.low, reach.written);
        let mut told = Instant::now();
        loop {
            let batch = batches.recv().await.transpose()?;
            let end = match &batch {
                Some(batch) => batch.last().map_or(reach.low, |line| line.offset + 1),
                None => reach.written,
            };
            let is_last = batch.is_none();
            replay.fold(&self.tables, batch.unwrap_or_default()).await.with_context(|| self.unreachable())?;
            if replay.is_full() || is_last {
                let expected = replay.take(end);
                let differences = self.range(report, &expected).await?;
                replay.note(&expected, &differences);
                affected.extend(self.affected(partition, &expected, &differences).await?);
                if let Some(repairs) = repairs.as_deref_mut().filter(|_| !differences.is_empty()) {
                    self.repair(report, &expected, &differences, repairs).await?;
                }
                self.dead_letters(report, &expected, repairs.as_deref_mut()).await?;
            }
            if is_last {
                break;
            }
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                eprintln!(
                    "footfall: partition {partition}: {} of {} records",
                    end - reach.low,
                    reach.written - reach.low
                );
            }
        }
        let account = replay.account();
        (report.lines, report.rows) = (account.lines, account.rows);
        (report.duplicates, report.dead) = (account.duplicates, account.dead);
        Ok(replay.log_time())
    }

    async fn stored(&self, partition: i32, expected: &Expected) -> anyhow::Result<Vec<StoredRow>> {
        self.tables.rows(partition, expected.from, expected.to).await.with_context(|| self.unreachable())
    }

    async fn range(
        &mut self,
        report: &mut PartitionReport,
        expected: &Expected,
    ) -> anyhow::Result<RowDifferences> {
        let partition = report.partition;
        let mut differences = RowDifferences::default();
        for look in 0..LOOKS {
            differences = compare_rows(&expected.rows, &self.stored(partition, expected).await?);
            if differences.is_empty() || look + 1 == LOOKS {
                break;
            }
            sleep(BETWEEN_LOOKS).await;
        }
        report.missing += differences.missing.len() as u64;
        report.doubled += differences.spoiled.len() as u64;
        report.foreign += differences.foreign.len() as u64;
        for (what, indexes) in
            [("missing", &differences.missing), ("doubled or another event", &differences.spoiled)]
        {
            for row in indexes.iter().map(|index| &expected.rows[*index]) {
                self.report.tell(|| {
                    let EventRow { site, event_id, _offset, _index, .. } = row;
                    let minute = minute_of(row.event_time) / 1_000;
                    format!("{what}: {partition}/{_offset}/{_index}, event {event_id} of {site} in minute {minute}")
                });
            }
        }
        for (offset, index) in &differences.foreign {
            self.report.tell(|| format!("foreign: {partition}/{offset}/{index}"));
        }
        Ok(differences)
    }

    /// The minutes in which rows that differ are counted, or should be.
    async fn affected(
        &self,
        partition: i32,
        expected: &Expected,
        differences: &RowDifferences,
    ) -> anyhow::Result<Vec<SiteMinute>> {
        if differences.is_empty() {
            return Ok(Vec::new());
        }
        let wrong =
            differences.missing.iter().chain(&differences.spoiled).map(|index| &expected.rows[*index]);
        let places: HashSet<Place> = differences
            .spoiled
            .iter()
            .map(|index| place(&expected.rows[*index]))
            .chain(differences.foreign.iter().copied())
            .collect();
        let stored = self.stored(partition, expected).await?.into_iter();
        let stored = stored.filter(|row| places.contains(&row.place)).map(|row| row.minute);
        Ok(wrong.map(|row| (row.site.clone(), minute_of(row.event_time))).chain(stored).collect())
    }

    /// Deletes first: what stops here is missing, and the next repair inserts it.
    async fn repair(
        &self,
        report: &PartitionReport,
        expected: &Expected,
        differences: &RowDifferences,
        repairs: &mut Repairs,
    ) -> anyhow::Result<()> {
        let partition = report.partition;
        let foreign = differences.foreign.len();
        if report.beyond || (foreign > FOREIGN && foreign * 10 > expected.rows.len()) {
            repairs.refused.push(format!(
                "partition {partition}, offsets {} to {}: {foreign} rows are not of this log, which was rather replaced",
                expected.from.max(0),
                expected.to
            ));
            return Ok(());
        }
        let spoiled = differences.spoiled.iter().map(|index| place(&expected.rows[*index]));
        let places: Vec<Place> = spoiled.chain(differences.foreign.iter().copied()).collect();
        let rows: Vec<EventRow> = differences
            .spoiled
            .iter()
            .chain(&differences.missing)
            .map(|index| expected.rows[*index].clone())
            .collect();
        let done: Result<(), StoreError> = async {
            self.tables.delete(partition, &places).await?;
            self.tables.insert(&rows).await
        }
        .await;
        done.with_context(|| self.unrepaired())?;
        repairs.deleted += places.len() as u64;
        repairs.inserted += rows.len() as u64;
        Ok(())
    }

    async fn dead_letters(
        &mut self,
        report: &mut PartitionReport,
        expected: &Expected,
        repairs: Option<&mut Repairs>,
    ) -> anyhow::Result<()> {
        let partition = report.partition;
        let wanted: HashSet<Place> = expected.dead.iter().map(|(at, _)| (at.offset, at.index)).collect();
        let mut stored = HashSet::new();
        for look in 0..LOOKS {
            let asked = self.tables.dead(partition, expected.from, expected.to).await;
            stored = asked.with_context(|| self.unreachable())?;
            if stored == wanted || look + 1 == LOOKS {
                break;
            }
            sleep(BETWEEN_LOOKS).await;
        }
        let missing: Vec<_> = expected
            .dead
            .iter()
            .filter(|(at, _)| !stored.contains(&(at.offset, at.index)))
            .cloned()
            .collect();
        report.dead_missing += missing.len() as u64;
        report.dead_foreign += stored.difference(&wanted).count() as u64;
        for (at, letter) in &missing {
            self.report.tell(|| {
                format!("dead letter missing: {partition}/{}/{}: {}", at.offset, at.index, letter.detail)
            });
        }
        if let Some(repairs) = repairs.filter(|_| !missing.is_empty()) {
            self.tables.insert_dead(&missing).await.with_context(|| self.unrepaired())?;
            repairs.letters_inserted += missing.len() as u64;
        }
        Ok(())
    }

    /// Holds the rolling counts against the rows; those that differ become affected.
    async fn minutes(
        &mut self,
        report: &mut PartitionReport,
        log_time: i64,
        affected: &mut BTreeSet<SiteMinute>,
    ) -> anyhow::Result<()> {
        let partition = report.partition;
        for from in self.tables.spans(partition, SPAN_MS).await.with_context(|| self.unreachable())? {
            let to = from + SPAN_MS;
            let mut looked = Looked::default();
            for look in 0..LOOKS {
                looked = self.look(partition, from, to, log_time).await?;
                if looked.differ.is_empty() || look + 1 == LOOKS {
                    break;
                }
                sleep(BETWEEN_LOOKS).await;
            }
            report.minutes += looked.compared;
            report.minutes_open += looked.open;
            report.minutes_differ += looked.differ.len() as u64;
            for (_, example) in &looked.differ {
                self.report.tell(|| example.clone());
            }
            affected.extend(looked.differ.into_iter().map(|(at, _)| at));
        }
        Ok(())
    }

    async fn look(&self, partition: i32, from: i64, to: i64, log_time: i64) -> anyhow::Result<Looked> {
        let counted = self.tables.counted(partition, from, to).await.with_context(|| self.unreachable())?;
        let reach = self.log.reach(partition).await?;
        let raw =
            self.tables.raw(partition, from, to, reach.written).await.with_context(|| self.unreachable())?;
        let mut looked = Looked::default();
        let closed = log_time - MINUTE_MS - self.node.config.lateness_ms;
        let minutes: BTreeSet<&SiteMinute> = counted.keys().chain(raw.keys()).collect();
        for at in minutes {
            let counted = counted.get(at).copied().unwrap_or_default();
            let is_ahead = (reach.written + 1..=reach.high).contains(&counted.version);
            if is_ahead || (!reach.at_rest && at.1 > closed) {
                looked.open += 1;
                continue;
            }
            looked.compared += 1;
            let rows = raw.get(at).copied().unwrap_or_default();
            if let Some((dimension, rows, counted)) = differing(&rows, &counted.sums).first() {
                let example = format!(
                    "rolling counts: {} in minute {}, {}: rows say {} events, {} views, {} visitors; counted {}, {}, {}",
                    at.0,
                    at.1 / 1_000,
                    dimension.as_str(),
                    rows.events,
                    rows.views,
                    rows.visitors,
                    counted.events,
                    counted.views,
                    counted.visitors
                );
                looked.differ.push((at.clone(), example));
            }
        }
        Ok(looked)
    }
}

/// What a look at some minutes found.
#[derive(Default)]
struct Looked {
    compared: u64,
    open: u64,
    differ: Vec<(SiteMinute, String)>,
}

fn place(row: &EventRow) -> Place {
    (row._offset, row._index)
}
