//! Kafka is gone: bounded memory, then the disk, then a refusal; and afterwards everything is there, in order.
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    time::Duration,
};

use footfall_ingest::{Config, config::SpoolAck, spool};
use footfall_schemas::{EventId, refusal::RetryReason, tracker::ServerFrame};
use serde_json::json;
use support::*;
use tempfile::TempDir;

fn spooling(directory: &TempDir, ack: SpoolAck) -> Config {
    let mut config = Config::default();
    config.spool.path = Some(directory.path().to_owned());
    config.spool.after_ms = 200;
    config.spool.ack = ack;
    config
}

fn segments(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory.join("0")) else { return Vec::new() };
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|found| found == extension));
    found.sort();
    found
}

/// Records that lie in the spool.
fn spooled(directory: &TempDir) -> usize {
    segments(directory.path(), "spool")
        .iter()
        .map(|path| spool::frames(&std::fs::read(path).unwrap_or_default()).count())
        .sum()
}

/// Kafka goes, and one batch that was sent before anybody noticed hangs on its way.
async fn kafka_goes(kafka: &Kafka, ingest: &Ingest, tracker: &mut Tracker) {
    tracker.send(&batch(stream(1), 1, &[view("/")])).await;
    tracker.ack().await;
    kafka.cluster.broker_down(-1).unwrap();
    tracker.send(&batch(stream(1), 2, &[view("/")])).await;
    eventually("nothing arrives any more", async || ingest.get("/readyz").await.body != "ready\n").await;
}

