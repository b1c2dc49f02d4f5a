//! The stack of this bench, with a topic of events whose records tell their own time.

use std::path::{Path, PathBuf};

use footfall_schemas::topics;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use tokio::runtime::Runtime;

use crate::stack::{PARTITIONS, Stack};

pub fn start(binary: &Path, directory: PathBuf) -> Stack {
    Stack::start(binary, directory, "[aggregator]\nstatic_membership = true", create_events)
}

/// The topic as the binary makes it, but with the time that its records tell: half an hour of log is made in seconds.
fn create_events(brokers: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let topic = NewTopic::new(topics::EVENTS, PARTITIONS as i32, TopicReplication::Fixed(1));
    let made = Runtime::new().unwrap().block_on(admin.create_topics([&topic], &AdminOptions::new())).unwrap();
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}
