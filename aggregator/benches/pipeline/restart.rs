//! How long after a kill the live windows are told again.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::{Duration, Instant},
};

use footfall_schemas::{SiteId, live::Totals, time::MINUTE_MS, topics};
use rdkafka::{Message as _, Offset, consumer::Consumer as _};

use crate::{
    bench::{process::wait_until, report::table},
    live::{Listener, consumer},
    produce::{self, now_ms},
    stack::PARTITIONS,
    start::start,
    traffic::Size,
};

/// As far apart as snapshots are: what is read again at most.
const TAIL_SECONDS: u64 = 30;
const AT_MOST: Duration = Duration::from_secs(1_800);

/// What is told of each site and partition, as far as it does not change by itself.
type Told = HashMap<(SiteId, i32), (u64, u64, u64)>;

pub fn run(binary: &Path, scratch: &Path, size: Size, rate: u64, minutes: u64) -> String {
    let stack = start(binary, scratch.join("restart"));
    let aggregator = stack.role("aggregator");
    let listener = Listener::new(&stack.kafka);
    // The first one that an owner keeps is of before its first block.
    let kept = || (0..PARTITIONS as i32).all(|partition| snapshot_bytes(&stack.kafka, partition) > 64 << 10);
    let (past, tail) = (rate * minutes * 60, rate * TAIL_SECONDS);
    let mut told = Told::new();
    let mut expected = 0;
    let end = now_ms();
    let tail_began = end - (TAIL_SECONDS * 1_000) as i64;
    for (events, window) in
        [(past, (tail_began - minutes as i64 * MINUTE_MS, tail_began)), (tail, (tail_began, end))]
    {
        produce::log(&stack.kafka, size, events, window);
        expected += events;
        hear_until(&listener, &mut told, expected);
        wait_until("each partition has a snapshot", kept);
    }
    drop(aggregator);

    let killed = now_ms() as u64;
    let mut again = Told::new();
    let aggregator = stack.role("aggregator");
    let (mut first_epoch, mut last_epoch) = (u64::MAX, 0);
    let mut same_at = 0;
    let deadline = Instant::now() + AT_MOST;
    while again != told {
        assert!(Instant::now() < deadline, "the totals do not come back: {} of {}", again.len(), told.len());
        let Some(record) = listener.hear().filter(|record| record.epoch > killed) else { continue };
        first_epoch = first_epoch.min(record.epoch);
        last_epoch = last_epoch.max(record.epoch);
        same_at = now_ms() as u64;
        let key = (record.site, record.partition);
        // Changes say nothing to whoever has not heard the whole.
        if let Some(totals) = record.state.totals.filter(|_| record.full || again.contains_key(&key)) {
            again.insert(key, fixed(totals));
        }
    }
    drop(aggregator);
    let snapshot: usize =
        (0..PARTITIONS as i32).map(|partition| snapshot_bytes(&stack.kafka, partition)).sum();
    let seconds = |from: u64, to: u64| format!("{:.2}", (to.saturating_sub(from)) as f64 / 1_000.0);
    format!(
        "{minutes} minutes of log at {rate} events a second are counted and a snapshot is kept; then {TAIL_SECONDS} s \
         more of it, and kill -9.\n\n{}",
        table(
            ["", ""],
            &[
                ["Events counted before".to_owned(), expected.to_string()],
                [
                    "From assignment until the live topic has told every total of before, s".to_owned(),
                    seconds(first_epoch, same_at)
                ],
                ["From the start of the process to assignment, s".to_owned(), seconds(killed, last_epoch)],
                ["Snapshot, all partitions, bytes".to_owned(), snapshot.to_string()],
            ]
        )
    )
}

fn fixed(totals: Totals) -> (u64, u64, u64) {
    (totals.stored, totals.duplicate, totals.poison)
}

fn hear_until(listener: &Listener, told: &mut Told, stored: u64) {
    let deadline = Instant::now() + AT_MOST;
    while told.values().map(|(stored, _, _)| stored).sum::<u64>() < stored {
        assert!(Instant::now() < deadline, "not everything is counted");
        let Some(record) = listener.hear() else { continue };
        if let Some(totals) = record.state.totals {
            told.insert((record.site, record.partition), fixed(totals));
        }
    }
}

/// The larger of a partition's two snapshots.
fn snapshot_bytes(brokers: &str, partition: i32) -> usize {
    let consumer = consumer(brokers, topics::SNAPSHOTS, partition, Offset::Beginning);
    let (_, high) = consumer.fetch_watermarks(topics::SNAPSHOTS, partition, Duration::from_secs(10)).unwrap();
    let mut newest = BTreeMap::new();
    let mut next = 0;
    while next < high {
        let Some(message) = consumer.poll(Duration::from_secs(10)) else { break };
        let message = message.unwrap();
        let key = String::from_utf8_lossy(message.key().unwrap()).into_owned();
        newest.insert(key, message.payload().map_or(0, <[u8]>::len));
        next = message.offset() + 1;
    }
    let slot = |name: &str| {
        newest.iter().filter(|(key, _)| key.starts_with(name)).map(|(_, bytes)| *bytes).sum::<usize>()
    };
    slot("a/").max(slot("b/"))
}
