//! The whole evaluator against librdkafka's mock cluster and a receiver on this machine.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use footfall_schemas::{
    Dimension,
    alert::{Alert, AlertRecord},
    connect::KafkaSettings,
    directory::Directory,
    live::{LiveRecord, LiveState, MinuteCounts, Totals},
    rows::AlertRow,
    secret::SiteSecret,
    site::Site,
    topics,
};
use rdkafka::{
    mocking::MockCluster,
    producer::{DefaultProducerContext, FutureProducer, FutureRecord},
};
use rstest::rstest;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    AlertTable,
    address::Reach,
    config::{Alerts, Webhooks},
    evaluator,
    journal::Journal,
    post::{Letter, PostError, Poster},
    signature::sign,
};
use crate::{config::Config, error::StoreError, outlet::client, status::Status};

const WITHIN: Duration = Duration::from_secs(30);
/// A full minute, in s.
const START: i64 = 1_800_000_000;

fn secret() -> SiteSecret {
    SiteSecret::try_from("5a".repeat(32).as_str()).unwrap()
}

/// Asks until the answer is `Some`.
async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            match ask().await {
                Some(answer) => return answer,
                None => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    timeout(WITHIN, asking).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

/// A request as it came.
#[derive(Debug, Clone)]
struct Posted {
    head: String,
    body: Vec<u8>,
}

impl Posted {
    fn header(&self, name: &str) -> &str {
        let value = self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }

    /// Checks the signature as a receiver does, and reads the firing.
    fn verified(&self) -> Alert {
        let signature = self.header("footfall-signature");
        let seconds = signature.strip_prefix("t=").and_then(|rest| rest.split(',').next()).unwrap();
        assert_eq!(sign(&secret(), seconds.parse().unwrap(), &self.body), signature);
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Answers each request with the next of `answers`, then with 204.
struct Receiver {
    url: String,
    posted: Arc<Mutex<Vec<Posted>>>,
    served: JoinHandle<()>,
}

impl Receiver {
    async fn start(answers: &[&str], tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}/hook?a=b", listener.local_addr().unwrap());
        let posted = Arc::new(Mutex::new(Vec::new()));
        let mut answers: VecDeque<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        let served = tokio::spawn({
            let posted = posted.clone();
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let answer = answers.pop_front().unwrap_or_else(|| "204 No Content".into());
                    match &tls {
                        None => serve(stream, &posted, &answer).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &posted, &answer).await;
                            }
                        }
                    }
                }
            }
        });
        Self { url, posted, served }
    }

    fn posted(&self) -> Vec<Posted> {
        self.posted.lock().unwrap().clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.served.abort();
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, posted: &Mutex<Vec<Posted>>, answer: &str) {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let length: usize = length.parse().unwrap();
    while bytes.len() < head_end + length {
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0);
    }
    posted.lock().unwrap().push(Posted { head, body: bytes[head_end..].to_vec() });
    let _ = stream.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// The table, as far as it is asked for here: every row that was written.
#[derive(Default)]
struct Rows(Mutex<Vec<AlertRow>>);

impl AlertTable for Rows {
    async fn insert_alert(&self, row: &AlertRow) -> Result<(), StoreError> {
        let mut rows = self.0.lock().unwrap();
        rows.push(row.clone());
        match rows.len() {
            1 => Err(StoreError("the first is answered too late".into())),
            _ => Ok(()),
        }
    }
}

/// A site with a rule.
fn watched(url: &str) -> Arc<Directory> {
    let rules = json!([{
        "name": "404s", "kind": "threshold", "page": "/404", "at_least": 5, "minutes": 2, "cooldown_minutes": 1
    }]);
    let webhooks = json!([{ "url": url, "secret": "5a".repeat(32) }]);
    let site = json!({ "key": "shop", "origins": ["*"], "alerts": rules, "alert_webhooks": webhooks });
    Arc::new(Directory::declaring([(serde_json::from_value(site.clone()).unwrap(), site)]))
}

struct Stage {
    _mock: MockCluster<'static, DefaultProducerContext>,
    kafka: KafkaSettings,
    producer: FutureProducer,
    rows: Arc<Rows>,
    config: Config,
    seqs: [u64; 2],
}

