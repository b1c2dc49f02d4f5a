//! What the dashboard makes of the tables, on the real engine: views of what matches a filter, held against a naive
//! count of the same rows, and its answers about the past.
#![allow(clippy::unwrap_used)] // a test may panic

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clickhouse::{Row, RowOwned, RowWrite};
use footfall::{
    directory::{self, Reader},
    embedded::{
        broker::{Broker, BrokerConfig},
        clickhouse::{ADMIN, DATABASE, Engine, EngineConfig, READER, WRITER},
    },
    migrate,
};
use footfall_aggregator::bench::Writer;
use footfall_dashboard::{Config, Parts, login_url};
use footfall_schemas::{
    Dimension,
    alert::Alert,
    connect::{ClickHouseSettings, KafkaSettings},
    directory::Directory,
    live::{LiveRecord, LiveState, MinuteCounts, SecondCounts, Totals},
    rows::{AlertRow, DeadLetterRow, EventRow, SessionRow},
    site::Site,
    topics,
    viewer::{FeedEvent, SUBPROTOCOL, ViewUpdate, ViewerFrame},
};
use futures_util::{SinkExt as _, StreamExt as _};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Generous: the machine may have other things to do.
const WITHIN: Duration = Duration::from_secs(90);
const PASSWORD: &str = "password";
const SECRET: [u8; 32] = [7; 32];
const TOP_VALUES: usize = 5;
const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
/// A text of which every character means something to somebody.
const HOSTILE: &str = "a'b\\c\"d`e\tf\ng{site:String}%41&x=1";

struct Stage {
    /// Until it dies.
    engine: Option<Engine>,
    /// As the writer.
    clickhouse: ClickHouseSettings,
    _broker: Broker,
    _reader: Reader,
    address: SocketAddr,
    cookie: String,
    producer: FutureProducer,
    shutdown: CancellationToken,
}

impl Stage {
    async fn new(dir: &Path) -> Self {
        let config = EngineConfig {
            executable: env!("CARGO_BIN_EXE_footfall").into(),
            reader_password: PASSWORD.to_owned(),
            writer_password: PASSWORD.to_owned(),
            admin_password: PASSWORD.to_owned(),
            ..EngineConfig::new(dir.join("clickhouse")).unwrap()
        };
        let engine = Engine::start(config).await.unwrap();
        migrate::create_tables(&login(&engine, ADMIN)).await.unwrap();
        let config = BrokerConfig {
            data_dir: dir.join("kafka"),
            listen: "127.0.0.1:0".parse().unwrap(),
            ..BrokerConfig::default()
        };
        let broker = Broker::start(config).await.unwrap();
        let kafka = KafkaSettings { brokers: broker.address().to_string(), properties: BTreeMap::new() };
        migrate::create_topics(&kafka, 2, 1).await.unwrap();
        let producer = migrate::client_config(&kafka).create().unwrap();

        let site: Site = serde_json::from_value(site()).unwrap();
        let declared = Directory::declaring([(site, Value::Null)]);
        let reader = Reader::spawn(&kafka, watch::channel(declared).1).unwrap();
        let edit = Arc::new(directory::Writer::new(&kafka, &reader).unwrap());
        reader.caught_up(WITHIN).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let parts = Parts {
            config: Config {
                top_values: TOP_VALUES,
                filter_timeout_ms: 60_000,
                history_timeout_ms: 60_000,
                request_timeout_ms: 60_000,
                ..Config::default()
            },
            directory: reader.directory(),
            edit,
            kafka,
            clickhouse: login(&engine, READER),
            secret: SECRET,
            metrics_text: Arc::new(String::new),
            ingest_url: "http://127.0.0.1:1".into(),
            demo_url: None,
        };
        let shutdown = CancellationToken::new();
        tokio::spawn(footfall_dashboard::run(listener, parts, shutdown.clone()));
        let clickhouse = login(&engine, WRITER);
        let (engine, cookie) = (Some(engine), String::new());
        let mut stage = Self {
            engine,
            clickhouse,
            _broker: broker,
            _reader: reader,
            address,
            cookie,
            producer,
            shutdown,
        };
        let link = login_url(&SECRET, "", now());
        let token = link.split_once("token=").unwrap().1;
        let request = format!(
            "POST /login HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             content-length: {}\r\nconnection: close\r\n\r\ntoken={token}",
            token.len() + 6
        );
        let (head, _) = stage.ask(&request).await;
        let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        stage.cookie = cookie.split(';').next().unwrap().to_owned();
        stage
    }

