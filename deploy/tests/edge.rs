//! `footfall ingest` as a process: workers, signals, the settings file, too few file descriptors.
#![allow(clippy::unwrap_used)] // a test may panic

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use footfall_schemas::topics;
use rdkafka::{mocking::MockCluster, producer::DefaultProducerContext};

const PATIENCE: Duration = Duration::from_secs(30);

struct Kafka(MockCluster<'static, DefaultProducerContext>);

impl Kafka {
    fn start() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(topics::EVENTS, 4, 1).unwrap();
        cluster.create_topic(topics::DEAD_LETTERS, 1, 1).unwrap();
        cluster.create_topic(topics::PRESENCE, 1, 1).unwrap();
        cluster.create_topic(topics::DIRECTORY, 1, 1).unwrap();
        Self(cluster)
    }
}

/// Ports that nobody has, `count` in a row.
fn free_ports(count: u16) -> u16 {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if first < 60_000 && (first..first + count).all(is_free) {
            return first;
        }
    }
}

fn on(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

struct Ingest {
    child: Child,
    log: PathBuf,
    config: PathBuf,
    port: u16,
}

impl Ingest {
    /// `settings` go below the common ones; `wrapper` is put in front of the command.
    #[expect(clippy::too_many_arguments, reason = "the tests vary each of them")]
    fn start(
        dir: &Path,
        kafka: &Kafka,
        name: &str,
        port: u16,
        listen: &str,
        settings: &str,
        wrapper: &[&str],
        arguments: &[&str],
    ) -> Self {
        let (config, log) = (dir.join(format!("{name}.toml")), dir.join(format!("{name}.log")));
        let brokers = kafka.0.bootstrap_servers();
        let common = format!(
            "node = {name:?}\ndata_dir = {:?}\nsecret = \"{}\"\ngrace_period_ms = 3000\n[listen]\ningest = \"{}\"\n{listen}\n\
             [kafka]\nbrokers = {brokers:?}\n[[sites]]\nkey = \"shop\"\norigins = [\"https://shop.example\"]\n",
            dir.join(format!("{name}-data")),
            "0".repeat(64),
            on(port),
        );
        fs::write(&config, common + settings).unwrap();
        let command: Vec<_> =
            wrapper.iter().copied().chain([env!("CARGO_BIN_EXE_footfall"), "ingest"]).collect();
        let child = Command::new(command[0])
            .args(&command[1..])
            .arg("--config")
            .arg(&config)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log, config, port }
    }

    fn is_ready(&self) -> bool {
        self.says(self.port, "/readyz") == Some(200)
    }

    fn says(&self, port: u16, path: &str) -> Option<u16> {
        get(on(port), path).ok()
    }

    fn wait_until_ready(&self) {
        self.eventually("ready", || self.is_ready());
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn eventually(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "never came true: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(25));
        }
    }

    fn signal(&self, signal: &str) {
        kill(signal, self.child.id());
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still running\n{}", self.log());
            std::thread::sleep(Duration::from_millis(25));
        }
    }

    /// Process ids of the workers.
    fn workers(&self) -> Vec<u32> {
        let id = self.child.id();
        let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap();
        let children = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("children")).unwrap());
        children.collect::<String>().split_whitespace().map(|id| id.parse().unwrap()).collect()
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kill(signal: &str, process: u32) {
    assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
}

fn is_running(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    !status.is_empty() && !status.contains(") Z ")
}

/// The status of a GET on a connection of its own.
fn get(address: SocketAddr, path: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(address)?;
    ask(&mut stream, path, "connection: close\r\n")
}

fn ask(stream: &mut TcpStream, path: &str, headers: &str) -> std::io::Result<u16> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n").as_bytes())?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(std::str::from_utf8(&status[9..]).unwrap().parse().unwrap())
}

