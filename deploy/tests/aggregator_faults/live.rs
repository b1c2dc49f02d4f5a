//! What dashboards show: `footfall.live`, read and merged as they do.

use std::{collections::BTreeMap, time::Duration};

use footfall::migrate;
use footfall_schemas::{
    connect::KafkaSettings,
    live::{LiveRecord, LiveState},
    topics,
};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};

use crate::cluster::{Cluster, eventually};

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Events stored, and events and views by minute (s since 1970).
type Shown = (u64, BTreeMap<i64, (u64, u64)>);

/// Waits until the live totals are those of the raw table.
pub(crate) async fn equals_the_tables(cluster: &Cluster) {
    let stored = cluster.number("SELECT count() FROM events").await;
    let minutes = "SELECT toInt64(toUnixTimestamp(toStartOfMinute(event_time))) AS minute, count(), \
                   countIf(kind = 'view') FROM events GROUP BY minute";
    let minutes = cluster.rows::<(i64, u64, u64)>(minutes).await;
    let rows: Shown =
        (stored, minutes.into_iter().map(|(minute, events, views)| (minute, (events, views))).collect());
    let mut last = None;
    let equal = async || {
        let settings = cluster.brokers.settings();
        let shown = tokio::task::spawn_blocking(move || shown(&settings)).await.unwrap();
        let is_equal = shown == rows;
        last = Some(shown);
        is_equal.then_some(())
    };
    if tokio::time::timeout(
        Duration::from_secs(30),
        eventually("the live totals are those of the rows", equal),
    )
    .await
    .is_err()
    {
        panic!("live totals {last:?}, rows {rows:?}");
    }
}

/// The merged state at the topic's end.
fn shown(kafka: &KafkaSettings) -> Shown {
    let mut config = migrate::client_config(kafka);
    config.set("group.id", "reads-without-a-group").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let (low, end) = consumer.fetch_watermarks(topics::LIVE, 0, ANSWER_WITHIN).unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topics::LIVE, 0, Offset::Offset(low)).unwrap();
    consumer.assign(&from).unwrap();
    let mut partitions: BTreeMap<i32, LiveRecord> = BTreeMap::new();
    let mut next = low;
    while next < end {
        let message = consumer.poll(ANSWER_WITHIN).expect("a record before the end").unwrap();
        next = message.offset() + 1;
        let record: LiveRecord = serde_json::from_slice(message.payload().unwrap()).unwrap();
        match partitions.get_mut(&record.partition) {
            Some(known) if record.epoch < known.epoch => {}
            Some(known) if !record.full && (record.epoch, record.seq) == (known.epoch, known.seq + 1) => {
                known.seq = record.seq;
                known.state.apply(&record.state);
            }
            _ if record.full => drop(partitions.insert(record.partition, record)),
            _ => {}
        }
    }
    let mut merged = LiveState::default();
    partitions.values().for_each(|record| merged.add(&record.state));
    let minutes = merged.minutes.iter().map(|(minute, counts)| (*minute, (counts.events, counts.views)));
    (merged.totals.unwrap_or_default().stored, minutes.collect())
}
