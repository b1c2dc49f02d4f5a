//! How to reach Kafka and ClickHouse: settings that several roles share.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `[kafka]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSettings {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// Further librdkafka properties, such as `security.protocol`.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

/// `[clickhouse]`
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClickHouseSettings {
    /// `http://host:port`
    pub url: String,
    #[serde(default = "default_database")]
    pub database: String,
    pub user: String,
    #[serde(default)]
    pub password: String,
}

pub fn default_database() -> String {
    "footfall".to_owned()
}

impl ClickHouseSettings {
    pub fn client(&self) -> clickhouse::Client {
        clickhouse::Client::default()
            .with_url(&self.url)
            .with_database(&self.database)
            .with_user(&self.user)
            .with_password(&self.password)
    }
}

impl std::fmt::Debug for ClickHouseSettings {
    /// Without the password: settings end up in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClickHouseSettings")
            .field("url", &self.url)
            .field("database", &self.database)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
