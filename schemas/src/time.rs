//! Time as the pipeline tells it. All instants are ms since 1970 UTC (`i64`).

use serde::{Deserialize, Serialize};

/// How long an event may be resent and still be recognised, and how far back an event's time may lie.
pub const RESEND_WINDOW_MS: i64 = 7 * 24 * 60 * 60 * 1000;

pub const SECOND_MS: i64 = 1_000;
pub const MINUTE_MS: i64 = 60 * SECOND_MS;

/// What was done to an event's time, kept with the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// Taken as told.
    #[default]
    Told,
    /// The tracker said it happens after it was sent: set to received-at.
    ClampedFuture,
    /// Older than [`RESEND_WINDOW_MS`]: set to the edge of the window.
    ClampedPast,
}

impl Clock {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Told => "told",
            Self::ClampedFuture => "clamped_future",
            Self::ClampedPast => "clamped_past",
        }
    }
}

/// When an event happened: `received_at − (sent_at − happened_at)`, the latter two by the tracker's monotonic clock,
/// never after it was received and at most [`RESEND_WINDOW_MS`] before. A resend gets the same time up to jitter.
pub fn event_time(received_at_ms: i64, sent_at_ms: i64, happened_at_ms: i64) -> (i64, Clock) {
    match sent_at_ms.saturating_sub(happened_at_ms) {
        age if age < 0 => (received_at_ms, Clock::ClampedFuture),
        age if age > RESEND_WINDOW_MS => (received_at_ms - RESEND_WINDOW_MS, Clock::ClampedPast),
        age => (received_at_ms - age, Clock::Told),
    }
}

/// Start of the minute (ms) in which `at_ms` lies; also right before 1970.
pub fn minute_of(at_ms: i64) -> i64 {
    at_ms.div_euclid(MINUTE_MS) * MINUTE_MS
}

/// Start of the second (ms) in which `at_ms` lies.
pub fn second_of(at_ms: i64) -> i64 {
    at_ms.div_euclid(SECOND_MS) * SECOND_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const RECEIVED: i64 = 1_800_000_000_000;

    #[rstest]
    #[case::just_now(5_000, 5_000, RECEIVED, Clock::Told)]
    #[case::two_seconds_old(5_000, 3_000, RECEIVED - 2_000, Clock::Told)]
    #[case::from_an_earlier_page_load(10, -60_000, RECEIVED - 60_010, Clock::Told)]
    #[case::after_it_was_sent(5_000, 5_001, RECEIVED, Clock::ClampedFuture)]
    #[case::at_the_edge(RESEND_WINDOW_MS, 0, RECEIVED - RESEND_WINDOW_MS, Clock::Told)]
    #[case::too_old(RESEND_WINDOW_MS + 1, 0, RECEIVED - RESEND_WINDOW_MS, Clock::ClampedPast)]
    #[case::absurd(i64::MAX, i64::MIN, RECEIVED - RESEND_WINDOW_MS, Clock::ClampedPast)]
    fn event_time_is_received_minus_age(
        #[case] sent: i64,
        #[case] at: i64,
        #[case] time: i64,
        #[case] clock: Clock,
    ) {
        assert_eq!(event_time(RECEIVED, sent, at), (time, clock));
    }

    #[rstest]
    #[case(0, 0)]
    #[case(59_999, 0)]
    #[case(60_000, 60_000)]
    #[case(-1, -60_000)]
    fn an_event_falls_in_the_minute_starting_at(#[case] at: i64, #[case] minute: i64) {
        assert_eq!(minute_of(at), minute);
    }
}
