//! The HTTP way: the same intake, the same acks; and what else the listener serves.
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use footfall_schemas::{RejectReason, tracker::ServerFrame};
use rstest::rstest;
use serde_json::json;
use support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_without_a_socket_asks_for_a_token_and_sends_with_it() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let asked = ingest.post("/e?k=shop", &batch(stream(1), 1, &[])).await;
    let ServerFrame::Ack(asked) = asked.frame() else { panic!("{asked:?}") };
    assert_eq!((asked.first, asked.upto), (1, 0), "nothing is settled");
    assert!(!asked.settings.unwrap().mask_paths.is_empty(), "what a welcome would bring");
    let token = asked.token.unwrap();
    let sent =
        ingest.post(&format!("/e?k=shop&t={token}"), &batch(stream(1), 1, &[view("/"), json!({})])).await;
    assert_eq!(sent.status, 200);
    let ServerFrame::Ack(ack) = sent.frame() else { panic!("{sent:?}") };
    assert_eq!((ack.first, ack.upto, ack.refused[0].seq), (1, 2, 2));
    assert!(ack.token.is_some() && ack.settings.is_none());
    // The same visitor by socket, with the token of the HTTP answer.
    let mut tracker = ingest.tracker_at(&format!("/ws?k=shop&t={token}")).await;
    tracker.send(&batch(stream(1), 3, &[view("/")])).await;
    tracker.ack().await;
    let events = kafka.events(2).await;
    assert_eq!(events[0].1.visitor, events[1].1.visitor);
    drop(tracker);
    ingest.stop().await;
}

/// Each request comes with another user agent, which without a token makes another visitor, and with the token of the
/// answer before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_token_is_none() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let posted = ingest.post("/e?k=shop&t=", &batch(stream(1), 1, &[view("/")])).await;
    assert!(matches!(posted.frame(), ServerFrame::Ack(ack) if ack.refused.is_empty()), "{posted:?}");
    let pixel = ingest.get("/e.gif?k=shop&t=&u=https%3A%2F%2Fshop.example%2F").await;
    assert!(matches!(answer_of(&pixel), ServerFrame::Ack(ack) if ack.refused.is_empty()), "{pixel:?}");
    let mut tracker = ingest.tracker_at("/ws?k=shop&t=").await;
    tracker.send(&batch(stream(2), 1, &[view("/")])).await;
    kafka.events(3).await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_in_the_query_keeps_the_visitor() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let mut answer = ingest.post("/e?k=shop", &batch(stream(1), 1, &[view("/")])).await.frame();
    let [first, second] = [2, 3].map(|first| batch(stream(1), first, &[view("/")]).to_string());
    for (method, path, agent, body) in [
        ("POST", "/e?k=shop", "one", first.as_str()),
        ("GET", in_a_pixel(&second).as_str(), "two", ""),
        ("GET", "/e.gif?k=shop&u=https%3A%2F%2Fshop.example%2F", "three", ""),
    ] {
        let ServerFrame::Ack(ack) = answer else { panic!("{answer:?}") };
        let path = format!("{path}&t={}", ack.token.unwrap());
        let next = http(ingest.address, method, &path, &[("user-agent", agent)], body.as_bytes()).await;
        answer = if method == "GET" { answer_of(&next) } else { next.frame() };
    }
    let visitors: std::collections::HashSet<_> =
        kafka.events(4).await.into_iter().map(|(_, event)| event.visitor).collect();
    assert_eq!(visitors.len(), 1);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_beacon_without_a_token_is_taken() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let headers = [("content-type", "text/plain;charset=UTF-8"), ("origin", "https://shop.example")];
    let body = batch(stream(1), 1, &[view("/last")]).to_string();
    let answer = http(ingest.address, "POST", "/e?k=shop", &headers, body.as_bytes()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["access-control-allow-origin"], "https://shop.example");
    assert_eq!(answer.headers["vary"], "Origin");
    assert_eq!(kafka.events(1).await[0].1.path, "/last");
    ingest.stop().await;
}

