//! An ack means: in Kafka. Whatever happens, there is no ack without.

mod support;

use std::time::Duration;

use footfall_schemas::{RejectReason, refusal::RetryReason, tracker::ServerFrame};
use serde_json::json;
use support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_acked_and_lies_in_kafka_enriched() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let mut tracker = ingest.tracker().await;
    tracker.send(&batch(stream(1), 1, &[view("/a?x=secret"), view("/b")])).await;
    let ack = tracker.ack().await;
    assert_eq!((ack.stream, ack.first, ack.upto, ack.refused.len()), (stream(1), 1, 2, 0));
    let events = kafka.events(2).await;
    let paths: Vec<_> = events.iter().map(|(_, event)| event.path.as_str()).collect();
    assert_eq!(paths, ["/a", "/b"]);
    let first = &events[0].1;
    assert_eq!(first.event_id.stream, stream(1));
    assert_eq!((first.country.as_str(), first.received_at - first.event_time), ("DE", 500));
    drop(tracker);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ack_waits_for_the_delivery() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let mut tracker = ingest.tracker().await;
    // The first write settles the producer's id, so that what follows is the delivery alone.
    tracker.send(&batch(stream(1), 1, &[view("/")])).await;
    tracker.ack().await;
    kafka.cluster.broker_round_trip_time(-1, Duration::from_millis(900)).unwrap();
    let sent = std::time::Instant::now();
    tracker.send(&batch(stream(1), 2, &[view("/")])).await;
    tracker.ack().await;
    assert!(sent.elapsed() >= Duration::from_millis(900), "acked after {:?}", sent.elapsed());
    kafka.cluster.broker_round_trip_time(-1, Duration::ZERO).unwrap();
    drop(tracker);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_broker_brings_a_nack_and_unreadiness_and_later_a_resend_succeeds() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| config.batcher.delivery_timeout_ms = 1_500).await;
    let mut tracker = ingest.tracker().await;
    tracker.send(&batch(stream(1), 1, &[view("/")])).await;
    tracker.ack().await;
    assert_eq!(ingest.get("/readyz").await.status, 200);

    kafka.cluster.broker_down(-1).unwrap();
    tracker.send(&batch(stream(1), 2, &[view("/"), json!({"k": "nonsense"})])).await;
    let nack = tracker.nack().await;
    assert_eq!((nack.first, nack.upto, nack.reason), (2, 3, RetryReason::LogUnavailable));
    assert!(nack.retry_ms >= 500);
    assert_eq!(ingest.get("/readyz").await.status, 503);
    assert_eq!(ingest.get("/healthz").await.status, 200);
    let refused = ingest.post("/e?k=shop", &batch(stream(2), 1, &[view("/")])).await;
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");

    kafka.cluster.broker_up(-1).unwrap();
    eventually("the resend is acked", async || {
        tracker.send(&batch(stream(1), 2, &[view("/"), json!({"k": "nonsense"})])).await;
        matches!(tracker.next().await, ServerFrame::Ack(ack) if ack.refused.len() == 1)
    })
    .await;
    eventually("ready again", async || ingest.get("/readyz").await.status == 200).await;
    let report = kafka.report("node-1", |report| report.ledger.accepted == 2).await;
    let ledger = &report.ledger;
    assert_eq!(ledger.refused[&RejectReason::MissingField], 1);
    assert_eq!(ledger.received, ledger.accepted + 1 + ledger.retried, "{ledger:?}");
    drop(tracker);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resend_over_http_makes_the_same_record() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let mut tracker = ingest.tracker().await;
    let mut sent = batch(stream(1), 1, &[view("/a")]);
    tracker.send(&sent).await;
    tracker.ack().await;
    sent["token"] = tracker.welcome.token.clone().into();
    let answer = ingest.post("/e?k=shop", &sent).await;
    assert_eq!(answer.status, 200);
    let events = kafka.events(2).await;
    let (first, second) = (&events[0], &events[1]);
    assert_eq!(first.0, second.0, "copies meet on one partition");
    assert_eq!(first.1.event_id, second.1.event_id);
    assert_eq!(first.1.visitor, second.1.visitor);
    assert_eq!(first.1.payload_hash, second.1.payload_hash);
    drop(tracker);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_keeps_the_visitor_on_another_node_and_with_another_browser() {
    let kafka = Kafka::start();
    let one = Ingest::start(&kafka).await;
    let two = Ingest::start_as("node-2", &kafka, footfall_ingest::Config::default()).await;
    let mut tracker = Tracker::connect(one.address, "/ws?k=shop", &[("user-agent", "UA one")]).await;
    tracker.send(&batch(stream(1), 1, &[view("/")])).await;
    tracker.ack().await;
    let path = format!("/ws?k=shop&t={}", tracker.welcome.token);
    let mut moved = Tracker::connect(two.address, &path, &[("user-agent", "UA two")]).await;
    moved.send(&batch(stream(1), 2, &[view("/")])).await;
    moved.ack().await;
    // Without the token, another browser is another visitor.
    let mut other = Tracker::connect(two.address, "/ws?k=shop", &[("user-agent", "UA two")]).await;
    other.send(&batch(stream(2), 1, &[view("/")])).await;
    other.ack().await;
    let events = kafka.events(3).await;
    let visitor = |number: u64, sequence: u32| {
        let event = events
            .iter()
            .find(|(_, e)| e.event_id.stream == stream(number) && e.event_id.sequence.get() == sequence);
        event.map(|(partition, event)| (*partition, event.visitor)).unwrap()
    };
    assert_eq!(visitor(1, 1), visitor(1, 2));
    assert_ne!(visitor(1, 1).1, visitor(2, 1).1);
    drop((tracker, moved, other));
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_come_in_order_and_together_cover_every_batch() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let mut tracker = ingest.tracker().await;
    for first in 1..=200 {
        let event = if first % 10 == 0 { json!({"k": "view"}) } else { view("/") };
        tracker.send(&batch(stream(1), first, &[event])).await;
    }
    let (mut next, mut refused, mut frames) = (1, Vec::new(), 0);
    while next <= 200 {
        let ack = tracker.ack().await;
        assert_eq!(ack.first, next, "no gap and no overlap");
        assert!(ack.refused.iter().all(|refusal| (ack.first..=ack.upto).contains(&refusal.seq)));
        refused.extend(ack.refused.iter().map(|refusal| refusal.seq));
        next = ack.upto + 1;
        frames += 1;
    }
    assert_eq!(refused, (1..=20).map(|n| n * 10).collect::<Vec<_>>());
    assert!(frames < 200, "batches in a row share an ack: {frames}");
    let sequences: Vec<_> = kafka.events(180).await.iter().map(|(_, e)| e.event_id.sequence.get()).collect();
    assert!(sequences.is_sorted(), "one visitor's events are in order");
    drop(tracker);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_acks_what_is_in_flight_then_closes_with_1012() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let mut tracker = ingest.tracker().await;
    tracker.send(&batch(stream(1), 1, &[view("/")])).await;
    tracker.ack().await;
    kafka.cluster.broker_round_trip_time(-1, Duration::from_millis(1_500)).unwrap();
    tracker.send(&batch(stream(1), 2, &[view("/")])).await;
    // A fault is answered at once: with its answer, the batch before it has been read.
    tracker.text("nonsense").await;
    assert!(matches!(tracker.next().await, ServerFrame::Error { .. }), "the batch is in flight");
    let address = ingest.address;
    let stopped = tokio::spawn(ingest.stop());
    let ack = tracker.ack().await;
    assert_eq!((ack.first, ack.upto), (2, 2));
    match tracker.next().await {
        ServerFrame::Bye { retry_ms } => assert!((500..=5_000).contains(&retry_ms), "{retry_ms}"),
        other => panic!("no bye but {other:?}"),
    }
    assert_eq!(tracker.close_code().await, 1012);
    stopped.await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
    kafka.cluster.broker_round_trip_time(-1, Duration::ZERO).unwrap();
    let last = kafka.report("node-1", |report| report.online == 0 && report.ledger.accepted == 2).await;
    assert_eq!(last.ledger.received, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_waits_for_no_ack_longer_than_the_grace_period() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| config.grace_period_ms = 300).await;
    let mut tracker = ingest.tracker().await;
    tracker.send(&batch(stream(1), 1, &[view("/")])).await;
    tracker.ack().await;
    kafka.cluster.broker_round_trip_time(-1, Duration::from_secs(3)).unwrap();
    tracker.send(&batch(stream(1), 2, &[view("/")])).await;
    tracker.text("nonsense").await;
    assert!(matches!(tracker.next().await, ServerFrame::Error { .. }), "the batch is in flight");
    let stopped = tokio::spawn(ingest.stop());
    let last = tracker.next().await;
    assert!(matches!(last, ServerFrame::Bye { .. }), "{last:?}");
    kafka.cluster.broker_round_trip_time(-1, Duration::ZERO).unwrap();
    drop(tracker);
    stopped.await.unwrap();
}
