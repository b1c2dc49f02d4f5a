//! Centrifugo with one channel, to which a recording is published through its HTTP API.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

use crate::{
    bench::process::{Process, exchange, free_address, get, wait_until},
    frames::{Recording, Stamp, wall},
    run::{Args, Server},
    subscriber::{Door, SITE, Speaks},
};

const KEY: &str = "bench";

/// What differs from its defaults. Told in the results.
pub const SETTINGS: &str = r#"{
  "log": { "level": "error" },
  "health": { "enabled": true },
  "http_api": { "key": "bench" },
  "client": { "allow_anonymous_connect_without_token": true },
  "channel": { "without_namespace": { "allow_subscribe_for_client": true, "allow_subscribe_for_anonymous": true } },
  "websocket": { "use_write_buffer_pool": true }
}
"#;

#[derive(Debug)]
pub struct Centrifugo {
    // Goes first: it publishes to the process.
    _publisher: Publisher,
    process: Process,
    address: SocketAddr,
}

impl Centrifugo {
    pub fn start(args: &Args, program: &Path, recording: &Path, directory: &Path) -> Self {
        let address = free_address();
        let settings = directory.join("centrifugo.json");
        fs::write(&settings, SETTINGS).unwrap();
        let mut command = Command::new(program);
        command.arg("--config").arg(&settings);
        command.args(["--http_server.address", &address.ip().to_string()]);
        command.args(["--http_server.port", &address.port().to_string()]);
        let process = Process::start(&mut command, &directory.join("centrifugo.log"));
        wait_until("Centrifugo serves", || {
            get(address, "/health").is_some_and(|answer| answer.contains(" 200 "))
        });
        let recording = Recording::read(recording);
        Self { _publisher: Publisher::start(address, recording, args.rate), process, address }
    }
}

impl Server for Centrifugo {
    fn name(&self) -> &'static str {
        "Centrifugo"
    }

    fn process(&self) -> &Process {
        &self.process
    }

    fn door(&self) -> Door {
        Door { server: self.address, speaks: Speaks::Centrifugo, cookie: None }
    }
}

/// Publishes until it is dropped.
#[derive(Debug)]
struct Publisher {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    fn start(address: SocketAddr, recording: Recording, rate: f64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let interval = Duration::from_secs_f64(1.0 / rate);
        let publish = move || {
            let mut due = Instant::now();
            for seq in 1.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let change = recording.change(Stamp { seq, now: wall() as i64 });
                publish(address, &change);
                due = (due + interval).max(Instant::now());
                sleep(due - Instant::now());
            }
        };
        Self { stop, thread: Some(thread::spawn(publish)) }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A panic of the thread was printed.
        let _ = self.thread.take().unwrap().join();
    }
}

fn publish(address: SocketAddr, change: &str) {
    let body = format!(r#"{{"channel":"{SITE}","data":{change}}}"#);
    let request = format!(
        "POST /api/publish HTTP/1.1\r\nHost: {address}\r\nX-API-Key: {KEY}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = exchange(address, &request).unwrap();
    assert!(answer.contains(r#""result""#), "{answer}");
}
