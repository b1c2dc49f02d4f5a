//! The topics there are: a small file says which, a directory per partition holds them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use kafka_protocol::error::ResponseError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::config::{BrokerConfig, TopicConfig};
use super::durable;
use super::error::BrokerError;
use super::node::fresh_id;
use super::partition::Partition;

#[derive(Debug)]
pub(super) struct Topic {
    pub name: String,
    pub id: Uuid,
    /// What its owner set, under Kafka's names.
    pub settings: BTreeMap<String, String>,
    pub config: TopicConfig,
    pub partitions: Vec<Arc<Partition>>,
}

impl Topic {
    pub(super) fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
}

/// A topic as the file states it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicRecord {
    id: Uuid,
    partitions: usize,
    settings: BTreeMap<String, String>,
}

/// A refusal with words for the one who asked.
#[derive(Debug)]
pub(super) struct Refusal(pub ResponseError, pub String);

#[derive(Debug)]
pub(super) struct Topics {
    file: PathBuf,
    logs: PathBuf,
    defaults: TopicConfig,
    max_partitions: usize,
    topics: RwLock<BTreeMap<String, Arc<Topic>>>,
    /// Held during a change, so that the file and the directories change one after the other.
    changes: std::sync::Mutex<()>,
}

impl Topics {
    /// Recovers every topic. Directories that no topic claims are what a deletion left behind, and go. Blocks.
    pub(super) fn open(config: &BrokerConfig) -> Result<Self, BrokerError> {
        let topics = Self {
            file: config.data_dir.join("topics.json"),
            logs: config.data_dir.join("topics"),
            defaults: config.topic_defaults,
            max_partitions: config.max_partitions,
            topics: RwLock::default(),
            changes: std::sync::Mutex::default(),
        };
        let at = |path: &PathBuf, source| BrokerError::at(path, source);
        fs::create_dir_all(&topics.logs).map_err(|source| at(&topics.logs, source))?;
        let stated = durable::read(&topics.file).map_err(|source| at(&topics.file, source))?;
        let records: BTreeMap<String, TopicRecord> = match stated {
            Some(json) => serde_json::from_slice(&json)
                .map_err(|error| BrokerError::corrupt(&topics.file, error.to_string()))?,
            None => BTreeMap::new(),
        };
        for entry in fs::read_dir(&topics.logs).map_err(|source| at(&topics.logs, source))? {
            let entry = entry.map_err(|source| at(&topics.logs, source))?;
            if !entry.file_name().to_str().is_some_and(|name| records.contains_key(name)) {
                fs::remove_dir_all(entry.path()).map_err(|source| at(&entry.path(), source))?;
            }
        }
        for (name, record) in records {
            let config = topics
                .defaults
                .with(&record.settings)
                .map_err(|error| BrokerError::corrupt(&topics.file, format!("topic {name}: {error}")))?;
            let partitions = topics.open_partitions(&name, 0..record.partitions, config)?;
            let topic =
                Topic { name: name.clone(), id: record.id, settings: record.settings, config, partitions };
            topics.write().insert(name, Arc::new(topic));
        }
        Ok(topics)
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Arc<Topic>>> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<String, Arc<Topic>>> {
        self.topics.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.read().get(name).cloned()
    }

    pub(super) fn by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.read().values().find(|topic| topic.id == id).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Topic>> {
        self.read().values().cloned().collect()
    }

    pub(super) fn partition(&self, topic: &str, index: i32) -> Option<Arc<Partition>> {
        self.read().get(topic)?.partition(index).cloned()
    }

    fn open_partitions(
        &self,
        topic: &str,
        indexes: std::ops::Range<usize>,
        config: TopicConfig,
    ) -> Result<Vec<Arc<Partition>>, BrokerError> {
        let directory = self.logs.join(topic);
        indexes
            .map(|index| Partition::open(&directory.join(index.to_string()), config).map(Arc::new))
            .collect()
    }

    /// Creates a topic; with `validate_only` just says whether it could. Blocks.
    pub(super) fn create(
        &self,
        name: &str,
        partitions: usize,
        settings: BTreeMap<String, String>,
        validate_only: bool,
    ) -> Result<Arc<Topic>, Refusal> {
        let _change = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_topic_name(name) {
            let reason = "a topic name is 1 to 249 of the characters a-z A-Z 0-9 . _ - and not . or ..";
            return Err(Refusal(ResponseError::InvalidTopicException, reason.to_owned()));
        }
        if self.get(name).is_some() {
            return Err(Refusal(
                ResponseError::TopicAlreadyExists,
                format!("Topic '{name}' already exists."),
            ));
        }
        self.room_for(partitions)?;
        let config = self
            .defaults
            .with(&settings)
            .map_err(|error| Refusal(ResponseError::InvalidConfig, error.to_string()))?;
        let mut topic =
            Topic { name: name.to_owned(), id: fresh_id(), settings, config, partitions: Vec::new() };
        if !validate_only {
            topic.partitions = self.open_partitions(name, 0..partitions, config).map_err(storage)?;
            self.put(Arc::new(topic))?;
            return self.get(name).ok_or_else(|| Refusal(ResponseError::UnknownServerError, String::new()));
        }
        Ok(Arc::new(topic))
    }

    /// Raises the number of partitions to `count`. Blocks.
    pub(super) fn grow(&self, name: &str, count: usize, validate_only: bool) -> Result<(), Refusal> {
        let _change = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let topic = self.known(name)?;
        let now = topic.partitions.len();
        if count <= now {
            let reason = format!(
                "The topic {name} currently has {now} partition(s); {count} would not be an increase."
            );
            return Err(Refusal(ResponseError::InvalidPartitions, reason));
        }
        self.room_for(count - now)?;
        if validate_only {
            return Ok(());
        }
        let mut partitions = topic.partitions.clone();
        partitions.extend(self.open_partitions(name, now..count, topic.config).map_err(storage)?);
        self.put(Arc::new(Topic { partitions, ..topic.restated() }))
    }

    /// Replaces a topic's own settings. Blocks.
    pub(super) fn configure(
        &self,
        name: &str,
        settings: BTreeMap<String, String>,
        validate_only: bool,
    ) -> Result<(), Refusal> {
        let _change = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let topic = self.known(name)?;
        let config = self
            .defaults
            .with(&settings)
            .map_err(|error| Refusal(ResponseError::InvalidConfig, error.to_string()))?;
        if validate_only {
            return Ok(());
        }
        self.put(Arc::new(Topic { settings, config, ..topic.restated() }))?;
        for partition in &topic.partitions {
            partition.set_config(config);
        }
        Ok(())
    }

    /// Takes a topic out of the file; the caller closes its partitions and then calls [`Self::erase`]. Blocks.
    pub(super) fn remove(&self, name: &str) -> Result<Arc<Topic>, Refusal> {
        let _change = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let topic = self.known(name)?;
        self.store(|records| {
            records.remove(name);
        })?;
        self.write().remove(name);
        let tomb = self.logs.join(format!("{name}~{}", topic.id));
        // Out of the way at once, so that a topic of the same name can follow. `~` is in no topic's name.
        fs::rename(self.logs.join(name), &tomb).map_err(|error| storage(BrokerError::at(&tomb, error)))?;
        Ok(topic)
    }

    /// Frees a removed topic's disk space. Blocks.
    pub(super) fn erase(&self, topic: &Topic) {
        let tomb = self.logs.join(format!("{}~{}", topic.name, topic.id));
        if let Err(error) = fs::remove_dir_all(&tomb) {
            tracing::warn!(path = %tomb.display(), %error, "cannot remove a deleted topic; the next start tries again");
        }
    }

    fn known(&self, name: &str) -> Result<Arc<Topic>, Refusal> {
        let unknown =
            || Refusal(ResponseError::UnknownTopicOrPartition, format!("The topic '{name}' does not exist."));
        self.get(name).ok_or_else(unknown)
    }

    fn room_for(&self, more: usize) -> Result<(), Refusal> {
        let now: usize = self.read().values().map(|topic| topic.partitions.len()).sum();
        if now + more <= self.max_partitions {
            return Ok(());
        }
        let limit = self.max_partitions;
        let reason =
            format!("{more} more partitions would make {}; this broker holds at most {limit}", now + more);
        Err(Refusal(ResponseError::PolicyViolation, reason))
    }

    fn put(&self, topic: Arc<Topic>) -> Result<(), Refusal> {
        self.store(|records| {
            records.insert(topic.name.clone(), topic.record());
        })?;
        self.write().insert(topic.name.clone(), topic);
        Ok(())
    }

    fn store(&self, change: impl FnOnce(&mut BTreeMap<String, TopicRecord>)) -> Result<(), Refusal> {
        let mut records = self.read().iter().map(|(name, topic)| (name.clone(), topic.record())).collect();
        change(&mut records);
        let json = serde_json::to_vec_pretty(&records).expect("strings and numbers serialise");
        durable::replace(&self.file, &json).map_err(|error| storage(BrokerError::at(&self.file, error)))
    }
}

impl Topic {
    fn record(&self) -> TopicRecord {
        TopicRecord { id: self.id, partitions: self.partitions.len(), settings: self.settings.clone() }
    }

    fn restated(&self) -> Self {
        Self {
            name: self.name.clone(),
            id: self.id,
            settings: self.settings.clone(),
            config: self.config,
            partitions: self.partitions.clone(),
        }
    }
}

fn storage(error: BrokerError) -> Refusal {
    tracing::error!(%error, "a topic could not be changed");
    Refusal(ResponseError::KafkaStorageError, error.to_string())
}

fn is_topic_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(allowed)
}
