//! What a site's own servers send: signed, each event with its id and its answer.
#![allow(clippy::unwrap_used)] // a test may panic

#[path = "support/mmdb.rs"]
mod mmdb;
mod support;

use std::{
    collections::HashSet,
    time::{SystemTime, UNIX_EPOCH},
};

use footfall_schemas::{
    RejectReason, VisitorId,
    refusal::RetryReason,
    server::{EventResult, EventsAnswer},
    tracker::ServerFrame,
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use rstest::rstest;
use serde_json::{Value, json};
use sha2::Sha256;
use support::*;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

const PATH: &str = "/api/v1/events";
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn sign(site: &str, timestamp: &str, body: &[u8]) -> String {
    let secret: Vec<u8> = (0..32).collect();
    let mut mac = Hmac::<Sha256>::new_from_slice(&secret).unwrap();
    mac.update(format!("{site}\n{timestamp}\n").as_bytes());
    mac.update(body);
    mac.finalize().into_bytes().iter().fold("v1=".to_owned(), |hex, byte| format!("{hex}{byte:02x}"))
}

async fn post_signed(ingest: &Ingest, site: &str, more: &[(&str, &str)], body: &[u8]) -> Answer {
    let timestamp = (now_ms() / 1_000).to_string();
    let signature = sign(site, &timestamp, body);
    let mut headers = vec![
        ("footfall-site", site),
        ("footfall-timestamp", timestamp.as_str()),
        ("footfall-signature", signature.as_str()),
    ];
    headers.extend_from_slice(more);
    http(ingest.address, "POST", PATH, &headers, body).await
}

fn event(key: &str, visitor: &str, age_ms: i64) -> Value {
    json!({"k": "custom", "n": "paid", "u": "https://shop.example/paid", "at": now_ms() - age_ms,
           "idempotency": key, "visitor": visitor})
}

fn body(events: &[Value]) -> Vec<u8> {
    json!({"events": events}).to_string().into_bytes()
}

fn results(answer: &Answer) -> Vec<EventResult> {
    serde_json::from_str::<EventsAnswer>(&answer.body)
        .unwrap_or_else(|error| panic!("{error}: {answer:?}"))
        .results
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_answered_for_itself_once_kafka_has_it() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let mut events: Vec<_> =
        (0..20).map(|n| event(&format!("order-{n}"), &format!("anna-{n}"), 3 * DAY_MS)).collect();
    events.insert(5, event("too old", "anna", 8 * DAY_MS));
    events.insert(
        9,
        json!({"k": "view", "at": now_ms(), "u": "nonsense", "idempotency": "x", "ip": "203.0.113.9"}),
    );
    events.push(json!(7));
    let mut unwanted = event("unwanted", "anna", 0);
    unwanted["u"] = "https://shop.example/private/page".into();
    events.insert(0, unwanted);
    let answer = post_signed(&ingest, "shop", &[], &body(&events)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["cache-control"], "no-store");
    let results = results(&answer);
    assert_eq!(results.len(), 24);
    let refused: Vec<_> = results
        .iter()
        .enumerate()
        .filter_map(|(place, result)| match result {
            EventResult::Refused { reason, .. } => Some((place, *reason)),
            EventResult::Accepted { .. } => None,
            EventResult::Retry { .. } => panic!("{result:?}"),
        })
        .collect();
    assert_eq!(
        refused,
        [
            (0, RejectReason::IgnoredPath),
            (6, RejectReason::TooOld),
            (10, RejectReason::BadUrl),
            (23, RejectReason::Malformed)
        ]
    );
    let stored = kafka.events(20).await;
    let told: HashSet<_> = events.iter().filter_map(|event| event["at"].as_i64()).collect();
    assert!(stored.iter().all(|(_, event)| told.contains(&event.event_time)), "back-dated as told");
    let letters = kafka.dead_letters(3).await;
    assert!(letters.iter().all(|letter| letter.reason != RejectReason::IgnoredPath), "nothing of it is kept");
    assert!(
        letters
            .iter()
            .all(|letter| !letter.payload.contains("203.0.113.9") && !letter.payload.contains("anna"))
    );
    let report = kafka.report("node-1", |report| report.ledger.accepted == 20).await;
    assert_eq!((report.ledger.received, report.ledger.retried), (24, 0));
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resend_has_the_same_id_visitor_and_partition_and_no_record_names_anybody() {
    let kafka = Kafka::start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cities.mmdb");
    let cities = [("203.0.113.0", 24, ["AT", "Tyrol", "Innsbruck"])];
    std::fs::write(&path, mmdb::database("GeoLite2-City", &cities)).unwrap();
    let ingest = Ingest::start_with(&kafka, |config| config.geography.database = Some(path)).await;
    let at = now_ms() - DAY_MS;
    let by_address = json!({"k": "view", "u": "https://shop.example/", "at": at, "id": "01a315e4-6800-7000-8000-c3d400000001",
        "ip": "203.0.113.9", "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "ctx": {"w": 400}});
    let mut on_another_day = by_address.clone();
    on_another_day["id"] = "01a315e4-6800-7000-8000-c3d400000002".into();
    on_another_day["at"] = (at - DAY_MS).into();
    let mut by_name = event("order-4711", "anna@mail.example", 1_000);
    by_name["ctx"] = json!({"z": "Europe/Berlin"});
    let body = body(&[by_address, on_another_day, by_name]);
    for _ in 0..2 {
        let results = results(&post_signed(&ingest, "shop", &[], &body).await);
        assert!(results.iter().all(|result| matches!(result, EventResult::Accepted { .. })), "{results:?}");
    }
    let stored = kafka.events(6).await;
    let mut fates: Vec<(String, VisitorId, i32)> = stored
        .iter()
        .map(|(partition, event)| (event.event_id.to_string(), event.visitor, *partition))
        .collect();
    fates.sort();
    fates.dedup();
    assert_eq!(fates.len(), 3, "{fates:?}");
    let visitors: HashSet<_> = fates.iter().map(|(_, visitor, _)| visitor).collect();
    assert_eq!(visitors.len(), 3, "an address is a visitor of the event's day, whenever it is sent");
    let found = |name: &str| stored.iter().map(|(_, event)| event).find(|event| event.name == name).unwrap();
    let (view, paid) = (found(""), found("paid"));
    assert_eq!((view.browser.as_str(), view.country.as_str()), ("Firefox", "AT"));
    assert_eq!(paid.country, "DE", "without an address, the time zone tells");
    let text = format!("{stored:?}");
    assert!(!text.contains("203.0.113.9") && !text.contains("anna"), "{text}");
    ingest.stop().await;
}

#[rstest]
#[case::unknown_site("nowhere", &[], b"{}", 404, RejectReason::UnknownSite)]
#[case::no_secret("blog", &[], b"{}", 401, RejectReason::BadSignature)]
#[case::switched_off("closed", &[], b"{}", 403, RejectReason::SiteDisabled)]
#[case::from_a_page("shop", &[("origin", "https://shop.example")], b"{}", 403, RejectReason::OriginDenied)]
#[case::no_events("shop", &[], b"{}", 400, RejectReason::Malformed)]
#[case::no_json("shop", &[], b"nonsense", 400, RejectReason::Malformed)]
#[case::bad_utf8("shop", &[], b"\"\xff\"", 400, RejectReason::BadUtf8)]
#[case::encoding("shop", &[("content-encoding", "br")], b"{}", 415, RejectReason::BadEncoding)]
#[case::depth_bomb("shop", &[], &[b'['; 9_999], 400, RejectReason::TooDeep)]
#[case::too_large("shop", &[], &[b' '; 1024 * 1024 + 1], 413, RejectReason::TooLarge)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_request_is_refused_whole_and_nothing_of_it_is_kept(
    #[case] site: &str,
    #[case] headers: &[(&str, &str)],
    #[case] body: &[u8],
    #[case] status: u16,
    #[case] reason: RejectReason,
) {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let answer = post_signed(&ingest, site, headers, body).await;
    assert_eq!(answer.status, status, "{answer:?}");
    let (ServerFrame::Error { reason: told, .. } | ServerFrame::Stop { reason: told, .. }) = answer.frame()
    else {
        panic!("{answer:?}")
    };
    assert_eq!(told, reason);
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    let letter = kafka.dead_letters(1).await.remove(0);
    assert_eq!((letter.reason, letter.payload.as_str()), (reason, ""));
    ingest.stop().await;
}

#[rstest]
#[case::stale(-301, "", RejectReason::BadTimestamp)]
#[case::ahead(302, "", RejectReason::BadTimestamp)]
#[case::of_another_site(0, "blog", RejectReason::BadSignature)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_of_another_time_or_site_is_refused(
    #[case] skew_s: i64,
    #[case] signed_for: &str,
    #[case] reason: RejectReason,
) {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let body = body(&[event("order", "anna", 0)]);
    let timestamp = (now_ms() / 1_000 + skew_s).to_string();
    let signed_for = if signed_for.is_empty() { "shop" } else { signed_for };
    let signature = sign(signed_for, &timestamp, &body);
    let headers =
        [("footfall-site", "shop"), ("footfall-timestamp", &timestamp), ("footfall-signature", &signature)];
    let answer = http(ingest.address, "POST", PATH, &headers, &body).await;
    assert_eq!(answer.status, 401);
    assert!(
        matches!(answer.frame(), ServerFrame::Error { reason: told, .. } if told == reason),
        "{answer:?}"
    );
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_events_pass_and_one_more_is_too_many() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let mut events: Vec<_> =
        (0..1_000).map(|n| event(&format!("order-{n}"), &format!("{}", n % 7), 0)).collect();
    let answer = post_signed(&ingest, "shop", &[], &body(&events)).await;
    let accepted = results(&answer);
    assert!(accepted.iter().all(|result| matches!(result, EventResult::Accepted { .. })));
    assert_eq!((answer.status, accepted.len()), (200, 1_000));
    events.push(event("order-1000", "0", 0));
    let answer = post_signed(&ingest, "shop", &[], &body(&events)).await;
    assert_eq!(answer.status, 413);
    kafka.events(1_000).await;
    let report = kafka.report("node-1", |report| report.ledger.accepted == 1_000).await;
    assert_eq!(report.ledger.refused[&RejectReason::TooLarge], 1_001);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_over_a_limit_are_to_be_sent_again_and_their_siblings_are_settled() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| {
        config.limits.limit_loopback = true;
        config.limits.events_per_address = footfall_ingest::config::Rate::new(1, 256);
    })
    .await;
    let events: Vec<_> = (0..257).map(|n| event(&format!("order-{n}"), "anna", 0)).collect();
    let answer = post_signed(&ingest, "shop", &[], &body(&events)).await;
    assert_eq!(answer.status, 429);
    assert!(answer.headers["retry-after"].parse::<u32>().unwrap() >= 1);
    let results = results(&answer);
    assert!(results[..256].iter().all(|result| matches!(result, EventResult::Accepted { .. })));
    assert!(
        matches!(results[256], EventResult::Retry { reason: RetryReason::RateLimited, .. }),
        "{results:?}"
    );
    kafka.events(256).await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_accepted_that_kafka_has_not() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| config.batcher.delivery_timeout_ms = 500).await;
    // Connected, then the broker goes.
    assert_eq!(post_signed(&ingest, "shop", &[], &body(&[event("first", "anna", 0)])).await.status, 200);
    kafka.cluster.broker_down(1).unwrap();
    let answer = post_signed(&ingest, "shop", &[], &body(&[event("order", "anna", 0)])).await;
    assert_eq!(answer.status, 503);
    assert!(matches!(results(&answer)[0], EventResult::Retry { reason: RetryReason::LogUnavailable, .. }));
    kafka.cluster.broker_up(1).unwrap();
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_bodies_are_held_at_once_and_the_next_is_told_to_come_again() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| config.timeouts.body_ms = 60_000).await;
    // Whether a request is signed shows only at the end of its body.
    let timestamp = (now_ms() / 1_000).to_string();
    let headers = [("footfall-site", "shop"), ("footfall-timestamp", timestamp.as_str())];
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\nfootfall-site: shop\r\nfootfall-timestamp: {timestamp}\r\ncontent-length: 9\r\n\r\n"
    );
    let unsigned = async || http(ingest.address, "POST", PATH, &headers, b"{}").await;
    let mut held = Vec::new();
    eventually("there is no room", async || {
        let mut stream = TcpStream::connect(ingest.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        held.push(stream);
        let answer = unsigned().await;
        answer.status == 503 && answer.headers["retry-after"] == "1"
    })
    .await;
    assert!(held.len() >= 32, "{}", held.len());
    drop(held);
    eventually("there is room again", async || unsigned().await.status == 401).await;
    ingest.stop().await;
}
