//! Why something was not accepted, and what its sender has to do: closed lists of reasons, close codes and statuses.
//!
//! Each list is one table: the nodes answer by it, and the tables of `PROTOCOL.md` are written from it.

use serde::{Deserialize, Serialize};

/// What a sender has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Duty {
    /// Settled: forget it. Sent again as it is, it is refused again.
    Drop,
    /// Keep the events, wait for as long as told, send them again with the same ids.
    Retry,
    /// Connect again: after the time told, else with growing, jittered pauses. What was not acked is sent again.
    Reconnect,
    /// Send nothing more and forget what is held. Where a time was told, come back after it, else with the next page.
    Stop,
}

impl Duty {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Retry => "retry",
            Self::Reconnect => "reconnect",
            Self::Stop => "stop",
        }
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal, $status:literal, $close:expr, $duty:ident;)*) => {
        /// Why an event or a batch was refused for good. A refused event is settled: the tracker drops it.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
        )]
        pub enum RejectReason {
            $($(#[doc = $doc])+ #[serde(rename = $text)] $variant,)*
        }

        impl RejectReason {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Of an HTTP answer to a request that was refused whole.
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// With which a socket is closed for it, where it is.
            pub fn close(self) -> Option<u16> {
                match self { $(Self::$variant => $close,)* }
            }

            pub fn duty(self) -> Duty {
                match self { $(Self::$variant => Duty::$duty,)* }
            }

            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)* }
            }
        }
    };
}

reasons! {
    /// The site key is not configured here.
    UnknownSite = "unknown_site", 404, None, Stop;
    /// The site is switched off (`enabled = false`).
    SiteDisabled = "site_disabled", 403, Some(close::POLICY), Stop;
    /// The page's origin is not among the site's; or a signed request came from a page.
    OriginDenied = "origin_denied", 403, None, Stop;
    /// A frame or body that is no JSON of a known type. The socket is closed after several in a row.
    Malformed = "malformed", 400, Some(close::POLICY), Drop;
    /// Text that is not UTF-8.
    BadUtf8 = "bad_utf8", 400, Some(close::BAD_UTF8), Drop;
    /// A frame, body, batch or event over its cap, as it came or inflated.
    TooLarge = "too_large", 413, Some(close::TOO_BIG), Drop;
    /// Nested deeper than 16 levels where it had to be read.
    TooDeep = "too_deep", 400, None, Drop;
    /// A `Content-Encoding` other than `gzip` and `identity`.
    BadEncoding = "bad_encoding", 415, None, Drop;
    /// A signed request without a signature, or with one that does not fit the body, the time and the site's secret.
    BadSignature = "bad_signature", 401, None, Drop;
    /// A signed request from a clock more than five minutes away from the node's.
    BadTimestamp = "bad_timestamp", 401, None, Drop;
    /// A visitor token that was not signed here, has expired or belongs to another site.
    BadToken = "bad_token", 400, None, Drop;
    /// No event may have sequence 0 or pass 4294967295.
    BadSequence = "bad_sequence", 400, None, Drop;
    /// `k` is none of the known kinds.
    UnknownKind = "unknown_kind", 400, None, Drop;
    /// A field that is needed is missing.
    MissingField = "missing_field", 400, None, Drop;
    /// A field has the wrong type, or text that is too long or holds NUL.
    BadField = "bad_field", 400, None, Drop;
    /// A number does not fit its field.
    BadNumber = "bad_number", 400, None, Drop;
    /// `u` is no http(s) URL.
    BadUrl = "bad_url", 400, None, Drop;
    /// A custom event's name is empty or too long.
    BadName = "bad_name", 400, None, Drop;
    /// A property whose key or value is too long or of a wrong type.
    BadProps = "bad_props", 400, None, Drop;
    /// More than 30 properties.
    TooManyProps = "too_many_props", 400, None, Drop;
    /// A server's event that happened before the resend window of 7 days. (A tracker's is kept, its time cut.)
    TooOld = "too_old", 400, None, Drop;
    /// A record on Kafka that the aggregator cannot read; never told to a sender.
    PoisonRecord = "poison_record", 400, None, Drop;
}

macro_rules! retries {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal, $status:literal;)*) => {
        /// Why a batch was not taken now. Nothing is settled: the tracker keeps the events and tries again after the
        /// time told.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
        )]
        pub enum RetryReason {
            $($(#[doc = $doc])+ #[serde(rename = $text)] $variant,)*
        }

        impl RetryReason {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Of an HTTP answer. `Retry-After` goes with it.
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)* }
            }
        }
    };
}