/// In all but its tag.
fn no_batch() -> String {
    let mut frame = batch(stream(1), 1, &[view("/")]);
    frame["t"] = "here".into();
    frame.to_string()
}

#[rstest]
#[case::switched_off("/e?k=closed", None, b"{}".to_vec(), 403, RejectReason::SiteDisabled)]
#[case::unknown_site("/e?k=nowhere", None, b"{}".to_vec(), 404, RejectReason::UnknownSite)]
#[case::no_site("/e", None, b"{}".to_vec(), 404, RejectReason::UnknownSite)]
#[case::wrong_origin("/e?k=shop", Some("https://evil.example"), b"{}".to_vec(), 403, RejectReason::OriginDenied)]
#[case::null_origin("/e?k=shop", Some("null"), b"{}".to_vec(), 403, RejectReason::OriginDenied)]
#[case::malformed("/e?k=shop", None, b"nonsense".to_vec(), 400, RejectReason::Malformed)]
#[case::empty("/e?k=shop", None, b"".to_vec(), 400, RejectReason::Malformed)]
#[case::no_batch("/e?k=shop", None, no_batch().into_bytes(), 400, RejectReason::Malformed)]
#[case::bad_utf8("/e?k=shop", None, vec![b'"', 0xff, b'"'], 400, RejectReason::BadUtf8)]
#[case::too_large("/e?k=shop", None, vec![b' '; 64 * 1024 + 1], 413, RejectReason::TooLarge)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_request_is_answered_with_its_status_and_kept(
    #[case] path: &str,
    #[case] origin: Option<&str>,
    #[case] body: Vec<u8>,
    #[case] status: u16,
    #[case] reason: RejectReason,
) {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let headers: Vec<_> = origin.map(|origin| ("origin", origin)).into_iter().collect();
    let answer = http(ingest.address, "POST", path, &headers, &body).await;
    assert_eq!(answer.status, status, "{answer:?}");
    let readable = answer.headers.get("access-control-allow-origin").map(String::as_str);
    assert_eq!(readable, origin, "a tracker may read why");
    let (ServerFrame::Error { reason: told, .. } | ServerFrame::Stop { reason: told, .. }) = answer.frame()
    else {
        panic!("{answer:?}")
    };
    assert_eq!(told, reason);
    let letter = kafka.dead_letters(1).await.remove(0);
    assert_eq!(letter.reason, reason);
    let sent = String::from_utf8_lossy(&body);
    assert!(sent.starts_with(&letter.payload) && letter.payload.is_empty() == sent.is_empty(), "{letter:?}");
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_without_a_length_is_cut_off_at_the_cap() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let chunk = format!("2000\r\n{}\r\n", " ".repeat(0x2000));
    let body = chunk.repeat(9) + "0\r\n\r\n";
    let mut stream = tokio::net::TcpStream::connect(ingest.address).await.unwrap();
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let head =
        "POST /e?k=shop HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let _ = stream.write_all(body.as_bytes()).await;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    ingest.stop().await;
}

fn gzip(plain: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_batch_is_acked_as_a_plain_one() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let body = gzip(&batch(stream(1), 1, &[view("/small")]).to_string());
    let answer = http(ingest.address, "POST", "/e?k=shop", &[("content-encoding", "gzip")], &body).await;
    assert!(matches!(answer.frame(), ServerFrame::Ack(ack) if ack.upto == 1), "{answer:?}");
    assert_eq!(kafka.events(1).await[0].1.path, "/small");
    ingest.stop().await;
}

