//! Bad input against the built binary: each kind gets its documented refusal, is counted in the ledger and kept as a
//! dead letter where it applies, and a neighbour never notices.
#![allow(clippy::unwrap_used)] // a test may panic

mod common;

use std::time::Duration;

use common::{Node, eventually};
use footfall_schemas::{
    RejectReason, StreamId,
    presence::IngestLedger,
    presence::PresenceReport,
    refusal::close,
    topics,
    tracker::{Ack, SUBPROTOCOL, ServerFrame},
};
use futures_util::{SinkExt, StreamExt};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        Bytes, Error, Message,
        client::IntoClientRequest,
        http::StatusCode,
        protocol::frame::{
            Frame,
            coding::{Data, OpCode},
        },
    },
};

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Enough for every other case here; the flood sends more in one go.
const EVENTS_PER_CONNECTION: u32 = 400;

struct Tracker {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    stream: StreamId,
    next: u32,
}

impl Tracker {
    async fn open(node: &Node, site: &str, origin: &str) -> Result<Self, Error> {
        let url = format!("ws://{}/ws?k={site}", node.address("ingest"));
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
        request.headers_mut().insert("origin", origin.parse().unwrap());
        let (socket, _) = connect_async(request).await?;
        let random = u64::from(std::process::id()) << 16 | u64::from(rand::random::<u16>());
        let mut tracker = Self { socket, stream: StreamId::from_parts(1_800_000_000_000, random), next: 1 };
        match tracker.frame().await {
            ServerFrame::Welcome(_) => Ok(tracker),
            other => panic!("no welcome: {other:?}"),
        }
    }

    async fn at_home(node: &Node) -> Self {
        Self::open(node, "demo", "http://localhost").await.unwrap()
    }

    async fn send(&mut self, text: impl Into<String>) {
        self.socket.send(Message::text(text.into())).await.unwrap();
    }

    async fn send_events(&mut self, events: &[serde_json::Value]) {
        let batch =
            json!({"t": "batch", "stream": self.stream, "first": self.next, "sent": 1_000, "events": events});
        self.next += events.len() as u32;
        self.send(batch.to_string()).await;
    }

    /// Next frame that is no hint.
    async fn frame(&mut self) -> ServerFrame {
        loop {
            match timeout(ANSWER_WITHIN, self.socket.next()).await.expect("no answer") {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("no frame but {other:?}"),
            }
        }
    }

    async fn ack(&mut self) -> Ack {
        match self.frame().await {
            ServerFrame::Ack(ack) => ack,
            other => panic!("no ack but {other:?}"),
        }
    }

    /// Close code that the node sends, whatever comes before.
    async fn close_code(&mut self) -> u16 {
        loop {
            match timeout(ANSWER_WITHIN, self.socket.next()).await.expect("no close") {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(_)) => {}
                other => panic!("no close frame but {other:?}"),
            }
        }
    }
}

fn view(path: &str) -> serde_json::Value {
    json!({"k": "view", "at": 900, "u": format!("http://localhost{path}")})
}

async fn status(node: &Node, site: &str, origin: &str) -> (StatusCode, String) {
    match Tracker::open(node, site, origin).await {
        Err(Error::Http(response)) => (
            response.status(),
            String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned(),
        ),
        other => panic!("not refused: {:?}", other.err()),
    }
}

