//! The whole of Footfall, each role a process; the dashboard is what is measured. Synthetic visitors send through ingest.

use std::{net::SocketAddr, path::Path, process::Command};

use crate::{
    bench::{
        machine::Cpu,
        process::{Process, exchange, free_address, get, wait_until},
    },
    run::{Args, Server},
    stack::Stack,
    subscriber::{Door, SITE, Speaks},
};

/// Visitors there at a time, and events that they send a second: some at every tick, on every partition.
const VISITORS: u32 = 40;
const EVENTS_PER_SECOND: u32 = 40;

#[derive(Debug)]
pub struct Footfall {
    dashboard: Process,
    address: SocketAddr,
    cookie: String,
    // Whoever reads goes before what is read.
    _visitors: Process,
    ingest: Process,
    aggregator: Process,
    stack: Stack,
}

impl Footfall {
    pub fn start(args: &Args, directory: &Path) -> Self {
        let (ingest_address, address) = (free_address(), free_address());
        let tick_ms = (1_000.0 / args.rate).round();
        let settings = format!(
            r#"secret = "{secret}"
listen.ingest = "{ingest_address}"
listen.dashboard = "{address}"
[[sites]]
key = "{SITE}"
origins = ["*"]
[aggregator]
live_ms = {tick_ms}
[dashboard]
tick_ms = {tick_ms}
max_viewers = {viewers}"#,
            secret = "5e".repeat(32),
            viewers = args.subscribers + args.slow + 1,
        );
        let stack = Stack::start(&args.binary, directory.to_owned(), &settings, |_| {});
        let [ingest, aggregator, dashboard] =
            ["ingest", "aggregator", "dashboard"].map(|role| stack.role(role));
        wait_until("ingest and dashboard are ready", || {
            [ingest_address, address]
                .iter()
                .all(|address| get(*address, "/readyz").is_some_and(|answer| answer.contains(" 200 ")))
        });
        let visitors = Process::start(
            Command::new(&args.binary)
                .args([
                    "load",
                    "--site",
                    SITE,
                    "--duration",
                    "1h",
                    "--visit",
                    "20s",
                    "--events-per-frame",
                    "1",
                ])
                .args(["--ingest", &format!("http://{ingest_address}")])
                .args(["--connections", &VISITORS.to_string(), "--rate", &EVENTS_PER_SECOND.to_string()])
                .arg("--ledger")
                .arg(directory.join("ledger.ndjson")),
            &directory.join("load.log"),
        );
        let cookie = log_in(&stack, address);
        Self { dashboard, address, cookie, _visitors: visitors, ingest, aggregator, stack }
    }
}

impl Server for Footfall {
    fn name(&self) -> &'static str {
        "Footfall"
    }

    fn process(&self) -> &Process {
        &self.dashboard
    }

    fn door(&self) -> Door {
        Door { server: self.address, speaks: Speaks::Footfall, cookie: Some(self.cookie.clone()) }
    }

    /// Of ingest, aggregator, broker and engine together.
    fn others(&self) -> Option<Cpu> {
        let others = [&self.ingest, &self.aggregator, self.stack.broker(), self.stack.engine()];
        Some(others.into_iter().map(Process::cpu).fold(Cpu::default(), Cpu::and))
    }
}

/// By a link as `footfall login` prints it.
fn log_in(stack: &Stack, address: SocketAddr) -> String {
    let printed = stack.command("login").output().unwrap();
    assert!(printed.status.success(), "{printed:?}");
    let link = String::from_utf8(printed.stdout).unwrap();
    let form = format!("token={}", link.trim().split_once("token=").unwrap().1);
    let request = format!(
        "POST /login HTTP/1.1\r\nHost: {address}\r\nOrigin: http://{address}\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    let answer = exchange(address, &request).unwrap();
    let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: "));
    let cookie = cookie.unwrap_or_else(|| panic!("no session: {answer}"));
    cookie.split_once(';').unwrap().0.to_owned()
}
