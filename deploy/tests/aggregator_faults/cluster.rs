//! A small cluster: a broker, an engine behind the proxy, an ingest node and aggregators, each a process of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use footfall::{
    embedded::clickhouse::{ADMIN, DATABASE, Engine, EngineConfig, READER, WRITER},
    migrate,
};
use footfall_schemas::connect::{ClickHouseSettings, KafkaSettings};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{brokers::Brokers, common, proxy::Proxy};

/// Generous: the machine may have other things to do.
pub(crate) const WITHIN: Duration = Duration::from_secs(90);
pub(crate) const PARTITIONS: u32 = 6;
const PASSWORD: &str = "for tests only";

/// Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// `footfall` with these arguments; what it says goes to `NAME.log`, behind what an earlier one said.
    pub(crate) fn start(dir: &Path, name: &str, arguments: &[&str]) -> Self {
        let log = dir.join(format!("{name}.log"));
        let stderr = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_footfall"));
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        Self { child: command.spawn().unwrap(), log }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and until it is gone.
    pub(crate) async fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = eventually("it ends after SIGTERM", async || self.child.try_wait().unwrap()).await;
        assert!(status.success(), "{status}: {}", self.last_lines());
    }

    pub(crate) fn last_lines(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An aggregator.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) process: Process,
    address: SocketAddr,
    config: PathBuf,
    dir: PathBuf,
}

/// A partition as its owner's `/status` tells it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Partition {
    pub(crate) phase: String,
    pub(crate) stored: i64,
    pub(crate) end: i64,
    pub(crate) last_error: Option<String>,
}

impl Member {
    fn start(dir: &Path, name: &str, brokers: &str, clickhouse: SocketAddr) -> Self {
        let (address, config) = (free(), dir.join(format!("{name}.toml")));
        let settings = format!(
            "node = {name:?}\n[listen]\naggregator = \"{address}\"\n[kafka]\nbrokers = {brokers:?}\n\
             [clickhouse]\nurl = \"http://{clickhouse}\"\nwriter = {{ user = {WRITER:?}, password = {PASSWORD:?} }}\n\
             [aggregator]\nblock_ms = 200\nsnapshot_ms = 2000\nsession_timeout_ms = 2000\nrevoke_ms = 1000\n\
             insert_timeout_ms = 10000\nquery_timeout_ms = 10000\nbackoff_max_ms = 500\n"
        );
        fs::write(&config, settings).unwrap();
        let process = Self::process(dir, name, &config);
        Self { name: name.to_owned(), process, address, config, dir: dir.to_owned() }
    }

    fn process(dir: &Path, name: &str, config: &Path) -> Process {
        Process::start(dir, name, &["aggregator", "--config", config.to_str().unwrap()])
    }

    pub(crate) fn start_again(&mut self) {
        self.process = Self::process(&self.dir, &self.name, &self.config);
    }

    /// What it owns; nothing while it does not answer.
    pub(crate) async fn partitions(&self) -> BTreeMap<i32, Partition> {
        #[derive(Deserialize)]
        struct Status {
            partitions: BTreeMap<i32, Partition>,
        }
        let body = get(self.address, "/status").await;
        body.map_or_else(BTreeMap::new, |body| serde_json::from_str::<Status>(&body).unwrap().partitions)
    }

    pub(crate) async fn owns(&self) -> BTreeSet<i32> {
        self.partitions().await.into_keys().collect()
    }

    /// A metric on its `/metrics`, added up over partitions.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = get(self.address, "/metrics").await.unwrap_or_default();
        let lines =
            text.lines().filter(|line| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}

/// `footfall load`, and the ledger it keeps.
#[derive(Debug)]
pub(crate) struct Load {
    child: Child,
    ledger: PathBuf,
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Load {
    /// Ends it; once everything is acked, what it did.
    pub(crate) async fn finish(&mut self) -> Value {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = eventually("the load ends", async || self.child.try_wait().unwrap()).await;
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.child.stdout.take().unwrap(), &mut said).unwrap();
        assert!(status.success(), "something was never acked: {said}");
        serde_json::from_str(&said).unwrap()
    }
}

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) brokers: Brokers,
    pub(crate) proxy: Proxy,
    pub(crate) members: Vec<Member>,
    engine: Engine,
    engine_config: EngineConfig,
    ingest: SocketAddr,
    _node: Process,
    // Last: it outlives those who write into it.
    dir: tempfile::TempDir,
}