    /// Head and body of the answer.
    async fn ask(&self, request: &str) -> (String, String) {
        let exchange = async {
            let mut socket = TcpStream::connect(self.address).await.unwrap();
            socket.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head.to_owned(), body.to_owned())
        };
        timeout(WITHIN, exchange).await.expect("an answer in time")
    }

    async fn get(&self, path: &str) -> String {
        let (address, cookie) = (self.address, &self.cookie);
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {address}\r\ncookie: {cookie}\r\nconnection: close\r\n\r\n"
        );
        let (head, body) = self.ask(&request).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}\n{body}");
        body
    }

    async fn viewer(&self) -> Viewer {
        let mut request = format!("ws://{}/live", self.address).into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
        headers.insert("origin", format!("http://{}", self.address).parse().unwrap());
        headers.insert("cookie", self.cookie.parse().unwrap());
        let socket = TcpStream::connect(self.address).await.unwrap();
        Viewer(client_async(request, socket).await.unwrap().0)
    }

    /// The site's windows are told up to `clock`.
    async fn tell(&self, seq: u64, clock: i64) {
        let state = LiveState {
            totals: Some(Totals { active: 1, visitors: seq, ..Totals::default() }),
            ..LiveState::default()
        };
        let site = "shop".parse().unwrap();
        let (newest, at) = (clock, now());
        let record = LiveRecord { site, partition: 0, epoch: 1, seq, full: true, clock, newest, at, state };
        let value = serde_json::to_vec(&record).unwrap();
        let on_log = FutureRecord::to(topics::LIVE).partition(0).key("shop/0").payload(&value);
        self.producer.send(on_log, WITHIN).await.unwrap();
    }

    async fn store<R>(&self, table: &str, rows: &[R])
    where
        for<'a> R: Row<Value<'a> = R> + RowOwned + RowWrite,
    {
        let mut insert = self.clickhouse.client().insert::<R>(table).await.unwrap();
        for row in rows {
            insert.write(row).await.unwrap();
        }
        insert.end().await.unwrap();
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        if let Some(engine) = self.engine.take() {
            engine.shutdown(Duration::from_secs(10)).await;
        }
    }
}

struct Viewer(WebSocketStream<TcpStream>);

impl Viewer {
    async fn subscribe(&mut self, filter: &Value) {
        let request = json!({"t": "subscribe", "site": "shop", "filter": filter});
        self.0.send(Message::text(request.to_string())).await.unwrap();
    }

    async fn next(&mut self) -> ViewerFrame {
        loop {
            match timeout(WITHIN, self.0.next()).await.expect("a frame in time") {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(Message::Ping(_))) => {}
                other => panic!("no text frame: {other:?}"),
            }
        }
    }

    /// The whole of what matches, up to `clock`.
    async fn view(&mut self, filter: &Value, clock: i64) -> ViewUpdate {
        self.subscribe(filter).await;
        let whole = async {
            loop {
                match self.next().await {
                    ViewerFrame::Snapshot(whole) if whole.freshness.unwrap().clock == clock => return whole,
                    // Another clock was told when it was first computed.
                    ViewerFrame::Delta(update)
                        if update.freshness.is_some_and(|fresh| fresh.clock == clock) =>
                    {
                        self.subscribe(filter).await;
                    }
                    ViewerFrame::Error { reason, detail } => panic!("{reason:?}: {detail}"),
                    _ => {}
                }
            }
        };
        timeout(WITHIN, whole).await.unwrap_or_else(|_| panic!("never shown: {filter} up to {clock}"))
    }
}

