//! What comes before HTTP: TLS, the PROXY protocol, forwarded addresses; and a port that is handed over.
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::{
    fs,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use footfall_ingest::{Listener, Speaks, config::Rate, network::Network};
use rstest::rstest;
use support::{edge::*, *};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tokio_rustls::rustls::{self, HandshakeKind};
use tokio_tungstenite::client_async;

fn trust_loopback(config: &mut footfall_ingest::Config) {
    config.trusted_proxies = vec![Network::try_from("127.0.0.0/8").unwrap()];
    config.limits.limit_loopback = true;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tracker_is_served_over_tls_as_http_1_1() {
    let (kafka, dir) = (Kafka::start(), tempfile::tempdir().unwrap());
    let certificate = Certificate::in_dir(dir.path());
    let edge = Edge::start(&kafka, &[Speaks::Tls], |config| config.tls = certificate.files.clone()).await;
    let client = certificate.client(&["h2", "http/1.1"]);
    let stream = tls(&client, tcp(edge.addresses[0]).await).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
    let (mut socket, _) = client_async("ws://localhost/ws?k=shop", stream).await.unwrap();
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::tungstenite::Message;
    let welcome = socket.next().await.unwrap().unwrap();
    assert!(welcome.to_text().unwrap().contains("welcome"), "{welcome}");
    let sent = batch(support::stream(1), 1, &[view("/")]).to_string();
    socket.send(Message::text(sent)).await.unwrap();
    let ack = socket.next().await.unwrap().unwrap();
    assert!(ack.to_text().unwrap().contains("ack"), "{ack}");
    assert_eq!(kafka.events(1).await.len(), 1);
    drop(socket);
    edge.ingest.stop().await;
}

#[rstest]
#[case::http_2_only(&["h2"])]
#[case::something_else(&["imap"])]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_speak_http_1_1_gets_no_handshake(#[case] alpn: &[&str]) {
    let (kafka, dir) = (Kafka::start(), tempfile::tempdir().unwrap());
    let certificate = Certificate::in_dir(dir.path());
    let edge = Edge::start(&kafka, &[Speaks::Tls], |config| config.tls = certificate.files.clone()).await;
    tls(&certificate.client(alpn), tcp(edge.addresses[0]).await).await.unwrap_err();
    // Without ALPN, HTTP/1.1 is what TLS clients speak.
    let mut stream = tls(&certificate.client(&[]), tcp(edge.addresses[0]).await).await.unwrap();
    assert_eq!(status(&ask(&mut stream, "/healthz", &[]).await.unwrap()), 200);
    drop(stream);
    edge.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_comes_back_resumes_its_session() {
    let (kafka, dir) = (Kafka::start(), tempfile::tempdir().unwrap());
    let certificate = Certificate::in_dir(dir.path());
    let edge = Edge::start(&kafka, &[Speaks::Tls], |config| config.tls = certificate.files.clone()).await;
    let mut client = rustls::ClientConfig::clone(certificate.client(&[]).config());
    client.resumption = rustls::client::Resumption::in_memory_sessions(1);
    let client = Arc::new(client).into();
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let mut stream = tls(&client, tcp(edge.addresses[0]).await).await.unwrap();
        // The ticket comes with the first answer at the latest.
        assert_eq!(status(&ask(&mut stream, "/healthz", &[]).await.unwrap()), 200);
        kinds.push(stream.get_ref().1.handshake_kind().unwrap());
    }
    assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
    edge.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_served_and_open_connections_stay() {
    let (kafka, dir) = (Kafka::start(), tempfile::tempdir().unwrap());
    let certificate = Certificate::in_dir(dir.path());
    let edge = Edge::start(&kafka, &[Speaks::Tls], |config| config.tls = certificate.files.clone()).await;
    let old = certificate.client(&[]);
    let mut live = tls(&old, tcp(edge.addresses[0]).await).await.unwrap();
    assert_eq!(status(&ask(&mut live, "/healthz", &[]).await.unwrap()), 200);
    live.read_exact(&mut [0; 3]).await.unwrap();
    // A bad one first: it changes nothing.
    fs::write(certificate.files.key.as_ref().unwrap(), "nonsense").unwrap();
    edge.reload(|_| ());
    tokio::time::sleep(Duration::from_millis(200)).await;
    tls(&old, tcp(edge.addresses[0]).await).await.unwrap();
    // By the watch on the files alone.
    certificate.renew();
    let new = certificate.client(&[]);
    eventually("the new certificate is served", async || {
        tls(&new, tcp(edge.addresses[0]).await).await.is_ok()
    })
    .await;
    tls(&old, tcp(edge.addresses[0]).await).await.unwrap_err();
    assert_eq!(status(&ask(&mut live, "/healthz", &[]).await.unwrap()), 200, "the old connection");
    // And at once when told to.
    certificate.renew();
    edge.reload(|_| ());
    let newest = certificate.client(&[]);
    eventually("the newest certificate is served", async || {
        tls(&newest, tcp(edge.addresses[0]).await).await.is_ok()
    })
    .await;
    drop(live);
    edge.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_certificate_stops_the_boot_and_is_named() {
    let (kafka, dir) = (Kafka::start(), tempfile::tempdir().unwrap());
    let certificate = Certificate::in_dir(dir.path());
    fs::write(certificate.files.certificate.as_ref().unwrap(), "nonsense").unwrap();
    let edge = Edge::start(&kafka, &[Speaks::Tls], |config| config.tls = certificate.files.clone()).await;
    let error = edge.ingest.ended.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("tls.certificate") && error.contains("chain.pem"), "{error}");
    let edge = Edge::start(&kafka, &[Speaks::Tls], |_| ()).await;
    let error = edge.ingest.ended.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("tls.certificate") && error.contains("not set"), "{error}");
}

#[rstest]
#[case::tls(Speaks::Tls, &[])]
#[case::half_a_hello(Speaks::Tls, &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01])]
#[case::proxy(Speaks::Proxy, &[])]
#[case::half_a_header(Speaks::Proxy, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01")]
#[case::http_after_proxy(Speaks::Proxy, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0GET / HT")]
#[case::tls_after_proxy(Speaks::ProxyTls, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0\x16")]
#[case::http(Speaks::Http, &[])]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_get_on_with_it_is_closed(#[case] speaks: Speaks, #[case] begun: &[u8]) {
    let (kafka, dir) = (Kafka::start(), tempfile::tempdir().unwrap());
    let certificate = Certificate::in_dir(dir.path());
    let edge = Edge::start(&kafka, &[speaks], |config| {
        trust_loopback(config);
        config.tls = certificate.files.clone();
        config.timeouts.tls_handshake_ms = 400;
        config.timeouts.proxy_header_ms = 400;
        config.timeouts.header_ms = 400;
    })
    .await;
    let mut slow = tcp(edge.addresses[0]).await;
    let started = Instant::now();
    slow.write_all(begun).await.unwrap();
    assert!(is_closed(&mut slow).await);
    assert!(started.elapsed() >= Duration::from_millis(300), "it had its time");
    edge.ingest.stop().await;
}

