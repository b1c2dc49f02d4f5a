//! A record of the log, read: what cannot be read or counted becomes a dead letter.

use footfall_schemas::{
    EventId, RejectReason,
    record::{DeadLetter, EventRef, MAX_DEAD_PAYLOAD_BYTES, Stage, parse_lines},
    time::Clock,
    topics,
};
use memchr::memchr_iter;
use serde::Deserialize;

/// Newest time that may be counted (2100-01-01): `rolling_counts` tells minutes in 32 bits.
const LAST_TIME_MS: i64 = 4_102_444_800_000;

/// A node's clock may be ahead of the broker's by so much.
const AHEAD_MS: i64 = 10_000;

/// A record of `footfall.events`, its texts where they lie.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) offset: i64,
    /// When the broker took it, ms since 1970.
    pub(crate) timestamp: i64,
    pub(crate) lines: Vec<(u16, Result<EventRef<'a>, DeadLetter>)>,
    pub(crate) bytes: usize,
}

impl<'a> Record<'a> {
    /// Parses a record's value (`timestamp`: Kafka's, ms since 1970); what cannot be read or counted becomes a dead letter.
    pub(crate) fn parse(partition: i32, offset: i64, timestamp: i64, value: &'a [u8]) -> Self {
        let raw = |index: u16| {
            let line = value.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).nth(index.into());
            line.unwrap_or(value)
        };
        let poison = |index: u16, reason: &str| {
            let place = format!("{}/{partition}/{offset}/{index}", topics::EVENTS);
            dead_letter(raw(index), timestamp, format!("{place}: {reason}"))
        };
        // An event is some 700 bytes of references: it is not moved about.
        let mut lines = Vec::with_capacity(memchr_iter(b'\n', value).count() + 1);
        for (index, line) in parse_lines(value) {
            lines.push((
                index,
                match line {
                    Ok(mut event) => match countable(&mut event, timestamp) {
                        Ok(()) => Ok(event),
                        Err(reason) => Err(poison(index, &reason)),
                    },
                    Err(error) => Err(poison(index, &error.to_string())),
                },
            ));
        }
        if lines.is_empty() {
            lines.push((0, Err(poison(0, "the record is empty"))));
        }
        Self { offset, timestamp, lines, bytes: value.len() }
    }
}

/// Refuses times that the tables cannot hold. A node's clock that is far ahead of the broker's (`timestamp`) must not
/// put its events into the future: they happened when the broker took them, and say so.
fn countable(event: &mut EventRef<'_>, timestamp: i64) -> Result<(), String> {
    if !(0..=LAST_TIME_MS).contains(&event.received_at) {
        return Err(format!("received_at {} lies outside 1970 to 2100", event.received_at));
    }
    if !(0..=event.received_at).contains(&event.event_time) {
        return Err(format!(
            "event_time {} lies before 1970 or after received_at {}",
            event.event_time, event.received_at
        ));
    }
    if event.event_time > timestamp + AHEAD_MS {
        event.event_time = timestamp;
        event.clock = Clock::ClampedFuture;
    }
    Ok(())
}

fn dead_letter(payload: &[u8], received_at: i64, detail: String) -> DeadLetter {
    #[derive(Deserialize)]
    struct OnlySite {
        site: String,
    }
    #[derive(Deserialize)]
    struct OnlyId {
        event_id: EventId,
    }
    DeadLetter {
        site: serde_json::from_slice::<OnlySite>(payload).map(|line| line.site).unwrap_or_default(),
        received_at: received_at.clamp(0, LAST_TIME_MS),
        stage: Stage::Aggregator,
        reason: RejectReason::PoisonRecord,
        detail,
        event_id: serde_json::from_slice::<OnlyId>(payload).map(|line| line.event_id).ok(),
        payload: String::from_utf8_lossy(&payload[..payload.len().min(MAX_DEAD_PAYLOAD_BYTES)]).into_owned(),
    }
}