impl Cluster {
    /// With so many aggregators, who own all partitions.
    pub(crate) async fn start(members: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let brokers = Brokers::start(dir.path()).await;
        let kafka = brokers.settings();
        let engine_config = EngineConfig {
            executable: env!("CARGO_BIN_EXE_footfall").into(),
            listen: free(),
            reader_password: PASSWORD.to_owned(),
            writer_password: PASSWORD.to_owned(),
            admin_password: PASSWORD.to_owned(),
            ..EngineConfig::new(dir.path().join("clickhouse")).unwrap()
        };
        let engine = Engine::start(engine_config.clone()).await.unwrap();
        migrate::create_topics(&kafka, PARTITIONS, brokers.replication()).await.unwrap();
        migrate::create_tables(&login(engine_config.listen, ADMIN)).await.unwrap();
        let proxy = Proxy::start(engine_config.listen).await;
        let (ingest, node) = ingest(dir.path(), &kafka);
        let mut cluster =
            Self { brokers, proxy, members: Vec::new(), engine, engine_config, ingest, _node: node, dir };
        for _ in 0..members {
            cluster.add_member();
        }
        cluster.until_shared().await;
        eventually("ingest is ready", async || get(ingest, "/readyz").await).await;
        cluster
    }

    pub(crate) fn add_member(&mut self) {
        let name = format!("m{}", self.members.len() + 1);
        let brokers = self.brokers.settings().brokers;
        self.members.push(Member::start(self.dir.path(), &name, &brokers, self.proxy.address));
    }

    /// Until every partition is owned and counted, and every member has its share.
    pub(crate) async fn until_shared(&self) {
        let what = format!("{} members share the partitions", self.members.len());
        eventually(&what, async || {
            let mut owned = 0;
            for member in &self.members {
                let partitions = member.partitions().await;
                let running = partitions.values().filter(|partition| partition.phase == "running").count();
                if partitions.is_empty() || running < partitions.len() {
                    return None;
                }
                owned += running;
            }
            (owned == PARTITIONS as usize).then_some(())
        })
        .await;
    }

    /// Until these members own all partitions.
    pub(crate) async fn until_owned_by(&self, members: &[&Member]) {
        eventually("others own all partitions", async || {
            let mut owned = BTreeSet::new();
            for member in members {
                owned.extend(member.owns().await);
            }
            (owned.len() == PARTITIONS as usize).then_some(())
        })
        .await;
    }

    /// An error that some member is telling on its status page, once it holds `words`.
    pub(crate) async fn until_told(&self, words: &str) -> String {
        eventually(&format!("a status page says {words:?}"), async || {
            for member in &self.members {
                for partition in member.partitions().await.into_values() {
                    if let Some(error) = partition.last_error.filter(|error| error.contains(words)) {
                        return Some(error);
                    }
                }
            }
            None
        })
        .await
    }

    pub(crate) fn load(&self, seed: u64) -> Load {
        let ledger = self.dir.path().join("ledger");
        let child = Command::new(env!("CARGO_BIN_EXE_footfall"))
            .args(["load", "--json", "--site", "shop", "--duration", "30m", "--settle", "60s"])
            .args(["--connections", "24", "--rate", "800", "--events-per-frame", "8", "--visit", "2s"])
            .args(["--origin", "https://shop.example", "--ingest", &format!("http://{}", self.ingest)])
            .args(["--seed", &seed.to_string(), "--ledger"])
            .arg(&ledger)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Load { child, ledger }
    }

    pub(crate) fn kill_engine(&self) {
        kill_process(Pid::from_raw(self.engine.pid() as i32).unwrap(), Signal::KILL).unwrap();
    }

    pub(crate) async fn start_engine_again(&mut self) {
        let status = self.engine.exited().await.unwrap();
        assert!(!status.success(), "it was killed: {status}");
        self.engine = Engine::start(self.engine_config.clone()).await.unwrap();
    }

    /// One number, asked for past the proxy.
    pub(crate) async fn number(&self, sql: &str) -> u64 {
        login(self.engine_config.listen, READER).client().query(sql).fetch_one().await.unwrap()
    }

    pub(crate) async fn rows<T>(&self, sql: &str) -> Vec<T>
    where
        T: clickhouse::RowOwned + clickhouse::RowRead,
    {
        login(self.engine_config.listen, READER).client().query(sql).fetch_all().await.unwrap()
    }

    /// Until every partition shows an event received from now on.
    pub(crate) async fn until_fresh(&self) -> Duration {
        let (since, began) = (unix_ms(), Instant::now());
        let sql = format!(
            "SELECT uniqExact(_partition) FROM events WHERE received_at > fromUnixTimestamp64Milli({since})"
        );
        eventually("fresh events are rows", async || {
            (self.number(&sql).await == u64::from(PARTITIONS)).then_some(())
        })
        .await;
        began.elapsed()
    }