#[rstest]
#[case::bomb("gzip", gzip(&" ".repeat(60_000_000)), 413, RejectReason::TooLarge)]
#[case::cut("gzip", gzip("a text").split_off(12), 400, RejectReason::Malformed)]
#[case::unknown("br", gzip("a text"), 415, RejectReason::BadEncoding)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encoding_that_cannot_be_read_is_refused_and_kept(
    #[case] encoding: &str,
    #[case] body: Vec<u8>,
    #[case] status: u16,
    #[case] reason: RejectReason,
) {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    assert!(body.len() < 64 * 1024, "small as it comes");
    let answer = http(ingest.address, "POST", "/e?k=shop", &[("content-encoding", encoding)], &body).await;
    assert_eq!(answer.status, status);
    assert!(
        matches!(answer.frame(), ServerFrame::Error { reason: told, .. } if told == reason),
        "{answer:?}"
    );
    let what_to_send = answer.headers.get("accept-encoding").map(String::as_str);
    assert_eq!(what_to_send, (status == 415).then_some("gzip, identity"));
    let letter = kafka.dead_letters(1).await.remove(0);
    assert_eq!(letter.reason, reason);
    assert!(letter.payload.len() <= 4 * 1024);
    ingest.stop().await;
}

fn answer_of(pixel: &Answer) -> ServerFrame {
    assert_eq!(pixel.headers["cache-control"], "no-store");
    serde_json::from_str(&pixel.headers["footfall-answer"]).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pixel_on_a_page_without_scripts_is_a_view_of_that_page() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let headers =
        [("referer", "https://shop.example/plain?x=1"), ("user-agent", "Mozilla/5.0 Firefox/140.0")];
    let pixel = http(ingest.address, "GET", "/e.gif?k=shop&z=Europe/Berlin", &headers, b"").await;
    assert_eq!(pixel.status, 200);
    assert!(matches!(answer_of(&pixel), ServerFrame::Ack(ack) if ack.refused.is_empty()), "{pixel:?}");
    assert_eq!(pixel.headers["content-type"], "image/gif");
    assert!(pixel.body.starts_with("GIF89a"), "{pixel:?}");
    let (_, event) = kafka.events(1).await.remove(0);
    let shown = [event.path.as_str(), event.browser.as_str(), event.country.as_str()];
    assert_eq!(shown, ["/plain", "Firefox", "DE"]);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_in_a_pixel_is_acked_in_the_header_with_its_refusals() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let json =
        batch(stream(1), 7, &[view("/pixel"), json!({"k": "view", "at": 0, "u": "\u{e9}"})]).to_string();
    let pixel =
        http(ingest.address, "GET", &in_a_pixel(&json), &[("origin", "https://shop.example")], b"").await;
    assert_eq!(pixel.headers["access-control-allow-origin"], "https://shop.example", "it may be read");
    let ServerFrame::Ack(ack) = answer_of(&pixel) else { panic!("{pixel:?}") };
    assert_eq!((ack.first, ack.upto, ack.refused[0].seq), (7, 8, 8));
    assert!(ack.token.is_some());
    assert_eq!(kafka.events(1).await[0].1.path, "/pixel");
    ingest.stop().await;
}

const FROM_SHOP: (&str, &str) = ("referer", "https://shop.example/");

fn in_a_pixel(batch: &str) -> String {
    let encoded: String = url::form_urlencoded::byte_serialize(batch.as_bytes()).collect();
    format!("/e.gif?k=shop&b={encoded}")
}

