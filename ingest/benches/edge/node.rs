//! The processes: a broker and the nodes under test.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use footfall_schemas::topics;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};

use crate::{
    bench::{
        machine::Cpu,
        process::{Process, free_address, get, is_ready, wait_until},
        wire::runtime,
    },
    frames::{ORIGIN, SITES},
};

const PARTITIONS: i32 = 4;

/// The embedded broker, on disk.
#[derive(Debug)]
pub struct Broker {
    process: Process,
    pub address: String,
}

impl Broker {
    pub fn start(binary: &Path, scratch: &Path) -> Self {
        let ready = scratch.join("broker.ready");
        let mut command = Command::new(binary);
        command.arg("broker").arg("--data-dir").arg(scratch.join("kafka")).arg("--ready-file").arg(&ready);
        let process = Process::start(&mut command, &scratch.join("broker.log"));
        wait_until("the broker serves", || is_ready(&ready));
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
        self.process.cpu()
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
        let address = free_address();
        let config: PathBuf = scratch.join(format!("{name}.toml"));
        let data = scratch.join(format!("{name}-data"));
        fs::write(&config, settings(name, &data, address, &broker.address)).unwrap();
        let mut command = Command::new(binary);
        command.arg("ingest").arg("--config").arg(&config);
        command.args(workers.map(|workers| format!("--workers=processes={workers}")));
        let process = Process::start(&mut command, &scratch.join(format!("{name}.log")));
        let node = Self { process, address };
        wait_until("the node is ready", || {
            get(address, "/readyz").is_some_and(|answer| answer.contains(" 200 "))
        });
        node
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Of its process and those that it started.
    pub fn cpu(&self) -> Cpu {
        self.process.cpu()
    }

    /// Of its process and those that it started.
    pub fn resident(&self) -> u64 {
        self.process.resident()
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
