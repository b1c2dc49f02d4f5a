//! What connections leave behind: nothing. A real process, and everything it still holds when all have left.
#![allow(clippy::unwrap_used)] // a test may panic

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command},
    sync::Arc,
    time::{Duration, Instant},
};

use footfall::migrate;
use footfall_schemas::connect::KafkaSettings;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

const PATIENCE: Duration = Duration::from_secs(30);
/// Visits that make what a node makes once: buffers, thread caches, capacities of its maps.
const WARM_UP: u32 = 4_000;
const AT_ONCE: usize = 64;
const VISITS: u32 = 100_000;
/// jemalloc counts what threads keep for reuse as allocated. 64 bytes forgotten by one of the ways to leave are about
/// as much, a block forgotten by every visit is more.
const LEFT_BYTES: f64 = 768.0 * 1_024.0;

/// Killed when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn footfall(log: &Path, arguments: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_footfall"));
    Process(command.args(arguments).stderr(File::create(log).unwrap()).spawn().unwrap())
}

struct Node {
    process: Process,
    _broker: Process,
    address: SocketAddr,
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Holding {
    allocated: f64,
    tasks: f64,
    files: usize,
}

impl Node {
    async fn start(dir: &Path) -> Self {
        let ready = dir.join("broker.ready");
        let (data, ready_file) = (dir.join("kafka"), ready.to_str().unwrap());
        let broker = footfall(
            &dir.join("broker.log"),
            &["broker", "--data-dir", data.to_str().unwrap(), "--ready-file", ready_file],
        );
        eventually("the broker serves", async || fs::metadata(&ready).is_ok_and(|file| file.len() > 0)).await;
        let brokers = fs::read_to_string(&ready).unwrap();
        let kafka = KafkaSettings { brokers: brokers.clone(), properties: Default::default() };
        migrate::create_topics(&kafka, 4, 1).await.unwrap();

        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let secret = "5e".repeat(32);
        let settings = format!(
            "data_dir = {dir:?}\nsecret = \"{secret}\"\nlisten.ingest = \"{address}\"\nkafka.brokers = \"{brokers}\"\n\
             [[sites]]\nkey = \"demo\"\norigins = [\"*\"]\n"
        );
        let config = dir.join("node.toml");
        fs::write(&config, settings).unwrap();
        let process = footfall(&dir.join("node.log"), &["ingest", "--config", config.to_str().unwrap()]);
        let node = Self { process, _broker: broker, address };
        eventually("the node is ready", async || {
            node.get("/readyz").await.is_some_and(|answer| answer.contains(" 200 "))
        })
        .await;
        node
    }

    async fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }

    async fn holding(&self) -> Holding {
        let text = self.get("/metrics").await.unwrap();
        let metric = |name: &str| {
            let line =
                text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        };
        Holding {
            allocated: metric("footfall_process_allocated_bytes"),
            tasks: metric("footfall_process_tasks"),
            files: fs::read_dir(format!("/proc/{}/fd", self.process.0.id())).unwrap().count(),
        }
    }

    /// When nobody is there any more; visitors linger for some seconds.
    async fn at_rest(&self, wanted: impl Fn(&Holding) -> bool) -> Holding {
        let deadline = Instant::now() + PATIENCE;
        loop {
            sleep(Duration::from_millis(500)).await;
            let holding = self.holding().await;
            if wanted(&holding) || Instant::now() > deadline {
                return holding;
            }
        }
    }

    async fn visits(&self, count: u32) {
        let (room, mut visits) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
        for number in 0..count {
            let (permit, address) = (room.clone().acquire_owned().await.unwrap(), self.address);
            visits.spawn(async move {
                timeout(PATIENCE, visit(address, number)).await.expect("a visit ends in time");
                drop(permit);
            });
            while let Some(visit) = visits.try_join_next() {
                visit.unwrap();
            }
        }
        while let Some(visit) = visits.join_next().await {
            visit.unwrap();
        }
    }
}

/// The ways in which clients leave.
async fn visit(address: SocketAddr, number: u32) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    match number % 9 {
        0 => return,
        1 => {
            stream.write_all(b"GET /ws?k=demo HTTP/1.1\r\nHost: a\r\nUpgr").await.unwrap();
            return;
        }
        2 => {
            stream.write_all(b"GET /ws?k=demo HTTP/1.1\r\nHost: a\r\nUpgr").await.unwrap();
            return stream.set_zero_linger().unwrap();
        }
        _ => {}
    }
    let url = format!("ws://{address}/ws?k=demo");
    let (mut socket, _) = client_async(url, stream).await.unwrap();
    let welcome = text(&mut socket).await;
    assert!(welcome.starts_with(r#"{"t":"welcome""#), "{welcome}");
    let batch = format!(
        r#"{{"t":"batch","stream":"{number:024x}","first":1,"sent":9,"events":[{{"k":"view","at":1,"u":"http://a/"}}]}}"#
    );
    match number % 9 {
        // With a close handshake, after an ack.
        3 | 4 => {
            socket.send(Message::text(batch)).await.unwrap();
            let ack = text(&mut socket).await;
            assert!(ack.starts_with(r#"{"t":"ack""#), "{ack}");
            socket.close(None).await.unwrap();
            while socket.next().await.is_some_and(|heard| heard.is_ok()) {}
        }
        // A batch is on its way.
        5 => {
            socket.send(Message::text(batch)).await.unwrap();
            socket.get_ref().set_zero_linger().unwrap();
        }
        6 => socket.get_ref().set_zero_linger().unwrap(),
        // Half-closed: the node notices and closes as well.
        7 => {
            let stream = socket.get_mut();
            stream.shutdown().await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        _ => {}
    }
}

async fn text(socket: &mut WebSocketStream<TcpStream>) -> String {
    match socket.next().await {
        Some(Ok(Message::Text(text))) => text.as_str().to_owned(),
        other => panic!("no text but {other:?}"),
    }
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "never came true: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_connections_leave_no_memory_no_file_and_no_task_behind() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path()).await;
    let fresh = node.holding().await;
    node.visits(WARM_UP).await;
    let before = node.at_rest(|now| now.tasks <= fresh.tasks && now.files <= fresh.files).await;
    assert!(before.tasks <= fresh.tasks, "tasks of those who left: {before:?}, {fresh:?} before");

    node.visits(VISITS).await;
    let is_back = |now: &Holding| {
        let tasks_and_files = now.tasks <= before.tasks && now.files <= before.files;
        tasks_and_files && now.allocated <= before.allocated + LEFT_BYTES
    };
    let after = node.at_rest(is_back).await;
    println!("{before:?}, then {after:?}");
    assert!(is_back(&after), "something was left: {before:?} before, {after:?} after");
}
