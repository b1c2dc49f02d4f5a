//! Each kind of bad input meets its documented refusal; who sends well beside it notices nothing.

mod support;

use std::time::Duration;

use footfall_ingest::config::Rate;
use footfall_schemas::{RejectReason, refusal::RetryReason, tracker::ServerFrame};
use futures_util::SinkExt as _;
use rstest::rstest;
use serde_json::{Value, json};
use support::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

/// Sends an event and sees it acked.
async fn is_unharmed(neighbour: &mut Tracker, first: u32) {
    neighbour.send(&batch(stream(999), first, &[view("/neighbour")])).await;
    let ack = neighbour.ack().await;
    assert_eq!((ack.upto, ack.refused.len()), (first, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_event_refuses_itself_and_its_siblings_pass() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let mut tracker = ingest.tracker().await;
    let corpus = [
        r#"{"k":"view","at":0,"u":"https://a/","t":"\ud800"}"#.to_owned(),
        r#"{"k":"view","at":0,"u":"https://a/","t":"a\u0000b"}"#.to_owned(),
        r#"{"k":"view","at":1e400,"u":"https://a/"}"#.to_owned(),
        format!(
            r#"{{"k":"view","at":0,"u":"https://a/","p":{{"a":{}1{}}}}}"#,
            "[".repeat(2000),
            "]".repeat(2000)
        ),
        "7".to_owned(),
    ];
    let good = view("/good").to_string();
    let odd = r#"{"k":"custom","at":0,"u":"https://a/odd","n":"\u202etxt","p":{"big":9007199254740993}}"#;
    let events: Vec<String> =
        corpus.iter().flat_map(|bad| [good.clone(), bad.clone()]).chain([odd.to_owned()]).collect();
    tracker
        .text(&format!(
            r#"{{"t":"batch","stream":"{}","first":1,"sent":0,"events":[{}]}}"#,
            stream(1),
            events.join(",")
        ))
        .await;
    let ack = tracker.ack().await;
    assert_eq!((ack.first, ack.upto), (1, 11));
    let refused: Vec<_> = ack.refused.iter().map(|refusal| (refusal.seq, refusal.reason)).collect();
    use RejectReason as R;
    assert_eq!(
        refused,
        [(2, R::BadField), (4, R::BadField), (6, R::BadNumber), (8, R::TooDeep), (10, R::Malformed)]
    );

    let stored = kafka.events(6).await;
    let odd = stored.iter().map(|(_, event)| event).find(|event| event.path == "/odd").unwrap();
    assert_eq!((odd.name.as_str(), odd.props["big"].as_str()), ("\u{202e}txt", "9007199254740993"));
    let letters = kafka.dead_letters(5).await;
    assert!(letters.iter().all(|letter| letter.site == "shop" && letter.event_id.is_some()));
    assert!(letters[0].payload.contains(r"\ud800"));
    let report = kafka.report("node-1", |report| report.ledger.accepted == 6).await;
    assert_eq!(report.ledger.received, 11);
    assert_eq!(report.ledger.refused[&R::BadField], 2);
    drop(tracker);
    ingest.stop().await;
}

#[rstest]
#[case::no_json("nonsense", "frame")]
#[case::no_tag(r#"{"x":1}"#, "frame")]
#[case::no_stream(r#"{"t":"batch","first":1,"sent":0,"events":[]}"#, "batch")]
#[case::here_without_path(r#"{"t":"here"}"#, "here")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_frame_is_answered_kept_and_after_five_in_a_row_closed(
    #[case] frame: &str,
    #[case] field: &str,
) {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let (mut tracker, mut neighbour) = (ingest.tracker().await, ingest.tracker().await);
    for first in 1..=4 {
        tracker.text(frame).await;
        match tracker.next().await {
            ServerFrame::Error { reason: RejectReason::Malformed, detail } => {
                assert!(detail.starts_with(&format!("{field}:")), "{detail}");
            }
            other => panic!("no error but {other:?}"),
        }
        // A good frame in between starts the count anew.
        tracker.send(&batch(stream(1), first, &[view("/")])).await;
        tracker.ack().await;
    }
    for _ in 0..4 {
        tracker.text(frame).await;
    }
    tracker.send(&json!({"t": "here", "path": "/", "visible": true})).await;
    for _ in 0..5 {
        tracker.text(frame).await;
    }
    assert_eq!(tracker.close_code().await, 1008);
    is_unharmed(&mut neighbour, 1).await;
    let letters = kafka.dead_letters(13).await;
    assert!(letters.iter().all(|letter| letter.payload == frame));
    let report = kafka.report("node-1", |report| report.ledger.accepted == 5).await;
    assert_eq!((report.ledger.refused[&RejectReason::Malformed], report.ledger.received), (13, 18));
    drop((tracker, neighbour));
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_no_tracker_sends_close_with_their_code() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let mut neighbour = ingest.tracker().await;

    let mut tracker = ingest.tracker().await;
    tracker.socket.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(tracker.close_code().await, 1003, "binary");

    let mut tracker = ingest.tracker().await;
    tracker.raw_text(vec![b'{', 0xff, 0xfe, b'}']).await;
    assert_eq!(tracker.close_code().await, 1007, "not UTF-8");

    let mut tracker = ingest.tracker().await;
    tracker.text(&"x".repeat(64 * 1024 + 1)).await;
    assert_eq!(tracker.close_code().await, 1009, "oversized");

    let mut tracker = ingest.tracker().await;
    tracker.send(&batch(stream(1), 1, &vec![json!(1); 257])).await;
    assert_eq!(tracker.close_code().await, 1009, "too many events");

    is_unharmed(&mut neighbour, 1).await;
    let report = kafka.report("node-1", |report| report.ledger.accepted == 1).await;
    assert_eq!(report.ledger.refused[&RejectReason::BadUtf8], 1);
    assert_eq!(report.ledger.refused[&RejectReason::TooLarge], 258);
    drop((neighbour, tracker));
    ingest.stop().await;
}

/// An unmasked frame, as no client may send it (RFC 6455 §5.1).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_protocol_error_closes_with_1002() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let mut tracker = ingest.tracker().await;
    tracker.socket.get_mut().write_all(&[0x81, 0x02, b'{', b'}']).await.unwrap();
    assert_eq!(tracker.close_code().await, 1002);
    drop(tracker);
    ingest.stop().await;
}

