//! Exactly once on real parts: a broker, an engine, an ingest node and aggregators, each a process of its own, under a
//! steady load and faults; then `footfall audit` holds the ledger against the tables.
//!
//! `FOOTFALL_SEEDS=a..b` chooses the seeds of the random faults. With `FOOTFALL_TEST_KAFKA` the broker is Apache Kafka.
#![allow(clippy::unwrap_used)] // a test may panic

mod common;

#[path = "aggregator_faults/boundary.rs"]
mod boundary;
#[path = "aggregator_faults/brokers.rs"]
mod brokers;
#[path = "aggregator_faults/cluster.rs"]
mod cluster;
#[path = "aggregator_faults/live.rs"]
mod live;
#[path = "aggregator_faults/nemesis.rs"]
mod nemesis;
#[path = "aggregator_faults/proxy.rs"]
mod proxy;
#[path = "aggregator_faults/scaling.rs"]
mod scaling;

/// As many as a test run has time for.
const SEEDS: std::ops::Range<u64> = 1..3;

fn seeds() -> std::ops::Range<u64> {
    let Some(text) = std::env::var("FOOTFALL_SEEDS").ok().filter(|text| !text.is_empty()) else {
        return SEEDS;
    };
    let (first, end) = text.split_once("..").expect("FOOTFALL_SEEDS=a..b");
    first.parse().unwrap()..end.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_every_acked_event_is_counted_once() {
    for seed in seeds() {
        nemesis::Nemesis::run(seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_one_member_to_three_and_back_changes_no_total() {
    scaling::one_to_three_to_one(seeds().start).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boundary_outlives_its_writer_and_its_broker() {
    boundary::outlives_its_writer_and_its_broker(seeds().start).await;
}