/// Newest ledger of the demo site on `footfall.presence`.
fn ledger(node: &Node) -> IngestLedger {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", node.url("kafka"))
        .set("group.id", "refusals-test")
        .create()
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topics::PRESENCE, 0, Offset::Beginning).unwrap();
    consumer.assign(&assignment).unwrap();
    let mut newest = IngestLedger::default();
    while let Some(record) = consumer.poll(Duration::from_secs(2)) {
        let record = record.unwrap();
        let Some(value) = record.payload() else { continue };
        let report: PresenceReport = serde_json::from_slice(value).unwrap();
        newest = report.ledger;
        let (_, end) = consumer.fetch_watermarks(topics::PRESENCE, 0, ANSWER_WITHIN).unwrap();
        if record.offset() + 1 >= end {
            break;
        }
    }
    newest
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_as_documented_and_the_neighbour_never_notices() {
    let dir = tempfile::tempdir().unwrap();
    let limits = format!(
        "[ingest.limits]\nlimit_loopback = true\n\
         events_per_connection = {{ per_second = 50, burst = {EVENTS_PER_CONNECTION} }}\n\
         events_per_address = {{ per_second = 100000, burst = 100000 }}\n"
    );
    let node = Node::start(dir.path(), &limits);
    let mut neighbour = Tracker::at_home(&node).await;
    let mut neighbours_events = 0;
    let mut neighbour_is_well = async || {
        neighbour.send_events(&[view("/neighbour")]).await;
        neighbours_events += 1;
        let ack = neighbour.ack().await;
        assert_eq!((ack.upto, ack.refused.len()), (neighbours_events, 0));
        neighbours_events
    };

    // Before the upgrade.
    let (code, body) = status(&node, "nobody", "http://localhost").await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    assert!(body.contains(RejectReason::UnknownSite.as_str()), "{body}");
    let (code, body) = status(&node, "demo", "https://elsewhere.example").await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert!(body.contains(RejectReason::OriginDenied.as_str()), "{body}");
    neighbour_is_well().await;

    // A frame that is no JSON is told and the connection goes on.
    let mut tracker = Tracker::at_home(&node).await;
    tracker.send("{\"t\":\"batch\",").await;
    assert!(matches!(tracker.frame().await, ServerFrame::Error { reason: RejectReason::Malformed, .. }));
    tracker.send_events(&[view("/after-malformed")]).await;
    assert_eq!(tracker.ack().await.refused, []);
    neighbour_is_well().await;

    // A bad event refuses itself; its siblings pass.
    let no_url = json!({"k": "view", "at": 900, "u": "nonsense"});
    let unknown_kind = json!({"k": "teleport", "at": 900, "u": "http://localhost/"});
    tracker.send_events(&[view("/first"), no_url, view("/third"), unknown_kind]).await;
    let ack = tracker.ack().await;
    let refused: Vec<_> = ack.refused.iter().map(|refusal| (refusal.seq, refusal.reason)).collect();
    assert_eq!((ack.first, ack.upto), (2, 5));
    assert_eq!(refused, [(3, RejectReason::BadUrl), (5, RejectReason::UnknownKind)]);

    // What must close does, with its code.
    let mut huge = Tracker::at_home(&node).await;
    huge.send("x".repeat(70_000)).await;
    assert_eq!(huge.close_code().await, close::TOO_BIG);
    let mut binary = Tracker::at_home(&node).await;
    binary.socket.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(binary.close_code().await, close::UNSUPPORTED);
    let mut garbled = Tracker::at_home(&node).await;
    let not_utf8 = Frame::message(Bytes::from_static(b"\xff\xfe"), OpCode::Data(Data::Text), true);
    garbled.socket.send(Message::Frame(not_utf8)).await.unwrap();
    assert_eq!(garbled.close_code().await, close::BAD_UTF8);
    neighbour_is_well().await;

    // A flood is told to wait, then shown the door.
    let mut flood = Tracker::at_home(&node).await;
    let many: Vec<_> = (0..200).map(|_| view("/flood")).collect();
    for _ in 0..40 {
        let batch = json!({"t": "batch", "stream": flood.stream, "first": 1, "sent": 1_000, "events": many});
        if flood.socket.send(Message::text(batch.to_string())).await.is_err() {
            break;
        }
    }
    assert_eq!(flood.close_code().await, close::POLICY);
    let neighbours_events = neighbour_is_well().await;

    // Everything refused is in the ledger with its reason, and what a site sent is a dead letter that can be queried.
    let ledger = eventually("the ledger", Duration::from_secs(15), || {
        let ledger = ledger(&node);
        let seen = |reason| ledger.refused.get(&reason).copied().unwrap_or(0) >= 1;
        [RejectReason::BadUrl, RejectReason::UnknownKind, RejectReason::Malformed]
            .into_iter()
            .all(seen)
            .then_some(ledger)
    });
    assert!(ledger.retried >= 200, "{ledger:?}");
    let refused: u64 = ledger.refused.values().sum();
    assert_eq!(ledger.received, ledger.accepted + refused + ledger.retried, "{ledger:?}");
    eventually("the dead letters", Duration::from_secs(30), || {
        let rows = node
            .query("SELECT reason, count() AS letters FROM dead_letters WHERE site = 'demo' GROUP BY reason");
        let reasons: Vec<_> = rows.iter().filter_map(|row| row["reason"].as_str()).collect();
        ["bad_url", "unknown_kind", "malformed"].iter().all(|reason| reasons.contains(reason)).then_some(())
    });
    let payload = node.query("SELECT payload FROM dead_letters WHERE reason = 'bad_url'");
    assert!(payload[0]["payload"].as_str().unwrap().contains("nonsense"), "{payload:?}");

    // The neighbour's events and the good siblings are rows, once each.
    let own =
        format!("SELECT count() FROM events WHERE path = '/neighbour' HAVING count() = {neighbours_events}");
    eventually("the neighbour's rows", Duration::from_secs(30), || {
        (!node.query(&own).is_empty()).then_some(())
    });
    assert_eq!(
        node.count("SELECT count() FROM events WHERE path IN ('/first', '/third', '/after-malformed')"),
        3
    );
    assert_eq!(node.stop(), Some(0));
}
