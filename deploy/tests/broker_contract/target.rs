//! The broker under test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use footfall::embedded::broker::{Broker, BrokerConfig};

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The broker that `FOOTFALL_TEST_KAFKA` names, if it names one.
pub(crate) fn external() -> Option<String> {
    std::env::var("FOOTFALL_TEST_KAFKA").ok().filter(|address| !address.is_empty())
}

/// Address of the broker that all tests share.
pub(crate) fn address() -> String {
    static SHARED: OnceLock<String> = OnceLock::new();
    SHARED.get_or_init(|| external().unwrap_or_else(start_embedded)).clone()
}

/// Starts a broker on a thread of its own, which outlives the test that happened to come first.
fn start_embedded() -> String {
    let (started, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let broker = Broker::start(config(directory.path())).await.unwrap();
            started.send(broker.address().to_string()).unwrap();
            std::future::pending::<()>().await;
        });
    });
    address.recv().unwrap()
}

pub(crate) fn config(directory: &Path) -> BrokerConfig {
    BrokerConfig {
        data_dir: directory.to_owned(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        maintenance_interval: Duration::from_millis(200),
        ..BrokerConfig::default()
    }
}

/// Asks until the answer is there; fails with `what` after the deadline.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < DEADLINE, "{what}: still not so after {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Our broker as a child process: can be killed, and started again on the same data and port.
#[derive(Debug)]
pub(crate) struct BrokerProcess {
    pub(crate) address: String,
    directory: tempfile::TempDir,
    child: Child,
}

impl BrokerProcess {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (child, address) = spawn(directory.path(), "127.0.0.1:0").await;
        Self { address, directory, child }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) async fn start_again(&mut self) {
        (self.child, _) = spawn(self.directory.path(), &self.address).await;
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn spawn(directory: &Path, listen: &str) -> (Child, String) {
    let ready = directory.join("ready");
    let _ = std::fs::remove_file(&ready);
    let mut child = Command::new(env!("CARGO_BIN_EXE_footfall"))
        .args(["broker", "--listen", listen, "--data-dir"])
        .arg(directory.join("data"))
        .arg("--ready-file")
        .arg(&ready)
        .spawn()
        .unwrap();
    let address = eventually("the broker is ready", async || {
        assert!(child.try_wait().unwrap().is_none(), "the broker ended");
        std::fs::read_to_string(&ready).ok()
    })
    .await;
    (child, address)
}
