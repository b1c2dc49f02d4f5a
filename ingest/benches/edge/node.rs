//! The processes: a broker, the nodes under test, and clients.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{BufRead as _, BufReader, Lines, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use footfall_schemas::topics;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use serde::de::DeserializeOwned;

use crate::{
    client::runtime,
    frames::{ORIGIN, SITES},
    machine::{self, Cpu},
};

const START_WITHIN: Duration = Duration::from_secs(30);
const PARTITIONS: i32 = 4;

/// Killed when it is dropped; nothing here is worth a drain.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The embedded broker, on disk.
#[derive(Debug)]
pub struct Broker {
    process: Process,
    pub address: String,
}

impl Broker {
    pub fn start(binary: &Path, scratch: &Path) -> Self {
        let ready = scratch.join("broker.ready");
        let child = Command::new(binary)
            .arg("broker")
            .arg("--data-dir")
            .arg(scratch.join("kafka"))
            .arg("--ready-file")
            .arg(&ready)
            .stderr(File::create(scratch.join("broker.log")).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
        let process = Process(child);
        wait_until("the broker serves", || fs::metadata(&ready).is_ok_and(|file| file.len() > 0));
        let broker = Self { process, address: fs::read_to_string(&ready).unwrap().trim().to_owned() };
        broker.create_topics();
        broker
    }

    fn create_topics(&self) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.address).create().unwrap();
        let topics = topics::ALL.iter().map(|spec| {
            let partitions = if spec.like_events { PARTITIONS } else { 1 };
            NewTopic::new(spec.name, partitions, TopicReplication::Fixed(1))
        });
        let topics: Vec<_> = topics.collect();
        let created = runtime().block_on(admin.create_topics(&topics, &AdminOptions::new())).unwrap();
        assert!(created.iter().all(Result::is_ok), "{created:?}");
    }

    pub fn cpu(&self) -> Cpu {
        Cpu::of(self.process.0.id())
    }
}

/// `footfall ingest` with every limit on, and so high that none is met.
#[derive(Debug)]
pub struct Node {
    process: Process,
    pub address: SocketAddr,
}

impl Node {
    /// In this process, or in so many that it starts.
    pub fn start(binary: &Path, scratch: &Path, broker: &Broker, name: &str, workers: Option<u32>) -> Self {
        // Free now; nothing else on this machine asks for ports in between.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config: PathBuf = scratch.join(format!("{name}.toml"));
        let data = scratch.join(format!("{name}-data"));
        fs::write(&config, settings(name, &data, address, &broker.address)).unwrap();
        let child = Command::new(binary)
            .arg("ingest")
            .arg("--config")
            .arg(&config)
            .args(workers.map(|workers| format!("--workers=processes={workers}")))
            .stderr(File::create(scratch.join(format!("{name}.log"))).unwrap())
            .spawn()
            .unwrap();
        let node = Self { process: Process(child), address };
        wait_until("the node is ready", || {
            get(address, "/readyz").is_some_and(|answer| answer.contains(" 200 "))
        });
        node
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Its process and those that it started.
    fn pids(&self) -> Vec<u32> {
        // A child belongs to the thread that started it, and any of a runtime's may have.
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let children: String = threads
            .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok())
            .map(|children| children + " ")
            .collect();
        [self.pid()].into_iter().chain(children.split_whitespace().map(|pid| pid.parse().unwrap())).collect()
    }

    pub fn cpu(&self) -> Cpu {
        self.pids().into_iter().map(Cpu::of).fold(Cpu::default(), Cpu::and)
    }

    pub fn resident(&self) -> u64 {
        self.pids().into_iter().map(machine::resident).sum()
    }

    /// A metric without labels but the scope's, by its name on /metrics.
    pub fn metric(&self, name: &str) -> f64 {
        let text = get(self.address, "/metrics").unwrap();
        let line =
            text.lines().find(|line| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    pub fn wait_for_sockets(&self, count: u32) {
        wait_until(&format!("the node has {count} sockets"), || {
            self.metric("footfall_ingest_socket_count") as u32 == count
        });
    }
}

fn settings(name: &str, data: &Path, address: SocketAddr, broker: &str) -> String {
    let mut text = format!(
        r#"node = "{name}"
data_dir = {data:?}
secret = "{secret}"
listen.ingest = "{address}"
kafka.brokers = "{broker}"
[ingest.limits]
connections = 18000
sockets = 17000
limit_loopback = true
events_per_address = {{ per_second = 1000000000, burst = 1000000000 }}
events_per_connection = {{ per_second = 1000000000, burst = 1000000000 }}
events_per_site = {{ per_second = 1000000000, burst = 1000000000 }}
bytes_per_connection = {{ per_second = 4000000000, burst = 4000000000 }}
"#,
        secret = "5e".repeat(32)
    );
    for site in SITES {
        write!(text, "[[sites]]\nkey = \"{site}\"\norigins = [\"{ORIGIN}\"]\n").unwrap();
    }
    text
}

/// This program again, as a client. It ends when this handle is dropped.
#[derive(Debug)]
pub struct Client {
    process: Process,
    said: Lines<BufReader<ChildStdout>>,
    asked: Option<ChildStdin>,
}

impl Client {
    pub fn start(command: &str, args: &[(&str, String)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(command)
            .args(args.iter().flat_map(|(name, value)| [format!("--{name}"), value.clone()]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let asked = child.stdin.take();
        Self { process: Process(child), said, asked }
    }

    /// Its next line.
    pub fn hear<T: DeserializeOwned>(&mut self) -> T {
        let line = self.said.next().expect("the client has ended; what it says is above").unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    pub fn ask(&mut self) {
        self.asked.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    pub fn cpu(&self) -> Cpu {
        Cpu::of(self.process.0.id())
    }
}

fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + START_WITHIN;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {START_WITHIN:?}: {what}");
        sleep(Duration::from_millis(50));
    }
}
