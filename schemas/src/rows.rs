//! Rows of the ClickHouse tables, in the order of their columns (see `migrations/`).

use clickhouse::Row;
use serde::{Deserialize, Serialize, de::IntoDeserializer as _};
use uuid::Uuid;

use crate::{
    Dimension, SiteId,
    alert::{Alert, AlertKind},
    record::DeadLetter,
    rollup::Measures,
};

/// Where an event lies on Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Coordinates {
    pub partition: i32,
    pub offset: i64,
    /// Position in the record.
    pub index: u16,
}

/// A row of `events`.
#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
pub struct EventRow {
    pub site: String,
    /// DateTime64(3): ms since 1970.
    pub event_time: i64,
    pub received_at: i64,
    #[serde(with = "clickhouse::serde::uuid")]
    pub event_id: Uuid,
    pub visitor: u64,
    pub session: u64,
    /// 1 when this event starts its session.
    pub session_start: u8,
    pub kind: String,
    pub name: String,
    pub host: String,
    pub path: String,
    pub title: String,
    pub referrer: String,
    pub referrer_host: String,
    pub channel: String,
    pub utm_source: String,
    pub utm_medium: String,
    pub utm_campaign: String,
    pub utm_term: String,
    pub utm_content: String,
    pub country: String,
    pub region: String,
    pub city: String,
    pub language: String,
    pub time_zone: String,
    pub browser: String,
    pub system: String,
    pub device: String,
    pub screen_width: u16,
    pub engaged_ms: u32,
    pub scroll_depth: u8,
    pub page_view: u32,
    pub props: Vec<(String, String)>,
    /// `told`, `clamped_future`, `clamped_past`.
    pub clock: String,
    /// 1 when it came after its minute was closed.
    pub late: u8,
    pub payload_hash: u64,
    pub _topic: String,
    pub _partition: i32,
    pub _offset: i64,
    pub _index: u16,
}

/// A row of `rolling_counts`: absolute values of one cell and partition; the highest `version` holds.
#[derive(Debug, Clone, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct RollingRow {
    pub site: String,
    /// DateTime: s since 1970, the minute's start.
    pub minute: u32,
    pub dimension: String,
    pub value: String,
    pub _partition: i32,
    pub events: u64,
    pub views: u64,
    pub visitors: u64,
    pub engaged_ms: u64,
    /// Offset after the last record counted in: grows with the log.
    pub version: u64,
}

impl RollingRow {
    pub fn new(
        site: &SiteId,
        minute_ms: i64,
        (dimension, value): (Dimension, &str),
        partition: i32,
        measures: Measures,
        version: u64,
    ) -> Self {
        Self {
            site: site.as_str().to_owned(),
            minute: (minute_ms / 1000) as u32,
            dimension: dimension.as_str().to_owned(),
            value: value.to_owned(),
            _partition: partition,
            events: measures.events,
            views: measures.views,
            visitors: measures.visitors,
            engaged_ms: measures.engaged_ms,
            version,
        }
    }
}

/// A row of `sessions`: absolute values of one session; the highest `version` holds.
#[derive(Debug, Clone, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct SessionRow {
    pub site: String,
    pub session: u64,
    pub visitor: u64,
    /// DateTime64(3): ms since 1970. Time of the event that the session was made for: one of its events, not always the
    /// first. It never changes, so the table's key can hold it.
    pub opened: i64,
    /// Times of the first and the last event, ms since 1970.
    pub start: i64,
    pub end: i64,
    pub duration_ms: u64,
    /// Paths of the first and the last page view; of a session without any, of the first and the last event.
    pub entry_path: String,
    pub exit_path: String,
    pub views: u32,
    /// Events of every kind.
    pub events: u32,
    pub customs: u32,
    pub engaged_ms: u64,
    /// 1 when it is one page view and no custom event.
    pub is_bounce: u8,
    /// From here to `device`: of the event that `entry_path` is of.
    pub referrer_host: String,
    pub channel: String,
    pub utm_campaign: String,
    pub country: String,
    pub browser: String,
    pub system: String,
    pub device: String,
    /// The session that this one was found to be a part of; 0 for none.
    pub joined: u64,
    pub _partition: i32,
    /// Offset after the last record that changed it.
    pub version: u64,
    /// 1 when it was joined to another: `FINAL` leaves it out.
    pub is_deleted: u8,
}

/// A row of `dead_letters`; written twice it is still one.
#[derive(Debug, Clone, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct DeadLetterRow {
    pub site: String,
    pub received_at: i64,
    pub stage: String,
    pub reason: String,
    pub detail: String,
    /// Nil when the event could not be told.
    #[serde(with = "clickhouse::serde::uuid")]
    pub event_id: Uuid,
    pub payload: String,
    pub _topic: String,
    pub _partition: i32,
    pub _offset: i64,
    pub _index: u16,
}

impl DeadLetterRow {
    pub fn new(letter: DeadLetter, topic: &str, at: Coordinates) -> Self {
        Self {
            site: letter.site,
            received_at: letter.received_at,
            stage: match letter.stage {
                crate::record::Stage::Ingest => "ingest",
                crate::record::Stage::Aggregator => "aggregator",
            }
            .to_owned(),
            reason: letter.reason.as_str().to_owned(),
            detail: letter.detail,
            event_id: letter.event_id.map_or(Uuid::nil(), crate::EventId::to_uuid),
            payload: letter.payload,
            _topic: topic.to_owned(),
            _partition: at.partition,
            _offset: at.offset,
            _index: at.index,
        }
    }
}

/// A row of `alerts`; the highest `version` holds.
#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
pub struct AlertRow {
    pub site: String,
    pub rule: String,
    pub opened_at: i64,
    /// Null while it is open.
    pub resolved_at: Option<i64>,
    pub kind: String,
    pub value: f64,
    pub threshold: f64,
    pub text: String,
    #[serde(with = "clickhouse::serde::uuid")]
    pub id: Uuid,
    pub version: u64,
}

impl From<&Alert> for AlertRow {
    fn from(alert: &Alert) -> Self {
        Self {
            site: alert.site.as_str().to_owned(),
            rule: alert.rule.clone(),
            opened_at: alert.opened_at,
            resolved_at: alert.resolved_at,
            kind: alert.kind.as_str().to_owned(),
            value: alert.value,
            threshold: alert.threshold,
            text: alert.text.clone(),
            id: alert.id,
            version: alert.version(),
        }
    }
}

impl AlertRow {
    /// None of a row that another version has written.
    pub fn alert(self) -> Option<Alert> {
        let kind: Result<_, serde::de::value::Error> =
            AlertKind::deserialize(self.kind.as_str().into_deserializer());
        Some(Alert {
            id: self.id,
            site: SiteId::try_from(self.site.as_str()).ok()?,
            rule: self.rule,
            kind: kind.ok()?,
            opened_at: self.opened_at,
            resolved_at: self.resolved_at,
            value: self.value,
            threshold: self.threshold,
            text: self.text,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_what_its_row_says() {
        let alert: Alert = serde_json::from_str(include_str!("../golden/alert.json")).unwrap();
        let row = AlertRow::from(&alert);
        assert_eq!(row.clone().alert(), Some(alert));
        assert_eq!(AlertRow { kind: "newer".into(), ..row }.alert(), None);
    }
}