#[rstest]
#[case::unknown_site("/e.gif?k=nowhere", &[FROM_SHOP], 404, RejectReason::UnknownSite)]
#[case::no_query("/e.gif", &[FROM_SHOP], 404, RejectReason::UnknownSite)]
#[case::on_another_page("/e.gif?k=shop", &[("referer", "https://evil.example/")], 403, RejectReason::OriginDenied)]
#[case::from_another_origin("/e.gif?k=shop", &[FROM_SHOP, ("origin", "https://evil.example")], 403, RejectReason::OriginDenied)]
#[case::switched_off("/e.gif?k=closed", &[FROM_SHOP], 403, RejectReason::SiteDisabled)]
#[case::no_batch("/e.gif?k=shop&b=%21", &[FROM_SHOP], 400, RejectReason::Malformed)]
#[case::another_frame(&in_a_pixel(&no_batch()), &[FROM_SHOP], 400, RejectReason::Malformed)]
#[case::too_many(&in_a_pixel(&batch(stream(1), 1, &vec![json!(1); 17]).to_string()), &[FROM_SHOP], 413, RejectReason::TooLarge)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_pixel_is_answered_with_its_status_and_kept(
    #[case] path: &str,
    #[case] headers: &[(&str, &str)],
    #[case] status: u16,
    #[case] reason: RejectReason,
) {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let pixel = http(ingest.address, "GET", path, headers, b"").await;
    assert_eq!(pixel.status, status);
    let (ServerFrame::Error { reason: told, .. } | ServerFrame::Stop { reason: told, .. }) =
        answer_of(&pixel)
    else {
        panic!("{pixel:?}")
    };
    assert_eq!(told, reason);
    assert_eq!(pixel.headers["content-type"], "application/json");
    assert_eq!(pixel.frame(), answer_of(&pixel), "no image: the page's onerror fires");
    let letter = kafka.dead_letters(1).await.remove(0);
    let query = path.split_once('?').map_or("", |(_, query)| query);
    assert_eq!((letter.reason, letter.payload.as_str()), (reason, query));
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_of_a_site_that_is_switched_off_is_told_to_stop_and_closed() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let (mut socket, first) = first_word(ingest.address, "/ws?k=closed").await;
    assert!(matches!(first, ServerFrame::Stop { reason: RejectReason::SiteDisabled, .. }), "{first:?}");
    assert_eq!(close_code(&mut socket).await, 1008);
    drop(socket);
    let tracker = ingest.tracker().await;
    assert!(!tracker.welcome.settings.mask_paths.is_empty(), "others are welcome");
    drop(tracker);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preflight_is_answered_for_allowed_origins_only() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    for (origin, status) in [("https://shop.example", 204), ("https://evil.example", 403)] {
        let answer = http(ingest.address, "OPTIONS", "/e?k=shop", &[("origin", origin)], b"").await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.headers.contains_key("access-control-allow-origin"), status == 204);
        if status == 204 {
            assert_eq!(answer.headers["access-control-allow-methods"], "POST");
            assert_eq!(answer.headers["access-control-allow-headers"], "content-type, content-encoding");
        }
    }
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_probes_and_the_demo_are_served() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| config.demo = true).await;
    assert_eq!(ingest.get("/healthz").await.status, 200);
    assert_eq!(ingest.get("/readyz").await.status, 200);
    assert_eq!(ingest.get("/metrics").await.body, "metrics\n");
    let demo = ingest.get("/demo/").await;
    assert_eq!(demo.status, 200);
    // No site is named `demo`: the pages are those of the first by key.
    let first = directory().borrow().sites.keys().next().unwrap().clone();
    assert!(demo.body.contains(&format!("data-site=\"{first}\"")) && !demo.body.contains("{{"));
    assert_eq!(ingest.get("/demo").await.headers["location"], "/demo/");
    assert_eq!(ingest.get("/nothing").await.status, 404);
    ingest.stop().await;

    let ingest = Ingest::start(&kafka).await;
    assert_eq!(ingest.get("/demo/").await.status, 404, "only where it is asked for");
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_shown_to_this_machine_and_through_a_proxy_only_when_public() {
    let kafka = Kafka::start();
    let forwarded = [("x-forwarded-for", "203.0.113.7")];
    let ingest = Ingest::start(&kafka).await;
    assert_eq!(ingest.get("/metrics").await.status, 200);
    assert_eq!(http(ingest.address, "GET", "/metrics", &forwarded, b"").await.status, 403);
    ingest.stop().await;

    let ingest = Ingest::start_with(&kafka, |config| config.public_metrics = true).await;
    let answer = http(ingest.address, "GET", "/metrics", &forwarded, b"").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "metrics\n"));
    ingest.stop().await;
}
