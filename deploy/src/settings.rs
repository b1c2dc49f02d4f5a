//! What the operator sets: one TOML file, read once, checked at boot. An error names file, key and reason.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use footfall_dashboard::password;
use footfall_schemas::{
    SiteId,
    connect::{ClickHouseSettings, KafkaSettings, default_database},
    directory::{Directory, Entry, Grants, User, UserName},
    site::Site,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

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
    /// What is declared here goes before the directory, and is changed here only.
    pub sites: Vec<Site>,
    pub users: Vec<DeclaredUser>,
    /// The sites as they are written, in their order.
    #[serde(skip)]
    pub(crate) written: WrittenSites,
    pub kafka: Kafka,
    pub clickhouse: ClickHouse,
    pub ingest: footfall_ingest::Config,
    pub aggregator: footfall_aggregator::Config,
    pub dashboard: footfall_dashboard::Config,
    pub telemetry: TelemetrySettings,
}

/// `[[users]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredUser {
    pub name: UserName,
    pub password_hash: PasswordHash,
    /// By site's key, or `*`.
    pub grants: Grants,
}

/// Argon2id in PHC form.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct PasswordHash(String);

/// Holds the sites' secrets.
#[derive(Clone, Default)]
pub(crate) struct WrittenSites(Vec<serde_json::Value>);

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
            users: Vec::new(),
            written: WrittenSites::default(),
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
        let mut settings: Self = toml::from_str(text).map_err(|error| legible(&error, text))?;
        settings.check()?;
        let table: toml::Table = text.parse().map_err(|error| legible(&error, text))?;
        if let Some(sites) = table.get("sites") {
            settings.written = WrittenSites(serde_json::from_value(serde_json::to_value(sites)?)?);
        }
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
        let mut names: Vec<_> = self.users.iter().map(|user| &user.name).collect();
        names.sort();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            bail!("users.name: {:?} is there twice; each user has a name of its own", twice[0].as_str());
        }
        for DeclaredUser { name, grants, .. } in &self.users {
            if let Some(scope) = grants.invalid_scope() {
                let name = name.as_str();
                bail!("users.grants: user {name:?}: {scope:?} is neither * nor a site's key");
            }
        }
        if self.kafka.partitions == 0 || self.kafka.partitions > 10_000 {
            bail!("kafka.partitions: {} is not 1 to 10000", self.kafka.partitions);
        }
        if self.kafka.replication < 1 {
            bail!("kafka.replication: {} is less than 1", self.kafka.replication);
        }
        Ok(())
    }

    /// The directory before anything is read from its topic.
    pub fn declared(&self) -> Directory {
        let users = self.users.iter().map(|DeclaredUser { name, password_hash, grants }| {
            let user = User {
                password: password_hash.0.clone(),
                grants: grants.clone(),
                sessions_since: 0,
                created_at: 0,
            };
            (name.clone(), user)
        });
        let sites = self.sites.iter().cloned().zip(self.written.0.iter().cloned());
        Directory::declaring(sites).with_users(users)
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

/// Key of the site of a fresh `standalone`.
pub const DEMO_SITE: &str = "demo";

/// Pages on this machine may send.
pub fn demo_site() -> Entry {
    let key = SiteId::try_from(DEMO_SITE).expect("a constant key is right");
    let origins = ["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"];
    let written = json!({ "key": DEMO_SITE, "name": "Demo site", "origins": origins });
    Entry::Site(key, written)
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

impl TryFrom<String> for PasswordHash {
    type Error = password::InvalidHash;

    fn try_from(text: String) -> Result<Self, password::InvalidHash> {
        password::check_hash(&text).map(|()| Self(text))
    }
}

/// Secrets stay out of logs.
impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

impl std::fmt::Debug for WrittenSites {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("WrittenSites").field(&self.0.len()).finish()
    }
}

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
    use footfall_schemas::directory::Role;
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
    #[case::user_twice(
        &format!("{0}{0}", user("ada", "{}")),
        "users.name: \"ada\" is there twice"
    )]
    #[case::bad_user_name(&user("Ada", "{}"), "is not 1 to 64 of a-z")]
    #[case::bad_scope(&user("ada", "{ \"My shop\" = \"owner\" }"), "users.grants: user \"ada\": \"My shop\"")]
    #[case::bad_role(&user("ada", "{ \"*\" = \"king\" }"), "king")]
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
    #[case(
        "[[users]]\nname = \"ada\"\ngrants = {}\npassword_hash = \"hunter2\"",
        "line 4: not an argon2id hash"
    )]
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
        let secret = format!("{}ff", "0".repeat(62));
        let text = format!(
            "secret = \"{secret}\"\n[clickhouse.writer]\nuser = \"w\"\npassword = \"hunter2\"\n\
             [[sites]]\nkey = \"a\"\norigins = [\"*\"]\nsecret = \"{secret}\"\n{}",
            user("ada", "{}")
        );
        let printed = format!("{:?}", Settings::parse(&text).unwrap());
        for secret in ["hunter2", "ff)", &secret, "argon2"] {
            assert!(!printed.contains(secret), "{printed}");
        }
    }

    fn user(name: &str, grants: &str) -> String {
        let hash = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        format!("[[users]]\nname = {name:?}\npassword_hash = {hash:?}\ngrants = {grants}\n")
    }

    #[test]
    fn what_is_declared_is_the_directory_and_as_it_was_written() {
        let text = format!(
            "[[sites]]\nkey = \"shop\"\norigins = [\"*\"]\nsecret = \"{}\"\n[[sites]]\nkey = \"blog\"\n\
             origins = [\"https://blog.example\"]\n[sites.tracker]\nrespect_dnt = true\n{}",
            "5a".repeat(32),
            user("ada", "{ \"*\" = \"viewer\", blog = \"owner\" }")
        );
        let directory = Settings::parse(&text).unwrap().declared();
        let shop = &directory.sites["shop"];
        assert!(shop.declared && shop.site.secret.is_some());
        assert_eq!(shop.written, json!({"key": "shop", "origins": ["*"], "secret": "5a".repeat(32)}));
        assert!(directory.sites["blog"].site.tracker.respect_dnt);
        assert_eq!(directory.sites["blog"].written["tracker"], json!({"respect_dnt": true}));
        let ada = UserName::try_from("ada".to_owned()).unwrap();
        assert!(directory.declared_users.contains(&ada));
        assert!(password::verify("password", &directory.users[&ada].password));
        assert_eq!(directory.users[&ada].grants.role(&"blog".try_into().unwrap()), Some(Role::Owner));
    }
}
