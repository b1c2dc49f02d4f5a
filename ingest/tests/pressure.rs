//! When the log is slower than the trackers: bounded, refused before the ack, nothing lost after it.
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::time::Duration;

use footfall_schemas::{presence::PresenceReport, topics, tracker::ServerFrame};
use serde_json::json;
use support::*;

fn in_flight(report: &PresenceReport) -> u64 {
    let ledger = &report.ledger;
    let settled = ledger.accepted + ledger.retried + ledger.refused.values().sum::<u64>();
    ledger.received.checked_sub(settled).expect("no event is counted before it came")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_has_so_many_batches_in_flight_and_the_rest_waits_in_its_socket() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| config.limits.batches_in_flight = 3).await;
    let mut tracker = ingest.tracker().await;
    tracker.send(&batch(stream(1), 1, &[view("/")])).await;
    tracker.ack().await;
    // Longer than the time between two reports: one of them sees what is in flight.
    kafka.cluster.broker_round_trip_time(-1, Duration::from_millis(1_300)).unwrap();
    for first in 2..=10 {
        tracker.send(&batch(stream(1), first, &[view("/")])).await;
    }
    let mut upto = 1;
    while upto < 10 {
        upto = tracker.ack().await.upto;
    }
    kafka.cluster.broker_round_trip_time(-1, Duration::ZERO).unwrap();
    let parse = |_, value: &[u8]| vec![serde_json::from_slice::<PresenceReport>(value).unwrap()];
    let reports = kafka
        .read_until(topics::PRESENCE, parse, |read| read.last().is_some_and(|r| r.ledger.accepted == 10))
        .await;
    let most = reports.iter().map(in_flight).max().unwrap();
    assert!((1..=3).contains(&most), "{most} in flight");
    drop(tracker);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused_before_the_ack_and_only_acked_events_are_in_kafka() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| config.batcher.in_flight_bytes = 1024 * 1024).await;
    let warm = ingest.post("/e?k=shop", &batch(stream(999), 1, &[view("/")])).await;
    assert_eq!(warm.status, 200);
    kafka.cluster.broker_round_trip_time(-1, Duration::from_millis(700)).unwrap();
    let title = "x".repeat(500);
    let page = json!({"k": "view", "at": 0, "u": "https://shop.example/", "t": title});
    let posts: Vec<_> = (0..40)
        .map(|n| {
            let body = batch(stream(n), 1, &vec![page.clone(); 90]);
            let address = ingest.address;
            tokio::spawn(
                async move { http(address, "POST", "/e?k=shop", &[], body.to_string().as_bytes()).await },
            )
        })
        .collect();
    let (mut acked, mut overloaded) = (0, 0);
    for post in posts {
        match post.await.unwrap().frame() {
            ServerFrame::Ack(ack) => acked += (ack.upto - ack.first + 1) as usize,
            ServerFrame::Nack(nack) => {
                assert_eq!(nack.reason, footfall_schemas::refusal::RetryReason::Overloaded);
                overloaded += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    kafka.cluster.broker_round_trip_time(-1, Duration::ZERO).unwrap();
    assert!(overloaded > 0 && acked > 0, "{acked} acked, {overloaded} batches refused");
    let stored = kafka.events(acked + 1).await.len();
    assert_eq!(stored, acked + 1, "no more and no less than was acked");
    let report = kafka.report("node-1", |report| in_flight(report) == 0 && report.ledger.retried > 0).await;
    assert_eq!(report.ledger.retried, overloaded * 90);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_floods_a_slow_log_does_not_keep_another_out() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| config.batcher.in_flight_bytes = 1024 * 1024).await;
    assert_eq!(ingest.post("/e?k=shop", &batch(stream(999), 1, &[view("/")])).await.status, 200);
    kafka.cluster.broker_round_trip_time(-1, Duration::from_millis(300)).unwrap();
    let flooding = tokio_util::sync::CancellationToken::new();
    let title = "x".repeat(500);
    let page = json!({"k": "view", "at": 0, "u": "https://shop.example/", "t": title});
    let flood: Vec<_> = (0..24)
        .map(|n| {
            let (address, until, body) =
                (ingest.address, flooding.clone(), batch(stream(n), 1, &vec![page.clone(); 90]));
            tokio::spawn(async move {
                let mut refused = 0;
                while !until.is_cancelled() {
                    let answer = http(address, "POST", "/e?k=shop", &[], body.to_string().as_bytes()).await;
                    refused += usize::from(answer.status == 503);
                }
                refused
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    for n in 100..115 {
        let sent = std::time::Instant::now();
        let answer = ingest.post("/e?k=blog", &batch(stream(n), 1, &vec![view("/"); 20])).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        slowest = slowest.max(sent.elapsed());
    }
    flooding.cancel();
    let mut refused = 0;
    for task in flood {
        refused += task.await.unwrap();
    }
    kafka.cluster.broker_round_trip_time(-1, Duration::ZERO).unwrap();
    assert!(refused > 20, "the flood met its bound {refused} times");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    let report = kafka
        .report("node-1", |report| report.site.as_str() == "blog" && report.ledger.accepted == 300)
        .await;
    assert_eq!(report.ledger.retried, 0);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_over_its_rate_for_seconds_asks_for_less_and_stores_what_it_acked() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| {
        config.limits.events_per_site = footfall_ingest::config::Rate::new(1, 256);
        config.limits.flood_strikes = 1_000_000;
    })
    .await;
    let mut tracker = ingest.tracker().await;
    let full: Vec<_> = (0..256).map(|_| view("/")).collect();
    let begin = std::time::Instant::now();
    let (mut acked, mut sampled) = (0, None);
    while sampled.is_none() {
        assert!(begin.elapsed() < PATIENCE, "no word of it");
        tracker.send(&batch(stream(1), 1 + acked, &full)).await;
        loop {
            match tracker.next().await {
                ServerFrame::Ack(ack) => acked = ack.upto,
                ServerFrame::Nack(_) => {}
                ServerFrame::Sample { drop_percent, .. } => sampled = Some(drop_percent),
                ServerFrame::Slow { .. } => continue,
                other => panic!("{other:?}"),
            }
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((sampled, acked), (Some(50), 256));
    assert!(begin.elapsed() >= Duration::from_secs(3), "a moment is what the burst is for");
    kafka.events(256).await;
    drop(tracker);
    ingest.stop().await;
}