    /// Holds the ledger against the tables.
    pub(crate) async fn audit(&self, load: &Load) -> Value {
        let url = format!("http://{}", self.engine_config.listen);
        let ledger = load.ledger.clone();
        let output = tokio::task::spawn_blocking(move || {
            Command::new(env!("CARGO_BIN_EXE_footfall"))
                .args(["audit", "--json", "--wait", "90s", "--user", READER, "--password", PASSWORD])
                .args(["--clickhouse", &url, "--ledger"])
                .arg(ledger)
                .output()
                .unwrap()
        });
        let output = output.await.unwrap();
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("no report: {}", String::from_utf8_lossy(&output.stderr)));
        if !output.status.success() {
            panic!("{report}\nrows − counts: {:?}\n{}", self.miscounted().await, self.logs());
        }
        report
    }

    /// Partition, minute, events by rows, events by rolling counts and their version, wherever they differ.
    async fn miscounted(&self) -> Vec<(i32, u32, u64, u64, u64)> {
        let sql = "SELECT p, m, sum(r), sum(c), max(v) FROM \
                   (SELECT _partition AS p, toUnixTimestamp(toStartOfMinute(event_time)) AS m, count() AS r, \
                           toUInt64(0) AS c, toUInt64(0) AS v FROM events GROUP BY p, m \
                    UNION ALL \
                    SELECT _partition, toUnixTimestamp(minute), toUInt64(0), events, version \
                    FROM rolling_counts FINAL WHERE dimension = 'total') \
                   GROUP BY p, m HAVING sum(r) != sum(c)";
        self.rows(sql).await
    }

    /// Ends the load, and shows that every acked event is counted once, wherever it is counted.
    pub(crate) async fn prove(&self, mut load: Load) {
        let summary = load.finish().await;
        assert_eq!(summary["acked"], summary["issued"], "{summary}");
        let report = self.audit(&load).await;
        assert_eq!(report["stored"], summary["acked"], "{report}");
        assert_eq!(report["duplicated"], 0, "{report}");
        println!("{report}");
        self.blocks_do_not_overlap();
        let config = self.members[0].config.to_str().unwrap().to_owned();
        let audit = tokio::task::spawn_blocking(move || common::audit_log(&["--config", &config]));
        let (outcome, code) = audit.await.unwrap();
        assert_eq!(code, 0, "the log says otherwise: {outcome}");
        crate::live::equals_the_tables(self).await;
    }

    /// A member that was fenced cannot announce a block: whoever inserts, a partition is cut in one way only.
    fn blocks_do_not_overlap(&self) {
        let mut cuts: BTreeMap<i32, BTreeSet<(i64, i64)>> = BTreeMap::new();
        for insert in self.proxy.inserts() {
            cuts.entry(insert.partition).or_default().insert(insert.range);
        }
        for (partition, cuts) in cuts {
            let cuts: Vec<_> = cuts.into_iter().collect();
            for pair in cuts.windows(2) {
                assert!(
                    pair[0].1 <= pair[1].0,
                    "partition {partition} was cut twice: {pair:?}\n{}",
                    self.logs()
                );
            }
        }
    }

    pub(crate) fn logs(&self) -> String {
        let logs =
            self.members.iter().map(|member| format!("{}:\n{}", member.name, member.process.last_lines()));
        logs.collect::<Vec<_>>().join("\n")
    }
}

fn login(address: SocketAddr, user: &str) -> ClickHouseSettings {
    ClickHouseSettings {
        url: format!("http://{address}"),
        database: DATABASE.to_owned(),
        user: user.to_owned(),
        password: PASSWORD.to_owned(),
    }
}

fn ingest(dir: &Path, kafka: &KafkaSettings) -> (SocketAddr, Process) {
    let (address, config) = (free(), dir.join("ingest.toml"));
    let settings = format!(
        "node = \"ingest\"\ndata_dir = {:?}\nsecret = \"{}\"\n[listen]\ningest = \"{address}\"\n\
         [kafka]\nbrokers = {:?}\n[[sites]]\nkey = \"shop\"\norigins = [\"https://shop.example\"]\n",
        dir.join("ingest"),
        "5e".repeat(32),
        kafka.brokers,
    );
    fs::write(&config, settings).unwrap();
    (address, Process::start(dir, "ingest", &["ingest", "--config", config.to_str().unwrap()]))
}

/// Free, and it stays so while whoever has it is restarted: below the ports that the kernel hands out by itself.
pub(crate) fn free() -> SocketAddr {
    loop {
        let address = SocketAddr::from(([127, 0, 0, 1], rand::random_range(15_000..32_000)));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// The body of a 200; a process that is stopped does not answer.
async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200 ").then(|| body.to_owned())
    };
    timeout(Duration::from_secs(2), exchange).await.ok()?
}

pub(crate) fn unix_ms() -> u128 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()
}

/// Asks until the answer is `Some`, or fails with what was waited for.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WITHIN;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {WITHIN:?}");
        sleep(Duration::from_millis(50)).await;
    }
}
