//! Why something was not accepted: one closed list for events, requests and connections, and the table of close codes.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[doc = $doc:expr])* $variant:ident = $text:literal,)*) => {
        /// Why an event or a batch was refused for good. A refused event is settled: the tracker drops it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum RejectReason {
            $($(#[doc = $doc])* #[serde(rename = $text)] $variant,)*
        }

        impl RejectReason {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

reasons! {
    /// The site key is not configured here. HTTP 404, close 1008.
    UnknownSite = "unknown_site",
    /// The page's origin is not among the site's. HTTP 403.
    OriginDenied = "origin_denied",
    /// A frame or body that is no JSON of a known type. HTTP 400.
    Malformed = "malformed",
    /// Text that is not UTF-8. HTTP 400, close 1007.
    BadUtf8 = "bad_utf8",
    /// A frame, body, batch or event over its cap. HTTP 413, close 1009.
    TooLarge = "too_large",
    /// A visitor token that was not signed here, has expired or belongs to another site.
    BadToken = "bad_token",
    /// No event may have sequence 0 or pass 4294967295.
    BadSequence = "bad_sequence",
    /// `k` is none of the known kinds.
    UnknownKind = "unknown_kind",
    /// A field that the kind needs is missing.
    MissingField = "missing_field",
    /// A field has the wrong type.
    BadField = "bad_field",
    /// A number does not fit its field.
    BadNumber = "bad_number",
    /// `u` is no http(s) URL.
    BadUrl = "bad_url",
    /// A custom event's name is empty or too long.
    BadName = "bad_name",
    /// More properties than allowed, or one too long.
    BadProps = "bad_props",
    /// The site's `path_rules` say that events of this page are not to be counted. Not kept as a dead letter either.
    IgnoredPath = "ignored_path",
    /// A record on Kafka that the aggregator cannot read.
    PoisonRecord = "poison_record",
}

/// Why a batch was not taken now. Nothing is settled: the tracker keeps the events and tries again after the time told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryReason {
    /// Over a rate limit.
    RateLimited,
    /// Queues are full.
    Overloaded,
    /// Kafka does not take the batch at the moment.
    LogUnavailable,
    /// The node is stopping.
    Draining,
}

impl RetryReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::LogUnavailable => "log_unavailable",
            Self::Draining => "draining",
        }
    }
}

/// Close codes that a Footfall socket sends (RFC 6455 §7.4 and the IANA registry).
pub mod close {
    /// The peer is done.
    pub const NORMAL: u16 = 1000;
    /// Idle for too long, or no first message in time.
    pub const AWAY: u16 = 1001;
    /// A protocol error (reserved bits, bad opcode, unmasked frame).
    pub const PROTOCOL: u16 = 1002;
    /// A binary frame where text is spoken.
    pub const UNSUPPORTED: u16 = 1003;
    /// Text that is not UTF-8.
    pub const BAD_UTF8: u16 = 1007;
    /// Policy: unknown site, flood, not authorised.
    pub const POLICY: u16 = 1008;
    /// A message over the cap.
    pub const TOO_BIG: u16 = 1009;
    /// A fault on our side.
    pub const INTERNAL: u16 = 1011;
    /// The node restarts: reconnect after the hint.
    pub const RESTART: u16 = 1012;
    /// Too many connections here: try later, or another node.
    pub const TRY_LATER: u16 = 1013;
}