const UPGRADE: &str = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn workers_share_an_address_and_end_with_the_first_process() {
    let (kafka, dir) = (Kafka::start(), tempfile::tempdir().unwrap());
    let (port, metrics) = (free_ports(1), free_ports(2));
    let listen = format!("ingest_metrics = \"{}\"", on(metrics));
    let workers = ["--workers", "processes=2"];
    let mut ingest = Ingest::start(dir.path(), &kafka, "node", port, &listen, "", &[], &workers);
    let both_are_ready = || (0..2).all(|n| ingest.says(metrics + n, "/readyz") == Some(200));
    ingest.eventually("both workers are ready", both_are_ready);
    let first = ingest.workers();
    assert_eq!(first.len(), 2);
    assert_eq!((0..50).filter(|_| ingest.says(port, "/healthz") == Some(200)).count(), 50);
    assert!(ingest.log().contains("node-1") && ingest.log().contains("node-2"), "a name for each");

    // A worker that dies is replaced; the other one serves on.
    kill("-KILL", first[0]);
    ingest.eventually("another worker is there", || {
        let now = ingest.workers();
        now.len() == 2 && !now.contains(&first[0])
    });
    ingest.eventually("both workers are ready again", both_are_ready);

    // SIGHUP reaches the workers.
    ingest.signal("-HUP");
    ingest.eventually("both have read their settings", || {
        ingest.log().matches("the settings are read again").count() == 2
    });

    let last = ingest.workers();
    ingest.signal("-TERM");
    assert!(ingest.wait().success(), "{}", ingest.log());
    assert!(last.iter().all(|process| !is_running(*process)));
    assert_eq!(ingest.log().matches("ingest has drained").count(), 2);
}

#[test]
fn workers_end_when_the_first_process_is_killed() {
    let (kafka, dir) = (Kafka::start(), tempfile::tempdir().unwrap());
    let workers = ["--workers", "2"];
    let mut ingest = Ingest::start(dir.path(), &kafka, "node", free_ports(1), "", "", &[], &workers);
    ingest.wait_until_ready();
    let running = ingest.workers();
    ingest.child.kill().unwrap();
    ingest.wait();
    ingest.eventually("the workers are gone", || running.iter().all(|process| !is_running(*process)));
}

#[test]
fn a_second_signal_ends_the_workers_at_once() {
    let (kafka, dir) = (Kafka::start(), tempfile::tempdir().unwrap());
    let workers = ["--workers", "2"];
    let mut ingest = Ingest::start(dir.path(), &kafka, "node", free_ports(1), "", "", &[], &workers);
    ingest.wait_until_ready();
    // A request whose header does not end keeps its worker from draining.
    let mut slow = TcpStream::connect(on(ingest.port)).unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost").unwrap();
    let running = ingest.workers();
    ingest.signal("-TERM");
    ingest.eventually("it drains", || ingest.log().contains("the workers drain"));
    let second = Instant::now();
    ingest.signal("-TERM");
    assert_eq!(ingest.wait().code(), Some(143));
    assert!(second.elapsed() < Duration::from_secs(2));
    ingest.eventually("the workers are gone", || running.iter().all(|process| !is_running(*process)));
}

#[test]
fn what_workers_cannot_share_stops_the_boot_and_is_named() {
    let (kafka, dir) = (Kafka::start(), tempfile::tempdir().unwrap());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    for (port, told) in [(taken.local_addr().unwrap().port(), "is in use"), (0, "needs a port")] {
        let mut ingest =
            Ingest::start(dir.path(), &kafka, "node", port, "", "", &[], &["--workers", "processes=2"]);
        assert_eq!(ingest.wait().code(), Some(1));
        assert!(ingest.log().contains("listen.ingest") && ingest.log().contains(told), "{}", ingest.log());
    }
}

