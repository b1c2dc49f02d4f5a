//! Bytes that are no request: they cost the connection they came over and nobody else anything.

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, MetadataRequest};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::raw::RawClient;
use super::target::{DEADLINE, address, external};

fn header(key: i16, version: i16) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_i16(key);
    body.put_i16(version);
    body.put_i32(1);
    body.put_i16(-1);
    body
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

async fn is_closed_on(bytes: &[u8]) -> bool {
    let mut raw = RawClient::connect(&address()).await;
    raw.0.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(DEADLINE, raw.0.read_to_end(&mut answer))
        .await
        .expect("the connection is closed");
    // A reset is as good as an end.
    read.is_err() || answer.is_empty()
}

async fn assert_alive() {
    let response = RawClient::connect(&address()).await.ask(1, &MetadataRequest::default()).await;
    assert_eq!(response.brokers.len(), 1);
}

fn skips() -> bool {
    if let Some(address) = external() {
        println!("skipped: what {address} does with nonsense is its own affair");
    }
    external().is_some()
}

#[rstest]
#[case::negative_length((-1_i32).to_be_bytes().to_vec())]
#[case::huge_length(i32::MAX.to_be_bytes().to_vec())]
#[case::too_short_for_a_header(framed(&[0, 3, 0]))]
#[case::http(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec())]
#[case::tls(vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03, 0x00])]
#[case::unknown_request(framed(&header(999, 0)))]
#[case::request_that_is_not_implemented(framed(&header(24, 0)))]
#[case::version_from_the_future(framed(&header(3, 99)))]
#[case::metadata_for_two_billion_topics(framed(&[&header(3, 1)[..], &i32::MAX.to_be_bytes()].concat()))]
#[case::delete_two_billion_groups(framed(&[&header(42, 0)[..], &i32::MAX.to_be_bytes()].concat()))]
#[case::four_billion_in_a_varint(framed(&[&header(3, 9)[..], &[0, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat()))]
#[tokio::test]
async fn nonsense_closes_its_connection(#[case] bytes: Vec<u8>) {
    if skips() {
        return;
    }
    assert!(is_closed_on(&bytes).await);
    assert_alive().await;
}

#[tokio::test]
async fn random_bodies_of_every_request_leave_the_broker_alive() {
    if skips() {
        return;
    }
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let versions = RawClient::connect(&address()).await.ask(3, &ApiVersionsRequest::default()).await;
    for api in versions.api_keys {
        for version in api.min_version..=api.max_version {
            for _ in 0..8 {
                let mut body = header(api.api_key, version);
                // Mostly small numbers: lengths that fit lead deeper into a decoder than lengths that do not.
                let length = random.random_range(0..200);
                let byte =
                    |_| if random.random_bool(0.7) { random.random_range(0..4) } else { random.random() };
                body.extend((0..length).map(byte).collect::<Vec<u8>>());
                let mut raw = RawClient::connect(&address()).await;
                raw.0.write_all(&framed(&body)).await.unwrap();
            }
        }
    }
    assert_alive().await;
}

#[tokio::test]
async fn a_newer_client_learns_which_versions_there_are() {
    let mut raw = RawClient::connect(&address()).await;
    // After the header the fields of version 3, as far as anyone knows.
    let body = [&header(18, 99)[..], &[0, 2, b'a', 2, b'1', 0]].concat();
    raw.0.write_all(&framed(&body)).await.unwrap();
    let response = raw.answer_as::<ApiVersionsRequest>(1, 0).await;
    assert_eq!(response.error_code, 35);
    assert!(response.api_keys.iter().any(|api| api.api_key == 18));
}
