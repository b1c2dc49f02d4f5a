//! A node on a mock cluster, and a tracker to talk to it.
#![allow(clippy::unwrap_used)] // a test may panic
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod edge;

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use footfall_ingest::{Config, Error, Parts};
use footfall_schemas::{
    EventId, EventRecord, StreamId,
    connect::KafkaSettings,
    directory::Directory,
    presence::PresenceReport,
    record::{DeadLetter, parse_lines},
    site::{OriginPattern, Site},
    topics,
    tracker::{Ack, Nack, ServerFrame, Welcome},
};
use futures_util::{SinkExt as _, StreamExt as _};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Message,
        client::IntoClientRequest as _,
        handshake::client::Request,
        protocol::frame::{
            Frame,
            coding::{Data, OpCode},
        },
    },
};
use tokio_util::sync::CancellationToken;

/// Longer than anything takes that is going to happen.
pub const PATIENCE: Duration = Duration::from_secs(10);
pub const PARTITIONS: i32 = 4;

pub struct Kafka {
    pub cluster: MockCluster<'static, DefaultProducerContext>,
}

impl Kafka {
    pub fn start() -> Self {
        Self::of_brokers(1)
    }

    pub fn of_brokers(brokers: i32) -> Self {
        let cluster = MockCluster::new(brokers).unwrap();
        cluster.create_topic(topics::EVENTS, PARTITIONS, brokers).unwrap();
        cluster.create_topic(topics::DEAD_LETTERS, 1, 1).unwrap();
        cluster.create_topic(topics::PRESENCE, 1, 1).unwrap();
        Self { cluster }
    }

    pub fn settings(&self) -> KafkaSettings {
        KafkaSettings {
            brokers: self.cluster.bootstrap_servers(),
            properties: HashMap::new().into_iter().collect(),
        }
    }

    /// As many produce requests fail in this way.
    pub fn fail_produce(&self, error: RDKafkaRespErr, requests: usize) {
        self.cluster.request_errors(RDKafkaApiKey::Produce, &vec![error; requests]);
    }

    /// The ids of the events that are there, in the order of each partition, with copies.
    pub async fn ids_until(&self, enough: impl Fn(&[EventId]) -> bool + Send + 'static) -> Vec<EventId> {
        let parse = |_, value: &[u8]| -> Vec<_> {
            parse_lines(value).map(|(_, line)| line.unwrap().event_id).collect()
        };
        self.read_until(topics::EVENTS, parse, enough).await
    }

    fn reader(&self, topic: &str) -> BaseConsumer {
        let reader: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .set("group.id", "reader")
            .set("fetch.wait.max.ms", "20")
            .create()
            .unwrap();
        let mut all = TopicPartitionList::new();
        let partitions = if topic == topics::EVENTS { PARTITIONS } else { 1 };
        for partition in 0..partitions {
            all.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        reader.assign(&all).unwrap();
        reader
    }

    /// Reads `topic` from the start until `enough` of what was read, or panics.
    pub async fn read_until<T: Send + 'static>(
        &self,
        topic: &'static str,
        parse: fn(i32, &[u8]) -> Vec<T>,
        enough: impl Fn(&[T]) -> bool + Send + 'static,
    ) -> Vec<T> {
        let reader = self.reader(topic);
        tokio::task::spawn_blocking(move || {
            let mut read = Vec::new();
            let deadline = std::time::Instant::now() + PATIENCE;
            while !enough(&read) {
                assert!(std::time::Instant::now() < deadline, "{topic}: only {} came", read.len());
                if let Some(Ok(record)) = reader.poll(Duration::from_millis(50)) {
                    read.extend(parse(record.partition(), record.payload().unwrap_or_default()));
                }
            }
            read
        })
        .await
        .unwrap()
    }

    /// At least `count` events with their partitions.
    pub async fn events(&self, count: usize) -> Vec<(i32, EventRecord)> {
        let parse = |partition, value: &[u8]| -> Vec<_> {
            let lines = value.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            lines.map(|line| (partition, serde_json::from_slice(line).unwrap())).collect()
        };
        self.read_until(topics::EVENTS, parse, move |read| read.len() >= count).await
    }