retries! {
    /// Over a rate limit.
    RateLimited = "rate_limited", 429;
    /// Queues are full.
    Overloaded = "overloaded", 503;
    /// Kafka does not take the batch at the moment.
    LogUnavailable = "log_unavailable", 503;
    /// The node is stopping.
    Draining = "draining", 503;
}

/// A close code or a status: what it means and what a tracker has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    pub code: u16,
    pub meaning: &'static str,
    pub duty: Duty,
}

/// Close codes that a Footfall socket sends (RFC 6455 §7.4 and the IANA registry).
pub mod close {
    use super::{Code, Duty};

    macro_rules! codes {
        ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $duty:ident;)*) => {
            $($(#[doc = $doc])+ pub const $name: u16 = $code;)*

            pub const ALL: &[Code] = &[
                $(Code { code: $code, meaning: concat!($($doc),+).trim_ascii(), duty: Duty::$duty },)*
            ];
        };
    }

    codes! {
        /// The answer to a close frame of the tracker's.
        NORMAL = 1000, Reconnect;
        /// Idle for too long, or no first message in time.
        AWAY = 1001, Reconnect;
        /// A protocol error (reserved bits, bad opcode, unmasked frame).
        PROTOCOL = 1002, Reconnect;
        /// A binary frame where text is spoken.
        UNSUPPORTED = 1003, Reconnect;
        /// Text that is not UTF-8. Forget the frame, then connect again.
        BAD_UTF8 = 1007, Drop;
        /// Policy: the site is switched off, or frames came on and on although told to wait, or malformed ones.
        POLICY = 1008, Stop;
        /// A message over the cap. Send its events one by one on a new connection; forget one that is too large alone.
        TOO_BIG = 1009, Drop;
        /// A fault on our side.
        INTERNAL = 1011, Reconnect;
        /// The node restarts: connect again after the `bye` frame's time.
        RESTART = 1012, Reconnect;
        /// Too many connections here: try later, or another node.
        TRY_LATER = 1013, Reconnect;
    }
}

/// Statuses of HTTP answers that are no success: to an upgrade, a batch, a pixel or a signed request.
pub const STATUSES: &[Code] = &[
    Code { code: 400, meaning: "Refused whole, or no WebSocket handshake.", duty: Duty::Drop },
    Code {
        code: 401,
        meaning: "The signature or its time does not hold. Mend it, then send again.",
        duty: Duty::Drop,
    },
    Code { code: 403, meaning: "The origin is denied, or the site is switched off.", duty: Duty::Stop },
    Code { code: 404, meaning: "No such site, or no such address.", duty: Duty::Stop },
    Code { code: 405, meaning: "Another method than the address takes.", duty: Duty::Drop },
    Code { code: 408, meaning: "The body did not come in time.", duty: Duty::Retry },
    Code { code: 413, meaning: "Over a cap: send smaller batches.", duty: Duty::Drop },
    Code { code: 415, meaning: "An encoding that is not known: send gzip, or none.", duty: Duty::Drop },
    Code { code: 426, meaning: "No WebSocket upgrade, or another version than 13.", duty: Duty::Reconnect },
    Code {
        code: 429,
        meaning: "Over a rate limit, or too many connections of an address.",
        duty: Duty::Retry,
    },
    Code { code: 503, meaning: "Overloaded, restarting, full, or without Kafka.", duty: Duty::Retry },
];

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn every_reason_is_written_as_it_is_named() {
        for reason in RejectReason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        for reason in RetryReason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }

    #[test]
    fn every_status_and_close_code_of_a_reason_is_in_its_table() {
        let statuses = RejectReason::ALL.iter().map(|reason| reason.status());
        for status in statuses.chain(RetryReason::ALL.iter().map(|reason| reason.status())) {
            assert!(STATUSES.iter().any(|code| code.code == status), "{status}");
        }
        for code in RejectReason::ALL.iter().filter_map(|reason| reason.close()) {
            assert!(close::ALL.iter().any(|known| known.code == code), "{code}");
        }
    }

    #[rstest]
    #[case(RejectReason::UnknownSite)]
    #[case(RejectReason::SiteDisabled)]
    #[case(RejectReason::OriginDenied)]
    fn who_is_not_wanted_stops(#[case] reason: RejectReason) {
        assert_eq!(reason.duty(), Duty::Stop);
        assert!(matches!(reason.status(), 403 | 404));
    }
}
