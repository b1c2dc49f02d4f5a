//! How old an event is when it is seen: on the live topic, and by a SELECT.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

use footfall_schemas::SiteId;

use crate::{
    bench::{process::wait_until, report::table},
    live::Listener,
    produce::{Producer, now_ms},
    stack::{PARTITIONS, Stack},
    start::start,
    traffic::{Packer, Size, Traffic},
};

/// Events wait so long for others, as with ingest.
const LINGER: Duration = Duration::from_millis(5);
/// Between two SELECTs.
const LOOK: Duration = Duration::from_millis(10);
/// Until the rate is steady.
const WARM_UP: Duration = Duration::from_secs(3);
const SEED: u64 = 13;

/// When events were handed to the producer, in order; an event is told apart by its number.
#[derive(Default)]
struct Sent {
    /// By site and partition: each event's time.
    events: HashMap<(SiteId, i32), Vec<Instant>>,
    /// By partition: each record's time. A fresh topic's offsets are its records' numbers.
    records: [Vec<Instant>; PARTITIONS],
}

pub fn run(binary: &Path, scratch: &Path, size: Size, rate: u64, seconds: u64) -> String {
    let stack = start(binary, scratch.join("latency"));
    let aggregator = stack.role("aggregator");
    let sent = Mutex::new(Sent::default());
    let (produced, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let until = Instant::now() + WARM_UP + Duration::from_secs(seconds);
    let from = Instant::now() + WARM_UP;
    let (live, select) = thread::scope(|scope| {
        let live = scope.spawn(|| watch_live(&stack, &sent, &done));
        let select = scope.spawn(|| watch_table(&stack, &sent, &done));
        produce(&stack, size, rate, until, &sent);
        produced.store(true, Ordering::Relaxed);
        let events: u64 = sent.lock().unwrap().events.values().map(|events| events.len() as u64).sum();
        let client = stack.client();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        wait_until("every row is there", || {
            runtime.block_on(client.query("SELECT count() FROM events").fetch_one::<u64>()).unwrap() == events
        });
        // The live topic is told four times a second.
        sleep(Duration::from_secs(2));
        done.store(true, Ordering::Relaxed);
        (live.join().unwrap(), select.join().unwrap())
    });
    drop(aggregator);
    let row = |name: &str, mut ages: Vec<(Instant, Duration)>| {
        ages.retain(|(at, _)| *at >= from);
        let mut ages: Vec<Duration> = ages.into_iter().map(|(_, age)| age).collect();
        ages.sort_unstable();
        let quantile = |share: f64| {
            let at = ((ages.len() - 1) as f64 * share) as usize;
            format!("{:.0}", ages[at].as_secs_f64() * 1_000.0)
        };
        [name.to_owned(), quantile(0.5), quantile(0.99), quantile(1.0)]
    };
    format!(
        "{rate} events a second, received when they are produced, for {seconds} s; records are closed after {} ms. \
         From the call of the producer, in ms:\n\n{}",
        LINGER.as_millis(),
        table(
            ["Seen", "p50", "p99", "Longest"],
            &[row("on the live topic", live), row("by a SELECT", select)]
        )
    )
}

fn produce(stack: &Stack, size: Size, rate: u64, until: Instant, sent: &Mutex<Sent>) {
    let (mut traffic, mut packer) = (Traffic::new(SEED, size), Packer::new(SEED, PARTITIONS));
    let producer = Producer::new(&stack.kafka);
    let began = Instant::now();
    let mut made = 0;
    while Instant::now() < until {
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        let mut records = Vec::new();
        let mut sent = sent.lock().unwrap();
        let now = Instant::now();
        while made < due {
            let event = traffic.event(now_ms());
            records.extend(packer.add(&event));
            let partition =
                footfall_schemas::record::partition_for(&event.site, event.visitor, PARTITIONS as u32);
            sent.events.entry((event.site, partition)).or_default().push(now);
            made += 1;
        }
        records.extend(packer.rest());
        for record in &records {
            sent.records[record.partition as usize].push(now);
        }
        drop(sent);
        records.iter().for_each(|record| producer.send(record));
        sleep(LINGER);
    }
    producer.flush();
}

/// When each event was sent, and its age when it was told.
fn watch_live(stack: &Stack, sent: &Mutex<Sent>, done: &AtomicBool) -> Vec<(Instant, Duration)> {
    let listener = Listener::new(&stack.kafka);
    let mut seen: HashMap<(SiteId, i32), usize> = HashMap::new();
    let mut ages = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let Some(record) = listener.hear() else { continue };
        let Some(totals) = record.state.totals else { continue };
        let now = Instant::now();
        let key = (record.site, record.partition);
        let sent = sent.lock().unwrap();
        let Some(events) = sent.events.get(&key) else { continue };
        let seen = seen.entry(key).or_default();
        ages.extend(events[*seen..totals.stored as usize].iter().map(|at| (*at, now - *at)));
        *seen = totals.stored as usize;
    }
    ages
}

/// When each record was sent, and its age when a SELECT showed it.
fn watch_table(stack: &Stack, sent: &Mutex<Sent>, done: &AtomicBool) -> Vec<(Instant, Duration)> {
    let client = stack.client();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut seen = [0; PARTITIONS];
    let mut ages = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let query = client.query("SELECT _partition, max(_offset) + 1 FROM events GROUP BY _partition");
        let ends: Vec<(i32, i64)> = runtime.block_on(query.fetch_all()).unwrap();
        let now = Instant::now();
        let sent = sent.lock().unwrap();
        for (partition, end) in ends {
            let (records, seen) = (&sent.records[partition as usize], &mut seen[partition as usize]);
            ages.extend(records[*seen..end as usize].iter().map(|at| (*at, now - *at)));
            *seen = end as usize;
        }
        drop(sent);
        sleep(LOOK);
    }
    ages
}
