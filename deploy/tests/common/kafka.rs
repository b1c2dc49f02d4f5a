//! A broker that several tests share, one after the other.
#![allow(clippy::unwrap_used)] // a test may panic

use std::time::{Duration, Instant};

use footfall_schemas::topics;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};

const WITHIN: Duration = Duration::from_secs(30);

/// Deletes Footfall's topics and groups, and waits until they are gone.
pub fn forget_everything(brokers: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let consumer: BaseConsumer = config.create().unwrap();
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let names: Vec<&str> = topics::ALL.iter().map(|spec| spec.name).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let deadline = Instant::now() + WITHIN;
    loop {
        let groups = consumer.fetch_group_list(None, WITHIN).unwrap();
        let groups: Vec<String> = groups.groups().iter().map(|group| group.name().to_owned()).collect();
        let groups: Vec<&str> =
            groups.iter().map(String::as_str).filter(|name| name.starts_with("footfall-")).collect();
        let metadata = consumer.fetch_metadata(None, WITHIN).unwrap();
        let left = metadata.topics().iter().filter(|topic| names.contains(&topic.name())).count();
        if left == 0 && groups.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{left} topics and groups {groups:?} do not go away");
        // A group that a dead member still holds is refused until its session ends.
        runtime.block_on(async {
            let _ = admin.delete_topics(&names, &AdminOptions::new()).await;
            let _ = admin.delete_groups(&groups, &AdminOptions::new()).await;
        });
        std::thread::sleep(Duration::from_millis(200));
    }
}