/// A connection that was accepted.
async fn operator(address: SocketAddr) -> TcpStream {
    let mut stream = tcp(address).await;
    assert_eq!(status(&ask(&mut stream, "/healthz", &[]).await.unwrap()), 200);
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_only_shakes_hands_counts_from_its_accept() {
    let (kafka, dir) = (Kafka::start(), tempfile::tempdir().unwrap());
    let certificate = Certificate::in_dir(dir.path());
    let edge = Edge::start(&kafka, &[Speaks::Tls, Speaks::Operator], |config| {
        config.tls = certificate.files.clone();
        config.limits.connections = 5;
        config.limits.sockets = 1;
        config.timeouts.tls_handshake_ms = 60_000;
    })
    .await;
    let first = tcp(edge.addresses[0]).await;
    let _second = tcp(edge.addresses[0]).await;
    // Listeners take turns, so with the third operator both have been accepted, and that makes five.
    let mut let_in = Vec::new();
    for _ in 0..3 {
        let_in.push(operator(edge.addresses[1]).await);
    }
    // The third waits in the backlog: nothing answers its hello.
    let (client, stream) = (certificate.client(&[]), tcp(edge.addresses[0]).await);
    let third = tokio::spawn(async move {
        tls(&client, stream).await.unwrap();
        Instant::now()
    });
    // Operators get in all the same, and would have taken turns with it.
    for _ in 0..50 {
        operator(edge.addresses[1]).await;
    }
    assert!(!third.is_finished());
    let left = Instant::now();
    drop((first, let_in));
    assert!(third.await.unwrap() > left, "there is room when somebody leaves");
    edge.ingest.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_listener_serves_metrics_and_health_and_nothing_else() {
    let kafka = Kafka::start();
    let edge = Edge::start(&kafka, &[Speaks::Http, Speaks::Operator], |_| ()).await;
    for (path, expected) in [("/metrics", 200), ("/healthz", 200), ("/readyz", 200), ("/ws?k=shop", 404)] {
        eventually(path, async || http(edge.addresses[1], "GET", path, &[], b"").await.status == expected)
            .await;
    }
    let forwarded = [("x-forwarded-for", "203.0.113.7")];
    let answers = [(edge.addresses[0], 403), (edge.addresses[1], 200)];
    for (address, expected) in answers {
        let answer = http(address, "GET", "/metrics", &forwarded, b"").await;
        assert_eq!(answer.status, expected, "whoever reaches the operator's listener may look");
    }
    edge.ingest.stop().await;
}

/// The limit of one connection by address shows which address it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxys_client_is_the_one_who_is_limited() {
    let (kafka, dir) = (Kafka::start(), tempfile::tempdir().unwrap());
    let certificate = Certificate::in_dir(dir.path());
    let edge = Edge::start(&kafka, &[Speaks::Proxy, Speaks::ProxyTls], |config| {
        trust_loopback(config);
        config.tls = certificate.files.clone();
        config.limits.connections_per_address = 1;
    })
    .await;
    let through_proxy = async |client: &str| {
        let mut stream = tcp(edge.addresses[0]).await;
        stream.write_all(&proxy_header(client)).await.unwrap();
        stream
    };
    let mut first = through_proxy("203.0.113.9").await;
    assert_eq!(upgrade(&mut first, &[]).await, 101);
    let mut same = through_proxy("203.0.113.9").await;
    assert!(ask(&mut same, "/healthz", &[]).await.is_err(), "the same client is closed before it is heard");
    let mut other = through_proxy("203.0.113.8").await;
    assert_eq!(upgrade(&mut other, &[]).await, 101);
    // TLS inside, for a proxy that passes it through.
    let mut stream = tcp(edge.addresses[1]).await;
    stream.write_all(&proxy_header("203.0.113.7")).await.unwrap();
    let mut stream = tls(&certificate.client(&[]), stream).await.unwrap();
    assert_eq!(upgrade(&mut stream, &[]).await, 101);
    // The proxy's own health checks count for nobody.
    let mut checks = Vec::new();
    for _ in 0..3 {
        let mut check = tcp(edge.addresses[0]).await;
        check.write_all(&local_header()).await.unwrap();
        assert_eq!(status(&ask(&mut check, "/healthz", &[]).await.unwrap()), 200);
        checks.push(check);
    }
    drop((first, other, stream, checks));
    edge.ingest.stop().await;
}

#[rstest]
#[case::version_1(b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")]
#[case::no_header(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")]
#[case::torn(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x01\x01GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")]
#[case::longer_than_any_header(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_speaks_otherwise_is_closed_at_once(#[case] sent: &[u8]) {
    let kafka = Kafka::start();
    let edge = Edge::start(&kafka, &[Speaks::Proxy], |config| {
        trust_loopback(config);
        config.timeouts.proxy_header_ms = 60_000;
    })
    .await;
    let mut stream = tcp(edge.addresses[0]).await;
    stream.write_all(sent).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("closed");
    assert!(answer.is_empty(), "{read:?}");
    edge.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_header_from_anybody_else_is_not_believed() {
    let kafka = Kafka::start();
    let edge = Edge::start(&kafka, &[Speaks::Proxy, Speaks::Http], |_| ()).await;
    let mut stream = tcp(edge.addresses[0]).await;
    let _ = stream.write_all(&proxy_header("203.0.113.9")).await;
    assert!(is_closed(&mut stream).await);
    // Nor anywhere but on the listener for it.
    let mut stream = tcp(edge.addresses[1]).await;
    stream.write_all(&proxy_header("203.0.113.9")).await.unwrap();
    let answer = ask(&mut stream, "/healthz", &[]).await;
    assert!(answer.as_ref().map_or(true, |head| status(head) == 400), "{answer:?}");
    edge.ingest.stop().await;
}

#[rstest]
#[case::two_lines(&[("x-forwarded-for", "1.2.3.4, 203.0.113.9"), ("x-forwarded-for", "127.0.0.2")])]
#[case::with_a_port(&[("x-forwarded-for", "203.0.113.9:4711")])]
#[case::forged_in_front(&[("x-forwarded-for", "1.2.3.4, 203.0.113.9")])]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_forwarded_client_is_the_one_who_is_limited(#[case] headers: &[(&str, &str)]) {
    let kafka = Kafka::start();
    let edge = Edge::start(&kafka, &[Speaks::Http], |config| {
        trust_loopback(config);
        config.limits.connections_per_address = 1;
    })
    .await;
    let mut first = tcp(edge.addresses[0]).await;
    assert_eq!(upgrade(&mut first, &[("x-forwarded-for", "203.0.113.9")]).await, 101);
    let mut second = tcp(edge.addresses[0]).await;
    assert_eq!(upgrade(&mut second, headers).await, 429);
    let mut other = tcp(edge.addresses[0]).await;
    assert_eq!(upgrade(&mut other, &[("x-forwarded-for", "203.0.113.8")]).await, 101);
    // Whoever was refused may ask again on the same connection, once there is a place.
    drop(first);
    eventually("the place is free again", async || upgrade_again(&mut second, headers).await == 101).await;
    edge.ingest.stop().await;
}

