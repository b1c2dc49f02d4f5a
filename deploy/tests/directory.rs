//! The directory on the embedded broker: its readers and writer, the command line, and an ingest node that follows it.
#![allow(clippy::unwrap_used)] // a test may panic

use std::{
    fs::File,
    io::Write as _,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use footfall::{
    directory::{Reader, Writer},
    embedded::broker::{Broker, BrokerConfig},
    migrate,
};
use footfall_dashboard::directory::Edit as _;
use footfall_schemas::{
    connect::KafkaSettings,
    directory::{Directory, UserName},
    topics,
};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{FutureProducer, FutureRecord},
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Error as WsError, client::IntoClientRequest as _},
};

const WITHIN: Duration = Duration::from_secs(30);

/// A broker, and a settings file that names it.
struct Cluster {
    broker: Option<Broker>,
    listen: SocketAddr,
    dir: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let cluster = Self::without_topics().await;
        cluster.make_topics().await;
        cluster
    }

    async fn without_topics() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let broker = serve(dir.path(), SocketAddr::from(([127, 0, 0, 1], 0))).await;
        let listen = broker.address();
        std::fs::write(dir.path().join("cli.toml"), format!("[kafka]\nbrokers = \"{listen}\"\n")).unwrap();
        Self { broker: Some(broker), listen, dir }
    }

    async fn make_topics(&self) {
        migrate::create_topics(&self.kafka(), 1, 1).await.unwrap();
    }

    fn kafka(&self) -> KafkaSettings {
        KafkaSettings { brokers: self.listen.to_string(), properties: Default::default() }
    }

    async fn reader(&self) -> Reader {
        let reader = Reader::spawn(&self.kafka(), watch::channel(Directory::default()).1).unwrap();
        reader.caught_up(WITHIN).await.unwrap();
        reader
    }

    async fn restart(&mut self) {
        self.broker.take().unwrap().shutdown().await;
        self.broker = Some(serve(self.dir.path(), self.listen).await);
    }

    /// As [`footfall`], against this broker.
    async fn footfall(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let config = self.dir.path().join("cli.toml");
        let arguments: Vec<String> = arguments
            .iter()
            .map(|argument| (*argument).to_owned())
            .chain(["--config".into(), config.display().to_string()])
            .collect();
        let input = input.to_owned();
        tokio::task::spawn_blocking(move || footfall(&arguments, &input)).await.unwrap()
    }
}

async fn serve(dir: &Path, listen: SocketAddr) -> Broker {
    let config = BrokerConfig { data_dir: dir.join("kafka"), listen, ..BrokerConfig::default() };
    Broker::start(config).await.unwrap()
}

/// Runs the binary: what it says on stdout, or else on stderr.
fn footfall(arguments: &[String], input: &str) -> Result<String, String> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_footfall"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have said no before it has read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    if output.status.success() { Ok(out) } else { Err(err) }
}

fn site(key: &str) -> Value {
    json!({"key": key, "origins": ["https://shop.example"]})
}

fn keys(directory: &Directory) -> Vec<&str> {
    directory.sites.keys().map(|key| key.as_str()).collect()
}

