//! Broker and engine, and the roles on them: each a process of the binary.
#![allow(dead_code, reason = "each bench uses a part")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use clickhouse::{Client, Compression};
use footfall_schemas::connect::ClickHouseSettings;
use serde::Deserialize;

use crate::bench::{
    machine,
    process::{Process, is_ready, wait_until},
};

pub const PARTITIONS: usize = 8;

/// Broker and engine with topics and tables, empty.
#[derive(Debug)]
pub struct Stack {
    binary: PathBuf,
    pub directory: PathBuf,
    pub kafka: String,
    clickhouse: Section,
    settings: PathBuf,
    engine: Process,
    broker: Process,
}

/// `[clickhouse]` of a settings file.
#[derive(Debug, Deserialize)]
struct Section {
    url: String,
    database: String,
    writer: Login,
    reader: Login,
    admin: Login,
}

#[derive(Debug, Deserialize)]
struct Login {
    user: String,
    password: String,
}

impl Stack {
    /// `more`: what the settings of the roles say besides, from the top of the file on. `prepare` is given the broker's
    /// address before the topics that are missing are made.
    pub fn start(binary: &Path, directory: PathBuf, more: &str, prepare: impl FnOnce(&str)) -> Self {
        fs::create_dir_all(&directory).unwrap();
        let part = |name: &str| {
            let ready = directory.join(format!("{name}.ready"));
            let mut command = Command::new(binary);
            command.arg(name).arg("--data-dir").arg(directory.join(name)).arg("--ready-file").arg(&ready);
            (Process::start(&mut command, &directory.join(format!("{name}.log"))), ready)
        };
        let (broker, broker_ready) = part("broker");
        let (engine, engine_ready) = part("clickhouse");
        wait_until("broker and engine answer", || is_ready(&broker_ready) && is_ready(&engine_ready));
        let stack = Self {
            binary: binary.to_owned(),
            kafka: fs::read_to_string(&broker_ready).unwrap().trim().to_owned(),
            clickhouse: serde_json::from_slice(&fs::read(&engine_ready).unwrap()).unwrap(),
            settings: directory.join("settings.toml"),
            engine,
            broker,
            directory,
        };
        fs::write(&stack.settings, stack.settings(more)).unwrap();
        prepare(&stack.kafka);
        let migrated = stack.command("migrate").output().unwrap();
        assert!(migrated.status.success(), "{migrated:?}");
        stack
    }

    fn settings(&self, more: &str) -> String {
        let Section { url, database, writer, reader, admin } = &self.clickhouse;
        let login =
            |Login { user, password }: &Login| format!("{{ user = {user:?}, password = {password:?} }}");
        let (writer, reader, admin) = (login(writer), login(reader), login(admin));
        format!(
            "node = \"bench\"\ndata_dir = {:?}\nkafka.brokers = {:?}\nkafka.partitions = {PARTITIONS}\n{more}\n\
             [clickhouse]\nurl = {url:?}\ndatabase = {database:?}\nwriter = {writer}\nreader = {reader}\nadmin = {admin}\n",
            self.directory, self.kafka
        )
    }

    /// `footfall NAME` with the settings.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg(name).arg("--config").arg(&self.settings);
        command
    }

    /// `footfall NAME`, as the settings have it.
    pub fn role(&self, name: &str) -> Process {
        Process::start(&mut self.command(name), &self.directory.join(format!("{name}.log")))
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

    pub fn broker(&self) -> &Process {
        &self.broker
    }

    pub fn engine(&self) -> &Process {
        &self.engine
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