impl Stage {
    fn start(allow: &[&str]) -> Self {
        let mock = MockCluster::new(1).unwrap();
        for topic in [topics::LIVE, topics::ALERTS] {
            mock.create_topic(topic, 1, 1).unwrap();
        }
        let kafka = KafkaSettings { brokers: mock.bootstrap_servers(), properties: Default::default() };
        let config = Config {
            session_timeout_ms: 6_000,
            alerts: Alerts { warm_up_ms: 500, ..Alerts::default() },
            webhooks: Webhooks {
                allow: allow.iter().map(|network| (*network).try_into().unwrap()).collect(),
                backoff_ms: 700,
                tries: 3,
                ..Webhooks::default()
            },
            ..Config::default()
        };
        let producer = client(&kafka, "test").create().unwrap();
        Self { _mock: mock, kafka, producer, rows: Arc::default(), config, seqs: [0; 2] }
    }

    /// Runs until the token is cancelled.
    fn evaluate(&self, member: &str, url: &str) -> (CancellationToken, JoinHandle<()>) {
        self.evaluate_as_told(member, watch::channel(watched(url)).1)
    }

    fn evaluate_as_told(
        &self,
        member: &str,
        directory: watch::Receiver<Arc<Directory>>,
    ) -> (CancellationToken, JoinHandle<()>) {
        let (kafka, status) = (&self.kafka, Arc::new(Status::default()));
        // The records begin in the minute in which the watch does: all that they tell is counted.
        let wall = Arc::new(|| START * 1_000);
        let made =
            super::evaluator(directory, (kafka, member), &self.config, self.rows.clone(), status, wall);
        let evaluator: evaluator::Evaluator<Rows> = made.unwrap();
        let stop = CancellationToken::new();
        (stop.clone(), tokio::spawn(evaluator.run(stop)))
    }

    /// The partition tells all its windows at a second after the start: so many views of /404 in the half hour.
    async fn tell(&mut self, partition: i32, second: i64, views: u64) {
        let seq = &mut self.seqs[partition as usize];
        *seq += 1;
        let record = LiveRecord {
            site: "shop".parse().unwrap(),
            partition,
            epoch: 1,
            seq: *seq,
            full: true,
            clock: (START + second) * 1_000,
            newest: (START + second) * 1_000,
            at: 0,
            state: LiveState {
                totals: Some(Totals { visitors: 1, ..Totals::default() }),
                minutes: [(
                    (START + second) / 60 * 60,
                    MinuteCounts { views, events: views, ..Default::default() },
                )]
                .into(),
                tops: [(Dimension::Page, [("/404".to_owned(), views)].into())].into(),
                ..LiveState::default()
            },
        };
        let value = serde_json::to_vec(&record).unwrap();
        let key = format!("shop/{partition}");
        let record = FutureRecord::to(topics::LIVE).key(&key).payload(&value);
        self.producer.send(record, WITHIN).await.unwrap();
    }

