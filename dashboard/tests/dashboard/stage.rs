//! A running dashboard with a mock Kafka, and the parts of a browser that the tests need.

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use footfall_dashboard::{Config, Error, Parts, login_url, run, set_up_url};
use footfall_schemas::{
    Dimension, EventRecord, SiteId,
    alert::{Alert, AlertRecord},
    connect::{ClickHouseSettings, KafkaSettings},
    live::{LiveRecord, LiveState, Totals},
    presence::PresenceReport,
    topics,
    viewer::{FeedEvent, Filter, Freshness, Online, Position, SUBPROTOCOL, ViewerFrame, ViewerRequest},
};
use futures_util::{SinkExt, StreamExt};
use http::{
    HeaderMap, Request, StatusCode,
    header::{COOKIE, HOST, LOCATION, ORIGIN, SET_COOKIE},
};
use http_body_util::{BodyExt, Full};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use rdkafka::{
    ClientConfig,
    mocking::MockCluster,
    producer::{DefaultProducerContext, FutureProducer, FutureRecord},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error as WsError, Message, client::IntoClientRequest, protocol::CloseFrame},
};
use tokio_util::sync::CancellationToken;

use crate::memory::Memory;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
const SECRET: [u8; 32] = [9; 32];

pub(crate) struct Stage {
    pub(crate) directory: Arc<Memory>,
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    running: JoinHandle<Result<(), Error>>,
    producer: FutureProducer,
    // Last: the clients go before the brokers.
    cluster: MockCluster<'static, DefaultProducerContext>,
}

/// Timers scaled down.
pub(crate) fn quick() -> Config {
    let attempts = 1_000;
    Config {
        tick_ms: 10,
        logins_per_minute: attempts,
        passwords_per_minute: attempts,
        lookback_ms: 0,
        ..Config::default()
    }
}

/// Nobody listens there.
pub(crate) const NOWHERE: &str = "127.0.0.1:1";

impl Stage {
    pub(crate) async fn new(config: Config) -> Self {
        Self::with_clickhouse(config, &format!("http://{NOWHERE}")).await
    }

    pub(crate) async fn with_clickhouse(config: Config, url: &str) -> Self {
        let stage = Self::start(config, url, None).await;
        stage.ready().await
    }

    /// A node on a directory that others may share.
    pub(crate) async fn on(directory: Arc<Memory>, config: Config) -> Self {
        let stage = Self::start_on(directory, config, &format!("http://{NOWHERE}"), None).await;
        stage.ready().await
    }

    async fn ready(self) -> Self {
        until(async || self.get("/readyz", None).await.status == StatusCode::OK).await;
        self
    }

    /// `brokers`: others than the mock cluster's.
    pub(crate) async fn start(config: Config, clickhouse: &str, brokers: Option<&str>) -> Self {
        Self::start_on(Memory::new(), config, clickhouse, brokers).await
    }

