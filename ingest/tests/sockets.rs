//! The socket under the conversation: however bytes are cut, whoever stops reading, answering or living.
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::time::Duration;

use footfall_schemas::{presence::PresenceReport, tracker::ServerFrame};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use support::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout},
};
use tokio_tungstenite::{client_async, tungstenite::Message};

const TEXT: u8 = 0x81;
const CONTINUATION: u8 = 0x80;
const PING: u8 = 0x89;

/// A masked frame of less than 64 KiB.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut bytes = vec![first, 0x80 | 126];
    if first & 0x08 == 0 {
        bytes.extend((payload.len() as u16).to_be_bytes());
    } else {
        bytes[1] = 0x80 | payload.len() as u8;
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn handshake() -> Vec<u8> {
    b"GET /ws?k=shop HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
      sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .to_vec()
}

fn batch_frame(first: u32) -> Vec<u8> {
    frame(TEXT, batch(stream(1), first, &[view("/")]).to_string().as_bytes())
}

/// Reads until `enough` of what was read.
async fn read_until(stream: &mut TcpStream, enough: impl Fn(&str) -> bool) -> String {
    let mut read = Vec::new();
    timeout(PATIENCE, async {
        loop {
            let text = String::from_utf8_lossy(&read).into_owned();
            if enough(&text) {
                return text;
            }
            let mut buffer = [0; 4096];
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "closed after {text:?}");
            read.extend_from_slice(&buffer[..count]);
        }
    })
    .await
    .expect("in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_come_with_the_handshake_are_heard() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let mut stream = TcpStream::connect(ingest.address).await.unwrap();
    stream.write_all(&[handshake(), batch_frame(1), batch_frame(2)].concat()).await.unwrap();
    let answer = read_until(&mut stream, |text| text.contains(r#""upto":2"#)).await;
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains(r#""t":"welcome""#), "{answer:?}");
    drop(stream);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_in_pieces_of_one_byte_and_in_one_piece_are_heard_alike() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let mut stream = TcpStream::connect(ingest.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(&handshake()).await.unwrap();
    read_until(&mut stream, |text| text.contains(r#""t":"welcome""#)).await;
    for byte in batch_frame(1) {
        stream.write_all(&[byte]).await.unwrap();
    }
    read_until(&mut stream, |text| text.contains(r#""upto":1"#)).await;
    let coalesced: Vec<u8> = (2..=5).flat_map(batch_frame).collect();
    stream.write_all(&coalesced).await.unwrap();
    read_until(&mut stream, |text| text.contains(r#""upto":5"#)).await;
    assert_eq!(kafka.events(5).await.len(), 5);
    drop(stream);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_in_fragments_with_a_ping_between_them_is_taken() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let mut stream = TcpStream::connect(ingest.address).await.unwrap();
    let text = batch(stream_id(), 1, &[view("/")]).to_string();
    let (start, end) = text.as_bytes().split_at(50);
    let fragments = [frame(0x01, start), frame(PING, b"now?"), frame(CONTINUATION, end), batch_frame(1)];
    stream.write_all(&[handshake(), fragments.concat()].concat()).await.unwrap();
    let answer = read_until(&mut stream, |text| text.matches(r#""t":"ack""#).count() == 2).await;
    assert!(answer.contains("\u{4}now?"), "the pong comes before the end of the message: {answer:?}");
    drop(stream);
    ingest.stop().await;
}

fn stream_id() -> footfall_schemas::StreamId {
    stream(2)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_answers_no_ping_is_dropped_within_two_heartbeats() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| {
        config.timeouts.ping_ms = 500;
        config.timeouts.idle_ms = 1_000;
    })
    .await;
    let mut alive = ingest.tracker().await;
    let mut dead = TcpStream::connect(ingest.address).await.unwrap();
    dead.write_all(&[handshake(), batch_frame(1)].concat()).await.unwrap();
    let sent = Instant::now();
    // It takes bytes, as a half-open peer's kernel buffers do, and never answers.
    let mut taken = Vec::new();
    let dying = async {
        timeout(PATIENCE, dead.read_to_end(&mut taken)).await.expect("is closed").unwrap();
        sent.elapsed()
    };
    // Meanwhile one that answers its pings lives on, for longer than that.
    let (lived, heard) = tokio::join!(dying, alive.hears_within(Duration::from_millis(2_500)));
    assert_eq!(heard, None);
    assert!(taken.windows(2).any(|frame| frame == [0x89, 0]), "it was pinged");
    assert!(taken.ends_with(b"\x88\x06\x03\xe9idle"), "and told 1001");
    // Not before its time; after it, as late as a busy machine makes it.
    assert!(lived >= Duration::from_millis(1_000), "{lived:?}");
    alive.send(&batch(stream(3), 1, &[view("/")])).await;
    alive.ack().await;
    drop(alive);
    ingest.stop().await;
}

/// While so much is in flight that nothing more is read, its pongs wait unread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_an_answer_is_not_idle() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| {
        config.limits.batches_in_flight = 1;
        config.timeouts.ping_ms = 500;
        config.timeouts.idle_ms = 1_000;
    })
    .await;
    let mut tracker = ingest.tracker().await;
    tracker.send(&batch(stream(1), 1, &[view("/")])).await;
    tracker.ack().await;
    kafka.cluster.broker_round_trip_time(-1, Duration::from_millis(2_500)).unwrap();
    tracker.send(&batch(stream(1), 2, &[view("/")])).await;
    assert_eq!(tracker.ack().await.upto, 2);
    kafka.cluster.broker_round_trip_time(-1, Duration::ZERO).unwrap();
    tracker.send(&batch(stream(1), 3, &[view("/")])).await;
    assert_eq!(tracker.ack().await.upto, 3);
    drop(tracker);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_read_is_let_go_and_its_events_are_told_for() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| config.timeouts.write_ms = 500).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut deaf = socket.connect(ingest.address).await.unwrap();
    deaf.write_all(&handshake()).await.unwrap();
    // Each batch is answered by some 20 kB of refusals.
    let events = vec![json!({"k": "nonsense"}); 250];
    let sending = async {
        for first in 0.. {
            let text = batch(stream(1), 1 + first * 250, &events).to_string();
            if deaf.write_all(&frame(TEXT, text.as_bytes())).await.is_err() {
                break;
            }
        }
    };
    // Until the node has dropped the socket, and so reset it.
    timeout(PATIENCE * 3, sending).await.expect("is dropped");
    let in_ledger = |report: &PresenceReport| {
        let refused: u64 = report.ledger.refused.values().sum();
        refused > 0 && report.ledger.received == refused
    };
    kafka.report("node-1", in_ledger).await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_reads_slowly_misses_nothing() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let slow = socket.connect(ingest.address).await.unwrap();
    let (socket, _) = client_async(format!("ws://{}/ws?k=shop", ingest.address), slow).await.unwrap();
    let (mut sink, mut source) = socket.split();
    // Each answer, some 20 kB of refusals, is larger than the peer's buffer: it is written in parts.
    const BATCHES: u32 = 60;
    let sending = tokio::spawn(async move {
        let events = vec![json!({"k": "nonsense"}); 250];
        for first in 0..BATCHES {
            let text = batch(stream(1), 1 + first * 250, &events).to_string();
            sink.send(Message::text(text)).await.unwrap();
        }
        sink
    });
    let mut next = 1;
    while next <= BATCHES * 250 {
        let heard = timeout(PATIENCE, source.next()).await.expect("in time").unwrap().unwrap();
        let Message::Text(text) = heard else { continue };
        if let ServerFrame::Ack(ack) = serde_json::from_str(text.as_str()).unwrap() {
            assert_eq!((ack.first, ack.refused.len() as u32), (next, ack.upto + 1 - next));
            next = ack.upto + 1;
        }
    }
    drop((sending.await.unwrap(), source));
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_tracker_hears_of_the_shutdown_at_once() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| {
        config.timeouts.ping_ms = 60_000;
        config.timeouts.idle_ms = 120_000;
        config.timeouts.first_message_ms = 60_000;
    })
    .await;
    let mut tracker = ingest.tracker().await;
    let stopped = tokio::spawn(ingest.stop());
    assert!(matches!(tracker.next().await, ServerFrame::Bye { .. }));
    assert_eq!(tracker.close_code().await, 1012);
    stopped.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_echo_is_served_only_when_asked_for() {
    let kafka = Kafka::start();
    let quiet = Ingest::start(&kafka).await;
    assert_eq!(quiet.get("/ws-echo").await.status, 404);
    let echo = Ingest::start_with(&kafka, |config| config.echo = true).await;
    let mut stream = TcpStream::connect(echo.address).await.unwrap();
    let request = String::from_utf8(handshake()).unwrap().replace("/ws?k=shop", "/ws-echo");
    stream
        .write_all(&[request.as_bytes(), &frame(TEXT, b"Hello"), &frame(0x82, b"bytes")].concat())
        .await
        .unwrap();
    let answer = read_until(&mut stream, |text| text.contains("bytes")).await;
    assert!(answer.contains("\u{5}Hello"), "{answer:?}");
    drop(stream);
    quiet.stop().await;
    echo.stop().await;
}