    /// All events that are there now.
    pub async fn events_now(&self) -> usize {
        let reader = self.reader(topics::EVENTS);
        tokio::task::spawn_blocking(move || {
            let mut count = 0;
            for partition in 0..PARTITIONS {
                let (low, high) = reader.fetch_watermarks(topics::EVENTS, partition, PATIENCE).unwrap();
                count += (high - low) as usize;
            }
            count
        })
        .await
        .unwrap()
    }

    pub async fn dead_letters(&self, count: usize) -> Vec<DeadLetter> {
        let parse = |_, value: &[u8]| vec![serde_json::from_slice(value).unwrap()];
        self.read_until(topics::DEAD_LETTERS, parse, move |read| read.len() >= count).await
    }

    /// Reads reports until one of them is as wanted, and returns it.
    pub async fn report(
        &self,
        node: &'static str,
        wanted: impl Fn(&PresenceReport) -> bool + Send + 'static,
    ) -> PresenceReport {
        let parse = |_, value: &[u8]| vec![serde_json::from_slice::<PresenceReport>(value).unwrap()];
        let wanted = move |report: &PresenceReport| report.node == node && wanted(report);
        let mut reports =
            self.read_until(topics::PRESENCE, parse, move |read| read.last().is_some_and(&wanted)).await;
        reports.pop().unwrap()
    }
}

pub struct Ingest {
    pub address: SocketAddr,
    pub shutdown: CancellationToken,
    pub ended: JoinHandle<Result<(), Error>>,
}

/// Of the sites "shop" and "closed".
pub const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// "shop" has a secret and settings for its trackers, "blog" has neither, "closed" is switched off.
pub fn sites() -> Vec<Site> {
    let origins = vec![OriginPattern::try_from("https://shop.example").unwrap()];
    let site = |key: &str| Site {
        query_allowlist: vec!["q".to_owned()],
        path_rules: vec![
            serde_json::from_value(json!({"match": "/private/**", "drop": true})).unwrap(),
            serde_json::from_value(json!({"match": "/order/*", "replace": "/order/:id"})).unwrap(),
        ],
        ..Site::new(key.try_into().unwrap(), origins.clone())
    };
    let [mut shop, blog, mut closed] = ["shop", "blog", "closed"].map(site);
    shop.secret = Some(SECRET.try_into().unwrap());
    shop.tracker.mask_paths = vec!["/users/*".try_into().unwrap()];
    closed.secret = shop.secret;
    closed.enabled = false;
    vec![shop, blog, closed]
}

/// Of [`sites`], which stay as they are.
pub fn directory() -> watch::Receiver<Arc<Directory>> {
    let sites = sites().into_iter().map(|site| (site, Value::Null));
    watch::channel(Arc::new(Directory::declaring(sites))).1
}

impl Ingest {
    pub async fn start(kafka: &Kafka) -> Self {
        Self::start_as("node-1", kafka, Config::default()).await
    }

    pub async fn start_with(kafka: &Kafka, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        Self::start_as("node-1", kafka, config).await
    }

    pub async fn start_as(name: &str, kafka: &Kafka, config: Config) -> Self {
        Self::start_on(kafka.settings(), name, config).await
    }

    pub async fn start_on(kafka: KafkaSettings, name: &str, config: Config) -> Self {
        Self::start_serving(kafka, name, config, directory()).await
    }

    pub async fn start_serving(
        kafka: KafkaSettings,
        name: &str,
        config: Config,
        directory: watch::Receiver<Arc<Directory>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let parts = Parts {
            config,
            directory,
            kafka,
            secret: [7; 32],
            node: name.to_owned(),
            metrics_text: Arc::new(|| "metrics\n".to_owned()),
            trace_ratio: 0.0,
            reload: None,
        };
        let ended = tokio::spawn(footfall_ingest::run(listener, parts, shutdown.clone()));
        Self { address, shutdown, ended }
    }

    pub async fn tracker(&self) -> Tracker {
        self.tracker_at("/ws?k=shop").await
    }

    pub async fn tracker_at(&self, path: &str) -> Tracker {
        Tracker::connect(self.address, path, &[]).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        http(self.address, "GET", path, &[], b"").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        http(self.address, "POST", path, &[], body.to_string().as_bytes()).await
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        timeout(PATIENCE * 2, self.ended).await.expect("drains in time").unwrap().unwrap();
    }
}

pub type Socket = WebSocketStream<TcpStream>;

