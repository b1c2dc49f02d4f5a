//! What an operator sees of ingest. Names carry the role; attributes are closed sets or configured sites.

use footfall_schemas::{presence::IngestLedger, refusal::RetryReason};
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, UpDownCounter},
};

#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) connections: UpDownCounter<i64>,
    pub(crate) sockets: UpDownCounter<i64>,
    closes: Counter<u64>,
    denied: Counter<u64>,
    received: Counter<u64>,
    accepted: Counter<u64>,
    refused: Counter<u64>,
    retried: Counter<u64>,
    evicted: Counter<u64>,
    /// Received and not yet settled.
    in_flight: UpDownCounter<i64>,
    pub(crate) ack_seconds: Histogram<f64>,
    pub(crate) record_events: Histogram<u64>,
    delivery_errors: Counter<u64>,
    pub(crate) dead_letters: Counter<u64>,
    pub(crate) dead_letters_suppressed: Counter<u64>,
    pub(crate) online: Gauge<u64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = opentelemetry::global::meter("footfall.ingest");
        let events = |name, description| {
            meter.u64_counter(name).with_unit("{event}").with_description(description).build()
        };
        Self {
            connections: meter
                .i64_up_down_counter("footfall.ingest.connections")
                .with_unit("{connection}")
                .with_description("Open TCP connections")
                .build(),
            sockets: meter
                .i64_up_down_counter("footfall.ingest.sockets")
                .with_unit("{connection}")
                .with_description("Open WebSockets")
                .build(),
            closes: meter
                .u64_counter("footfall.ingest.closes")
                .with_description("WebSockets closed from this side, by close code")
                .build(),
            denied: meter
                .u64_counter("footfall.ingest.denied")
                .with_description("Requests refused before any event was read, by reason")
                .build(),
            received: events("footfall.ingest.events.received", "Events that arrived"),
            accepted: events("footfall.ingest.events.accepted", "Events in the log"),
            refused: events("footfall.ingest.events.refused", "Events refused for good, by reason"),
            retried: events("footfall.ingest.events.retried", "Events told to come again, by reason"),
            evicted: events(
                "footfall.ingest.events.evicted",
                "Events lost in trackers' outboxes, as they report",
            ),
            in_flight: meter
                .i64_up_down_counter("footfall.ingest.events.in_flight")
                .with_unit("{event}")
                .with_description("Events received and not yet settled")
                .build(),
            ack_seconds: meter
                .f64_histogram("footfall.ingest.ack.duration")
                .with_unit("s")
                .with_description("From a batch's arrival to its delivery")
                .with_boundaries(vec![
                    0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
                ])
                .build(),
            record_events: meter
                .u64_histogram("footfall.ingest.record.events")
                .with_unit("{event}")
                .with_description("Events packed into one record")
                .with_boundaries(vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0])
                .build(),
            delivery_errors: meter
                .u64_counter("footfall.ingest.kafka.delivery.errors")
                .with_description("Records that Kafka did not take, by topic and error")
                .build(),
            dead_letters: meter
                .u64_counter("footfall.ingest.dead_letters")
                .with_description("Refused events kept on the dead-letter topic")
                .build(),
            dead_letters_suppressed: meter
                .u64_counter("footfall.ingest.dead_letters.suppressed")
                .with_description("Refused events counted but not kept: over the site's rate, or no room")
                .build(),
            online: meter
                .u64_gauge("footfall.ingest.visitors.online")
                .with_unit("{visitor}")
                .with_description("Visitors connected to this node, by site")
                .build(),
        }
    }

    pub(crate) fn closed(&self, code: u16) {
        self.closes.add(1, &[KeyValue::new("code", i64::from(code))]);
    }

    pub(crate) fn denied(&self, reason: &'static str) {
        self.denied.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// What a site's ledger has more than it had `before`. Once a second, because an instrument with attributes costs
    /// more than all else that is done for a batch of one event.
    pub(crate) fn ledger(&self, site: &str, before: &IngestLedger, now: &IngestLedger) {
        let of_site = [KeyValue::new("site", site.to_owned())];
        self.received.add(now.received - before.received, &of_site);
        self.accepted.add(now.accepted - before.accepted, &of_site);
        self.evicted.add(now.evicted - before.evicted, &of_site);
        for (reason, events) in &now.refused {
            let more = events - before.refused.get(reason).copied().unwrap_or_default();
            if more > 0 {
                let attributes =
                    [KeyValue::new("site", site.to_owned()), KeyValue::new("reason", reason.as_str())];
                self.refused.add(more, &attributes);
            }
        }
        let in_flight = |ledger: &IngestLedger| {
            let refused = ledger.refused.values().sum::<u64>();
            ledger.received.cast_signed() - (ledger.accepted + ledger.retried + refused).cast_signed()
        };
        self.in_flight.add(in_flight(now) - in_flight(before), &[]);
    }

    pub(crate) fn retried(&self, site: &str, reason: RetryReason, events: u64) {
        let attributes = [KeyValue::new("site", site.to_owned()), KeyValue::new("reason", reason.as_str())];
        self.retried.add(events, &attributes);
    }

    pub(crate) fn delivery_error(&self, topic: &'static str, error: String) {
        self.delivery_errors.add(1, &[KeyValue::new("topic", topic), KeyValue::new("error", error)]);
    }
}