    async fn start_on(
        directory: Arc<Memory>,
        config: Config,
        clickhouse: &str,
        brokers: Option<&str>,
    ) -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(topics::LIVE, 2, 1).unwrap();
        cluster.create_topic(topics::PRESENCE, 1, 1).unwrap();
        cluster.create_topic(topics::ALERTS, 1, 1).unwrap();
        cluster.create_topic(topics::EVENTS, 2, 1).unwrap();
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("linger.ms", "0")
            .create()
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let brokers = brokers.map_or_else(|| cluster.bootstrap_servers(), str::to_owned);
        // The mock does not wake a waiting fetch when a record comes.
        let properties = BTreeMap::from([("fetch.wait.max.ms".to_owned(), "5".to_owned())]);
        let parts = Parts {
            config,
            directory: directory.shown.subscribe(),
            edit: directory.clone(),
            kafka: KafkaSettings { brokers, properties },
            clickhouse: ClickHouseSettings {
                url: clickhouse.into(),
                database: "footfall".into(),
                user: "reader".into(),
                password: "secret".into(),
            },
            secret: SECRET,
            metrics_text: Arc::new(|| "footfall_up 1\n".into()),
            ingest_url: "http://127.0.0.1:8080/".into(),
            demo_url: Some("http://127.0.0.1:8080/demo/".into()),
        };
        let running = tokio::spawn(run(listener, parts, shutdown.clone()));
        Self { directory, address, shutdown, running, producer, cluster }
    }

    pub(crate) async fn stop(self) -> Result<(), Error> {
        self.shutdown.cancel();
        timeout(DEADLINE, self.running).await.expect("ends in time").expect("no panic")
    }

    /// For a node more.
    pub(crate) fn brokers(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A link's path and query.
    pub(crate) fn link(&self) -> String {
        login_url(&SECRET, "", now_ms())
    }

    /// The token of a new set-up link.
    pub(crate) fn set_up_token(&self) -> String {
        set_up_url(&SECRET, "", now_ms()).strip_prefix("/#/set-up/").unwrap().to_owned()
    }

    pub(crate) async fn get(&self, path: &str, cookie: Option<&str>) -> Answer {
        let mut request = Request::get(path);
        if let Some(cookie) = cookie {
            request = request.header(COOKIE, cookie);
        }
        self.send(request, "").await
    }

    pub(crate) async fn post(&self, path: &str, form: &str, origin: &str, cookie: Option<&str>) -> Answer {
        let mut request = Request::post(path)
            .header(ORIGIN, origin)
            .header("content-type", "application/x-www-form-urlencoded");
        if let Some(cookie) = cookie {
            request = request.header(COOKIE, cookie);
        }
        self.send(request, form).await
    }

    pub(crate) async fn send(&self, request: http::request::Builder, body: &str) -> Answer {
        let request = request
            .header(HOST, self.address.to_string())
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        let exchange = async {
            let stream = TcpStream::connect(self.address).await.unwrap();
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            let connection = tokio::spawn(connection);
            let response = sender.send_request(request).await.unwrap();
            let (head, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            connection.abort();
            let body = String::from_utf8(body.to_vec()).unwrap();
            Answer { status: head.status, headers: head.headers, body }
        };
        timeout(DEADLINE, exchange).await.expect("an answer in time")
    }

    /// The cookie of a new login.
    pub(crate) async fn log_in(&self) -> String {
        let token = self.link().split_once("token=").unwrap().1.to_owned();
        let answer = self.post("/login", &format!("token={token}"), &self.origin(), None).await;
        assert_eq!(
            (answer.status, &answer.headers[LOCATION]),
            (StatusCode::SEE_OTHER, &"/".parse().unwrap())
        );
        let cookie = answer.headers[SET_COOKIE].to_str().unwrap();
        cookie.split_once(';').unwrap().0.to_owned()
    }

    pub(crate) async fn viewer(&self, cookie: &str) -> Viewer {
        self.viewer_on(TcpStream::connect(self.address).await.unwrap(), cookie).await
    }

    /// A viewer whose kernel takes little before it reads.
    pub(crate) async fn viewer_with_small_buffers(&self, cookie: &str) -> Viewer {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        self.viewer_on(socket.connect(self.address).await.unwrap(), cookie).await
    }

    /// A viewer that comes with these headers and this query, such as `?share=…`.
    pub(crate) async fn viewer_with(&self, query: &str, headers: &[(&'static str, &str)]) -> Viewer {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (socket, _) = client_async(self.upgrade(query, headers), stream).await.unwrap();
        Viewer { socket, page: Page::default() }
    }

    async fn viewer_on(&self, stream: TcpStream, cookie: &str) -> Viewer {
        let request = self.upgrade("", &[("origin", &self.origin()), ("cookie", cookie)]);
        let (socket, response) = client_async(request, stream).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], SUBPROTOCOL);
        Viewer { socket, page: Page::default() }
    }

    /// The status with which an upgrade with these headers is refused.
    pub(crate) async fn refused_upgrade(&self, headers: &[(&'static str, &str)]) -> StatusCode {
        let stream = TcpStream::connect(self.address).await.unwrap();
        match client_async(self.upgrade("", headers), stream).await {
            Err(WsError::Http(response)) => response.status(),
            other => panic!("not refused: {other:?}"),
        }
    }

    /// A viewer, unless there is no place for one.
    pub(crate) async fn try_viewer(&self, headers: &[(&'static str, &str)]) -> Option<Viewer> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        match client_async(self.upgrade("", headers), stream).await {
            Ok((socket, _)) => Some(Viewer { socket, page: Page::default() }),
            Err(WsError::Http(response)) if response.status() == StatusCode::SERVICE_UNAVAILABLE => None,
            Err(other) => panic!("{other}"),
        }
    }

    fn upgrade(&self, query: &str, headers: &[(&'static str, &str)]) -> Request<()> {
        let mut request = format!("ws://{}/live{query}", self.address).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        request
    }

    pub(crate) async fn tell(&self, record: &LiveRecord) {
        let key = format!("{}/{}", record.site, record.partition);
        let value = serde_json::to_vec(record).unwrap();
        let on_log = FutureRecord::to(topics::LIVE).partition(record.partition % 2).key(&key).payload(&value);
        self.producer.send(on_log, DEADLINE).await.unwrap();
    }

    pub(crate) async fn tell_raw(&self, value: &[u8]) {
        let on_log = FutureRecord::to(topics::LIVE).partition(0).key("demo/0").payload(value);
        self.producer.send(on_log, DEADLINE).await.unwrap();
    }

    /// A site comes, changes or goes.
    pub(crate) fn set_site(&self, key: &str, site: Option<Value>) {
        self.directory.set(&format!("site/{key}"), site);
    }

    pub(crate) async fn fire(&self, record: &AlertRecord) {
        let (key, value) = (record.key(), serde_json::to_vec(record).unwrap());
        let on_log = FutureRecord::to(topics::ALERTS).partition(0).key(&key).payload(&value);
        self.producer.send(on_log, DEADLINE).await.unwrap();
    }

    /// Events, packed into one record.
    pub(crate) async fn happen(&self, events: &[EventRecord]) {
        let lines: Vec<_> = events.iter().map(|event| serde_json::to_string(event).unwrap()).collect();
        let value = lines.join("\n");
        let on_log = FutureRecord::to(topics::EVENTS).partition(1).key("demo").payload(&value);
        self.producer.send(on_log, DEADLINE).await.unwrap();
    }

    /// Opens `/live/events` with this query and these further header lines.
    pub(crate) async fn stream(&self, query: &str, cookie: &str, more: &str) -> Stream {
        self.stream_on(TcpStream::connect(self.address).await.unwrap(), query, cookie, more).await
    }

    /// A reader whose kernel takes little before it reads.
    pub(crate) async fn stream_with_small_buffers(&self, query: &str, cookie: &str) -> Stream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        self.stream_on(socket.connect(self.address).await.unwrap(), query, cookie, "").await
    }

    async fn stream_on(&self, mut socket: TcpStream, query: &str, cookie: &str, more: &str) -> Stream {
        let request = format!(
            "GET /live/events?{query} HTTP/1.1\r\nhost: {}\r\ncookie: {cookie}\r\n{more}\r\n",
            self.address
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        Stream { socket, read: Vec::new(), page: Page::default(), last_id: String::new() }
    }

    pub(crate) async fn report(&self, report: &PresenceReport) {
        let value = serde_json::to_vec(report).unwrap();
        let on_log = FutureRecord::to(topics::PRESENCE).partition(0).key(&report.node).payload(&value);
        self.producer.send(on_log, DEADLINE).await.unwrap();
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What a page shows, built from frames alone.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Page {
    pub(crate) position: Option<Position>,
    pub(crate) online: Online,
    pub(crate) freshness: Freshness,
    pub(crate) live: LiveState,
    pub(crate) goals: BTreeMap<String, u64>,
    pub(crate) alerts: Option<Vec<Alert>>,
    pub(crate) events: Vec<FeedEvent>,
    pub(crate) snapshots: u32,
    pub(crate) deltas: u32,
    pub(crate) heartbeats: u32,
}

impl Page {
    /// Applies a frame as the protocol says; a delta that does not follow is a torn state.
    pub(crate) fn apply(&mut self, frame: &ViewerFrame) {
        let update = match frame {
            ViewerFrame::Snapshot(update) => {
                self.snapshots += 1;
                self.live = LiveState::default();
                self.goals.clear();
                self.online = Online::default();
                self.alerts = None;
                update
            }
            ViewerFrame::Delta(update) => {
                self.deltas += 1;
                let had = self.position.expect("a delta follows something");
                assert_eq!(update.position, Position { epoch: had.epoch, seq: had.seq + 1 }, "a gap");
                update
            }
            ViewerFrame::Heartbeat { .. } => {
                self.heartbeats += 1;
                return;
            }
            ViewerFrame::Events { events, .. } => {
                self.events.extend(events.iter().cloned());
                return;
            }
            ViewerFrame::Error { .. } => panic!("{frame:?}"),
        };
        self.position = Some(update.position);
        self.live.apply(&update.live);
        self.goals.extend(update.goals.clone());
        if let Some(alerts) = &update.alerts {
            self.alerts = Some(alerts.clone());
        }
        if let Some(online) = &update.online {
            self.online = online.clone();
        }
        if let Some(freshness) = update.freshness {
            self.freshness = freshness;
        }
    }

    pub(crate) fn views_of(&self, path: &str) -> u64 {
        self.live.tops.get(&Dimension::Page).and_then(|pages| pages.get(path)).copied().unwrap_or_default()
    }
}

pub(crate) struct Viewer {
    pub(crate) socket: WebSocketStream<TcpStream>,
    pub(crate) page: Page,
}

impl Viewer {
    pub(crate) async fn subscribe(&mut self, site: &str, resume: Option<Position>) {
        self.subscribe_to(site, json!({}), resume).await;
    }

    pub(crate) async fn subscribe_to(&mut self, site: &str, filter: Value, resume: Option<Position>) {
        let site = SiteId::try_from(site).unwrap();
        let filter: Filter = serde_json::from_value(filter).unwrap();
        let request = ViewerRequest::Subscribe { site, filter, resume };
        self.say(&serde_json::to_string(&request).unwrap()).await;
    }

    pub(crate) async fn say(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// The next frame, applied to the page.
    pub(crate) async fn next(&mut self) -> ViewerFrame {
        let frame = self.next_raw().await;
        self.page.apply(&frame);
        frame
    }

    pub(crate) async fn next_raw(&mut self) -> ViewerFrame {
        loop {
            match timeout(DEADLINE, self.socket.next()).await.expect("a frame in time") {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(Message::Ping(_))) => {}
                other => panic!("no text frame: {other:?}"),
            }
        }
    }

    /// Follows until the page shows what is asked for.
    pub(crate) async fn watch(&mut self, what: &str, mut shown: impl FnMut(&Page) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !shown(&self.page) {
            assert!(Instant::now() < deadline, "never shown: {what}; last: {:?}", self.page);
            self.next().await;
        }
    }

    /// Reads on to the close frame; `None` when the connection just ended.
    pub(crate) async fn closed(&mut self) -> Option<CloseFrame> {
        let to_the_end = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(frame))) => return frame,
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return None,
                }
            }
        };
        timeout(DEADLINE, to_the_end).await.expect("closed in time")
    }
}

/// A reader of server-sent events.
pub(crate) struct Stream {
    socket: TcpStream,
    read: Vec<u8>,
    pub(crate) page: Page,
    /// What an `EventSource` would send when it comes back.
    pub(crate) last_id: String,
}

impl Stream {
    /// The answer's head: its first line and headers, in lower case.
    pub(crate) async fn head(&mut self) -> String {
        self.up_to(b"\r\n\r\n").await.expect("a head").to_lowercase()
    }

    /// The next frame, applied to the page; `None` when the stream is over.
    pub(crate) async fn next(&mut self) -> Option<ViewerFrame> {
        loop {
            // Chunked: a length, a line break, the chunk, a line break. A chunk is one event.
            let length = self.up_to(b"\r\n").await?;
            let length = usize::from_str_radix(length.trim(), 16).unwrap();
            while self.read.len() < length + 2 {
                self.more().await?;
            }
            let chunk = String::from_utf8(self.read.drain(..length + 2).collect()).unwrap();
            if length == 0 {
                return None;
            }
            assert!(chunk.ends_with("\n\n\r\n"), "{chunk:?}");
            for line in chunk.lines() {
                if let Some(id) = line.strip_prefix("id: ") {
                    self.last_id = id.to_owned();
                } else if let Some(frame) = line.strip_prefix("data: ") {
                    let frame = serde_json::from_str(frame).unwrap();
                    self.page.apply(&frame);
                    if let ViewerFrame::Snapshot(update) | ViewerFrame::Delta(update) = &frame {
                        let Position { epoch, seq } = update.position;
                        assert_eq!(self.last_id, format!("{epoch}-{seq}"), "the frame's own place");
                    }
                    return Some(frame);
                }
            }
        }
    }

    pub(crate) async fn watch(&mut self, what: &str, mut shown: impl FnMut(&Page) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !shown(&self.page) {
            assert!(Instant::now() < deadline, "never shown: {what}; last: {:?}", self.page);
            self.next().await.expect("it goes on");
        }
    }

    async fn up_to(&mut self, end: &[u8]) -> Option<String> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end) {
                let text = self.read.drain(..at + end.len()).collect();
                return Some(String::from_utf8(text).unwrap());
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Option<()> {
        let read = timeout(DEADLINE, self.socket.read_buf(&mut self.read)).await.expect("bytes in time");
        read.ok().filter(|read| *read > 0)?;
        Some(())
    }
}

pub(crate) async fn until(mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "the condition never held");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Runs a test's body with a deadline, so that a hang names itself.
pub(crate) async fn within_deadline<T>(body: impl Future<Output = T>) -> T {
    timeout(3 * DEADLINE, body).await.expect("the test hangs")
}

pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// The site that the tests are about.
pub(crate) fn with_goals() -> Value {
    json!({
        "key": "demo",
        "origins": ["*"],
        "goals": [{"name": "Signed up", "event": "signup"}, {"name": "Thanks", "page": "/thanks/*"}],
    })
}

/// A record with everything a partition has to tell of `demo`.
pub(crate) fn full(partition: i32, seq: u64, pages: &[(&str, u64)]) -> LiveRecord {
    let views = pages.iter().map(|(path, views)| ((*path).to_owned(), *views)).collect();
    LiveRecord {
        site: SiteId::try_from("demo").unwrap(),
        partition,
        epoch: 1,
        seq,
        full: true,
        clock: now_ms(),
        newest: now_ms(),
        at: now_ms(),
        state: LiveState {
            totals: Some(Totals { active: 1, visitors: 1, ..Totals::default() }),
            tops: BTreeMap::from([(Dimension::Page, views)]),
            ..LiveState::default()
        },
    }
}

pub(crate) fn delta(partition: i32, seq: u64, pages: &[(&str, u64)]) -> LiveRecord {
    let mut record = full(partition, seq, pages);
    record.full = false;
    record.state.totals = None;
    record
}

pub(crate) fn presence(node: &str, at: i64, online: u32) -> PresenceReport {
    PresenceReport {
        node: node.into(),
        started_at: 1,
        site: SiteId::try_from("demo").unwrap(),
        at,
        online,
        visible: online,
        pages: BTreeMap::from([("/".to_owned(), online)]),
        ledger: Default::default(),
    }
}
