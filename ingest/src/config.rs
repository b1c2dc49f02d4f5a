//! `[ingest]`: every field has a default that suits one machine.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use footfall_schemas::tracker::{MAX_BATCH_BYTES, MAX_BATCH_EVENTS};
use serde::{Deserialize, Serialize};

use crate::network::Network;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Serve the demo site at `/demo/`.
    pub demo: bool,
    /// Serve `/ws-echo`, which sends every message back: for conformance tests of the WebSocket.
    pub echo: bool,
    /// Where the demo site's link to the dashboard leads.
    pub dashboard_url: String,
    /// Networks whose `X-Forwarded-For` and PROXY protocol headers are believed.
    pub trusted_proxies: Vec<Network>,
    /// Show `/metrics` to everybody, and not only to programs on this machine.
    pub public_metrics: bool,
    /// At shutdown: how long sockets have to get their last acks, and then the log to take what is left.
    pub grace_period_ms: u64,
    /// Trackers told to reconnect spread over this time.
    pub reconnect_spread_ms: u32,
    pub tls: TlsFiles,
    pub timeouts: Timeouts,
    pub limits: Limits,
    pub batcher: BatcherConfig,
    pub geography: GeographyConfig,
    pub spool: SpoolConfig,
}

/// `[ingest.tls]`: PEM files, noticed when they change. A TLS listener needs both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// For the PROXY protocol header, and for the TLS handshake, of a connection.
    pub proxy_header_ms: u64,
    pub tls_handshake_ms: u64,
    /// For the whole header of a request; an idle keep-alive connection ends after it, too.
    pub header_ms: u64,
    /// For the whole body of a request.
    pub body_ms: u64,
    /// From the upgrade to the first message of the tracker.
    pub first_message_ms: u64,
    pub ping_ms: u64,
    /// A peer that sends nothing, not even a pong, for this long is dropped. Longer than `ping_ms`; two heartbeats, so
    /// that one lost to a bad network is forgiven.
    pub idle_ms: u32,
    /// For one frame to a peer that does not read.
    pub write_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// TCP connections. Full: no more are accepted until one ends; they wait in the kernel's backlog.
    pub connections: u32,
    /// WebSockets, below `connections` so that health checks and the HTTP fallback keep room. Full: 503.
    pub sockets: u32,
    /// WebSockets of one site. Full: 503.
    pub sockets_per_site: u32,
    /// By client address (IPv4 address or IPv6 /64), WebSockets and HTTP connections together.
    pub connections_per_address: u32,
    pub connects_per_address: Rate,
    pub events_per_address: Rate,
    /// An IPv6 /48 has so many times the limits of an address.
    pub ipv6_48_times: u32,
    pub events_per_connection: Rate,
    /// Of the events as they are sent.
    pub bytes_per_connection: Rate,
    pub events_per_site: Rate,
    /// Most addresses tracked at once; beyond it, a /16 shares one limit.
    pub tracked_addresses: usize,
    /// Loopback is exempt from the limits by address and connection unless this is set: local load tests and
    /// development come from there, and a proxy on the same machine belongs into `trusted_proxies`.
    pub limit_loopback: bool,
    /// Batches of a connection that wait for the log. Reached: the socket is not read, so TCP slows the tracker.
    pub batches_in_flight: usize,
    /// Batches or frames sent against a told waiting time before the connection is closed with 1008.
    pub flood_strikes: u32,
    /// Malformed frames in a row before the connection is closed with 1008.
    pub malformed_strikes: u32,
    /// Dead letters by site. Beyond it they are counted, not kept, so that a flood cannot fill the disk.
    pub dead_letters_per_site: Rate,
}

/// A refill rate and how much may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    pub per_second: NonZeroU32,
    pub burst: NonZeroU32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatcherConfig {
    /// How long a batch waits for others to share its record. Kafka's client waits up to 5 ms more.
    pub linger_ms: u64,
    /// Bytes accepted and not yet in the log or the spool. A site may hold at most as many as are still free then.
    /// Over it, a batch is told to come again (`overloaded`).
    pub in_flight_bytes: u32,
    /// A batch that is not in the log after this time is told to come again (`log_unavailable`), although its events
    /// are still on their way: below the 10 s after which trackers give up on a connection.
    pub answer_ms: u32,
    /// How long a record may try to reach the log. Then it goes to the spool; without one it is let go, and its
    /// trackers send it again.
    pub delivery_timeout_ms: u32,
    /// How long to wait for the log at start.
    pub start_timeout_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeographyConfig {
    /// A MaxMind database (`.mmdb`) of countries or cities. Without one, the country is that of the browser's time zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<PathBuf>,
    /// How often to look whether the file has changed.
    pub check_ms: u64,
}

/// Where records wait while Kafka does not take them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolConfig {
    /// A directory; each process takes one of its own in it. Absent: no spool.
    pub path: Option<PathBuf>,
    /// Most bytes on the disk. Full: batches are told to come again. 0: no spool.
    pub max_bytes: u64,
    /// A partition that takes nothing for this long has its new records spooled.
    pub after_ms: u64,
    pub ack: SpoolAck,
}

