//! `[dashboard]` of the configuration file.

use std::time::Duration;

use footfall_schemas::network::Network;
use serde::{Deserialize, Serialize};

/// Settings of the dashboard role. Everything has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Origin under which people reach this node when that is not `http://` and the address they typed, such as
    /// `https://stats.example.com` behind a proxy that ends TLS. With https, cookies are `Secure` and `__Host-`.
    pub public_url: Option<String>,
    /// Show `/metrics` to everybody, and not only to programs on this machine.
    pub public_metrics: bool,
    /// Proxies whose `X-Forwarded-For` is believed: attempts to get in are counted by the address that it tells.
    pub trusted_proxies: Vec<Network>,
    /// How long a login link can be used, once.
    pub login_link_ms: u64,
    /// How long a login lasts.
    pub session_ms: u64,
    /// Attempts to get in per minute and address (/64 for IPv6), by link or password. Beyond: 429.
    pub logins_per_minute: u32,
    /// Passwords tried per minute and user's name, from wherever they come. Beyond: 429.
    pub passwords_per_minute: u32,
    /// Passwords hashed at the same time, with 19 MiB each. Beyond: they wait, and 503 when too many do.
    pub password_concurrency: usize,
    /// Open HTTP connections; viewers' sockets are counted apart. Beyond: not accepted until one closes.
    pub max_connections: usize,
    /// Viewers' sockets. Beyond: 503.
    pub max_viewers: usize,
    /// Those among them without a login or a key: share links and public sites. Beyond: 503, while others still get in.
    pub max_public_viewers: usize,
    /// A request's head must have come within this time.
    pub header_timeout_ms: u64,
    /// A request must have been answered within this time. Beyond: 503.
    pub request_timeout_ms: u64,
    /// Changes are pushed at once, of a site no oftener than this.
    pub tick_ms: u64,
    /// A viewer that nothing was sent to for this long gets a heartbeat.
    pub heartbeat_ms: u64,
    /// A viewer must have subscribed within this time.
    pub first_message_ms: u64,
    /// A viewer's socket on which nothing arrives for this long, not even a pong, is closed.
    pub idle_ms: u64,
    /// A viewer that does not take a frame within this time is closed with 1013.
    pub write_timeout_ms: u64,
    /// A viewer more changes behind than this gets the newest whole instead of them.
    pub max_behind: usize,
    /// Changes kept per site for viewers that come back.
    pub kept_changes: usize,
    /// Bytes of changes kept per site.
    pub kept_bytes: usize,
    /// Values shown of each dimension; the rest is cut and said to be.
    pub top_values: usize,
    /// A partition whose clock stands still for longer is told as silent.
    pub partition_silence_ms: u64,
    /// An ingest node silent for longer counts no visitors.
    pub presence_silence_ms: u64,
    /// How far back the topics are read at the start; several times the aggregator's full record interval.
    pub lookback_ms: u64,
    /// Distinct filters of sites that this node computes views for at the same time. Beyond: refused.
    pub max_filters: usize,
    /// A filtered view that is watched is computed this often, unless that would take a quarter of the time.
    pub filter_refresh_ms: u64,
    /// ClickHouse must have answered for a filtered view within this time, and for the events that a feed of them
    /// begins with. Beyond: the last view stands, the feed begins empty.
    pub filter_timeout_ms: u64,
    /// Filtered views computed at the same time. Beyond: they wait.
    pub filter_concurrency: usize,
    /// A filtered view that nobody watches is kept for this long.
    pub filter_keep_ms: u64,
    /// ClickHouse must have answered within this time.
    pub history_timeout_ms: u64,
    /// Histories asked for at the same time. Beyond: they wait, within the timeout.
    pub history_concurrency: usize,
    /// An answer is given again for this long.
    pub history_cache_ms: u64,
    /// How long connections may take to end at shutdown.
    pub grace_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            public_url: None,
            public_metrics: false,
            trusted_proxies: Vec::new(),
            login_link_ms: 15 * 60 * 1_000,
            session_ms: 30 * 24 * 60 * 60 * 1_000,
            logins_per_minute: 30,
            passwords_per_minute: 10,
            password_concurrency: 2,
            max_connections: 2_000,
            max_viewers: 10_000,
            max_public_viewers: 5_000,
            header_timeout_ms: 10_000,
            request_timeout_ms: 15_000,
            tick_ms: 250,
            heartbeat_ms: 5_000,
            first_message_ms: 10_000,
            idle_ms: 60_000,
            write_timeout_ms: 10_000,
            max_behind: 8,
            kept_changes: 240,
            kept_bytes: 4 * 1024 * 1024,
            top_values: 200,
            partition_silence_ms: 10_000,
            presence_silence_ms: footfall_schemas::presence::SILENCE_MS as u64,
            lookback_ms: 15_000,
            max_filters: 100,
            filter_refresh_ms: 1_000,
            filter_timeout_ms: 5_000,
            filter_concurrency: 2,
            filter_keep_ms: 30_000,
            history_timeout_ms: 10_000,
            history_concurrency: 2,
            history_cache_ms: 2_000,
            grace_ms: 5_000,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    #[error("[dashboard] {field} = 0: it must be at least 1")]
    Zero { field: &'static str },
    #[error(
        "[dashboard] public_url = {0:?} is no origin: write it like https://stats.example.com, without a path"
    )]
    PublicUrl(String),
}

