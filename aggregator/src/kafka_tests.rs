//! The edge to Kafka against librdkafka's mock cluster.

use std::{sync::Arc, time::Duration};

use footfall_schemas::{connect::KafkaSettings, topics};
use rdkafka::{
    mocking::MockCluster,
    producer::{DefaultProducerContext, FutureProducer, FutureRecord},
};
use rstest::rstest;
use tokio::time::timeout;

use crate::{
    config::Config,
    error::LogError,
    outlet::{Topics, client},
    ports::{Committed, Input, Log, Outlet, RawRecord},
    snapshot::{self, Found, Id, Save},
    source::{Assignment, Event, Source},
    status::Status,
};

const WITHIN: Duration = Duration::from_secs(30);

struct Cluster {
    mock: MockCluster<'static, DefaultProducerContext>,
    kafka: KafkaSettings,
}

impl Cluster {
    fn start(partitions: i32) -> Self {
        let mock = MockCluster::new(1).unwrap();
        for topic in [topics::EVENTS, topics::SNAPSHOTS] {
            mock.create_topic(topic, partitions, 1).unwrap();
        }
        let kafka = KafkaSettings { brokers: mock.bootstrap_servers(), properties: Default::default() };
        Self { mock, kafka }
    }

    fn source(&self, member: &str, inbox_bytes: usize) -> Source {
        let config = Config { session_timeout_ms: 6_000, revoke_ms: 100, inbox_bytes, ..Config::default() };
        let status = Arc::new(Status::default());
        Source::spawn(&self.kafka, &config, member, status, Arc::new(|| 1_800_000_000_000)).unwrap()
    }

    async fn produce(&self, partition: i32, values: impl IntoIterator<Item = String>) {
        let producer: FutureProducer = client(&self.kafka, "test").create().unwrap();
        for value in values {
            let record = FutureRecord::<(), _>::to(topics::EVENTS).partition(partition).payload(&value);
            producer.send(record, WITHIN).await.unwrap();
        }
    }
}

/// The next assignment; revocations on the way are answered at once.
async fn assignment(source: &mut Source) -> Assignment {
    loop {
        match timeout(WITHIN, source.events.recv()).await.expect("an event of the group in time").unwrap() {
            Event::Assigned(assignment) => return assignment,
            Event::Revoked(_, done) => {
                let _ = done.send(());
            }
            Event::Fault(fault) => panic!("{fault}"),
        }
    }
}

