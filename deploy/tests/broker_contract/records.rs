//! Records in, records out, and what idempotence keeps out.

use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, TransactionalId};
use rdkafka::consumer::Consumer;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, Timestamp};
use rdkafka::producer::FutureRecord;
use rdkafka::{Offset, TopicPartitionList};
use rstest::rstest;

use super::clients::{consumer, fresh, producer, take, topic, values};
use super::raw::{RawClient, batch, init_producer_id, text};
use super::target::{DEADLINE, address, eventually, external};

#[rstest]
#[case("none")]
#[case("gzip")]
#[case("snappy")]
#[case("lz4")] // rdkafka is built without zstd here; the Python suite covers it
#[tokio::test]
async fn records_come_back_with_key_headers_and_timestamp(#[case] codec: &str) {
    let address = address();
    let topic = topic(&address, 1, &[]).await;
    let producer = producer(&address, &[("compression.type", codec)]);
    let now = Timestamp::now().to_millis().unwrap();
    let headers = || {
        let twice = OwnedHeaders::new().insert(Header { key: "h", value: Some("1") });
        twice
            .insert(Header { key: "h", value: Some("2") })
            .insert(Header { key: "null", value: None::<&str> })
    };
    let sent: Vec<String> = (0..200).map(|number| format!("{number} ").repeat(40)).collect();
    let deliveries = sent.iter().map(|value| {
        let record = FutureRecord::to(&topic).key("k").payload(value).headers(headers()).timestamp(now);
        producer.send_result(record).unwrap()
    });
    for (index, delivery) in deliveries.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(delivery.await.unwrap().unwrap().offset, i64::try_from(index).unwrap());
    }
    let consumer = consumer(&address, &fresh("g"), &[]);
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(&topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&assignment).unwrap();
    let received = take(&consumer, 200, |message| {
        assert_eq!(message.key(), Some(&b"k"[..]));
        assert_eq!(message.timestamp().to_millis(), Some(now));
        let headers = message.headers().unwrap();
        let header = |index| {
            let header = headers.get(index);
            (header.key, header.value.map(<[u8]>::to_vec))
        };
        assert_eq!(header(0), ("h", Some(b"1".to_vec())));
        assert_eq!(header(1), ("h", Some(b"2".to_vec())));
        assert_eq!(header(2), ("null", None));
        String::from_utf8(message.payload().unwrap().to_vec()).unwrap()
    })
    .await;
    assert_eq!(received, sent);
}

#[tokio::test]
async fn offsets_for_times_and_watermarks_agree_with_the_log() {
    let address = address();
    let topic = topic(&address, 1, &[]).await;
    let producer = producer(&address, &[]);
    let base = Timestamp::now().to_millis().unwrap() - 60_000;
    for step in 0..10 {
        let record = FutureRecord::<(), str>::to(&topic).payload("v").timestamp(base + step * 1_000);
        producer.send(record, DEADLINE).await.unwrap();
    }
    let consumer = consumer(&address, &fresh("g"), &[]);
    assert_eq!(consumer.fetch_watermarks(&topic, 0, DEADLINE).unwrap(), (0, 10));
    for (time, offset) in [
        (base - 1, Offset::Offset(0)),
        (base + 3_000, Offset::Offset(3)),
        (base + 3_001, Offset::Offset(4)),
        (base + 60_000, Offset::End),
    ] {
        let mut times = TopicPartitionList::new();
        times.add_partition_offset(&topic, 0, Offset::Offset(time)).unwrap();
        let found = consumer.offsets_for_times(times, DEADLINE).unwrap();
        assert_eq!(found.elements()[0].offset(), offset, "at {}", time - base);
    }
}

#[tokio::test]
async fn a_topic_can_go_by_the_broker_s_clock_whatever_its_producers_say() {
    let address = address();
    let topic = topic(&address, 1, &[("message.timestamp.type", "LogAppendTime")]).await;
    // The checksum covers what the broker writes into the batch.
    let consumer = consumer(&address, &fresh("g"), &[("check.crcs", "true")]);
    let producer = producer(&address, &[("compression.type", "lz4")]);
    let before = Timestamp::now().to_millis().unwrap();
    for away in [-26 * 3_600_000, 26 * 3_600_000] {
        let record = FutureRecord::<(), str>::to(&topic).payload("v").timestamp(before + away);
        let delivery = producer.send(record, DEADLINE).await.unwrap();
        assert!((before..before + 60_000).contains(&delivery.timestamp.to_millis().unwrap()));
    }
    let after = Timestamp::now().to_millis().unwrap();
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(&topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&assignment).unwrap();
    let times = take(&consumer, 2, |message| match message.timestamp() {
        Timestamp::LogAppendTime(at) => at,
        other => panic!("{other:?}"),
    })
    .await;
    assert!(times.iter().all(|at| (before..=after).contains(at)), "{times:?} in {before}..={after}");
    for (time, offset) in [(before, Offset::Offset(0)), (after + 1, Offset::End)] {
        let mut times = TopicPartitionList::new();
        times.add_partition_offset(&topic, 0, Offset::Offset(time)).unwrap();
        let found = consumer.offsets_for_times(times, DEADLINE).unwrap();
        assert_eq!(found.elements()[0].offset(), offset);
    }
}