fn in_order(ids: &[EventId]) {
    let mut last: HashMap<_, u32> = HashMap::new();
    for id in ids {
        let before = last.insert(id.stream, id.sequence.get()).unwrap_or_default();
        assert!(id.sequence.get() > before, "{id} after {before}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_outage_is_no_nack_and_every_ack_comes_from_kafka() {
    let (kafka, directory) = (Kafka::start(), TempDir::new().unwrap());
    let ingest = Ingest::start_as("node-1", &kafka, spooling(&directory, SpoolAck::Log)).await;
    let mut tracker = ingest.tracker().await;
    kafka_goes(&kafka, &ingest, &mut tracker).await;
    for first in 3..=7 {
        tracker.send(&batch(stream(1), first, &[view("/")])).await;
    }
    eventually("records are spooled", async || spooled(&directory) > 0).await;
    assert!(tracker.hears_within(Duration::from_millis(300)).await.is_none(), "no ack without kafka");
    assert_eq!(ingest.get("/readyz").await.status, 503);
    kafka.cluster.broker_up(-1).unwrap();
    let mut upto = 1;
    while upto < 7 {
        let ack = tracker.ack().await;
        assert_eq!(ack.first, upto + 1);
        upto = ack.upto;
    }
    let ids = kafka.ids_until(|ids| ids.len() >= 7).await;
    assert_eq!(ids.len(), 7);
    in_order(&ids);
    eventually("the spool is empty", async || segments(directory.path(), "spool").is_empty()).await;
    eventually("ready again", async || ingest.get("/readyz").await.body == "ready\n").await;
    let report = kafka.report("node-1", |report| report.ledger.accepted == 7).await;
    assert_eq!((report.ledger.received, report.ledger.retried), (7, 0));
    drop(tracker);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_longer_outage_is_a_nack_in_time_and_the_events_are_stored_without_a_resend() {
    let (kafka, directory) = (Kafka::start(), TempDir::new().unwrap());
    let mut config = spooling(&directory, SpoolAck::Log);
    config.batcher.answer_ms = 1_000;
    let ingest = Ingest::start_as("node-1", &kafka, config).await;
    let mut tracker = ingest.tracker().await;
    kafka_goes(&kafka, &ingest, &mut tracker).await;
    tracker.send(&batch(stream(1), 3, &[view("/")])).await;
    for first in [2, 3] {
        let nack = tracker.nack().await;
        assert_eq!((nack.first, nack.reason), (first, RetryReason::LogUnavailable));
        assert!(nack.retry_ms >= 2_000);
    }
    kafka.cluster.broker_up(-1).unwrap();
    let ids = kafka.ids_until(|ids| ids.len() >= 3).await;
    in_order(&ids);
    // The ledger counts what was answered, and adds up.
    let report = kafka.report("node-1", |report| report.ledger.retried == 2).await;
    assert_eq!((report.ledger.received, report.ledger.accepted), (3, 1));
    drop(tracker);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_choice_a_batch_is_acked_from_the_disk_and_the_node_is_ready_and_says_so() {
    let (kafka, directory) = (Kafka::start(), TempDir::new().unwrap());
    let ingest = Ingest::start_as("node-1", &kafka, spooling(&directory, SpoolAck::Spool)).await;
    let mut tracker = ingest.tracker().await;
    kafka_goes(&kafka, &ingest, &mut tracker).await;
    assert_eq!(ingest.get("/readyz").await.body, "spooling\n");
    for n in 10..30 {
        let answer = ingest.post("/e?k=shop", &batch(stream(n), 1, &[view("/"), view("/")])).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert!(spooled(&directory) > 0);
    let report_later = kafka.events_now();
    kafka.cluster.broker_up(-1).unwrap();
    report_later.await;
    let ids = kafka.ids_until(|ids| ids.len() >= 42).await;
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 42);
    in_order(&ids);
    let report = kafka.report("node-1", |report| report.ledger.accepted == 42).await;
    assert_eq!(report.ledger.received, 42);
    drop(tracker);
    ingest.stop().await;
}

/// The files as a killed process leaves them, which is as they are.
fn as_left_by_a_kill(directory: &TempDir) -> TempDir {
    let copy = TempDir::new().unwrap();
    std::fs::create_dir(copy.path().join("0")).unwrap();
    for segment in segments(directory.path(), "spool") {
        std::fs::copy(&segment, copy.path().join("0").join(segment.file_name().unwrap())).unwrap();
    }
    copy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_node_had_acked_is_finished_by_the_next_and_damage_costs_no_more_than_it_hit() {
    let (gone, directory) = (Kafka::start(), TempDir::new().unwrap());
    let ingest = Ingest::start_as("node-1", &gone, spooling(&directory, SpoolAck::Spool)).await;
    let mut tracker = ingest.tracker().await;
    kafka_goes(&gone, &ingest, &mut tracker).await;
    for n in 10..20 {
        assert_eq!(ingest.post("/e?k=shop", &batch(stream(n), 1, &[view("/")])).await.status, 200);
    }
    let (whole, torn, damaged) =
        (as_left_by_a_kill(&directory), as_left_by_a_kill(&directory), as_left_by_a_kill(&directory));

    let segment = &segments(torn.path(), "spool")[0];
    let length = std::fs::metadata(segment).unwrap().len();
    std::fs::File::options().write(true).open(segment).unwrap().set_len(length - 5).unwrap();

    let segment = &segments(damaged.path(), "spool")[0];
    let mut bytes = std::fs::read(segment).unwrap();
    let frames: Vec<_> = spool::frames(&bytes).map(|frame| frame.offset).collect();
    assert_eq!(frames.len(), 10, "one by one, as they were answered");
    bytes[frames[4] + 40] ^= 1;
    std::fs::write(segment, &bytes).unwrap();

    for (left, expected, bad) in [(&whole, 10, 0), (&torn, 9, 0), (&damaged, 4, 1)] {
        let kafka = Kafka::start();
        let next = Ingest::start_as("node-2", &kafka, spooling(left, SpoolAck::Spool)).await;
        let mut fresh = next.tracker().await;
        fresh.send(&batch(stream(99), 1, &[view("/")])).await;
        fresh.ack().await;
        eventually("the spool is empty", async || segments(left.path(), "spool").is_empty()).await;
        let ids = kafka.ids_until(move |ids| ids.len() > expected).await;
        let streams: Vec<_> = ids.iter().map(|id| id.stream).filter(|id| *id != stream(99)).collect();
        assert_eq!(streams.iter().collect::<HashSet<_>>().len(), expected);
        assert_eq!(segments(left.path(), "bad").len(), bad);
        drop(fresh);
        next.stop().await;
    }
    gone.cluster.broker_up(-1).unwrap();
    drop(tracker);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_without_kafka_leaves_to_the_next_what_it_could_not_deliver() {
    let (kafka, directory) = (Kafka::start(), TempDir::new().unwrap());
    let mut config = spooling(&directory, SpoolAck::Log);
    config.grace_period_ms = 500;
    let ingest = Ingest::start_as("node-1", &kafka, config.clone()).await;
    let mut tracker = ingest.tracker().await;
    kafka_goes(&kafka, &ingest, &mut tracker).await;
    tracker.send(&batch(stream(1), 3, &[view("/")])).await;
    eventually("a record is spooled", async || spooled(&directory) > 0).await;
    ingest.stop().await;
    assert_eq!(spooled(&directory), 2, "the one that was on its way, too");
    kafka.cluster.broker_up(-1).unwrap();
    let next = Ingest::start_as("node-1", &kafka, config).await;
    let ids = kafka.ids_until(|ids| ids.len() >= 3).await;
    in_order(&ids);
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_then_the_disk_then_a_refusal_and_no_ack_was_false() {
    let (kafka, directory) = (Kafka::start(), TempDir::new().unwrap());
    let mut config = spooling(&directory, SpoolAck::Spool);
    config.spool.max_bytes = 1024 * 1024;
    let ingest = Ingest::start_as("node-1", &kafka, config).await;
    let mut tracker = ingest.tracker().await;
    kafka_goes(&kafka, &ingest, &mut tracker).await;
    let title = "x".repeat(500);
    let page = json!({"k": "view", "at": 0, "u": "https://shop.example/", "t": title});
    let mut acked = HashSet::new();
    let mut refused = 0;
    for n in 100..150 {
        let answer = ingest.post("/e?k=shop", &batch(stream(n), 1, &vec![page.clone(); 60])).await;
        match answer.frame() {
            ServerFrame::Ack(ack) => {
                assert_eq!(refused, 0, "nothing is taken after the first refusal");
                acked.insert(ack.stream);
            }
            ServerFrame::Nack(nack) => {
                assert_eq!((answer.status, nack.reason), (503, RetryReason::LogUnavailable));
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(acked.len() >= 10 && refused >= 5, "{} acked, {refused} refused", acked.len());
    let used: u64 =
        segments(directory.path(), "spool").iter().map(|path| std::fs::metadata(path).unwrap().len()).sum();
    assert!(used <= 1024 * 1024, "{used} bytes");
    assert_eq!(ingest.get("/readyz").await.status, 503, "full: not ready");
    kafka.cluster.broker_up(-1).unwrap();
    let expected = acked.len() * 60 + 2;
    let ids = kafka.ids_until(move |ids| ids.len() >= expected).await;
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), expected, "each once, and nothing that was refused");
    assert!(ids.iter().all(|id| id.stream == stream(1) || acked.contains(&id.stream)));
    in_order(&ids);
    eventually("taken again", async || {
        ingest.post("/e?k=shop", &batch(stream(200), 1, &[view("/")])).await.status == 200
    })
    .await;
    drop(tracker);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_times_out_on_its_way_goes_before_those_that_never_set_out() {
    let (kafka, directory) = (Kafka::start(), TempDir::new().unwrap());
    let mut config = spooling(&directory, SpoolAck::Log);
    config.batcher.delivery_timeout_ms = 1_500;
    let ingest = Ingest::start_as("node-1", &kafka, config).await;
    let mut tracker = ingest.tracker().await;
    kafka_goes(&kafka, &ingest, &mut tracker).await;
    tracker.send(&batch(stream(1), 3, &[view("/")])).await;
    eventually("the younger is spooled first, then the older", async || spooled(&directory) == 2).await;
    kafka.cluster.broker_up(-1).unwrap();
    let ack = tracker.ack().await;
    assert_eq!(ack.first, 2);
    in_order(&kafka.ids_until(|ids| ids.len() >= 3).await);
    drop(tracker);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_cannot_be_used_stops_the_start_and_is_named() {
    let (kafka, directory) = (Kafka::start(), TempDir::new().unwrap());
    let file = directory.path().join("a-file");
    std::fs::write(&file, b"").unwrap();
    let ingest = Ingest::start_with(&kafka, |config| config.spool.path = Some(file)).await;
    let error = ingest.ended.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("[ingest.spool] path") && error.contains("a-file"), "{error}");
}
