//! What the pipeline expects of a Kafka broker, through rdkafka and, where a client hides too much, through requests
//! of our own. With `FOOTFALL_TEST_KAFKA=host:port` the broker there is tested, Apache Kafka for example; otherwise
//! an embedded one. Apache Kafka is right wherever they differ.
//!
//! `broker_contract/test_contract.py` asks the same through confluent-kafka.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

#[path = "broker_contract/clients.rs"]
mod clients;
#[path = "broker_contract/crash.rs"]
mod crash;
#[path = "broker_contract/fencing.rs"]
mod fencing;
#[path = "broker_contract/nonsense.rs"]
mod nonsense;
#[path = "broker_contract/raw.rs"]
mod raw;
#[path = "broker_contract/records.rs"]
mod records;
#[path = "broker_contract/target.rs"]
mod target;
