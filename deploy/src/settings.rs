//! What the operator sets: one TOML file, read once, checked at boot. An error names file, key and reason.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use footfall_schemas::{
    connect::{ClickHouseSettings, KafkaSettings, default_database},
    site::{OriginPattern, Site},
};
use serde::{Deserialize, Serialize};

use crate::telemetry::TelemetrySettings;

/// The file. Every key has a default; `deploy/footfall.toml` shows them all.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where `standalone` keeps the log, the tables and its secrets, and every ingest node its spool.
    pub data_dir: PathBuf,
    /// Name of this node, unique among those that run and the same after a restart. Host name and process id when
    /// absent.
    pub node: Option<String>,
    /// 64 hexadecimal digits that all nodes share; visitor ids, tokens and sessions derive from them. `standalone`
    /// makes its own.
    pub secret: Option<Secret>,
    /// How long sockets, queues and blocks may take to finish after a stop signal.
    pub grace_period_ms: u64,
    pub listen: Listen,
    pub sites: Vec<Site>,
    pub kafka: Kafka,
    pub clickhouse: ClickHouse,
    pub ingest: footfall_ingest::Config,
    pub aggregator: footfall_aggregator::Config,
    pub dashboard: footfall_dashboard::Config,
    pub telemetry: TelemetrySettings,
}

/// `[listen]`: addresses to bind; port 0 takes a free one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    pub ingest: SocketAddr,
    /// As `ingest`, with TLS (`[ingest.tls]`).
    pub ingest_tls: Option<SocketAddr>,
    /// As `ingest`, behind a proxy that sends the PROXY protocol, version 2; plain, and with TLS inside.
    pub ingest_proxy: Option<SocketAddr>,
    pub ingest_proxy_tls: Option<SocketAddr>,
    /// Metrics and health of an ingest node, outside its caps on connections. Worker n has the port n - 1 further.
    pub ingest_metrics: Option<SocketAddr>,
    /// Several ingest processes may share the addresses: a new one starts before the old one has drained.
    pub reuse_port: bool,
    pub dashboard: SocketAddr,
    /// Metrics, health and status of an aggregator in a process of its own; it answers whoever reaches it.
    pub aggregator: Option<SocketAddr>,
    /// The embedded engine's HTTP interface.
    pub clickhouse: SocketAddr,
    /// The embedded broker.
    pub kafka: SocketAddr,
}

/// `[kafka]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    /// `host:port`, several separated by commas. `standalone` runs its own broker when this is empty.
    pub brokers: String,
    /// Further librdkafka properties, such as `security.protocol`.
    pub properties: std::collections::BTreeMap<String, String>,
    /// Partitions of the events topic when it is made. Not to be changed afterwards: visitors would move.
    pub partitions: u32,
    pub replication: i32,
}

/// `[clickhouse]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClickHouse {
    /// `http://host:port`. `standalone` runs its own engine when this is empty.
    pub url: String,
    pub database: String,
    /// Inserts.
    pub writer: Login,
    /// Selects.
    pub reader: Login,
    /// Creates tables.
    pub admin: Login,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Login {
    pub user: String,
    pub password: String,
}

/// 32 bytes, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Secret([u8; 32]);

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: "footfall-data".into(),
            node: None,
            secret: None,
            grace_period_ms: 10_000,
            listen: Listen::default(),
            sites: Vec::new(),
            kafka: Kafka::default(),
            clickhouse: ClickHouse::default(),
            ingest: Default::default(),
            aggregator: Default::default(),
            dashboard: Default::default(),
            telemetry: TelemetrySettings::default(),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            ingest: local(8080),
            ingest_tls: None,
            ingest_proxy: None,
            ingest_proxy_tls: None,
            ingest_metrics: None,
            reuse_port: false,
            dashboard: local(8081),
            aggregator: None,
            clickhouse: local(8123),
            kafka: local(9092),
        }
    }
}

impl Default for Kafka {
    fn default() -> Self {
        Self { brokers: String::new(), properties: Default::default(), partitions: 4, replication: 1 }
    }
}