/// As [`upgrade`], on a connection whose last answer had a body.
async fn upgrade_again(stream: &mut TcpStream, headers: &[(&str, &str)]) -> u16 {
    let mut rest = [0; 1024];
    let _ = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut rest)).await;
    upgrade(stream, headers).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_and_trusted_proxies_change_while_connections_are_open() {
    let kafka = Kafka::start();
    let edge = Edge::start(&kafka, &[Speaks::Http], |config| {
        config.limits.limit_loopback = true;
        config.limits.events_per_connection = Rate::new(1, 256);
    })
    .await;
    let mut tracker = Tracker::connect(edge.addresses[0], "/ws?k=shop", &[]).await;
    let many = vec![view("/"); 256];
    tracker.send(&batch(stream(1), 1, &many)).await;
    let mut answers = async || loop {
        match tracker.next().await {
            footfall_schemas::tracker::ServerFrame::Slow { .. } => {}
            other => return other,
        }
    };
    assert!(matches!(answers().await, footfall_schemas::tracker::ServerFrame::Ack(_)));
    // An invalid one changes nothing, a valid one what is open, too.
    edge.reload(|config| config.limits.events_per_connection = Rate::new(1_000_000, 1));
    edge.reload(|config| {
        trust_loopback(config);
        config.limits.events_per_connection = Rate::new(100_000, 100_000);
        config.limits.connections_per_address = 1;
    });
    eventually("the proxy is trusted", async || {
        let mut client = tcp(edge.addresses[0]).await;
        upgrade(&mut client, &[("x-forwarded-for", "203.0.113.9")]).await == 101
    })
    .await;
    tracker.send(&batch(stream(1), 257, &many)).await;
    assert_eq!(tracker.ack().await.upto, 512);
    drop(tracker);
    edge.ingest.stop().await;
}

