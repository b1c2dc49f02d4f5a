//! Caps and rates by connection, address and site, over real sockets.
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::time::{Duration, Instant};

use footfall_ingest::{Config, Speaks, config::Rate};
use footfall_schemas::{refusal::RetryReason, tracker::ServerFrame};
use rstest::rstest;
use serde_json::json;
use support::{edge::*, *};
use tokio::{io::AsyncWriteExt as _, net::TcpSocket};

#[rstest]
#[case::of_a_site(|config: &mut Config| config.limits.sockets_per_site = 1, Some(101))]
#[case::of_the_node(|config: &mut Config| config.limits.sockets = 1, None)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_have_a_cap_and_the_next_is_told_to_come_again(
    #[case] change: fn(&mut Config),
    #[case] neighbour: Option<u16>,
) {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, change).await;
    let first = ingest.tracker().await;
    let mut second = tcp(ingest.address).await;
    let answer = ask(&mut second, "/ws?k=shop", &UPGRADE).await.unwrap();
    assert_eq!(status(&answer), 503);
    assert!(answer.to_ascii_lowercase().contains("retry-after: 5"), "{answer}");
    let mut blog = tcp(ingest.address).await;
    let answer = ask(&mut blog, "/ws?k=blog", &UPGRADE).await.unwrap();
    assert_eq!(status(&answer), neighbour.unwrap_or(503), "another site");
    // The HTTP fallback has room all the same.
    assert_eq!(ingest.post("/e?k=shop", &batch(stream(1), 1, &[view("/")])).await.status, 200);
    drop((first, blog));
    eventually("the place is free again", async || {
        let mut next = tcp(ingest.address).await;
        upgrade(&mut next, &[]).await == 101
    })
    .await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_full_lets_the_next_wait_until_somebody_leaves() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| {
        config.limits.connections = 2;
        config.limits.sockets = 1;
    })
    .await;
    let (socket, mut idle) = (ingest.tracker().await, tcp(ingest.address).await);
    assert_eq!(status(&ask(&mut idle, "/healthz", &[]).await.unwrap()), 200);
    let address = ingest.address;
    let next = tokio::spawn(async move {
        let answer = http(address, "GET", "/healthz", &[], b"").await;
        (answer.status, Instant::now())
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let left = Instant::now();
    drop(socket);
    let (status, answered) = next.await.unwrap();
    assert!(status == 200 && answered > left, "an upgraded socket counts until it is gone");
    drop(idle);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_connects_too_often_is_closed() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| {
        config.limits.limit_loopback = true;
        config.limits.connects_per_address = Rate::new(1, 3);
    })
    .await;
    let mut served = 0;
    for _ in 0..10 {
        let mut stream = tcp(ingest.address).await;
        served += u32::from(ask(&mut stream, "/healthz", &[]).await.is_ok());
    }
    assert!((3..=5).contains(&served), "{served}");
    ingest.stop().await;
}

#[derive(Clone, Copy)]
enum Shared {
    Connection,
    Address,
    Site,
}

/// Two batches of 200: the second one is too much for whoever shares the limit with the first.
#[rstest]
#[case::events_by_connection(|config: &mut Config| config.limits.events_per_connection = Rate::new(1, 300), Shared::Connection)]
#[case::bytes_by_connection(|config: &mut Config| config.limits.bytes_per_connection = Rate::new(1, 66_000), Shared::Connection)]
#[case::events_by_address(|config: &mut Config| config.limits.events_per_address = Rate::new(1, 300), Shared::Address)]
#[case::events_by_site(|config: &mut Config| config.limits.events_per_site = Rate::new(1, 300), Shared::Site)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_a_rate_is_told_how_long_to_wait(
    #[case] change: fn(&mut Config),
    #[case] shared: Shared,
) {
    let kafka = Kafka::start();
    let edge = Edge::start(&kafka, &[Speaks::Proxy], |config| {
        config.trusted_proxies = vec!["127.0.0.0/8".try_into().unwrap()];
        change(config);
    })
    .await;
    let tracker = async |client: &str, site: &str| {
        let mut stream = tcp(edge.addresses[0]).await;
        stream.write_all(&proxy_header(client)).await.unwrap();
        Tracker::over(stream, &format!("/ws?k={site}")).await
    };
    let page = json!({"k": "view", "at": 0, "u": "https://shop.example/", "t": "x".repeat(180)});
    let many = vec![page; 200];
    let is_taken = async |tracker: &mut Tracker, first: u32| {
        tracker.send(&batch(stream(1), first, &many)).await;
        loop {
            match tracker.next().await {
                ServerFrame::Slow { .. } => {}
                ServerFrame::Ack(_) => return true,
                ServerFrame::Nack(nack) => {
                    assert_eq!(nack.reason, RetryReason::RateLimited);
                    assert!(nack.retry_ms >= 10_000, "{}", nack.retry_ms);
                    return false;
                }
                other => panic!("{other:?}"),
            }
        }
    };
    let mut first = tracker("203.0.113.9", "shop").await;
    assert!(is_taken(&mut first, 1).await);
    assert!(!is_taken(&mut first, 201).await);
    let mut neighbours = [
        tracker("203.0.113.9", "shop").await,
        tracker("203.0.113.8", "shop").await,
        tracker("203.0.113.7", "blog").await,
    ];
    let mut taken = Vec::new();
    for neighbour in &mut neighbours {
        taken.push(is_taken(neighbour, 1).await);
    }
    let expected = match shared {
        Shared::Connection => [true, true, true],
        Shared::Address => [false, true, true],
        Shared::Site => [false, false, true],
    };
    assert_eq!(taken, expected);
    drop((first, neighbours));
    edge.ingest.stop().await;
}

/// It asks for answers and does not read them: the kernel gives up on it, whatever hyper waits for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_its_answers_is_gone_after_the_idle_time() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| {
        config.limits.connections = 2;
        config.limits.sockets = 1;
        config.timeouts.ping_ms = 1_000;
        config.timeouts.idle_ms = 2_000;
        config.timeouts.header_ms = 60_000;
    })
    .await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut deaf = socket.connect(ingest.address).await.unwrap();
    let asking = tokio::spawn(async move {
        let request = b"GET /f.js HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1_000);
        // Ends with the reset.
        while deaf.write_all(&request).await.is_ok() {}
    });
    tokio::time::timeout(PATIENCE * 3, asking).await.expect("is given up").unwrap();
    assert_eq!(ingest.get("/healthz").await.status, 200);
    ingest.stop().await;
}