fn login(engine: &Engine, user: &str) -> ClickHouseSettings {
    ClickHouseSettings {
        url: engine.url().to_owned(),
        database: DATABASE.to_owned(),
        user: user.to_owned(),
        password: PASSWORD.to_owned(),
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn site() -> Value {
    json!({
        "key": "shop",
        "origins": ["https://shop.example"],
        "goals": [
            {"name": "Bought", "event": "buy"},
            {"name": "Thanks", "page": "/thanks/*"},
            {"name": "Never", "page": "/never/**"},
        ],
    })
}

/// Visits over 45 minutes up to `clock`, of two sites, so that every window cuts some.
fn events(clock: i64) -> Vec<EventRow> {
    let mut random = StdRng::seed_from_u64(4);
    let mut rows: Vec<EventRow> = Vec::new();
    let mut visit = 0;
    while rows.len() < 6_000 {
        visit += 1;
        let visitor = random.random_range(1..400);
        let mut at = clock - random.random_range(0..45 * MINUTE);
        let pick = |random: &mut StdRng, of: &[&str]| of[random.random_range(0..of.len())].to_owned();
        let country = pick(&mut random, &["DE", "DE", "FR", "AT", ""]);
        let browser = pick(&mut random, &["Firefox", "Chrome"]);
        let referrer = pick(&mut random, &["", "example.com", HOSTILE]);
        for index in 0..random.random_range(1..7) {
            let kind =
                if index == 0 { "view" } else { ["view", "custom", "engagement"][random.random_range(0..3)] };
            let pages = ["/", "/a", "/b", "/c", "/d", "/thanks/you?order=1", "/thanks/a/b", HOSTILE];
            let number = rows.len() as u128;
            let is_view = kind == "view";
            rows.push(EventRow {
                site: if visit % 10 == 0 { "blog" } else { "shop" }.to_owned(),
                event_time: at,
                received_at: at + 40,
                event_id: Uuid::from_u128((0x0102_0304_0506_0708_090a_0b0c << 32) + number + 1),
                visitor,
                session: visit,
                session_start: u8::from(index == 0),
                kind: kind.to_owned(),
                name: if kind == "custom" { pick(&mut random, &["buy", "play"]) } else { String::new() },
                host: "shop.example".to_owned(),
                path: pick(&mut random, &pages),
                title: String::new(),
                referrer: String::new(),
                referrer_host: if is_view { referrer.clone() } else { String::new() },
                channel: if is_view { "referral".to_owned() } else { String::new() },
                utm_source: String::new(),
                utm_medium: String::new(),
                utm_campaign: pick(&mut random, &["", "", "spring"]),
                utm_term: String::new(),
                utm_content: String::new(),
                country: country.clone(),
                region: String::new(),
                city: String::new(),
                language: "de-DE".to_owned(),
                time_zone: "Europe/Berlin".to_owned(),
                browser: browser.clone(),
                system: "Linux".to_owned(),
                device: "desktop".to_owned(),
                screen_width: 1,
                engaged_ms: 0,
                scroll_depth: 0,
                page_view: 0,
                props: Vec::new(),
                clock: "told".to_owned(),
                late: 0,
                payload_hash: 0,
                _topic: "footfall.events".to_owned(),
                _partition: 0,
                _offset: number as i64,
                _index: 0,
            });
            at += random.random_range(1..2 * MINUTE);
            if at > clock {
                break;
            }
        }
    }
    rows
}

/// The columns by which there are filters and lists.
fn value_of<'r>(row: &'r EventRow, dimension: &str) -> &'r str {
    match dimension {
        "page" => &row.path,
        "referrer" => &row.referrer_host,
        "channel" => &row.channel,
        "campaign" => &row.utm_campaign,
        "country" => &row.country,
        "browser" => &row.browser,
        "system" => &row.system,
        "device" => &row.device,
        "event" => &row.name,
        other => panic!("{other}"),
    }
}

fn reaches(row: &EventRow, goal: &str) -> bool {
    match goal {
        "Bought" => row.kind == "custom" && row.name == "buy",
        "Thanks" => {
            let path = row.path.split('?').next().unwrap();
            let rest = path.strip_prefix("/thanks/");
            row.kind == "view" && rest.is_some_and(|rest| !rest.is_empty() && !rest.contains('/'))
        }
        "Never" => false,
        other => panic!("{other}"),
    }
}

