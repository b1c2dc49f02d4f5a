//! Listens to the live topic.

use std::time::Duration;

use footfall_schemas::{live::LiveRecord, topics};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};

pub struct Listener(BaseConsumer);

impl Listener {
    /// Hears what is told from now on.
    pub fn new(brokers: &str) -> Self {
        Self(consumer(brokers, topics::LIVE, 0, Offset::End))
    }

    /// What was told next, or `None` when there was nothing for a while.
    pub fn hear(&self) -> Option<LiveRecord> {
        let message = self.0.poll(Duration::from_millis(100))?.unwrap();
        Some(serde_json::from_slice(message.payload().unwrap()).unwrap())
    }
}

/// Reads a partition without a group.
pub fn consumer(brokers: &str, topic: &str, partition: i32, from: Offset) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "20")
        .create()
        .unwrap();
    // `End` would be looked up at the first poll, and miss what is told before.
    let (low, high) = consumer.fetch_watermarks(topic, partition, Duration::from_secs(10)).unwrap();
    let at = Offset::Offset(if from == Offset::End { high } else { low });
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, at).unwrap();
    consumer.assign(&assignment).unwrap();
    consumer
}