pub struct Tracker {
    pub socket: Socket,
    pub welcome: Welcome,
}

impl Tracker {
    pub async fn connect(address: SocketAddr, path: &str, headers: &[(&'static str, &str)]) -> Self {
        let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        Self::upgrade(TcpStream::connect(address).await.unwrap(), request).await
    }

    /// On a connection that has begun already.
    pub async fn over(stream: TcpStream, path: &str) -> Self {
        Self::upgrade(stream, format!("ws://localhost{path}").into_client_request().unwrap()).await
    }

    async fn upgrade(stream: TcpStream, request: Request) -> Self {
        match dial(stream, request).await {
            (socket, ServerFrame::Welcome(welcome)) => Self { socket, welcome },
            (_, other) => panic!("no welcome but {other:?}"),
        }
    }

    pub async fn send(&mut self, frame: &Value) {
        self.text(&frame.to_string()).await;
    }

    pub async fn text(&mut self, text: &str) {
        self.socket.send(Message::text(text.to_owned())).await.unwrap();
    }

    /// A text frame that may hold anything.
    pub async fn raw_text(&mut self, bytes: Vec<u8>) {
        let frame = Frame::message(bytes, OpCode::Data(Data::Text), true);
        self.socket.send(Message::Frame(frame)).await.unwrap();
    }

    pub async fn next(&mut self) -> ServerFrame {
        frame(&mut self.socket).await
    }

    pub async fn ack(&mut self) -> Ack {
        match self.next().await {
            ServerFrame::Ack(ack) => ack,
            other => panic!("no ack but {other:?}"),
        }
    }

    pub async fn nack(&mut self) -> Nack {
        match self.next().await {
            ServerFrame::Nack(nack) => nack,
            other => panic!("no nack but {other:?}"),
        }
    }

    /// Whether a frame comes within `wait`.
    pub async fn hears_within(&mut self, wait: Duration) -> Option<ServerFrame> {
        timeout(wait, frame(&mut self.socket)).await.ok()
    }

    /// Reads on until the close frame, and gives its code.
    pub async fn close_code(&mut self) -> u16 {
        close_code(&mut self.socket).await
    }
}

pub async fn close_code(socket: &mut Socket) -> u16 {
    timeout(PATIENCE, async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(Some(close)))) => return close.code.into(),
                Some(Ok(_)) => {}
                other => panic!("no close frame but {other:?}"),
            }
        }
    })
    .await
    .expect("closes in time")
}

/// A socket and the first frame that the node sends on it.
pub async fn first_word(address: SocketAddr, path: &str) -> (Socket, ServerFrame) {
    let request = format!("ws://{address}{path}").into_client_request().unwrap();
    dial(TcpStream::connect(address).await.unwrap(), request).await
}

async fn dial(stream: TcpStream, request: Request) -> (Socket, ServerFrame) {
    let (mut socket, _) = timeout(PATIENCE, client_async(request, stream)).await.unwrap().unwrap();
    let first = frame(&mut socket).await;
    (socket, first)
}

async fn frame(socket: &mut Socket) -> ServerFrame {
    loop {
        match timeout(PATIENCE, socket.next()).await.expect("a frame in time") {
            Some(Ok(Message::Text(text))) => return serde_json::from_str(text.as_str()).unwrap(),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => panic!("no frame but {other:?}"),
        }
    }
}

pub fn stream(number: u64) -> StreamId {
    StreamId::from_parts(1_800_000_000_000, number)
}

pub fn view(path: &str) -> Value {
    json!({"k": "view", "at": 1000, "u": format!("https://shop.example{path}")})
}

pub fn batch(stream: StreamId, first: u32, events: &[Value]) -> Value {
    json!({"t": "batch", "stream": stream, "first": first, "sent": 1500, "ctx": {"z": "Europe/Berlin"}, "events": events})
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Answer {
    pub fn frame(&self) -> ServerFrame {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub async fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    if !body.is_empty() {
        head += &format!("content-length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    // The server may answer and close before it has read all.
    let _ = stream.write_all(body).await;
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE * 2, stream.read_to_end(&mut bytes)).await.expect("an answer in time");
    // A pixel is no text.
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Answer { status, headers, body: body.to_owned() }
}

/// Polls `holds` until it does.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
