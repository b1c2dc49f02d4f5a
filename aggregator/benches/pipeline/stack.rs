//! The processes: a broker, an engine, and the aggregator under test.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use clickhouse::{Client, Compression};
use footfall_schemas::{connect::ClickHouseSettings, topics};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use serde::Deserialize;
use tokio::runtime::Runtime;

use crate::machine;

pub const PARTITIONS: usize = 8;
const START_WITHIN: Duration = Duration::from_secs(90);

/// Killed when it is dropped; nothing here is worth a drain.
pub struct Process(Child);

impl Process {
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let started = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn();
        Self(started.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Broker and engine with topics and tables, empty.
pub struct Stack {
    binary: PathBuf,
    pub directory: PathBuf,
    pub kafka: String,
    clickhouse: Section,
    settings: PathBuf,
    engine: Process,
    _broker: Process,
}

/// `[clickhouse]` of a settings file.
#[derive(Deserialize)]
struct Section {
    url: String,
    database: String,
    writer: Login,
    reader: Login,
    admin: Login,
}

#[derive(Deserialize)]
struct Login {
    user: String,
    password: String,
}

impl Stack {
    pub fn start(binary: &Path, directory: PathBuf) -> Self {
        fs::create_dir_all(&directory).unwrap();
        let part = |name: &str| {
            let ready = directory.join(format!("{name}.ready"));
            let mut command = Command::new(binary);
            command.arg(name).arg("--data-dir").arg(directory.join(name)).arg("--ready-file").arg(&ready);
            (Process::start(&mut command, &directory.join(format!("{name}.log"))), ready)
        };
        let (broker, broker_ready) = part("broker");
        let (engine, engine_ready) = part("clickhouse");
        wait_until("broker and engine answer", || {
            [&broker_ready, &engine_ready]
                .iter()
                .all(|ready| fs::metadata(ready).is_ok_and(|file| file.len() > 0))
        });
        let stack = Self {
            binary: binary.to_owned(),
            kafka: fs::read_to_string(&broker_ready).unwrap().trim().to_owned(),
            clickhouse: serde_json::from_slice(&fs::read(&engine_ready).unwrap()).unwrap(),
            settings: directory.join("settings.toml"),
            engine,
            _broker: broker,
            directory,
        };
        fs::write(&stack.settings, stack.settings()).unwrap();
        create_events(&stack.kafka);
        let migrated =
            Command::new(binary).arg("migrate").arg("--config").arg(&stack.settings).output().unwrap();
        assert!(migrated.status.success(), "{migrated:?}");
        stack
    }

    fn settings(&self) -> String {
        let Section { url, database, writer, reader, admin } = &self.clickhouse;
        let login =
            |Login { user, password }: &Login| format!("{{ user = {user:?}, password = {password:?} }}");
        let (writer, reader, admin) = (login(writer), login(reader), login(admin));
        format!(
            "node = \"bench\"\ndata_dir = {:?}\nkafka.brokers = {:?}\nkafka.partitions = {PARTITIONS}\n\
             [clickhouse]\nurl = {url:?}\ndatabase = {database:?}\nwriter = {writer}\nreader = {reader}\nadmin = {admin}\n\
             [aggregator]\nstatic_membership = true\n",
            self.directory, self.kafka
        )
    }

    /// `footfall aggregator`, as the settings have it by default.
    pub fn aggregator(&self) -> Process {
        let mut command = Command::new(&self.binary);
        command.arg("aggregator").arg("--config").arg(&self.settings);
        Process::start(&mut command, &self.directory.join("aggregator.log"))
    }

    /// May create tables and look at the system's.
    pub fn client(&self) -> Client {
        let Section { url, database, admin, .. } = &self.clickhouse;
        let settings = ClickHouseSettings {
            url: url.clone(),
            database: database.clone(),
            user: admin.user.clone(),
            password: admin.password.clone(),
        };
        settings.client().with_compression(Compression::None)
    }

    /// The engine is a process that another one starts and watches.
    pub fn engine_pid(&self) -> u32 {
        machine::children(self.engine.pid())[0]
    }

    /// libchdb.so: the engine is `footfall engine NEED LIBRARY …`.
    pub fn engine_library(&self) -> PathBuf {
        let line = fs::read_to_string(format!("/proc/{}/cmdline", self.engine_pid())).unwrap();
        line.split('\0').nth(3).unwrap().into()
    }

    /// Where the engine keeps what it was started with.
    pub fn engine_config(&self) -> PathBuf {
        self.directory.join("clickhouse/clickhouse")
    }
}

/// The topic as the binary makes it, but with the time that its records tell: half an hour of log is made in seconds.
fn create_events(brokers: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let topic = NewTopic::new(topics::EVENTS, PARTITIONS as i32, TopicReplication::Fixed(1));
    let made = Runtime::new().unwrap().block_on(admin.create_topics([&topic], &AdminOptions::new())).unwrap();
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}

pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + START_WITHIN;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {START_WITHIN:?}: {what}");
        sleep(Duration::from_millis(20));
    }
}
