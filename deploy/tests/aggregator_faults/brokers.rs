//! The log: the embedded broker in a process of its own, or the Apache Kafka that `FOOTFALL_TEST_KAFKA` names, whose
//! nodes lie in `FOOTFALL_TEST_KAFKA_DIR` as `deploy/kafka/run.sh` has made them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use footfall::migrate;
use footfall_schemas::{connect::KafkaSettings, topics};
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};

use crate::{
    cluster::{Process, eventually, free},
    common,
};

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) enum Brokers {
    Embedded { process: Process, address: String, dir: PathBuf },
    Apache { addresses: String, dir: PathBuf },
}

impl Brokers {
    /// Apache Kafka is emptied first.
    pub(crate) async fn start(dir: &Path) -> Self {
        if let Ok(addresses) = env::var("FOOTFALL_TEST_KAFKA")
            && !addresses.is_empty()
        {
            let emptied = addresses.clone();
            tokio::task::spawn_blocking(move || common::kafka::forget_everything(&emptied)).await.unwrap();
            let dir = env::var("FOOTFALL_TEST_KAFKA_DIR").expect("where run.sh keeps the nodes").into();
            return Self::Apache { addresses, dir };
        }
        let (process, address) = embedded(dir, &free().to_string()).await;
        Self::Embedded { process, address, dir: dir.to_owned() }
    }

    pub(crate) fn settings(&self) -> KafkaSettings {
        let (Self::Embedded { address: brokers, .. } | Self::Apache { addresses: brokers, .. }) = self;
        KafkaSettings { brokers: brokers.clone(), properties: Default::default() }
    }

    /// As many copies as there are brokers.
    pub(crate) fn replication(&self) -> i32 {
        self.settings().brokers.split(',').count() as i32
    }

    /// kill -9 of the broker that leads `partition` of the events, and of all that it leads. Where it is one of
    /// several, until another one leads; where it is the only one, until it is back.
    pub(crate) async fn lose_leader(&mut self, partition: i32) -> Lost {
        match self {
            Self::Embedded { process, address, dir } => {
                process.kill();
                (*process, _) = embedded(dir, address).await;
                Lost(None)
            }
            Self::Apache { dir, .. } => {
                let dir = dir.clone();
                let lost = self.leader(partition).await.expect("a partition has a leader");
                let node = dir.join(lost.to_string());
                let pid = fs::read_to_string(node.join("pid")).unwrap();
                assert!(Command::new("kill").args(["-KILL", pid.trim()]).status().unwrap().success());
                eventually("another broker leads", async || {
                    self.leader(partition).await.filter(|leader| *leader != lost)
                })
                .await;
                Lost(Some(node))
            }
        }
    }

    async fn leader(&self, partition: i32) -> Option<i32> {
        let config = migrate::client_config(&self.settings());
        let metadata = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = config.create().unwrap();
            consumer.fetch_metadata(Some(topics::EVENTS), ANSWER_WITHIN)
        });
        let metadata = metadata.await.unwrap().ok()?;
        let partitions = metadata.topics()[0].partitions();
        partitions
            .iter()
            .find(|known| known.id() == partition)
            .map(|known| known.leader())
            .filter(|id| *id >= 0)
    }

    /// What the aggregators' group has committed for a partition: offset and metadata.
    pub(crate) async fn committed(&self, partition: i32) -> Option<(i64, String)> {
        let mut config = migrate::client_config(&self.settings());
        config.set("group.id", "footfall-aggregator");
        let committed = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = config.create().unwrap();
            let mut wanted = TopicPartitionList::new();
            wanted.add_partition(topics::EVENTS, partition);
            consumer.committed_offsets(wanted, ANSWER_WITHIN)
        });
        let committed = committed.await.unwrap().ok()?;
        let element = committed.find_partition(topics::EVENTS, partition)?;
        Some((element.offset().to_raw()?, element.metadata().to_owned()))
    }
}

/// A broker that was killed and is still gone, by its directory.
#[derive(Debug)]
#[must_use]
pub(crate) struct Lost(Option<PathBuf>);

impl Lost {
    pub(crate) async fn bring_back(self) {
        let Some(node) = self.0 else { return };
        let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka/run.sh");
        let booted =
            tokio::task::spawn_blocking(move || Command::new(run).arg("boot").arg(node).status().unwrap());
        assert!(booted.await.unwrap().success(), "a killed broker does not come back");
    }
}

async fn embedded(dir: &Path, listen: &str) -> (Process, String) {
    let ready = dir.join("broker.ready");
    let _ = fs::remove_file(&ready);
    let data = dir.join("kafka");
    let arguments = ["broker", "--listen", listen, "--data-dir", data.to_str().unwrap(), "--ready-file"];
    let process = Process::start(dir, "broker", &[&arguments[..], &[ready.to_str().unwrap()]].concat());
    let address = eventually("the broker serves", async || {
        fs::read_to_string(&ready).ok().filter(|address| !address.is_empty())
    })
    .await;
    (process, address.trim().to_owned())
}