/// What the view of a filter has to be at `clock`, counted event by event.
fn naive(all: &[EventRow], filter: &Value, clock: i64) -> (LiveState, BTreeMap<String, u64>) {
    let of_site: Vec<&EventRow> =
        all.iter().filter(|row| row.site == "shop" && row.event_time <= clock).collect();
    let this_second = clock.div_euclid(SECOND);
    let this_minute = clock.div_euclid(MINUTE);
    let in_minutes = |row: &EventRow| row.event_time.div_euclid(MINUTE) > this_minute - 30;
    let in_seconds = |row: &EventRow, seconds: i64| row.event_time.div_euclid(SECOND) > this_second - seconds;
    let matching: Vec<&EventRow> = of_site
        .iter()
        .copied()
        .filter(|row| {
            filter.as_object().unwrap().iter().all(|(key, wanted)| {
                match (key.as_str(), wanted.as_str().unwrap()) {
                    ("goal", goal) => of_site.iter().any(|other| {
                        other.visitor == row.visitor && in_minutes(other) && reaches(other, goal)
                    }),
                    (dimension, wanted) => value_of(row, dimension) == wanted,
                }
            })
        })
        .collect();

    let mut state = LiveState::default();
    let mut totals = Totals::default();
    let distinct = |seconds: i64| {
        let seen = matching.iter().filter(|row| in_seconds(row, seconds)).map(|row| row.visitor);
        seen.collect::<BTreeSet<_>>().len() as u64
    };
    (totals.active, totals.visitors) = (distinct(300), distinct(1_800));
    let mut visitors: BTreeMap<i64, BTreeSet<u64>> = BTreeMap::new();
    for row in &matching {
        let is_view = u64::from(row.kind == "view");
        if in_seconds(row, 60) {
            let counts = state.seconds.entry(row.event_time.div_euclid(SECOND)).or_default();
            *counts = SecondCounts { views: counts.views + is_view, events: counts.events + 1 };
        }
        if !in_minutes(row) {
            continue;
        }
        let minute = row.event_time.div_euclid(MINUTE) * 60;
        let seen = visitors.entry(minute).or_default();
        seen.insert(row.visitor);
        let counts = state.minutes.entry(minute).or_default();
        *counts = MinuteCounts {
            views: counts.views + is_view,
            events: counts.events + 1,
            visitors: seen.len() as u64,
            sessions: counts.sessions + u64::from(row.session_start),
        };
        for dimension in Dimension::OF_EVENTS.iter().filter(|dimension| **dimension != Dimension::Total) {
            let counted = if *dimension == Dimension::Event { "custom" } else { "view" };
            let value = value_of(row, dimension.as_str());
            if row.kind == counted && !value.is_empty() {
                *state.tops.entry(*dimension).or_default().entry(value.to_owned()).or_default() += 1;
            }
        }
        if row.session_start == 1 {
            let events = of_site.iter().filter(|other| other.session == row.session && in_minutes(other));
            let mut events: Vec<&&EventRow> = events.collect();
            events.sort_by_key(|event| event.event_time);
            let views: Vec<_> = events.iter().filter(|event| event.kind == "view").collect();
            let customs = events.iter().filter(|event| event.kind == "custom").count();
            totals.sessions += 1;
            totals.bounces += u64::from(views.len() == 1 && customs == 0);
            totals.duration_ms += (events[events.len() - 1].event_time - events[0].event_time) as u64;
            for (dimension, view) in [(Dimension::Entry, views[0]), (Dimension::Exit, views[views.len() - 1])]
            {
                *state.tops.entry(dimension).or_default().entry(view.path.clone()).or_default() += 1;
            }
        }
    }
    state.totals = Some(totals);
    for (dimension, values) in &mut state.tops {
        let mut order: Vec<(u64, String)> =
            values.iter().map(|(value, count)| (*count, value.clone())).collect();
        order.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        if let Some((cut, _)) = order.get(TOP_VALUES) {
            state.errors.insert(*dimension, *cut);
        }
        order.truncate(TOP_VALUES);
        *values = order.into_iter().map(|(count, value)| (value, count)).collect();
    }
    let reached =
        |goal: &str| matching.iter().filter(|row| in_minutes(row) && reaches(row, goal)).count() as u64;
    let goals = ["Bought", "Thanks", "Never"].map(|goal| (goal.to_owned(), reached(goal)));
    (state, goals.into())
}