impl Default for ClickHouse {
    fn default() -> Self {
        let none = Login::default();
        Self {
            url: String::new(),
            database: default_database(),
            writer: none.clone(),
            reader: none.clone(),
            admin: none,
        }
    }
}

impl Settings {
    /// The file's settings, or the defaults when there is none.
    pub fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        let Some(file) = file else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(file).with_context(|| format!("--config {}", file.display()))?;
        Self::parse(&text).with_context(|| format!("{}", file.display()))
    }

    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let settings: Self = toml::from_str(text).map_err(|error| legible(&error, text))?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> anyhow::Result<()> {
        self.telemetry.check().map_err(anyhow::Error::msg)?;
        self.ingest.check()?;
        self.aggregator.check()?;
        let mut keys: Vec<_> = self.sites.iter().map(|site| &site.key).collect();
        keys.sort();
        if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            bail!("sites.key: {:?} is there twice; each site has a key of its own", twice[0].as_str());
        }
        if let Some(wrong) = self.sites.iter().find_map(|site| site.check().err()) {
            bail!("sites.{wrong}");
        }
        if self.kafka.partitions == 0 || self.kafka.partitions > 10_000 {
            bail!("kafka.partitions: {} is not 1 to 10000", self.kafka.partitions);
        }
        if self.kafka.replication < 1 {
            bail!("kafka.replication: {} is less than 1", self.kafka.replication);
        }
        Ok(())
    }

    pub fn grace_period(&self) -> Duration {
        Duration::from_millis(self.grace_period_ms)
    }

    /// The secret, for a role that must share it with others.
    pub fn shared_secret(&self) -> anyhow::Result<[u8; 32]> {
        let secret = self
            .secret
            .context("secret: set 64 hexadecimal digits, the same on every node (openssl rand -hex 32)")?;
        Ok(secret.0)
    }

    /// Kafka, for a role that does not bring its own.
    pub fn kafka(&self) -> anyhow::Result<KafkaSettings> {
        if self.kafka.brokers.is_empty() {
            bail!("kafka.brokers: set host:port of the Kafka cluster");
        }
        Ok(KafkaSettings { brokers: self.kafka.brokers.clone(), properties: self.kafka.properties.clone() })
    }

    /// ClickHouse as one of the users, for a role that does not bring its own.
    pub fn clickhouse(&self, role: &str, login: &Login) -> anyhow::Result<ClickHouseSettings> {
        if self.clickhouse.url.is_empty() {
            bail!("clickhouse.url: set http://host:port of ClickHouse");
        }
        if login.user.is_empty() {
            bail!("clickhouse.{role}.user: set the user that {role}s");
        }
        Ok(ClickHouseSettings {
            url: self.clickhouse.url.clone(),
            database: self.clickhouse.database.clone(),
            user: login.user.clone(),
            password: login.password.clone(),
        })
    }
}

/// The parser's error shows the line that it is about, unless that holds what stays out of logs.
fn legible(error: &toml::de::Error, text: &str) -> anyhow::Error {
    let shown = error.to_string();
    if !["secret", "password", "webhook"].iter().any(|key| shown.contains(key)) {
        return anyhow::Error::msg(shown);
    }
    let start = error.span().map_or(0, |span| span.start);
    let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
    anyhow::anyhow!("line {line}: {}", error.message())
}

/// The site of a fresh `standalone`: pages on this machine may send.
pub fn demo_site() -> Site {
    let origins = ["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"];
    let origins = origins.map(|origin| OriginPattern::try_from(origin).expect("constant patterns are right"));
    let key = "demo".parse().expect("a constant key is right");
    Site { name: "Demo site".into(), ..Site::new(key, origins.into()) }
}

