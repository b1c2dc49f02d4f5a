//! What Kafka may do to a record (the fault matrix, rows 22 to 28), and that there is never an ack for what is not there.
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use footfall_schemas::{EventId, refusal::RetryReason, topics, tracker::ServerFrame};
use rdkafka::types::RDKafkaRespErr;
use rstest::rstest;
use support::*;

/// Sends `events` one by one over one connection, sends again what was nacked, until everything is acked.
async fn send_all(tracker: &mut Tracker, events: u32) -> u32 {
    let mut nacks = 0;
    for first in 1..=events {
        tracker.send(&batch(stream(1), first, &[view("/")])).await;
    }
    let mut open: BTreeSet<u32> = (1..=events).collect();
    while !open.is_empty() {
        match tracker.next().await {
            ServerFrame::Ack(ack) => open.retain(|seq| !(ack.first..=ack.upto).contains(seq)),
            ServerFrame::Nack(nack) => {
                assert_eq!(nack.reason, RetryReason::LogUnavailable);
                nacks += 1;
                for first in nack.first..=nack.upto {
                    tracker.send(&batch(stream(1), first, &[view("/")])).await;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    nacks
}

/// Every one of them is there, in whatever number of copies, and nothing else is.
async fn all_there(kafka: &Kafka, events: usize) -> Vec<EventId> {
    let ids = kafka.ids_until(move |ids| ids.iter().collect::<HashSet<_>>().len() >= events).await;
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), events);
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_while_producing_is_not_noticed() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let mut tracker = ingest.tracker().await;
    kafka.fail_produce(RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT, 2);
    assert_eq!(send_all(&mut tracker, 20).await, 0);
    let ids = all_there(&kafka, 20).await;
    assert!(ids.is_sorted_by_key(|id| id.sequence), "in order");
    drop(tracker);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_leader_costs_no_event_and_no_false_ack() {
    let kafka = Kafka::of_brokers(3);
    let ingest = Ingest::start(&kafka).await;
    let mut tracker = ingest.tracker().await;
    send_all(&mut tracker, 1).await;
    for leader in [2, 3, 1] {
        for partition in 0..PARTITIONS {
            kafka.cluster.partition_leader(topics::EVENTS, partition, Some(leader)).unwrap();
        }
        send_all(&mut tracker, 20).await;
    }
    // The same ids over and over: what counts is that each is there.
    all_there(&kafka, 20).await;
    drop(tracker);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_replicas_for_a_moment_are_waited_for() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let mut tracker = ingest.tracker().await;
    kafka.fail_produce(RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, 3);
    assert_eq!(send_all(&mut tracker, 5).await, 0);
    all_there(&kafka, 5).await;
    drop(tracker);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_replicas_for_longer_bring_a_retryable_nack_before_the_tracker_gives_up() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| config.batcher.answer_ms = 1_000).await;
    let mut tracker = ingest.tracker().await;
    kafka.fail_produce(RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, 10_000);
    let sent = std::time::Instant::now();
    tracker.send(&batch(stream(1), 1, &[view("/")])).await;
    let nack = tracker.nack().await;
    assert_eq!((nack.first, nack.upto, nack.reason), (1, 1, RetryReason::LogUnavailable));
    assert!(nack.retry_ms >= 2_000 && sent.elapsed() < Duration::from_secs(5));
    kafka.cluster.clear_request_errors(rdkafka::types::RDKafkaApiKey::Produce);
    send_all(&mut tracker, 3).await;
    // The first one was on its way all along.
    let ids = all_there(&kafka, 3).await;
    assert_eq!(ids.iter().filter(|id| id.sequence.get() == 1).count(), 2);
    let report = kafka.report("node-1", |report| report.ledger.accepted == 3).await;
    assert_eq!((report.ledger.received, report.ledger.retried), (4, 1));
    drop(tracker);
    ingest.stop().await;
}

/// The mock appends although nobody hears of it; a real broker keeps one copy by the producer's sequence, the mock does
/// not look at it. Either way the ids are the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_response_brings_an_ack_for_what_is_there_under_the_same_ids() {
    let kafka = Kafka::start();
    let mut settings = kafka.settings();
    settings.properties.insert("socket.timeout.ms".into(), "1000".into());
    let ingest = Ingest::start_on(settings, "node-1", footfall_ingest::Config::default()).await;
    let mut tracker = ingest.tracker().await;
    send_all(&mut tracker, 1).await;
    kafka.cluster.broker_round_trip_time(-1, Duration::from_millis(1_500)).unwrap();
    tracker.send(&batch(stream(1), 2, &[view("/")])).await;
    assert!(tracker.hears_within(Duration::from_millis(1_200)).await.is_none(), "no response, no ack");
    kafka.cluster.broker_round_trip_time(-1, Duration::ZERO).unwrap();
    let ack = tracker.ack().await;
    assert_eq!((ack.first, ack.upto), (2, 2));
    all_there(&kafka, 2).await;
    drop(tracker);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_timeout_is_no_ack_and_the_resend_has_the_same_id() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| config.batcher.delivery_timeout_ms = 1_000).await;
    let mut tracker = ingest.tracker().await;
    send_all(&mut tracker, 1).await;
    kafka.cluster.broker_round_trip_time(-1, Duration::from_millis(2_500)).unwrap();
    tracker.send(&batch(stream(1), 2, &[view("/")])).await;
    assert_eq!(tracker.nack().await.reason, RetryReason::LogUnavailable);
    kafka.cluster.broker_round_trip_time(-1, Duration::ZERO).unwrap();
    send_all(&mut tracker, 2).await;
    all_there(&kafka, 2).await;
    drop(tracker);
    ingest.stop().await;
}

#[rstest]
#[case::too_large(RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE)]
#[case::not_allowed(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED)]
#[case::no_such_topic(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kafka_refuses_for_good_is_nacked_for_long_is_not_spooled_and_makes_unready(
    #[case] error: RDKafkaRespErr,
) {
    let kafka = Kafka::start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let ingest = Ingest::start_with(&kafka, move |config| config.spool.path = Some(path)).await;
    let mut tracker = ingest.tracker().await;
    send_all(&mut tracker, 1).await;
    kafka.fail_produce(error, 1);
    tracker.send(&batch(stream(1), 2, &[view("/")])).await;
    let nack = tracker.nack().await;
    assert_eq!((nack.first, nack.reason), (2, RetryReason::LogUnavailable));
    assert!(nack.retry_ms >= 15_000, "{}", nack.retry_ms);
    assert_eq!(ingest.get("/readyz").await.status, 503);
    assert_eq!(std::fs::read_dir(directory.path().join("0")).unwrap().count(), 1, "the lock alone");
    // Somebody has put it right.
    send_all(&mut tracker, 2).await;
    assert_eq!(ingest.get("/readyz").await.status, 200);
    all_there(&kafka, 2).await;
    drop(tracker);
    ingest.stop().await;
}