    /// Tells again and again, as aggregators do, until the answer is `Some`.
    async fn telling<T>(
        &mut self,
        second: i64,
        views: u64,
        what: &str,
        mut ask: impl AsyncFnMut() -> Option<T>,
    ) -> T {
        for _ in 0..300 {
            self.tell(0, second, views / 2).await;
            self.tell(1, second, views - views / 2).await;
            if let Some(answer) = ask().await {
                return answer;
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("{what}: not in time");
    }

    async fn states(&self) -> Vec<AlertRecord> {
        Journal::new(&self.kafka, "test").unwrap().read().await.unwrap_or_default()
    }

    /// Minute after minute goes by without a view; the firing that is over then.
    async fn resolved(&mut self, views: u64) -> Alert {
        for second in (180..).step_by(10) {
            self.tell(0, second, views / 2).await;
            self.tell(1, second, views - views / 2).await;
            if let Some(state) = self.state(false, true).await {
                return state.alert;
            }
            sleep(Duration::from_millis(100)).await;
            assert!(second < 3_600, "not resolved in an hour of the log");
        }
        unreachable!("seconds do not end")
    }

    /// The newest state of the rule, when it is as asked for.
    async fn state(&self, is_open: bool, settled: bool) -> Option<AlertRecord> {
        let newest = self.states().await.pop()?;
        (newest.alert.is_open() == is_open && newest.settled == settled).then_some(newest)
    }

    fn rows(&self) -> Vec<AlertRow> {
        self.rows.0.lock().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_fires_and_resolves_on_the_topic_in_the_table_and_at_the_webhook() {
    let mut stage = Stage::start(&["127.0.0.0/8"]);
    let receiver = Receiver::start(&["500 Internal Server Error", "302 Found\r\nlocation: /"], None).await;
    let (stop, evaluating) = stage.evaluate("one", &receiver.url);
    let posted = stage.telling(35, 5, "three posts", async || {
        let posted = receiver.posted();
        (posted.len() == 3).then_some(posted)
    });
    let posted = posted.await;
    let alert = posted[0].verified();
    assert_eq!(
        (alert.opened_at, alert.resolved_at, alert.value, alert.threshold),
        (START * 1_000, None, 5.0, 5.0)
    );
    assert_eq!(alert.text, "shop: 404s: 5 views of /404 in 2 minutes, 5 or more");
    for post in &posted {
        assert_eq!(post.verified(), alert, "the same again until it is taken");
        assert_eq!(post.header("footfall-id"), format!("{}-opened", alert.id));
        assert!(post.head.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{}", post.head);
        assert_eq!(format!("http://{}/hook?a=b", post.header("host")), receiver.url);
    }
    let settled = eventually("settled", async || stage.state(true, true).await).await;
    assert_eq!(settled.alert, alert);
    let row = AlertRow::from(&alert);
    assert_eq!(stage.rows(), [row.clone(), row], "the first was in doubt");

    let over = stage.resolved(5).await;
    assert_eq!(over.id, alert.id);
    // The window is empty after at least a minute, and the cooldown is another one.
    assert!(over.resolved_at.unwrap() >= (START + 35 + 120) * 1_000, "{over:?}");
    let posted = receiver.posted();
    assert_eq!(posted.len(), 4, "each is told once it is taken");
    assert_eq!(posted[3].header("footfall-id"), format!("{}-resolved", alert.id));
    assert_eq!(posted[3].verified(), over);
    assert_eq!(stage.rows().last(), Some(&AlertRow::from(&over)));
    assert_eq!(stage.states().await.iter().filter(|state| !state.settled).count(), 2);
    stop.cancel();
    evaluating.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_over_tells_the_rest_under_the_same_id() {
    let mut stage = Stage::start(&["127.0.0.0/8"]);
    // Nobody listens there: the first member never gets it told.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    stage.config.webhooks.tries = 20;
    let (stop, evaluating) = stage.evaluate("one", &format!("http://{free}/"));
    let opened = {
        let journal = Journal::new(&stage.kafka, "test").unwrap();
        let read = async || journal.read().await.unwrap_or_default().pop();
        stage.telling(35, 5, "opened", read).await
    };
    assert!(opened.alert.is_open() && !opened.settled, "{opened:?}");
    stop.cancel();
    evaluating.await.unwrap();

    let receiver = Receiver::start(&[], None).await;
    let (stop, evaluating) = stage.evaluate("two", &receiver.url);
    // Minutes later, and again more than five: the firing goes on, and is no other.
    let told = stage.telling(170, 40, "told", async || receiver.posted().pop()).await;
    assert_eq!(told.verified(), opened.alert);
    let over = stage.resolved(40).await;
    assert_eq!(over.id, opened.alert.id);
    let posts: Vec<_> = receiver.posted().iter().map(Posted::verified).collect();
    assert_eq!(posts, [opened.alert, over]);
    stop.cancel();
    evaluating.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_not_public_is_not_connected_to() {
    let mut stage = Stage::start(&[]);
    let receiver = Receiver::start(&[], None).await;
    let (stop, evaluating) = stage.evaluate("one", &receiver.url);
    let journal = Journal::new(&stage.kafka, "test").unwrap();
    let settled = async || journal.read().await.unwrap_or_default().pop().filter(|state| state.settled);
    let settled = stage.telling(35, 5, "settled without a post", settled).await;
    assert_eq!(receiver.posted().len(), 0);
    assert_eq!(stage.rows().last(), Some(&AlertRow::from(&settled.alert)));
    stop.cancel();
    evaluating.await.unwrap();
}

fn letter() -> Letter {
    Letter { id: "a".into(), signature: sign(&secret(), 1, b"{}"), body: b"{}"[..].into() }
}

/// A certificate for `localhost` that signs itself, and who trusts it.
fn certificate() -> (TlsAcceptor, RootCertStore) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), roots)
}

#[rstest]
#[case::trusted(true, "localhost", "taken")]
#[case::of_nobody_known(false, "localhost", "no TLS")]
#[case::of_another_name(true, "127.0.0.1", "no TLS")]
#[tokio::test]
async fn a_certificate_is_checked(#[case] trusted: bool, #[case] host: &str, #[case] says: &str) {
    let (acceptor, roots) = certificate();
    let receiver = Receiver::start(&[], Some(acceptor)).await;
    let reach = Reach::new(["127.0.0.0/8", "::1"].map(|text| text.try_into().unwrap()).into());
    let poster = Poster::new(reach, if trusted { roots } else { RootCertStore::empty() }, WITHIN);
    let url = receiver.url.replace("127.0.0.1", host);
    let answer = poster.post(&url.as_str().try_into().unwrap(), letter()).await;
    let answer = answer.map_or_else(|error| error.to_string(), |()| "taken".into());
    assert!(answer.starts_with(says), "{answer}");
    assert_eq!(receiver.posted().len(), usize::from(says == "taken"));
}

#[rstest]
#[case::by_its_address("127.0.0.1")]
#[case::by_a_name("localhost")]
#[case::written_otherwise("0x7f.1")]
#[case::mapped("[::ffff:127.0.0.1]")]
#[tokio::test]
async fn this_machine_is_refused_however_it_is_written(#[case] host: &str) {
    let receiver = Receiver::start(&[], None).await;
    let poster = Poster::new(Reach::default(), RootCertStore::empty(), WITHIN);
    let url = receiver.url.replace("127.0.0.1", host);
    let refused = poster.post(&url.as_str().try_into().unwrap(), letter()).await;
    assert!(
        matches!(refused, Err(PostError::Refused(address)) if address.to_canonical().is_loopback()),
        "{refused:?}"
    );
    assert_eq!(receiver.posted().len(), 0);
}

#[tokio::test]
async fn who_does_not_answer_is_let_go_and_an_endless_head_is_not_read() {
    let reach = || Reach::new(vec!["127.0.0.1".try_into().unwrap()]);
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", mute.local_addr().unwrap());
    let poster = Poster::new(reach(), RootCertStore::empty(), Duration::from_millis(200));
    let silent = poster.post(&url.as_str().try_into().unwrap(), letter()).await;
    assert!(matches!(silent, Err(PostError::TooSlow(_))), "{silent:?}");

    let endless = format!("200 OK\r\na: {}", "x".repeat(64 << 10));
    let receiver = Receiver::start(&[&endless, "200 OK\r\ncontent-length: 99999999999"], None).await;
    let poster = Poster::new(reach(), RootCertStore::empty(), WITHIN);
    let url = receiver.url.as_str().try_into().unwrap();
    let long = poster.post(&url, letter()).await;
    assert!(matches!(long, Err(PostError::Http(_))), "{long:?}");
    poster.post(&url, letter()).await.expect("the body is not waited for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_that_comes_while_the_evaluator_runs_fires_and_is_resolved_when_it_goes() {
    let mut stage = Stage::start(&["127.0.0.0/8"]);
    let receiver = Receiver::start(&[], None).await;
    let (directory, receives) = watch::channel(Arc::default());
    let (stop, evaluating) = stage.evaluate_as_told("one", receives);
    stage.tell(0, 30, 3).await;
    directory.send_replace(watched(&receiver.url));
    let opened = stage
        .telling(35, 5, "the firing", async || {
            let posted = receiver.posted();
            posted.first().map(Posted::verified)
        })
        .await;
    assert!(opened.is_open() && opened.rule == "404s", "{opened:?}");
    directory.send_replace(Arc::default());
    let resolved = eventually("resolved", async || stage.state(false, true).await).await;
    assert_eq!(resolved.alert.id, opened.id);
    assert_eq!(receiver.posted().len(), 1, "nobody is left to be told");
    stop.cancel();
    evaluating.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_no_site_has_a_rule_nobody_joins_the_group() {
    let stage = Stage::start(&[]);
    let (directory, receives) = watch::channel(Arc::default());
    let (stop, mut evaluating) = stage.evaluate_as_told("one", receives);
    let site = Site::new("shop".parse().unwrap(), Vec::new());
    directory.send_replace(Arc::new(Directory::declaring([(site, serde_json::Value::Null)])));
    assert!(timeout(Duration::from_millis(300), &mut evaluating).await.is_err(), "it waits for a rule");
    stop.cancel();
    evaluating.await.unwrap();
}