fn bind_shared(address: SocketAddr) -> Vec<Listener> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    vec![Listener { socket: socket.listen(1024).unwrap(), speaks: Speaks::Http }]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_is_handed_over_and_nobody_is_refused_or_reset() {
    let kafka = Kafka::start();
    let mut old = Edge::start_on(&kafka, "node-0", bind_shared("127.0.0.1:0".parse().unwrap()), |_| ());
    let address = old.addresses[0];
    eventually("ready", async || http(address, "GET", "/readyz", &[], b"").await.status == 200).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let visitors: Vec<_> = (0..8)
        .map(|_| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let mut served = 0;
                while !stop.is_cancelled() {
                    let mut stream = TcpStream::connect(address).await.expect("not refused");
                    let head = ask(&mut stream, "/healthz", &[("connection", "close")]).await;
                    assert_eq!(status(&head.expect("not reset")), 200);
                    served += 1;
                }
                served
            })
        })
        .collect();
    for n in 1..=5 {
        let new = Edge::start_on(&kafka, &format!("node-{n}"), bind_shared(address), |_| ());
        tokio::time::sleep(Duration::from_millis(200)).await;
        old.ingest.stop().await;
        old = new;
    }
    stop.cancel();
    let mut served = 0;
    for visitor in visitors {
        served += visitor.await.unwrap();
    }
    assert!(served > 100, "{served}");
    old.ingest.stop().await;
}

