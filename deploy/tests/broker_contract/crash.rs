//! kill -9: what was acknowledged is there after the next start, once. For our own broker only.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::Write;

use footfall::embedded::broker::{Broker, BrokerError};
use kafka_protocol::error::ResponseError;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::producer::FutureRecord;
use rdkafka::{Offset, TopicPartitionList};

use super::clients::{consumer, fresh, producer, topic, values};
use super::raw::{RawClient, batch, init_producer_id};
use super::target::{BrokerProcess, DEADLINE, config, external};

/// Whether to skip, and says so.
fn is_foreign() -> bool {
    let external = external();
    if let Some(address) = &external {
        println!("skipped: this kills the broker, and {address} is not ours to kill");
    }
    external.is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn acked_records_survive_kill_9_once() {
    if is_foreign() {
        return;
    }
    let mut broker = BrokerProcess::start().await;
    let topic = topic(&broker.address, 2, &[("segment.bytes", "1048576")]).await;
    let producer = producer(&broker.address, &[("compression.type", "lz4"), ("linger.ms", "1")]);
    let mut issued = 0;
    for _ in 0..4 {
        let mut waiting = Vec::new();
        for _ in 0..3_000 {
            let value = format!("{issued} {}", "x".repeat(400));
            waiting.push(producer.send_result(FutureRecord::<(), _>::to(&topic).payload(&value)).unwrap());
            issued += 1;
        }
        // In the middle of it: the first thousand are acked, the rest is anywhere.
        let rest = waiting.split_off(1_000);
        for delivery in waiting {
            delivery.await.unwrap().unwrap();
        }
        broker.kill();
        broker.start_again().await;
        for delivery in rest {
            delivery.await.unwrap().expect("a producer's retries outlast a restart");
        }
    }
    let mut stored = Vec::new();
    for partition in 0..2 {
        stored.extend(values(&broker.address, &topic, partition).await);
    }
    let numbers: Vec<usize> =
        stored.iter().map(|value| value.split(' ').next().unwrap().parse().unwrap()).collect();
    let distinct: HashSet<usize> = numbers.iter().copied().collect();
    assert_eq!(distinct.len(), issued, "nothing acked is lost");
    assert_eq!(numbers.len(), issued, "nothing is stored twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_resent_after_a_restart_is_recognised_and_ids_are_not_reused() {
    if is_foreign() {
        return;
    }
    let mut broker = BrokerProcess::start().await;
    let topic = topic(&broker.address, 1, &[]).await;
    let mut raw = RawClient::connect(&broker.address).await;
    let init = init_producer_id();
    let id = raw.ask(4, &init).await.producer_id.0;
    assert_eq!(raw.produce(&topic, batch((id, 0), 0, &["a", "b"])).await.error_code, 0);
    assert_eq!(raw.produce(&topic, batch((id, 0), 2, &["c"])).await.error_code, 0);
    broker.kill();
    broker.start_again().await;
    let mut raw = RawClient::connect(&broker.address).await;
    let again = raw.produce(&topic, batch((id, 0), 0, &["a", "b"])).await;
    assert_eq!((again.error_code, again.base_offset), (0, 0));
    let gap = raw.produce(&topic, batch((id, 0), 9, &["z"])).await;
    assert_eq!(gap.error_code, ResponseError::OutOfOrderSequenceNumber.code());
    assert_eq!(raw.produce(&topic, batch((id, 0), 3, &["d"])).await.base_offset, 3);
    assert!(raw.ask(4, &init).await.producer_id.0 > id);
    assert_eq!(values(&broker.address, &topic, 0).await, ["a", "b", "c", "d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn torn_tails_are_cut_off_and_all_before_them_stays() {
    if is_foreign() {
        return;
    }
    let mut broker = BrokerProcess::start().await;
    let topic = topic(&broker.address, 1, &[]).await;
    let mut raw = RawClient::connect(&broker.address).await;
    assert_eq!(raw.produce(&topic, batch((-1, -1), -1, &["a", "b"])).await.error_code, 0);
    let group = fresh("g");
    commit(&broker.address, &group, &topic, 1);
    broker.kill();
    let torn = batch((-1, -1), -1, &["never acked"]);
    let segment = broker.data_dir().join("topics").join(&topic).join("0").join(format!("{:020}.log", 0));
    append(&segment, &torn[..torn.len() - 3]);
    append(&broker.data_dir().join("offsets.log"), b"0badc0de [{\"group\":");
    broker.start_again().await;
    assert_eq!(values(&broker.address, &topic, 0).await, ["a", "b"]);
    assert_eq!(committed(&broker.address, &group, &topic), (1, "metadata 1".to_owned()));
    let mut raw = RawClient::connect(&broker.address).await;
    assert_eq!(raw.produce(&topic, batch((-1, -1), -1, &["c"])).await.base_offset, 2);
    commit(&broker.address, &group, &topic, 2);
    broker.kill();
    broker.start_again().await;
    assert_eq!(values(&broker.address, &topic, 0).await, ["a", "b", "c"]);
    assert_eq!(committed(&broker.address, &group, &topic), (2, "metadata 2".to_owned()));
}

fn append(path: &std::path::Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn commit(address: &str, group: &str, topic: &str, offset: i64) {
    let mut offsets = TopicPartitionList::new();
    let mut element = offsets.add_partition(topic, 0);
    element.set_offset(Offset::Offset(offset)).unwrap();
    element.set_metadata(format!("metadata {offset}"));
    consumer(address, group, &[]).commit(&offsets, CommitMode::Sync).unwrap();
}

fn committed(address: &str, group: &str, topic: &str) -> (i64, String) {
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition(topic, 0);
    let committed = consumer(address, group, &[]).committed_offsets(wanted, DEADLINE).unwrap();
    let element = &committed.elements()[0];
    (element.offset().to_raw().unwrap(), element.metadata().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_broker_hands_over_everything_and_the_directory() {
    if is_foreign() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::start(config(directory.path())).await.unwrap();
    let address = broker.address().to_string();
    let topic = topic(&address, 3, &[("cleanup.policy", "compact")]).await;
    let sender = producer(&address, &[]);
    sender.send(FutureRecord::to(&topic).key("k").payload("v").partition(2), DEADLINE).await.unwrap();
    drop(sender);

    let second = Broker::start(config(directory.path())).await;
    assert!(matches!(second, Err(BrokerError::Locked { .. })), "{second:?}");
    let mut elsewhere = config(tempfile::tempdir().unwrap().path());
    elsewhere.listen = broker.address();
    let second = Broker::start(elsewhere).await;
    assert!(matches!(second, Err(BrokerError::PortInUse { .. })), "{second:?}");

    broker.shutdown().await;
    let broker = Broker::start(config(directory.path())).await.unwrap();
    assert_eq!(values(&broker.address().to_string(), &topic, 2).await, ["v"]);
    broker.shutdown().await;
}