/// Waits until the reader shows what is asked for.
async fn shows(reader: &Reader, what: &str, holds: impl Fn(&Directory) -> bool) -> Arc<Directory> {
    let mut directory = reader.directory();
    let shown = tokio::time::timeout(WITHIN, directory.wait_for(|directory| holds(directory))).await;
    shown.unwrap_or_else(|_| panic!("{what}: not in time")).unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_is_shown_here_at_once_elsewhere_soon_and_after_a_restart() {
    let mut cluster = Cluster::start().await;
    let (own, other) = (cluster.reader().await, cluster.reader().await);
    let writer = Writer::new(&cluster.kafka(), &own).unwrap();
    for number in 0..20 {
        writer.write(format!("site/s{number}"), Some(site(&format!("s{number}")))).await.unwrap();
        let shown = own.directory().borrow().sites.len();
        assert_eq!(shown, number + 1, "this node shows what it wrote");
    }
    writer.write("site/s7".into(), None).await.unwrap();
    assert!(!own.directory().borrow().sites.contains_key("s7"));
    let expected = own.directory().borrow().clone();
    assert_eq!(shows(&other, "the other reader", |directory| *directory == *expected).await, expected);
    assert_eq!(cluster.reader().await.directory().borrow().clone(), expected, "from the beginning");

    cluster.restart().await;
    assert_eq!(cluster.reader().await.directory().borrow().clone(), expected, "after the broker's restart");
    writer.write("site/late".into(), Some(site("late"))).await.unwrap();
    shows(&other, "those that were there before go on", |directory| directory.sites.contains_key("late"))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_cannot_be_read_is_left_out() {
    let cluster = Cluster::start().await;
    let reader = cluster.reader().await;
    let producer: FutureProducer = migrate::client_config(&cluster.kafka()).create().unwrap();
    let garbage: [(&[u8], &[u8]); 4] =
        [(b"site/shop", b"\xff{"), (b"\xff\xfe", b"{}"), (b"team/a", b"{}"), (b"", b"")];
    for (key, value) in garbage {
        let record = FutureRecord::to(topics::DIRECTORY).key(key).payload(value);
        producer.send(record, WITHIN).await.unwrap();
    }
    let writer = Writer::new(&cluster.kafka(), &reader).unwrap();
    writer.write("site/blog".into(), Some(site("blog"))).await.unwrap();
    assert_eq!(keys(&reader.directory().borrow()), ["blog"]);
    assert_eq!(reader.unreadable(), 4);
    let export = cluster.footfall(&["directory", "export"], "").await.unwrap_err();
    assert!(export.contains("4 records cannot be read"), "{export}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_the_way_of_the_directory_is_named() {
    let cluster = Cluster::without_topics().await;
    let spawn = |kafka| Reader::spawn(&kafka, watch::channel(Directory::default()).1).unwrap();
    let missing = spawn(cluster.kafka());
    let error = missing.caught_up(Duration::from_secs(2)).await.unwrap_err().to_string();
    assert!(error.contains("footfall.directory is not there; `footfall migrate` makes it"), "{error}");
    cluster.make_topics().await;
    missing.caught_up(WITHIN).await.expect("it is found when it comes");

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let away = spawn(KafkaSettings { brokers: nobody.clone(), properties: Default::default() });
    let error = away.caught_up(Duration::from_secs(5)).await.unwrap_err().to_string();
    assert!(error.contains(&format!("kafka.brokers: {nobody} does not answer")), "{error}");

    let wide = Cluster::without_topics().await;
    let admin: AdminClient<DefaultClientContext> = migrate::client_config(&wide.kafka()).create().unwrap();
    let topic = NewTopic::new(topics::DIRECTORY, 3, TopicReplication::Fixed(1));
    admin.create_topics(&[topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let error = spawn(wide.kafka()).caught_up(Duration::from_secs(2)).await.unwrap_err().to_string();
    assert!(error.contains("has 3 partitions; make it anew with one"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_makes_the_same_directory_on_an_empty_broker() {
    let (full, empty) = (Cluster::start().await, Cluster::start().await);
    let reader = full.reader().await;
    let writer = Writer::new(&full.kafka(), &reader).unwrap();
    let mut shop = site("shop");
    shop["secret"] = "5a".repeat(32).into();
    let entries = [
        ("site/shop", shop),
        (
            "user/ada",
            json!({"password": "$argon2id$", "grants": {"*": "owner"}, "sessions_since": 1, "created_at": 2}),
        ),
        (
            "key/k1",
            json!({"name": "ci", "hash": "00", "grants": {"shop": "viewer"}, "created_at": 3, "created_by": "ada"}),
        ),
        (
            "link/l1",
            json!({"name": "board", "site": "shop", "filter": {"page": "/"}, "created_at": 4, "created_by": "ada"}),
        ),
        ("revoked/r1", json!({"until": 5})),
    ];
    for (key, value) in entries {
        writer.write(key.into(), Some(value)).await.unwrap();
    }
    let copy = full.footfall(&["directory", "export"], "").await.unwrap();
    assert_eq!(copy.lines().count(), 5, "{copy}");

    let bad = format!("{copy}{{\"key\":\"site/blog\",\"value\":{{}}}}\n");
    let told = empty.footfall(&["directory", "import", "-"], &bad).await.unwrap_err();
    assert!(told.contains("standard input: line 6: site/blog: missing field"), "{told}");
    let imported = empty.reader().await;
    assert_eq!(*imported.directory().borrow().as_ref(), Directory::default(), "nothing is written");

    let told = empty.footfall(&["directory", "import", "-"], &copy).await.unwrap();
    assert_eq!(told, "written: 1 key, 1 link, 1 revoked, 1 site, 1 user\n");
    let expected = reader.directory().borrow().clone();
    assert_eq!(shows(&imported, "the import", |directory| *directory == *expected).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_made_and_changed_from_the_command_line_and_no_password_is_printed() {
    let cluster = Cluster::start().await;
    let reader = cluster.reader().await;
    let ada = UserName::try_from("ada".to_owned()).unwrap();
    let user = |directory: &Directory| directory.users[&ada].clone();

    let short = cluster.footfall(&["user", "add", "ada", "--owner"], "hunter2\n").await.unwrap_err();
    assert!(short.contains("password: shorter than 8 characters") && !short.contains("hunter2"), "{short}");
    let nobody = cluster.footfall(&["user", "add", "ada"], "hunter2 hunter2\n").await.unwrap_err();
    assert!(nobody.contains("--owner"), "a user who may do nothing: {nobody}");
    assert_eq!(cluster.footfall(&["user", "list"], "").await.unwrap(), "");

    let grants = ["--grant", "shop=viewer", "--grant", "blog=owner"];
    let added = cluster.footfall(&[&["user", "add", "ada"], &grants[..]].concat(), "hunter2 hunter2\n").await;
    assert_eq!(added.unwrap(), "user ada may: blog=owner shop=viewer\n");
    let made = user(&*shows(&reader, "ada", |directory| directory.users.contains_key(&ada)).await);
    assert!(footfall_dashboard::password::verify("hunter2 hunter2", &made.password));
    let list = cluster.footfall(&["user", "list"], "").await.unwrap();
    assert_eq!(list, "ada\tblog=owner shop=viewer\t\n");

    cluster.footfall(&["user", "password", "ada"], "correct horse").await.unwrap();
    let changed = user(&*shows(&reader, "another password", |directory| user(directory) != made).await);
    assert!(footfall_dashboard::password::verify("correct horse", &changed.password));
    assert!(changed.sessions_since > made.created_at && changed.grants == made.grants);

    assert!(cluster.footfall(&["user", "remove", "bob"], "").await.unwrap_err().contains("no user \"bob\""));
    cluster.footfall(&["user", "remove", "ada"], "").await.unwrap();
    shows(&reader, "nobody", |directory| directory.users.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_settings_file_declares_is_listed_and_not_changed() {
    let cluster = Cluster::start().await;
    let hash = cluster.footfall(&["user", "hash"], "correct horse\n").await.unwrap();
    let declared = format!(
        "[kafka]\nbrokers = \"{}\"\n[[sites]]\nkey = \"shop\"\norigins = [\"*\"]\n\
         [[users]]\nname = \"ada\"\npassword_hash = \"{}\"\ngrants = {{ \"*\" = \"owner\" }}\n",
        cluster.listen,
        hash.trim_end()
    );
    std::fs::write(cluster.dir.path().join("cli.toml"), declared).unwrap();
    assert_eq!(cluster.footfall(&["site", "list"], "").await.unwrap(), "shop\t\t*\tdeclared\n");
    assert_eq!(cluster.footfall(&["user", "list"], "").await.unwrap(), "ada\t*=owner\tdeclared\n");
    let shop = site("shop").to_string();
    for (arguments, input) in [
        (&["site", "set", "-"][..], shop.as_str()),
        (&["site", "remove", "shop"], ""),
        (&["user", "password", "ada"], "correct horse\n"),
        (&["user", "remove", "ada"], ""),
    ] {
        let told = cluster.footfall(arguments, input).await.unwrap_err();
        assert!(told.contains("is declared in the settings file"), "{arguments:?}: {told}");
    }
}

/// `footfall ingest`, killed when it is dropped.
struct Ingest {
    child: Child,
    address: SocketAddr,
    config: PathBuf,
    log: PathBuf,
}

impl Ingest {
    /// With the site "declared", and these settings below.
    async fn start(cluster: &Cluster, settings: &str) -> Self {
        let dir = cluster.dir.path();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (config, log) = (dir.join("ingest.toml"), dir.join("ingest.log"));
        let text = format!(
            "secret = \"{}\"\ndata_dir = {:?}\n[listen]\ningest = \"{address}\"\n[kafka]\nbrokers = \"{}\"\n\
             [[sites]]\nkey = \"declared\"\norigins = [\"https://shop.example\"]\n{settings}",
            "0".repeat(64),
            dir.join("ingest"),
            cluster.listen
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_footfall"))
            .args(["ingest", "--config"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let ingest = Self { child, address, config, log };
        ingest.answers("declared", 101).await;
        ingest
    }

    /// Asks for the site's socket until it is answered so.
    async fn answers(&self, site: &str, status: u16) {
        let began = Instant::now();
        loop {
            let answer = self.open(site).await;
            if answer == Some(status) {
                return;
            }
            let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
            assert!(began.elapsed() < WITHIN, "{site}: {answer:?} instead of {status}\n{}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn open(&self, site: &str) -> Option<u16> {
        let mut request = format!("ws://{}/ws?k={site}", self.address).into_client_request().unwrap();
        request.headers_mut().insert("origin", "https://shop.example".parse().unwrap());
        match connect_async(request).await {
            Ok((_, answer)) => Some(answer.status().as_u16()),
            Err(WsError::Http(answer)) => Some(answer.status().as_u16()),
            Err(_) => None,
        }
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_is_set_while_ingest_runs_is_served_and_refused_when_it_is_removed() {
    let cluster = Cluster::start().await;
    let ingest = Ingest::start(&cluster, "").await;
    ingest.answers("shop", 404).await;
    let told = cluster.footfall(&["site", "set", "-"], &site("shop").to_string()).await.unwrap();
    assert_eq!(told, "site shop is set\n");
    ingest.answers("shop", 101).await;
    let shown = cluster.footfall(&["site", "show", "shop"], "").await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), site("shop"));

    let wrong = json!({"key": "shop", "origins": []}).to_string();
    let told = cluster.footfall(&["site", "set", "-"], &wrong).await.unwrap_err();
    assert!(told.contains("origins: site \"shop\" allows no origin"), "{told}");
    cluster.footfall(&["site", "remove", "shop"], "").await.unwrap();
    ingest.answers("shop", 404).await;
    ingest.answers("declared", 101).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_is_declared_or_taken_out_of_the_file_is_taken_over_on_sighup() {
    let cluster = Cluster::start().await;
    let ingest = Ingest::start(&cluster, "").await;
    cluster.footfall(&["site", "set", "-"], &site("shop").to_string()).await.unwrap();
    ingest.answers("shop", 101).await;
    let hang_up = async |change: &dyn Fn(String) -> String| {
        let text = std::fs::read_to_string(&ingest.config).unwrap();
        std::fs::write(&ingest.config, change(text)).unwrap();
        let pid = ingest.child.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    };
    // Declared with another origin, the site of the directory is hidden.
    hang_up(&|text| text + "[[sites]]\nkey = \"shop\"\norigins = [\"https://other.example\"]\n").await;
    ingest.answers("shop", 403).await;
    hang_up(&|text| text.split("[[sites]]").next().unwrap().to_owned()).await;
    ingest.answers("shop", 101).await;
    ingest.answers("declared", 404).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ingest_serves_what_is_declared_while_the_directory_is_away_and_the_rest_when_it_comes() {
    let cluster = Cluster::without_topics().await;
    let admin: AdminClient<DefaultClientContext> = migrate::client_config(&cluster.kafka()).create().unwrap();
    let own = [topics::EVENTS, topics::DEAD_LETTERS, topics::PRESENCE];
    let own = own.map(|name| NewTopic::new(name, 1, TopicReplication::Fixed(1)));
    admin.create_topics(&own, &AdminOptions::new()).await.unwrap();
    let ingest = Ingest::start(&cluster, "[ingest.batcher]\nstart_timeout_ms = 1000\n").await;
    ingest.answers("shop", 404).await;
    let log = std::fs::read_to_string(&ingest.log).unwrap();
    assert!(
        log.contains("serving the sites of the settings file alone until the directory is read"),
        "{log}"
    );

    let events = [NewTopic::new(topics::DIRECTORY, 1, TopicReplication::Fixed(1))];
    admin.create_topics(&events, &AdminOptions::new()).await.unwrap();
    cluster.footfall(&["site", "set", "-"], &site("shop").to_string()).await.unwrap();
    ingest.answers("shop", 101).await;
}