#[test]
fn sighup_takes_new_limits_and_a_file_with_a_fault_changes_nothing() {
    let (kafka, dir) = (Kafka::start(), tempfile::tempdir().unwrap());
    let limits = "[ingest.limits]\nsockets = 1\n";
    let mut ingest = Ingest::start(dir.path(), &kafka, "node", free_ports(1), "", limits, &[], &[]);
    ingest.wait_until_ready();
    let socket = || {
        let mut stream = TcpStream::connect(on(ingest.port)).unwrap();
        let status = ask(&mut stream, "/ws?k=shop", UPGRADE).unwrap();
        (status, stream)
    };
    let (first, second) = (socket(), socket());
    assert_eq!((first.0, second.0), (101, 503));
    let text = fs::read_to_string(&ingest.config).unwrap();

    fs::write(&ingest.config, text.replace("sockets = 1", "sokets = 2")).unwrap();
    ingest.signal("-HUP");
    ingest.eventually("the fault is told", || {
        let log = ingest.log();
        log.contains("the settings stay as they were") && log.contains("node.toml") && log.contains("sokets")
    });
    assert_eq!(socket().0, 503);

    let changed = text
        .replace("sockets = 1", "sockets = 2")
        .replace("grace_period_ms = 3000", "grace_period_ms = 4000");
    fs::write(&ingest.config, changed).unwrap();
    ingest.signal("-HUP");
    ingest.eventually("the limits are loaded", || ingest.log().contains("are loaded anew"));
    let (second, third) = (socket(), socket());
    assert_eq!((second.0, third.0), (101, 503));
    // What has to wait is said once.
    ingest.signal("-HUP");
    ingest.eventually("read again", || ingest.log().matches("the settings are read again").count() == 2);
    assert_eq!(ingest.log().matches("grace_period_ms").count(), 1, "{}", ingest.log());
    drop((first, second, third));
    ingest.signal("-TERM");
    assert!(ingest.wait().success(), "{}", ingest.log());
}

/// FAULTS row 16. The node has so few descriptors that its own cap on connections is never reached.
#[test]
fn out_of_descriptors_it_does_not_spin_and_live_sockets_are_served() {
    let (kafka, dir) = (Kafka::start(), tempfile::tempdir().unwrap());
    let mut ingest = Ingest::start(
        dir.path(),
        &kafka,
        "node",
        free_ports(1),
        "",
        "",
        &["prlimit", "--nofile=100:150"],
        &[],
    );
    ingest.wait_until_ready();
    assert!(ingest.log().contains("raised the limit of open files"), "{}", ingest.log());
    assert!(ingest.log().contains("limits.connections: more than this process may have open"));
    let mut live = TcpStream::connect(on(ingest.port)).unwrap();
    assert_eq!(ask(&mut live, "/healthz", "").unwrap(), 200);
    live.read_exact(&mut [0; 8]).unwrap();
    let flood: Vec<_> = (0..300).map(|_| TcpStream::connect(on(ingest.port)).unwrap()).collect();
    ingest.eventually("it runs out", || ingest.log().contains("cannot accept; out of file descriptors?"));
    let (cpu, started) = (cpu_ticks(ingest.child.id()), Instant::now());
    let mut asked = 0;
    while started.elapsed() < Duration::from_secs(2) {
        let mut rest = Vec::new();
        live.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let _ = live.read_to_end(&mut rest);
        assert_eq!(ask(&mut live, "/healthz", "").unwrap(), 200, "a connection that is there is served");
        asked += 1;
    }
    let ticks = cpu_ticks(ingest.child.id()) - cpu;
    assert!(ticks < 60, "{ticks} hundredths of a CPU second in 2 seconds, {asked} requests");
    assert!(ingest.log().matches("out of file descriptors?").count() <= 2, "told once in a while");
    drop(flood);
    ingest.eventually("it accepts again", || ingest.says(ingest.port, "/healthz") == Some(200));
    ingest.signal("-TERM");
    assert!(ingest.wait().success(), "{}", ingest.log());
}

/// User and system time, in hundredths of a second.
fn cpu_ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_new_process_takes_over_while_the_old_one_drains() {
    let (kafka, dir) = (Kafka::start(), tempfile::tempdir().unwrap());
    let (port, listen) = (free_ports(1), "reuse_port = true");
    let mut old = Ingest::start(dir.path(), &kafka, "node-0", port, listen, "", &[], &[]);
    old.wait_until_ready();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let visitors: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut served = 0;
                    while !done.load(Ordering::Relaxed) {
                        assert_eq!(get(on(port), "/healthz").expect("neither refused nor reset"), 200);
                        served += 1;
                    }
                    served
                })
            })
            .collect();
        let new = Ingest::start(dir.path(), &kafka, "node-1", port, listen, "", &[], &[]);
        new.eventually("it serves", || new.log().contains("ingest serves"));
        old.signal("-TERM");
        assert!(old.wait().success(), "{}", old.log());
        done.store(true, Ordering::Relaxed);
        for visitor in visitors {
            assert!(visitor.join().unwrap() > 10);
        }
        assert_eq!(new.says(port, "/readyz"), Some(200));
    });
}