#[rstest]
#[case::large(1, 15 * 1024, 200)]
#[case::too_large(1, 17 * 1024, 431)]
#[case::many(60, 1, 200)]
#[case::too_many(65, 1, 431)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_over_its_cap_is_refused(#[case] lines: usize, #[case] length: usize, #[case] status: u16) {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let value = "x".repeat(length);
    let headers = vec![("x", value.as_str()); lines];
    assert_eq!(http(ingest.address, "GET", "/healthz", &headers, b"").await.status, status);
    ingest.stop().await;
}

#[rstest]
#[case::unknown_site("/ws?k=nowhere", None, 404, RejectReason::UnknownSite)]
#[case::no_site("/ws", None, 404, RejectReason::UnknownSite)]
#[case::wrong_origin("/ws?k=shop", Some("https://evil.example"), 403, RejectReason::OriginDenied)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_is_refused_before_it_happens(
    #[case] path: &str,
    #[case] origin: Option<&str>,
    #[case] status: u16,
    #[case] reason: RejectReason,
) {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let mut headers = vec![
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    headers.extend(origin.map(|origin| ("origin", origin)));
    let answer = http(ingest.address, "GET", path, &headers, b"").await;
    assert_eq!(answer.status, status);
    assert!(
        matches!(answer.frame(), ServerFrame::Error { reason: told, .. } if told == reason),
        "{answer:?}"
    );
    assert_eq!(kafka.dead_letters(1).await[0].reason, reason);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allowed_origin_and_the_subprotocol_are_accepted() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let headers = [("origin", "https://shop.example"), ("sec-websocket-protocol", "footfall.v1")];
    let tracker = Tracker::connect(ingest.address, "/ws?k=shop", &headers).await;
    assert_eq!(tracker.welcome.node, "node-1");
    let answer = ingest.get("/ws?k=shop").await;
    assert_eq!(answer.status, 426, "a plain request is told what is spoken here");
    drop(tracker);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_slowed_then_refused_then_closed() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| {
        config.limits.limit_loopback = true;
        config.limits.events_per_connection = Rate::new(10, 300);
        config.limits.flood_strikes = 5;
    })
    .await;
    let (mut tracker, mut neighbour) = (ingest.tracker().await, ingest.tracker().await);
    let hundred = vec![view("/"); 100];
    let mut first = 1;
    for count in [100, 100, 80, 10, 10] {
        tracker.send(&batch(stream(1), first, &hundred[..count])).await;
        first += count as u32;
    }
    // Near the limit, a hint, and only one; everything is taken all the same.
    let (mut acked, mut hints) = (0, 0);
    while acked < 300 || hints == 0 {
        match tracker.next().await {
            ServerFrame::Ack(ack) => acked = ack.upto,
            ServerFrame::Slow { linger_ms } if linger_ms > 0 => hints += 1,
            other => panic!("neither ack nor hint but {other:?}"),
        }
    }
    assert_eq!(hints, 1);
    // Over the limit: the hint again, then a refusal that says how long to wait.
    tracker.send(&batch(stream(1), 301, &hundred)).await;
    assert!(matches!(tracker.next().await, ServerFrame::Slow { linger_ms } if linger_ms > 0));
    let nack = tracker.nack().await;
    assert_eq!((nack.first, nack.upto, nack.reason), (301, 400, RetryReason::RateLimited));
    assert!((5_000..=11_000).contains(&nack.retry_ms), "{}", nack.retry_ms);
    // Sent on all the same.
    for n in 0..6 {
        tracker.send(&batch(stream(1), 401 + n * 100, &hundred)).await;
    }
    assert_eq!(tracker.close_code().await, 1008);
    is_unharmed(&mut neighbour, 1).await;
    let report = kafka.report("node-1", |report| report.ledger.accepted == 301).await;
    assert_eq!((report.ledger.received, report.ledger.retried), (1_001, 700));
    drop((tracker, neighbour));
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_as_told_is_forgiven_what_was_before() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| {
        config.limits.limit_loopback = true;
        config.limits.events_per_connection = Rate::new(200, 256);
        config.limits.flood_strikes = 1;
    })
    .await;
    let mut tracker = ingest.tracker().await;
    let full = batch(stream(1), 1, &vec![view("/"); 256]);
    for _ in 0..2 {
        // One is taken, one is told to wait, and one did not.
        let mut nacks = Vec::new();
        for _ in 0..3 {
            tracker.send(&full).await;
        }
        while nacks.len() < 2 {
            match tracker.next().await {
                ServerFrame::Ack(_) | ServerFrame::Slow { .. } => {}
                ServerFrame::Nack(nack) => nacks.push(nack),
                other => panic!("{other:?}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(u64::from(nacks[1].retry_ms) + 100)).await;
    }
    tracker.send(&full).await;
    while !matches!(tracker.next().await, ServerFrame::Ack(_)) {}
    drop(tracker);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_batch_in_between_is_taken_and_forgives_nothing() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| {
        config.limits.limit_loopback = true;
        config.limits.events_per_connection = Rate::new(50, 256);
        config.limits.flood_strikes = 3;
    })
    .await;
    let mut tracker = ingest.tracker().await;
    let (full, small) =
        (batch(stream(1), 1, &vec![view("/"); 256]), batch(stream(1), 257, &[view("/small")]));
    for _ in 0..6 {
        for frame in [&full, &small] {
            // Closed by then, perhaps.
            let _ = tracker.socket.send(Message::text(frame.to_string())).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    assert_eq!(tracker.close_code().await, 1008);
    assert!(kafka.events(257).await.iter().any(|(_, event)| event.path == "/small"));
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_pings_and_small_frames_is_closed_too() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| {
        config.limits.limit_loopback = true;
        config.limits.events_per_connection = Rate::new(1, 256);
        config.limits.flood_strikes = 10;
    })
    .await;
    let text = |text: &'static str| Message::text(text);
    let here = text(r#"{"t":"here","path":"/","visible":true}"#);
    let mut mostly_malformed = vec![text("nonsense"); 4];
    mostly_malformed.push(here.clone());
    for frames in
        [vec![Message::Ping(vec![1].into())], vec![text(r#"{"t":"zz"}"#)], vec![here], mostly_malformed]
    {
        let mut tracker = ingest.tracker().await;
        for frame in frames.iter().cycle().take(300) {
            if tracker.socket.send(frame.clone()).await.is_err() {
                break;
            }
        }
        assert_eq!(tracker.close_code().await, 1008);
    }
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_opens_so_many_connections_and_no_more() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| {
        config.limits.limit_loopback = true;
        config.limits.connections_per_address = 2;
    })
    .await;
    let first = ingest.tracker().await;
    let _second = ingest.tracker().await;
    let mut third = TcpStream::connect(ingest.address).await.unwrap();
    let read = timeout(PATIENCE, third.read(&mut [0; 1])).await.expect("closed at once");
    assert!(matches!(read, Ok(0) | Err(_)));
    drop(first);
    eventually("a place is free again", async || {
        let mut stream = TcpStream::connect(ingest.address).await.unwrap();
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        matches!(stream.read(&mut [0; 1]).await, Ok(1))
    })
    .await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_connects_and_says_nothing_is_closed() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| {
        config.timeouts.header_ms = 300;
        config.timeouts.body_ms = 300;
        config.timeouts.first_message_ms = 300;
        config.timeouts.ping_ms = 400;
        config.timeouts.idle_ms = 1_000;
    })
    .await;
    // A header that never ends.
    let mut slow = TcpStream::connect(ingest.address).await.unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nhost: x").await.unwrap();
    let mut read = Vec::new();
    timeout(PATIENCE, slow.read_to_end(&mut read)).await.expect("closed").unwrap();
    // A body that never ends.
    let mut slow = TcpStream::connect(ingest.address).await.unwrap();
    slow.write_all(b"POST /e?k=shop HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{").await.unwrap();
    let mut read = Vec::new();
    timeout(PATIENCE, slow.read_to_end(&mut read)).await.expect("closed").unwrap();
    assert!(read.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&read));
    // A socket without a first message.
    let mut tracker = ingest.tracker().await;
    assert_eq!(tracker.close_code().await, 1001);
    // One that spoke, and then does not even pong: its pings are not read by anybody.
    let mut tracker = ingest.tracker().await;
    tracker.send(&json!({"t": "here", "path": "/", "visible": true})).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(tracker.close_code().await, 1001);
    // One that pongs stays, for longer than the idle time.
    let mut tracker = ingest.tracker().await;
    tracker.send(&json!({"t": "here", "path": "/", "visible": true})).await;
    assert!(tracker.hears_within(Duration::from_millis(2_000)).await.is_none());
    is_unharmed(&mut tracker, 1).await;
    drop(tracker);
    ingest.stop().await;
}

#[rstest]
#[case::sequence_zero(json!({"first": 0}), RejectReason::BadSequence)]
#[case::forged_token(json!({"token": "AAAA"}), RejectReason::BadToken)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_without_a_place_or_a_visitor_is_refused(
    #[case] change: Value,
    #[case] reason: RejectReason,
) {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let mut tracker = ingest.tracker().await;
    let mut sent = batch(stream(1), 1, &[view("/")]);
    change.as_object().unwrap().iter().for_each(|(key, value)| sent[key] = value.clone());
    tracker.send(&sent).await;
    let ack = tracker.ack().await;
    assert_eq!((ack.first, ack.upto), (sent["first"].as_u64().unwrap() as u32, ack.first));
    assert_eq!(ack.refused[0].reason, reason);
    assert_eq!(kafka.dead_letters(1).await[0].reason, reason);
    drop(tracker);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_site_is_refused() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let blog = ingest.tracker_at("/ws?k=blog").await;
    let mut shop = ingest.tracker().await;
    let mut sent = batch(stream(1), 1, &[view("/")]);
    sent["token"] = blog.welcome.token.clone().into();
    shop.send(&sent).await;
    assert_eq!(shop.ack().await.refused[0].reason, RejectReason::BadToken);
    drop((blog, shop));
    ingest.stop().await;
}