impl TryFrom<String> for Secret {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || "a secret is 64 hexadecimal digits (openssl rand -hex 32)".to_owned();
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

/// Secrets stay out of logs.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::unknown_key("listne = 1", "listne")]
    #[case::unknown_nested_key("[kafka]\npartition = 3", "partition")]
    #[case::bad_address("[listen]\ningest = \"localhost\"", "ingest")]
    #[case::no_partition("[kafka]\npartitions = 0", "kafka.partitions")]
    #[case::short_secret("secret = \"abc\"", "64 hexadecimal digits")]
    #[case::site_twice(
        "[[sites]]\nkey=\"a\"\norigins=[\"*\"]\n[[sites]]\nkey=\"a\"\norigins=[\"*\"]",
        "sites.key"
    )]
    #[case::site_without_origin("[[sites]]\nkey=\"a\"\norigins=[]", "sites.origins")]
    #[case::no_gap(
        "[[sites]]\nkey=\"a\"\norigins=[\"*\"]\nsession_gap_minutes=0",
        "sites.session_gap_minutes: site \"a\" has 0, which is not 1 to 720"
    )]
    #[case::long_gap("[[sites]]\nkey=\"a\"\norigins=[\"*\"]\nsession_gap_minutes=721", "not 1 to 720")]
    #[case::bad_site_key("[[sites]]\nkey=\"A B\"\norigins=[]", "site key")]
    #[case::bad_origin("[[sites]]\nkey=\"a\"\norigins=[\"example.com\"]", "https://example.com")]
    #[case::bad_limit("[ingest.limits]\nconnections = 5\nsockets = 5", "limits.sockets")]
    #[case::bad_tries("[aggregator.webhooks]\ntries = 0", "webhooks.tries")]
    #[case::bad_ratio("[telemetry]\ntrace_ratio = 2.0", "telemetry.trace_ratio")]
    #[case::bad_rule(
        "[[sites]]\nkey=\"a\"\norigins=[\"*\"]\nalerts=[{name=\"x\",kind=\"silence\",minutes=99}]",
        "alert \"x\": minutes: 99 is not 1 to 25"
    )]
    #[case::bad_webhook(
        "[[sites]]\nkey=\"a\"\norigins=[\"*\"]\nalert_webhooks=[{url=\"a\"}]",
        "alert_webhooks: url"
    )]
    #[case::bad_network("[aggregator.webhooks]\nallow=[\"intranet\"]", "\"intranet\" is no network")]
    fn a_wrong_setting_stops_the_boot_and_is_named(#[case] text: &str, #[case] told: &str) {
        let error = format!("{:#}", Settings::parse(text).unwrap_err());
        assert!(error.contains(told), "{error}");
    }

    #[test]
    fn the_documented_file_is_valid_and_says_the_defaults() {
        let documented = Settings::parse(include_str!("../footfall.toml")).unwrap();
        assert_eq!(format!("{documented:?}"), format!("{:?}", Settings::default()));
    }

    #[rstest]
    #[case("node = \"a\"\nsecret = \"hunter2\"", "line 2: a secret is 64")]
    #[case("[[sites]]\nkey=\"a\"\norigins=[\"*\"]\nsecret=\"hunter2\"", "line 4: secret: write 64")]
    #[case("[clickhouse.writer]\npassword = \"hunter2\"\nuser = 1", "user = 1")]
    #[case("[clickhouse]\nwriter = { password = \"hunter2\", user = 1 }", "line 2: invalid type: integer")]
    #[case(
        "[[sites]]\nkey=\"a\"\norigins=[\"*\"]\n[[sites.alert_webhooks]]\nurl=\"hunter2\"",
        "line 5: alert_webhooks: url"
    )]
    fn an_error_shows_no_secret(#[case] text: &str, #[case] says: &str) {
        let error = format!("{:#}", Settings::parse(text).unwrap_err());
        assert!(error.contains(says) && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_debug_print_shows_no_secret() {
        let text = "secret = \"00000000000000000000000000000000000000000000000000000000000000ff\"\n[clickhouse.writer]\nuser = \"w\"\npassword = \"hunter2\"";
        let printed = format!("{:?}", Settings::parse(text).unwrap());
        assert!(!printed.contains("hunter2") && !printed.contains("ff)"), "{printed}");
    }
}