/// Whoever is in the accept queue when a node stops accepting is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_in_the_backlog_at_shutdown_is_not_reset() {
    let kafka = Kafka::start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let edge = Edge::start_on(
        &kafka,
        "node-1",
        vec![Listener { socket: listener, speaks: Speaks::Http }],
        |config| {
            config.limits.connections = 2;
            config.limits.sockets = 1;
        },
    );
    let (mut first, mut second) = (tcp(address).await, tcp(address).await);
    for stream in [&mut first, &mut second] {
        assert_eq!(status(&ask(stream, "/healthz", &[]).await.unwrap()), 200);
    }
    // The node is full: these three are not accepted.
    let mut waiting = vec![tcp(address).await, tcp(address).await, tcp(address).await];
    edge.ingest.shutdown.cancel();
    for stream in &mut waiting {
        assert_eq!(status(&ask(stream, "/healthz", &[]).await.unwrap()), 200);
    }
    edge.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_tls_sockets_with_1012_and_idle_http_connections_at_once() {
    let (kafka, dir) = (Kafka::start(), tempfile::tempdir().unwrap());
    let certificate = Certificate::in_dir(dir.path());
    let edge = Edge::start(&kafka, &[Speaks::Tls, Speaks::Http], |config| {
        config.tls = certificate.files.clone();
    })
    .await;
    let client = certificate.client(&[]);
    let stream = tls(&client, tcp(edge.addresses[0]).await).await.unwrap();
    let (mut socket, _) = client_async("ws://localhost/ws?k=shop", stream).await.unwrap();
    let mut idle_tls = tls(&client, tcp(edge.addresses[0]).await).await.unwrap();
    let mut idle = tcp(edge.addresses[1]).await;
    assert_eq!(status(&ask(&mut idle_tls, "/healthz", &[]).await.unwrap()), 200);
    assert_eq!(status(&ask(&mut idle, "/healthz", &[]).await.unwrap()), 200);
    let started = Instant::now();
    edge.ingest.shutdown.cancel();
    assert!(is_closed(&mut idle).await && is_closed(&mut idle_tls).await);
    use futures_util::StreamExt as _;
    use tokio_tungstenite::tungstenite::Message;
    let code = loop {
        match socket.next().await.expect("a close frame").unwrap() {
            Message::Close(Some(close)) => break u16::from(close.code),
            Message::Text(_) => {}
            other => panic!("{other}"),
        }
    };
    assert_eq!(code, 1012);
    drop(socket);
    edge.ingest.stop().await;
    assert!(started.elapsed() < Duration::from_secs(8), "nobody was waited for in vain");
}