impl Config {
    /// Checks what the types do not say.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let at_least_one = [
            ("login_link_ms", self.login_link_ms),
            ("session_ms", self.session_ms),
            ("logins_per_minute", u64::from(self.logins_per_minute)),
            ("passwords_per_minute", u64::from(self.passwords_per_minute)),
            ("password_concurrency", self.password_concurrency as u64),
            ("max_connections", self.max_connections as u64),
            ("max_viewers", self.max_viewers as u64),
            ("header_timeout_ms", self.header_timeout_ms),
            ("request_timeout_ms", self.request_timeout_ms),
            ("tick_ms", self.tick_ms),
            ("heartbeat_ms", self.heartbeat_ms),
            ("first_message_ms", self.first_message_ms),
            ("idle_ms", self.idle_ms),
            ("write_timeout_ms", self.write_timeout_ms),
            ("max_behind", self.max_behind as u64),
            ("kept_changes", self.kept_changes as u64),
            ("kept_bytes", self.kept_bytes as u64),
            ("top_values", self.top_values as u64),
            ("partition_silence_ms", self.partition_silence_ms),
            ("presence_silence_ms", self.presence_silence_ms),
            ("filter_refresh_ms", self.filter_refresh_ms),
            ("filter_timeout_ms", self.filter_timeout_ms),
            ("filter_concurrency", self.filter_concurrency as u64),
            ("history_timeout_ms", self.history_timeout_ms),
            ("history_concurrency", self.history_concurrency as u64),
        ];
        if let Some((field, _)) = at_least_one.into_iter().find(|(_, value)| *value == 0) {
            return Err(InvalidConfig::Zero { field });
        }
        match &self.public_url {
            Some(url) if !is_origin(url) => Err(InvalidConfig::PublicUrl(url.clone())),
            _ => Ok(()),
        }
    }

    /// Whether people reach this node over TLS.
    pub(crate) fn is_https(&self) -> bool {
        self.public_url.as_ref().is_some_and(|url| url.starts_with("https://"))
    }
}

/// `http(s)://host[:port]` as a browser writes an origin, so that comparing it with one can succeed.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let plain = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']')
    };
    matches!(scheme, "http" | "https") && !authority.is_empty() && authority.bytes().all(plain)
}

pub(crate) fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[rstest]
    #[case("https://stats.example.com", true)]
    #[case("http://127.0.0.1:8081", true)]
    #[case("http://[::1]:8081", true)]
    #[case("https://stats.example.com/", false)]
    #[case("https://Stats.example.com", false)]
    #[case("stats.example.com", false)]
    #[case("ftp://stats.example.com", false)]
    #[case("https://", false)]
    fn a_public_url_is_an_origin(#[case] url: &str, #[case] valid: bool) {
        let config = Config { public_url: Some(url.into()), ..Config::default() };
        assert_eq!(config.validate().is_ok(), valid);
    }

    #[test]
    fn a_zero_is_named_with_its_field() {
        let config = Config { tick_ms: 0, ..Config::default() };
        assert_eq!(config.validate(), Err(InvalidConfig::Zero { field: "tick_ms" }));
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let error = serde_json::from_str::<Config>(r#"{"tick": 250}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `tick`"), "{error}");
    }
}
