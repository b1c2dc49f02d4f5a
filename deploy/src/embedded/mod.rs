//! What `footfall standalone` brings along: a Kafka-protocol broker and a ClickHouse engine.

pub mod broker;
pub mod clickhouse;
