//! `footfall.alerts`: the state of every rule that has fired.

use std::time::Duration;

use footfall_schemas::{alert::AlertRecord, connect::KafkaSettings, topics};
use rdkafka::producer::{FutureProducer, FutureRecord};
use tracing::warn;

use crate::{
    error::{Error, LogError},
    outlet::{again, client, read_whole},
};

pub(crate) struct Journal {
    producer: FutureProducer,
    kafka: KafkaSettings,
}

impl Journal {
    pub(crate) fn new(kafka: &KafkaSettings, member: &str) -> Result<Self, Error> {
        let producer = client(kafka, &format!("footfall-alerts-{member}"))
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0")
            // Who takes over reads after a warm-up: nothing may be on its way for longer.
            .set("message.timeout.ms", "5000")
            .create()
            .map_err(|source| Error::Kafka { client: "producer of alerts", source })?;
        Ok(Self { producer, kafka: kafka.clone() })
    }

    /// Returns once the log has it. After an error it may have it all the same.
    pub(crate) async fn write(&self, record: &AlertRecord) -> Result<(), LogError> {
        let value = serde_json::to_vec(record).map_err(|error| LogError::Retry(error.to_string()))?;
        let key = record.key();
        let record = FutureRecord::to(topics::ALERTS).key(&key).payload(&value);
        self.producer.send(record, Duration::from_secs(5)).await.map_err(|(error, _)| again(error))?;
        Ok(())
    }

    /// The newest record of every rule, and older ones before it. A record that cannot be read is told and left out.
    pub(crate) async fn read(&self) -> Result<Vec<AlertRecord>, LogError> {
        let kafka = self.kafka.clone();
        let read = move || {
            let mut records = Vec::new();
            read_whole(&kafka, topics::ALERTS, 0, |key, value| match value.map(serde_json::from_slice) {
                Some(Ok(record)) => records.push(record),
                Some(Err(error)) => warn!(key, %error, "the state of an alert cannot be read"),
                None => {}
            })?;
            Ok(records)
        };
        tokio::task::spawn_blocking(read).await.map_err(|error| LogError::Retry(error.to_string()))?
    }
}
