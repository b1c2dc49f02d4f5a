//! Who is online, told once a second; and what a node needs to start.

mod support;

use std::{collections::BTreeMap, time::Duration};

use footfall_ingest::Error;
use serde_json::json;
use support::*;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_is_online_by_page_and_lingers_after_the_last_socket() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let mut tracker = ingest.tracker().await;
    tracker.send(&json!({"t": "here", "path": "/shop?secret", "visible": true})).await;
    // The same visitor's second tab.
    let mut second = ingest.tracker_at(&format!("/ws?k=shop&t={}", tracker.welcome.token)).await;
    second.send(&json!({"t": "here", "path": "/other", "visible": false})).await;
    let mut other = Tracker::connect(ingest.address, "/ws?k=shop", &[("user-agent", "another")]).await;
    other.send(&json!({"t": "here", "path": "/shop", "visible": false})).await;
    let report = kafka.report("node-1", |report| report.pages.values().sum::<u32>() == 2).await;
    assert_eq!((report.online, report.visible), (2, 1));
    assert_eq!(report.pages, BTreeMap::from([("/shop".to_owned(), 2)]));

    let left = Instant::now();
    drop((tracker, second, other));
    let gone = kafka.report("node-1", |report| report.online == 0).await;
    assert!(left.elapsed() >= Duration::from_secs(3), "gone after {:?}", left.elapsed());
    assert_eq!((gone.visible, gone.pages.len()), (0, 0));
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_its_topics_does_not_start_and_names_the_topic() {
    let kafka = Kafka { cluster: rdkafka::mocking::MockCluster::new(1).unwrap() };
    // The mock makes topics when asked for; a real cluster answers with this error.
    let error = rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    kafka.cluster.topic_error(footfall_schemas::topics::EVENTS, error).unwrap();
    let ingest = Ingest::start_with(&kafka, |config| config.batcher.start_timeout_ms = 500).await;
    let error = tokio::time::timeout(PATIENCE, ingest.ended).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(&error, Error::TopicMissing { topic: "footfall.events", .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_configuration_does_not_start_and_names_the_field() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| config.timeouts.idle_ms = 1).await;
    let error = ingest.ended.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("timeouts.idle_ms"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_waits_for_kafka_can_be_stopped() {
    let kafka = Kafka::start();
    kafka.cluster.broker_down(-1).unwrap();
    let ingest = Ingest::start(&kafka).await;
    ingest.shutdown.cancel();
    let ended = tokio::time::timeout(PATIENCE, ingest.ended).await.expect("well before the start timeout");
    ended.unwrap().unwrap();
}
