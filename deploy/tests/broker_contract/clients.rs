//! rdkafka clients as the roles use them.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::FutureProducer;

use super::target::{DEADLINE, eventually};

pub(crate) fn fresh(prefix: &str) -> String {
    format!("{prefix}-{:016x}", rand::random::<u64>())
}

pub(crate) fn admin(address: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", address).create().unwrap()
}

/// Creates a topic and waits until it can be seen.
pub(crate) async fn topic(address: &str, partitions: i32, settings: &[(&str, &str)]) -> String {
    let name = fresh("t");
    let mut topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let admin = admin(address);
    let created = admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
    created.into_iter().for_each(|result| assert_eq!(result.unwrap(), name));
    eventually("the topic is there", async || {
        let metadata = admin.inner().fetch_metadata(Some(&name), Duration::from_secs(5)).unwrap();
        let there = i32::try_from(metadata.topics()[0].partitions().len()).unwrap() == partitions;
        there.then_some(())
    })
    .await;
    name
}

pub(crate) fn producer(address: &str, settings: &[(&str, &str)]) -> FutureProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("enable.idempotence", "true").set("linger.ms", "5");
    config.set("reconnect.backoff.max.ms", "200").set("retry.backoff.ms", "20");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config.create().unwrap()
}

pub(crate) fn consumer(address: &str, group: &str, settings: &[(&str, &str)]) -> StreamConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("group.id", group).set("enable.auto.commit", "false");
    config
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "200");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config.create().unwrap()
}

/// The next `count` messages, mapped.
pub(crate) async fn take<T>(
    consumer: &StreamConsumer,
    count: usize,
    map: impl Fn(&BorrowedMessage<'_>) -> T,
) -> Vec<T> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let next = tokio::time::timeout(DEADLINE, consumer.recv()).await;
        let message =
            next.unwrap_or_else(|_| panic!("only {} of {count} messages came", taken.len())).unwrap();
        taken.push(map(&message));
    }
    taken
}

/// Every value of a partition, oldest first.
pub(crate) async fn values(address: &str, topic: &str, partition: i32) -> Vec<String> {
    let consumer = consumer(address, &fresh("g"), &[]);
    let (low, high) = consumer.fetch_watermarks(topic, partition, DEADLINE).unwrap();
    let mut assignment = rdkafka::TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, rdkafka::Offset::Beginning).unwrap();
    consumer.assign(&assignment).unwrap();
    let count = usize::try_from(high - low).unwrap();
    take(&consumer, count, |message| String::from_utf8(message.payload().unwrap().to_vec()).unwrap()).await
}
