//! Puts made-up traffic on Kafka.

use std::{
    sync::mpsc::sync_channel,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use footfall_schemas::topics;
use rdkafka::{
    ClientConfig,
    config::FromClientConfig as _,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};

use crate::{
    stack::PARTITIONS,
    traffic::{Packed, Packer, Size, Traffic},
};

const SEED: u64 = 11;

pub struct Producer(ThreadedProducer<DefaultProducerContext>);

impl Producer {
    pub fn new(brokers: &str) -> Self {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("compression.codec", "lz4")
            .set("linger.ms", "5")
            .set("queue.buffering.max.kbytes", "262144");
        Self(ThreadedProducer::from_config(&config).unwrap())
    }

    /// Waits while librdkafka's queue is full.
    pub fn send(&self, record: &Packed) {
        let mut message =
            BaseRecord::<(), _>::to(topics::EVENTS).partition(record.partition).payload(&record.value);
        message = message.timestamp(record.at);
        while let Err((error, back)) = self.0.send(message) {
            assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            thread::sleep(Duration::from_millis(5));
            message = back;
        }
    }

    /// Returns once the broker has everything.
    pub fn flush(&self) {
        self.0.flush(Duration::from_secs(60)).unwrap();
    }
}

/// `events` events received evenly over the time from `begin` to `end` (ms since 1970), as fast as it goes.
pub fn log(brokers: &str, size: Size, events: u64, (begin, end): (i64, i64)) {
    let (sender, records) = sync_channel(1_024);
    let make = move || {
        let (mut traffic, mut packer) = (Traffic::new(SEED, size), Packer::new(SEED, PARTITIONS));
        for number in 0..events as i64 {
            let at = begin + (end - begin) * number / events as i64;
            if let Some(record) = packer.add(&traffic.event(at)) {
                sender.send(record).unwrap();
            }
        }
        packer.rest().into_iter().for_each(|record| sender.send(record).unwrap());
    };
    let made = thread::spawn(make);
    let producer = Producer::new(brokers);
    records.iter().for_each(|record| producer.send(&record));
    producer.flush();
    made.join().unwrap();
}

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}
