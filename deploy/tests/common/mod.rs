//! Runs `footfall` as users do: the built binary, its ready file, its signals.
#![allow(clippy::unwrap_used)] // a test may panic
#![allow(dead_code, unreachable_pub)] // each test binary uses its own part

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

pub mod kafka;

/// Generous: a loaded two-core machine loads a 500 MB library, recovers a log and joins a group in here.
const READY_WITHIN: Duration = Duration::from_secs(90);

pub struct Node {
    child: Child,
    pub data_dir: PathBuf,
    pub ready: Value,
    arguments: Vec<String>,
}

impl Node {
    /// Starts `footfall standalone` with these settings (TOML) on free ports in `data_dir`. With
    /// `FOOTFALL_TEST_KAFKA=host:port` it uses that broker, emptied first, instead of its own.
    pub fn start(data_dir: &Path, settings: &str) -> Self {
        let free = "127.0.0.1:0";
        let mut arguments: Vec<String> =
            ["--ingest", free, "--dashboard", free, "--clickhouse", free, "--kafka", free]
                .map(String::from)
                .into();
        let mut settings = settings.to_owned();
        if let Some(brokers) = std::env::var("FOOTFALL_TEST_KAFKA").ok().filter(|brokers| !brokers.is_empty())
        {
            // A thread of its own: the test may run inside a runtime, which must not be blocked on from within.
            std::thread::scope(|scope| scope.spawn(|| kafka::forget_everything(&brokers)).join().unwrap());
            settings.push_str(&format!("[kafka]\nbrokers = {brokers:?}\n"));
        }
        let file = data_dir.join("settings.toml");
        std::fs::write(&file, settings).unwrap();
        arguments.extend(["--config".to_owned(), file.display().to_string()]);
        Self::spawn(data_dir, arguments)
    }

    fn spawn(data_dir: &Path, arguments: Vec<String>) -> Self {
        let ready_file = data_dir.join("ready-test.json");
        let _ = std::fs::remove_file(&ready_file);
        let mut child = Command::new(env!("CARGO_BIN_EXE_footfall"))
            .arg("standalone")
            .arg("--data-dir")
            .arg(data_dir)
            .arg("--ready-file")
            .arg(&ready_file)
            .args(&arguments)
            .stdout(Stdio::null())
            .stderr(
                std::fs::File::options()
                    .create(true)
                    .append(true)
                    .open(data_dir.join("test-stderr.log"))
                    .unwrap(),
            )
            .spawn()
            .unwrap();
        let deadline = Instant::now() + READY_WITHIN;
        let ready = loop {
            if let Ok(text) = std::fs::read_to_string(&ready_file) {
                break serde_json::from_str(&text).expect("the ready file appears whole");
            }
            if let Some(status) = child.try_wait().unwrap() {
                panic!("footfall ended with {status}:\n{}", stderr_of(data_dir));
            }
            assert!(Instant::now() < deadline, "not ready in {READY_WITHIN:?}:\n{}", stderr_of(data_dir));
            std::thread::sleep(Duration::from_millis(20));
        };
        Self { child, data_dir: data_dir.to_owned(), ready, arguments }
    }

    pub fn url(&self, name: &str) -> &str {
        self.ready[name].as_str().unwrap_or_else(|| panic!("the ready file names no {name}"))
    }

    pub fn address(&self, name: &str) -> SocketAddr {
        self.url(name).trim_start_matches("http://").trim_end_matches('/').parse().unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9, at once.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts again in the same place, on the same ports.
    pub fn restart(self) -> Self {
        let mut arguments = self.arguments.clone();
        let clickhouse =
            self.ready["clickhouse"]["url"].as_str().unwrap().trim_start_matches("http://").to_owned();
        let addresses = [
            ("--ingest", self.address("ingest").to_string()),
            ("--dashboard", self.address("dashboard").to_string()),
            ("--clickhouse", clickhouse),
            ("--kafka", self.url("kafka").to_owned()),
        ];
        for (flag, address) in addresses {
            let position = arguments.iter().position(|argument| argument == flag).unwrap();
            arguments[position + 1] = address;
        }
        let data_dir = self.data_dir.clone();
        drop(self);
        Self::spawn(&data_dir, arguments)
    }

    /// SIGTERM and the exit code.
    pub fn stop(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(
                Instant::now() < deadline,
                "still running a minute after SIGTERM:\n{}",
                stderr_of(&self.data_dir)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// One SELECT as the reader, over the engine's HTTP interface, as JSON rows.
    pub fn query(&self, sql: &str) -> Vec<Value> {
        let clickhouse = &self.ready["clickhouse"];
        let text = |key: &str| clickhouse[key].as_str().unwrap().to_owned();
        let output = Command::new("curl")
            .args(["-sS", "--fail-with-body", "--user", &format!("{}:{}", text("user"), text("password"))])
            .args(["--data-binary", &format!("{sql} FORMAT JSONEachRow")])
            .arg(format!(
                "{}/?database={}&output_format_json_quote_64bit_integers=0",
                text("url"),
                text("database")
            ))
            .output()
            .unwrap();
        let body = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{sql}: {body}");
        body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn count(&self, sql: &str) -> u64 {
        self.query(sql)[0].as_object().unwrap().values().next().unwrap().as_u64().unwrap()
    }

    /// `footfall load` against this node; the ledger lies in the data directory.
    pub fn load(&self, ledger: &str, more: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_footfall"))
            .args(["load", "--ingest", self.url("ingest"), "--site", self.url("site"), "--json", "--ledger"])
            .arg(self.data_dir.join(ledger))
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// `footfall audit` of a ledger; its report, and whether it said clean.
    pub fn audit(&self, ledger: &str, wait: &str) -> (Value, bool) {
        let clickhouse = &self.ready["clickhouse"];
        let text = |key: &str| clickhouse[key].as_str().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_footfall"))
            .args(["audit", "--json", "--wait", wait, "--clickhouse", text("url"), "--user", text("user")])
            .args(["--password", text("password"), "--ledger"])
            .arg(self.data_dir.join(ledger))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {errors}"));
        (report, output.status.success())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `footfall audit` without a ledger; what it says and its exit code.
pub fn audit_log(arguments: &[&str]) -> (Value, i32) {
    let output = Command::new(env!("CARGO_BIN_EXE_footfall"))
        .args(["audit", "--json"])
        .args(arguments)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let outcome = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {errors}"));
    (outcome, output.status.code().unwrap())
}

pub fn report(output: Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.trim()).unwrap_or_else(|_| panic!("no summary, {}: {text}", output.status))
}

pub fn stderr_of(data_dir: &Path) -> String {
    let log = std::fs::read_to_string(data_dir.join("test-stderr.log")).unwrap_or_default();
    let lines: Vec<_> = log.lines().rev().take(40).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Asks until the answer is `Some`, or fails with what was waited for.
pub fn eventually<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {within:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