/// When a batch that is spooled is acked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpoolAck {
    /// In Kafka. What a lost disk takes with it, the trackers still have.
    Log,
    /// Synced to this disk. A lost disk takes acked events with it.
    Spool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            demo: false,
            echo: false,
            dashboard_url: "http://127.0.0.1:8081/".to_owned(),
            trusted_proxies: Vec::new(),
            public_metrics: false,
            grace_period_ms: 10_000,
            reconnect_spread_ms: 5_000,
            tls: TlsFiles::default(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            batcher: BatcherConfig::default(),
            geography: GeographyConfig::default(),
            spool: SpoolConfig::default(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            proxy_header_ms: 5_000,
            tls_handshake_ms: 10_000,
            header_ms: 10_000,
            body_ms: 10_000,
            first_message_ms: 30_000,
            ping_ms: 22_000,
            idle_ms: 44_000,
            write_ms: 10_000,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_000,
            sockets: 15_000,
            sockets_per_site: 15_000,
            connections_per_address: 500,
            connects_per_address: Rate::new(20, 200),
            events_per_address: Rate::new(2_000, 20_000),
            ipv6_48_times: 16,
            events_per_connection: Rate::new(100, 2_000),
            bytes_per_connection: Rate::new(100_000, 2_000_000),
            events_per_site: Rate::new(500_000, 2_000_000),
            tracked_addresses: 100_000,
            limit_loopback: false,
            batches_in_flight: 8,
            flood_strikes: 20,
            malformed_strikes: 5,
            dead_letters_per_site: Rate::new(50, 1_000),
        }
    }
}

impl Default for GeographyConfig {
    fn default() -> Self {
        Self { database: None, check_ms: 60_000 }
    }
}

impl Default for BatcherConfig {
    fn default() -> Self {
        Self {
            linger_ms: 5,
            in_flight_bytes: 64 * 1024 * 1024,
            answer_ms: 8_000,
            delivery_timeout_ms: 30_000,
            start_timeout_ms: 30_000,
        }
    }
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self { path: None, max_bytes: 1024 * 1024 * 1024, after_ms: 2_000, ack: SpoolAck::Log }
    }
}

impl Rate {
    /// Zero counts as one.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let at_least_one = |value| NonZeroU32::new(value).unwrap_or(NonZeroU32::MIN);
        Self { per_second: at_least_one(per_second), burst: at_least_one(burst) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("[ingest] {field}: {fix}")]
pub struct InvalidConfig {
    pub field: &'static str,
    pub fix: String,
}

impl Config {
    /// Says which field is wrong before anything is served.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let require = |holds: bool, field, fix: &str| {
            if holds { Ok(()) } else { Err(InvalidConfig { field, fix: fix.to_owned() }) }
        };
        let limits = &self.limits;
        require(
            u64::from(self.timeouts.idle_ms) > self.timeouts.ping_ms,
            "timeouts.idle_ms",
            "must be longer than timeouts.ping_ms, or every idle tracker is dropped",
        )?;
        require(
            limits.sockets < limits.connections,
            "limits.sockets",
            "must be below limits.connections, so that health checks keep room",
        )?;
        for (rate, field) in [
            (limits.events_per_address, "limits.events_per_address.burst"),
            (limits.events_per_connection, "limits.events_per_connection.burst"),
            (limits.events_per_site, "limits.events_per_site.burst"),
        ] {
            require(
                rate.burst.get() as usize >= MAX_BATCH_EVENTS,
                field,
                "must hold a whole batch (256 events), or such a batch could never be taken",
            )?;
        }
        require(self.geography.check_ms > 0, "geography.check_ms", "must be at least 1")?;
        require(
            limits.bytes_per_connection.burst.get() as usize >= MAX_BATCH_BYTES,
            "limits.bytes_per_connection.burst",
            "must hold a whole batch (65536 bytes), or such a batch could never be taken",
        )?;
        require(
            limits.ipv6_48_times > 0,
            "limits.ipv6_48_times",
            "must be at least 1: a /48 has no less than one address",
        )?;
        require(limits.batches_in_flight > 0, "limits.batches_in_flight", "must be at least 1")?;
        require(
            self.batcher.linger_ms <= 1_000,
            "batcher.linger_ms",
            "must be at most 1000: every ack waits for it",
        )?;
        require(
            self.batcher.in_flight_bytes >= 1024 * 1024,
            "batcher.in_flight_bytes",
            "must be at least 1048576, the largest record",
        )?;
        require(
            (100..10_000).contains(&self.batcher.answer_ms),
            "batcher.answer_ms",
            "must be 100 to 9999: after 10 s without an answer trackers give up on a connection",
        )?;
        require(
            self.spool.max_bytes == 0 || self.spool.max_bytes >= 1024 * 1024,
            "spool.max_bytes",
            "must be at least 1048576, the largest record, or 0 for no spool",
        )?;
        require(
            self.spool.after_ms >= 100,
            "spool.after_ms",
            "must be at least 100: deliveries take some time",
        )
    }
}

impl Timeouts {
    pub(crate) fn proxy_header(&self) -> Duration {
        Duration::from_millis(self.proxy_header_ms)
    }

    pub(crate) fn tls_handshake(&self) -> Duration {
        Duration::from_millis(self.tls_handshake_ms)
    }

    pub(crate) fn header(&self) -> Duration {
        Duration::from_millis(self.header_ms)
    }

    pub(crate) fn body(&self) -> Duration {
        Duration::from_millis(self.body_ms)
    }

    pub(crate) fn first_message(&self) -> Duration {
        Duration::from_millis(self.first_message_ms)
    }

    pub(crate) fn ping(&self) -> Duration {
        Duration::from_millis(self.ping_ms)
    }

    pub(crate) fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_ms.into())
    }

    pub(crate) fn write(&self) -> Duration {
        Duration::from_millis(self.write_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold() {
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn a_limit_that_no_batch_can_pass_is_refused_at_boot() {
        let mut config = Config::default();
        config.limits.events_per_connection.burst = NonZeroU32::new(255).unwrap();
        assert_eq!(config.check().unwrap_err().field, "limits.events_per_connection.burst");
    }

    #[test]
    fn an_unknown_field_is_refused() {
        assert!(serde_json::from_str::<Config>(r#"{"demo":true,"dmeo":1}"#).is_err());
    }
}
