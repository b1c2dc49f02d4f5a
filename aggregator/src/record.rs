//! A record of the log, read: what cannot be read or counted becomes a dead letter.

use footfall_schemas::{
    EventId, EventRecord, RejectReason,
    record::{DeadLetter, MAX_DEAD_PAYLOAD_BYTES, Stage, parse_lines},
    time::Clock,
    topics,
};
use serde::Deserialize;

/// Newest time that may be counted (2100-01-01): `rolling_counts` tells minutes in 32 bits.
const LAST_TIME_MS: i64 = 4_102_444_800_000;

/// A node's clock may be ahead of the broker's by so much.
const AHEAD_MS: i64 = 10_000;

/// A record of `footfall.events`.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) offset: i64,
    /// When the broker took it, ms since 1970.
    pub(crate) timestamp: i64,
    pub(crate) lines: Vec<(u16, Result<EventRecord, DeadLetter>)>,
    pub(crate) bytes: usize,
}

impl Record {
    /// Parses a record's value (`timestamp`: Kafka's, ms since 1970); what cannot be read or counted becomes a dead letter.
    pub(crate) fn parse(partition: i32, offset: i64, timestamp: i64, value: &[u8]) -> Self {
        let raw = |index: u16| {
            let line = value.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).nth(index.into());
            line.unwrap_or(value)
        };
        let mut lines: Vec<_> = parse_lines(value)
            .map(|(index, line)| {
                let line =
                    line.map_err(|error| error.to_string()).and_then(|event| countable(event, timestamp));
                let line = line.map_err(|reason| {
                    let place = format!("{}/{partition}/{offset}/{index}", topics::EVENTS);
                    poison(raw(index), timestamp, format!("{place}: {reason}"))
                });
                (index, line)
            })
            .collect();
        if lines.is_empty() {
            let detail = format!("{}/{partition}/{offset}/0: the record is empty", topics::EVENTS);
            lines.push((0, Err(poison(value, timestamp, detail))));
        }
        Self { offset, timestamp, lines, bytes: value.len() }
    }
}

/// Refuses times that the tables cannot hold. A node's clock that is far ahead of the broker's (`timestamp`) must not
/// put its events into the future: they happened when the broker took them, and say so.
fn countable(mut event: EventRecord, timestamp: i64) -> Result<EventRecord, String> {
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
    Ok(event)
}

fn poison(payload: &[u8], received_at: i64, detail: String) -> DeadLetter {
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