async fn producer_id(raw: &mut RawClient) -> i64 {
    // Apache Kafka wants a moment after its start before it has ids to give.
    eventually("there is a producer id", async || {
        let response = raw.ask(4, &init_producer_id()).await;
        (response.error_code == 0).then_some(response.producer_id.0)
    })
    .await
}

#[tokio::test]
async fn a_batch_sent_again_is_stored_once_and_answered_with_its_first_offset() {
    let address = address();
    let topic = topic(&address, 1, &[]).await;
    let mut raw = RawClient::connect(&address).await;
    let id = producer_id(&mut raw).await;
    // As many as a producer may have in flight: every one of them can be repeated.
    for number in 0..5 {
        let sent = raw.produce(&topic, batch((id, 0), number * 2, &["a", "b"])).await;
        assert_eq!((sent.error_code, sent.base_offset), (0, i64::from(number) * 2));
    }
    for number in 0..5 {
        let again = raw.produce(&topic, batch((id, 0), number * 2, &["a", "b"])).await;
        assert_eq!((again.error_code, again.base_offset), (0, i64::from(number) * 2));
    }
    assert_eq!(values(&address, &topic, 0).await.len(), 10);
}

#[rstest]
#[case::a_gap((0, 7), ResponseError::OutOfOrderSequenceNumber)]
#[case::a_part_of_a_known_batch((0, 1), ResponseError::OutOfOrderSequenceNumber)]
#[case::a_new_epoch_that_does_not_begin_at_zero((1, 5), ResponseError::OutOfOrderSequenceNumber)]
#[tokio::test]
async fn a_batch_out_of_sequence_is_refused(
    #[case] (epoch, sequence): (i16, i32),
    #[case] reason: ResponseError,
) {
    let address = address();
    let topic = topic(&address, 1, &[]).await;
    let mut raw = RawClient::connect(&address).await;
    let id = producer_id(&mut raw).await;
    assert_eq!(raw.produce(&topic, batch((id, 0), 0, &["a", "b"])).await.error_code, 0);
    let refused = raw.produce(&topic, batch((id, epoch), sequence, &["c"])).await;
    assert_eq!(refused.error_code, reason.code());
    assert_eq!(values(&address, &topic, 0).await, ["a", "b"]);
}

#[tokio::test]
async fn an_older_epoch_is_fenced() {
    let address = address();
    let topic = topic(&address, 1, &[]).await;
    let mut raw = RawClient::connect(&address).await;
    let id = producer_id(&mut raw).await;
    assert_eq!(raw.produce(&topic, batch((id, 1), 0, &["new"])).await.error_code, 0);
    let refused = raw.produce(&topic, batch((id, 0), 1, &["old"])).await;
    assert_eq!(refused.error_code, ResponseError::InvalidProducerEpoch.code());
}

#[tokio::test]
async fn a_damaged_batch_is_refused() {
    let address = address();
    let topic = topic(&address, 1, &[]).await;
    let mut raw = RawClient::connect(&address).await;
    let mut damaged = batch((-1, -1), -1, &["a"]).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let refused = raw.produce(&topic, damaged.into()).await;
    assert_eq!(refused.error_code, ResponseError::CorruptMessage.code());
}

#[tokio::test]
async fn two_batches_for_one_partition_in_one_request_are_refused() {
    let address = address();
    let topic = topic(&address, 1, &[]).await;
    let mut raw = RawClient::connect(&address).await;
    let one = batch((-1, -1), -1, &["a"]);
    let refused = raw.produce(&topic, [one.clone(), one].concat().into()).await;
    assert_eq!(refused.error_code, ResponseError::InvalidRecord.code());
}

#[tokio::test]
async fn transactions_are_refused_for_good() {
    if let Some(address) = external() {
        println!("skipped: {address} may well have transactions; that ours refuses them is tested on ours");
        return;
    }
    let mut raw = RawClient::connect(&address()).await;
    let request = InitProducerIdRequest::default().with_transactional_id(Some(TransactionalId(text("t"))));
    let refused = raw.ask(4, &request).await;
    assert_eq!(refused.error_code, ResponseError::TransactionalIdAuthorizationFailed.code());
}

#[tokio::test]
async fn a_waiting_fetch_is_woken_by_an_append() {
    let address = address();
    let topic = topic(&address, 1, &[]).await;
    let consumer = consumer(&address, &fresh("g"), &[("fetch.wait.max.ms", "25000")]);
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(&topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&assignment).unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(500), consumer.recv()).await.is_err(),
        "nothing is there yet"
    );
    let producer = producer(&address, &[]);
    producer.send(FutureRecord::<(), str>::to(&topic).payload("v"), DEADLINE).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), consumer.recv())
        .await
        .expect("the fetch was woken")
        .unwrap();
}