/// Tries until the coordinator is there.
async fn patiently<T, F: Future<Output = Result<T, LogError>>>(attempt: impl Fn() -> F) -> T {
    let trying = async {
        loop {
            match attempt().await {
                Ok(done) => return done,
                Err(LogError::Gone) => panic!("the partition was taken away"),
                Err(LogError::Retry(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    timeout(WITHIN, trying).await.expect("an answer in time")
}

/// The next records, up to the end of the log.
async fn records(assignment: &mut Assignment) -> Vec<RawRecord> {
    let mut records = Vec::new();
    loop {
        match timeout(WITHIN, assignment.inbox.recv()).await.expect("an input in time").unwrap() {
            Input::Record(record) => {
                assignment.log.taken(record.value.len());
                records.push(record);
            }
            Input::End => return records,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_reads_from_where_it_chooses_and_keeps_a_boundary() {
    let cluster = Cluster::start(1);
    cluster.produce(0, (0..5).map(|n| format!("record {n}"))).await;
    let mut source = cluster.source("one", 1 << 20);
    let mut owned = assignment(&mut source).await;
    assert_eq!(patiently(|| owned.log.committed()).await, None);
    assert_eq!(patiently(|| owned.log.bounds()).await, (0, 5));
    patiently(|| owned.log.start(2)).await;
    let read = records(&mut owned).await;
    assert_eq!(read.iter().map(|record| record.offset).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(read[0].value, b"record 2");
    patiently(|| owned.log.commit(3, "v1:5:2:00000000000000ff".into())).await;
    drop(owned);
    source.stop().await;

    let mut next = cluster.source("two", 1 << 20);
    let owned = assignment(&mut next).await;
    let kept = Committed { offset: 3, metadata: "v1:5:2:00000000000000ff".into() };
    assert_eq!(patiently(|| owned.log.committed()).await, Some(kept));
    next.stop().await;
}

/// What the client has asked brokers for by then is answered later.
#[rstest]
#[case::at_once(0)]
#[case::soon(300)]
#[case::while_it_waits_for_the_leader(600)]
#[case::later(900)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_skips_nothing_whenever_it_chooses(#[case] after_ms: u64) {
    let cluster = Cluster::start(1);
    cluster.produce(0, (0..5).map(|n| format!("record {n}"))).await;
    cluster.mock.broker_round_trip_time(1, Duration::from_millis(400)).unwrap();
    let mut source = cluster.source("one", 1 << 20);
    let mut owned = assignment(&mut source).await;
    tokio::time::sleep(Duration::from_millis(after_ms)).await;
    patiently(|| owned.log.start(1)).await;
    let read = records(&mut owned).await;
    assert_eq!(read.iter().map(|record| record.offset).collect::<Vec<_>>(), [1, 2, 3, 4]);
    cluster.mock.broker_round_trip_time(1, Duration::ZERO).unwrap();
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_inbox_pauses_the_partition_and_loses_nothing() {
    let cluster = Cluster::start(1);
    cluster.produce(0, (0..200).map(|n| format!("{n:0>1000}"))).await;
    let mut source = cluster.source("one", 5_000);
    let mut owned = assignment(&mut source).await;
    patiently(|| owned.log.start(0)).await;
    // Nobody reads: what arrives stays near the bound.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(owned.inbox.len() < 20, "{} records wait", owned.inbox.len());
    let read = records(&mut owned).await;
    assert_eq!(read.iter().map(|record| record.offset).collect::<Vec<_>>(), (0..200).collect::<Vec<_>>());
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_was_taken_away_can_no_longer_be_committed() {
    let cluster = Cluster::start(2);
    let mut first = cluster.source("one", 1 << 20);
    let (a, b) = (assignment(&mut first).await, assignment(&mut first).await);
    patiently(|| a.log.commit(0, String::new())).await;
    patiently(|| b.log.commit(0, String::new())).await;

    let mut second = cluster.source("two", 1 << 20);
    let gave_up = tokio::spawn(async move {
        loop {
            match first.events.recv().await.unwrap() {
                Event::Revoked(partitions, done) => {
                    let _ = done.send(());
                    return (first, partitions);
                }
                Event::Assigned(_) => {}
                Event::Fault(fault) => panic!("{fault}"),
            }
        }
    });
    let moved = assignment(&mut second).await;
    let (first, partitions) = timeout(WITHIN, gave_up).await.unwrap().unwrap();
    assert_eq!(partitions, [moved.partition]);
    let (lost, kept) = if moved.partition == a.partition { (a, b) } else { (b, a) };
    assert_eq!(lost.log.commit(0, String::new()).await, Err(LogError::Gone));
    patiently(|| kept.log.commit(0, String::new())).await;
    patiently(|| moved.log.commit(0, String::new())).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_found_again_on_its_partition() {
    let cluster = Cluster::start(2);
    let topics = Topics::new(&cluster.kafka, "one").unwrap();
    let saved = |partition| {
        let topics = &topics;
        async move { patiently(|| topics.saved(partition)).await }
    };
    assert_eq!(saved(1).await, Found::default());
    let state = vec![7; 1_500_000];
    let first = Save { id: Id { epoch: 5, number: 1 }, forget: Vec::new() };
    patiently(|| topics.save(1, snapshot::chunks(&first, 42, &state))).await;
    let found = saved(1).await;
    assert_eq!(found.snapshots, [snapshot::Stored { offset: 42, id: first.id, state: state.clone() }]);
    assert_eq!(saved(0).await, Found::default());

    let next = Save { id: Id { epoch: 6, number: 1 }, forget: found.keys };
    patiently(|| topics.save(1, snapshot::chunks(&next, 43, &state))).await;
    assert_eq!(saved(1).await.snapshots, [snapshot::Stored { offset: 43, id: next.id, state }]);
}