#[tokio::test]
async fn a_filtered_view_is_a_naive_count_and_stands_when_the_engine_dies() {
    let dir = tempfile::tempdir().unwrap();
    let mut stage = Stage::new(dir.path()).await;
    // In the middle of a second and a minute.
    let clock = now() / MINUTE * MINUTE - 2 * MINUTE + 30_500;
    let rows = events(clock);
    Writer::new(&stage.clickhouse).events("rows", &rows).await.unwrap();
    stage.tell(1, clock).await;

    let filters = [
        json!({"country": "DE"}),
        json!({"page": "/a"}),
        json!({"page": HOSTILE}),
        json!({"referrer": HOSTILE, "country": "FR"}),
        json!({"browser": "Firefox", "system": "Linux", "device": "desktop", "channel": "referral"}),
        json!({"campaign": "spring"}),
        json!({"goal": "Bought"}),
        json!({"goal": "Thanks", "country": "AT"}),
        json!({"goal": "Never"}),
        json!({"country": "ZZ"}),
    ];
    for (index, filter) in filters.iter().enumerate() {
        let view = stage.viewer().await.view(filter, clock).await;
        let (live, goals) = naive(&rows, filter, clock);
        let nothing = live.totals == Some(Totals::default());
        assert_eq!(nothing, index >= filters.len() - 2, "{filter}: the test counts nothing");
        assert_eq!(view.live, live, "{filter}");
        assert_eq!(view.goals, goals, "{filter}");
        assert_eq!((view.ledger, view.alerts), (None, None), "{filter}");
    }

    // Of events themselves the newest come first.
    let mut viewer = stage.viewer().await;
    viewer.0.send(Message::text(r#"{"t":"feed","on":true}"#)).await.unwrap();
    viewer.subscribe(&filters[0]).await;
    let shown: Vec<FeedEvent> = loop {
        if let ViewerFrame::Events { events, .. } = viewer.next().await {
            break events;
        }
    };
    let mut german: Vec<_> = rows.iter().filter(|row| row.site == "shop" && row.country == "DE").collect();
    german.sort_by_key(|row| row.event_time);
    let newest = german[german.len() - 20..].iter().map(|row| (row.event_time + 40, row.path.as_str()));
    let told = shown.iter().map(|event| (event.received_at, event.page.as_str()));
    assert_eq!(told.collect::<BTreeSet<_>>(), newest.collect::<BTreeSet<_>>());
    assert!(shown.is_sorted_by_key(|event| event.received_at));

    // The engine dies and the site goes on: the last view stands, and its age is told.
    let mut another = stage.viewer().await;
    another.view(&filters[0], clock).await;
    stage.engine.take().unwrap().shutdown(Duration::from_secs(10)).await;
    let later = clock + MINUTE;
    stage.tell(2, later).await;
    let mut whole = stage.viewer().await;
    whole.subscribe(&json!({})).await;
    loop {
        if let ViewerFrame::Snapshot(update) | ViewerFrame::Delta(update) = whole.next().await
            && update.freshness.is_some_and(|freshness| freshness.clock == later)
        {
            break;
        }
    }
    let stands = another.view(&filters[0], clock).await;
    assert_eq!(stands.live, naive(&rows, &filters[0], clock).0);
    stage.stop().await;
}

#[tokio::test]
async fn the_past_is_told_from_the_tables() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::new(dir.path()).await;
    let at = now();
    let view = |number: u128, time: i64, path: &str| EventRow {
        event_id: Uuid::from_u128((0x0102_0304_0506_0708_090a_0b0c << 32) + number),
        event_time: time,
        received_at: time,
        visitor: number as u64,
        kind: "view".to_owned(),
        path: path.to_owned(),
        site: "shop".to_owned(),
        _offset: number as i64,
        ..events(at)[0].clone()
    };
    let day = 24 * 60 * MINUTE;
    let hostile = "=HYPERLINK(\"http://evil\",1)";
    let rows = [
        view(1, at, "/"),
        view(2, at, "/"),
        view(3, at, hostile),
        view(4, at - day, "/"),
        view(5, at - 7 * day, "/"),
    ];
    Writer::new(&stage.clickhouse).events("rows", &rows).await.unwrap();
    let session = |session: u64, start: i64, version: u64, is_deleted: u8| SessionRow {
        site: "shop".to_owned(),
        session,
        visitor: session,
        opened: start,
        start,
        end: start,
        duration_ms: 0,
        entry_path: "/".to_owned(),
        exit_path: "/".to_owned(),
        views: 1,
        events: 1,
        customs: 0,
        engaged_ms: 0,
        is_bounce: 1,
        referrer_host: String::new(),
        channel: String::new(),
        utm_campaign: String::new(),
        country: String::new(),
        browser: String::new(),
        system: String::new(),
        device: String::new(),
        joined: 0,
        _partition: 0,
        version,
        is_deleted,
    };
    // Three, of which one was told twice and one joined to another.
    let sessions = [session(1, at, 1, 0), session(1, at, 2, 0), session(2, at, 1, 0), session(3, at, 1, 0)];
    stage.store("sessions", &sessions).await;
    stage.store("sessions", &[session(3, at, 2, 1), session(4, at - 2 * day, 1, 0)]).await;
    let golden: Alert = serde_json::from_str(include_str!("../../schemas/golden/alert.json")).unwrap();
    let open = Alert { opened_at: at - MINUTE, ..golden.clone() };
    let over = Alert { resolved_at: Some(golden.opened_at + MINUTE), ..golden };
    let open_once = Alert { resolved_at: None, ..over.clone() };
    stage.store("alerts", &[&open, &open_once, &over].map(AlertRow::from)).await;
    let letter = |offset: i64, detail: &str| DeadLetterRow {
        site: "shop".to_owned(),
        received_at: at + offset,
        stage: "ingest".to_owned(),
        reason: "bad_url".to_owned(),
        detail: detail.to_owned(),
        event_id: Uuid::nil(),
        payload: String::new(),
        _topic: "footfall.dead-letters".to_owned(),
        _partition: 0,
        _offset: offset,
        _index: 0,
    };
    stage.store("dead_letters", &[letter(0, "u: the first"), letter(1, "u: the last")]).await;

    let json = async |path: &str| -> Value { serde_json::from_str(&stage.get(path).await).unwrap() };
    let history = json("/api/history?site=shop&hours=1").await;
    assert_eq!((&history["totals"]["views"], &history["totals"]["sessions"]), (&json!(3), &json!(2)));
    let by_point =
        history["points"].as_array().unwrap().iter().map(|point| point["sessions"].as_u64().unwrap());
    assert_eq!(by_point.sum::<u64>(), 2);

    let days = json("/api/day?site=shop").await;
    let midnight = at / day * day;
    for (series, (label, days_ago, visitors)) in days["series"].as_array().unwrap().iter().zip([
        ("today", 0, 3),
        ("yesterday", 1, 1),
        ("last_week", 7, 1),
    ]) {
        assert_eq!((&series["label"], &series["from"]), (&json!(label), &json!(midnight - days_ago * day)));
        let step = (at - midnight) / (5 * MINUTE);
        assert_eq!(series["points"][step as usize], visitors, "{label}");
    }

    let firings = json("/api/firings?site=shop").await;
    let told: Vec<Alert> = serde_json::from_value(firings["firings"].clone()).unwrap();
    let mut expected = [open, over];
    expected.sort_by_key(|alert| -alert.opened_at);
    assert_eq!(told, expected);
    assert_eq!(json("/api/firings?site=shop&limit=1").await["firings"].as_array().unwrap().len(), 1);

    let doctor = json("/api/doctor?site=shop").await;
    assert_eq!(
        doctor,
        json!({
            "received": 0, "accepted": 0, "stored": 3, "connected": 0, "last_event_at": at,
            "origins": ["https://shop.example"],
            "refused": [{"reason": "bad_url", "count": 2, "last_at": at + 1, "detail": "u: the last"}],
        })
    );

    let csv = stage.get("/api/export?site=shop&dimension=page&hours=24").await;
    let guarded = "\"'=HYPERLINK(\"\"http://evil\"\",1)\",1,1\r\n";
    assert_eq!(csv, format!("page,views,visitors\r\n/,2,2\r\n{guarded}"));
    let csv = stage.get("/api/export?site=shop&dimension=entry&hours=72").await;
    assert_eq!(csv, "entry,sessions,visitors\r\n/,3,3\r\n");
    stage.stop().await;
}
