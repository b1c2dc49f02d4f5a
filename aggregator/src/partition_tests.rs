//! A partition over a few records: what the sim's random logs meet too seldom or at a scale too small.

use std::collections::BTreeMap;

use footfall_schemas::{
    Dimension, EventId, EventKind, EventRecord, Sequence, SiteId, StreamId, VisitorId, time::MINUTE_MS,
};

use crate::{
    config::Config,
    partition::{Partition, Stored, Tally},
    record::Record,
};

/// A minute's start, ms since 1970.
const NOW: i64 = 1_800_000_000_000;

struct Log {
    partition: Partition,
    offset: i64,
}

impl Log {
    fn new(config: &Config) -> Self {
        Self { partition: Partition::from_the_beginning(0, config.limits()), offset: 0 }
    }

    /// A record that the broker took at `at`.
    fn fold(&mut self, at: i64, events: &[EventRecord]) -> Tally {
        let lines: Vec<String> = events.iter().map(|event| serde_json::to_string(event).unwrap()).collect();
        let value = lines.join("\n");
        let record = Record::parse(0, self.offset, at, value.as_bytes());
        self.offset += 1;
        self.partition.fold(&record, &Stored::new(), true)
    }

    fn pages(&mut self, site: &str, clock: i64) -> (BTreeMap<String, u64>, u64) {
        let windows = self.partition.windows(&SiteId::try_from(site).unwrap(), clock);
        let top = &windows.tops[Dimension::Page as usize].values;
        let error = windows.errors[Dimension::Page as usize];
        (top.iter().map(|(path, views)| (path.to_string(), *views)).collect(), error)
    }
}

fn view(site: &str, number: u32, path: &str, at: i64) -> EventRecord {
    let golden = include_str!("../../schemas/golden/event_record.json");
    EventRecord {
        site: SiteId::try_from(site).unwrap(),
        event_id: EventId::new(StreamId::from_parts(NOW as u64, 1), Sequence::new(number).unwrap()),
        visitor: VisitorId(number.into()),
        kind: EventKind::PageView,
        path: path.into(),
        event_time: at,
        received_at: at,
        payload_hash: 7,
        ..serde_json::from_str(golden).unwrap()
    }
}

#[test]
fn the_first_of_an_id_counts_and_another_payload_under_it_is_a_conflict() {
    let mut log = Log::new(&Config::default());
    let first = view("demo", 1, "/", NOW);
    let other = EventRecord { payload_hash: 8, path: "/other".into(), ..first.clone() };
    let tally = log.fold(NOW, &[first.clone(), first, other]);
    assert_eq!(tally, Tally { rows: 1, duplicates: 2, conflicts: 1, ..Tally::default() });
    assert_eq!(log.pages("demo", NOW).0, BTreeMap::from([("/".into(), 1)]));
}

#[test]
fn a_node_s_clock_cannot_push_the_log_s_and_its_events_happen_when_the_broker_took_them() {
    let mut log = Log::new(&Config::default());
    log.fold(NOW, &[view("demo", 1, "/early", NOW + 26 * 60 * MINUTE_MS)]);
    assert_eq!(log.partition.log_time(), NOW);
    assert_eq!(log.fold(NOW, &[view("demo", 2, "/", NOW)]).late, 0);
    assert_eq!(log.pages("demo", NOW).0, BTreeMap::from([("/".into(), 1), ("/early".into(), 1)]));
    let row = log.partition.close().rows.get(0);
    assert_eq!((row.event_time, row.clock.as_str()), (NOW, "clamped_future"));
    assert_eq!(row.received_at, NOW + 26 * 60 * MINUTE_MS, "what the node said stays");
}

#[test]
fn a_site_with_a_hundred_thousand_pages_narrows_itself_and_its_neighbour_keeps_every_page() {
    let bounds = Config { partition_bytes: 4 << 20, ..Config::default() };
    let mut log = Log::new(&bounds);
    let (mut number, mut most) = (0, 0);
    for minute in 0..20 {
        let at = NOW + minute * MINUTE_MS;
        for _ in 0..50 {
            let mut events = vec![view("small", number + 1, &format!("/page-{}", number % 40), at)];
            for _ in 0..100 {
                number += 1;
                events.push(view("large", number, &format!("/{number}"), at));
                events.push(view("large", number + (1 << 24), "/home", at));
            }
            log.fold(at, &events);
        }
        log.partition.close();
        log.partition.sweep();
        most = most.max(log.partition.size().bytes);
    }
    let clock = NOW + 19 * MINUTE_MS;
    assert!(most <= 4 << 20, "{most} bytes");
    assert_eq!(log.partition.size().narrowed, 1);
    let (small, error) = log.pages("small", clock);
    assert_eq!((small.values().sum::<u64>(), error), (20 * 50, 0));
    let (large, error) = log.pages("large", clock);
    let home = large["/home"];
    assert!(error > 0 && home.abs_diff(number.into()) <= error, "{home} of {number} ± {error}");
    assert!(error < u64::from(number) / 20, "the home page must stand out: ± {error} of {number}");
    let visitors = log.partition.windows(&SiteId::try_from("large").unwrap(), clock).totals;
    let expected = 2 * u64::from(number);
    let away = visitors.visitors.abs_diff(expected);
    assert!(away <= 4 * visitors.visitors_error, "{visitors:?} for {expected}");

    // When it is quiet again, everything is exact again.
    for minute in 60..80 {
        log.fold(
            NOW + minute * MINUTE_MS,
            &[view("large", number + minute as u32, "/", NOW + minute * MINUTE_MS)],
        );
        log.partition.close();
        log.partition.sweep();
    }
    assert_eq!(log.partition.size().narrowed, 0);
    assert_eq!(log.pages("large", NOW + 79 * MINUTE_MS), (BTreeMap::from([("/".into(), 20)]), 0));
}

#[test]
fn a_page_leaves_the_list_with_its_minute() {
    let mut log = Log::new(&Config::default());
    log.fold(NOW, &[view("demo", 1, "/old", NOW)]);
    log.fold(NOW + MINUTE_MS, &[view("demo", 2, "/new", NOW + MINUTE_MS)]);
    let pages = |log: &mut Log, minute: i64| log.pages("demo", NOW + minute * MINUTE_MS).0;
    assert_eq!(pages(&mut log, 29), BTreeMap::from([("/old".into(), 1), ("/new".into(), 1)]));
    assert_eq!(pages(&mut log, 30), BTreeMap::from([("/new".into(), 1)]));
    assert_eq!(pages(&mut log, 31), BTreeMap::new());
}

#[test]
fn a_restored_partition_tells_the_same_windows() {
    let mut log = Log::new(&Config { minute_values: 20, ..Config::default() });
    for number in 1..2_000u32 {
        let at = NOW + i64::from(number) * 300;
        log.fold(at, &[view("demo", number, &format!("/{}", number % 97), at)]);
    }
    log.partition.close();
    log.partition.sweep();
    let state = log.partition.encode();
    let mut restored =
        Partition::decode(0, Config { minute_values: 20, ..Config::default() }.limits(), &state).unwrap();
    let site = SiteId::try_from("demo").unwrap();
    let clock = log.partition.log_time();
    let windows = |partition: &mut Partition| {
        let mut windows = partition.windows(&site, clock);
        windows.tops.iter_mut().for_each(|top| top.values.sort());
        windows
    };
    assert_eq!(windows(&mut restored), windows(&mut log.partition));
}
