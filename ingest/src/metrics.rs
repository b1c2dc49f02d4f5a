//! What an operator sees of ingest. Names follow OpenTelemetry's conventions where there is one; attributes are closed
//! sets or configured sites.
//!
//! Nothing here is touched for each batch but one histogram. What is counted for each batch lies in the sites' ledgers
//! and is read when somebody asks.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use footfall_schemas::topics;
use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Counter, Histogram, Meter, UpDownCounter},
};

use crate::{
    scripts::Asked,
    sites::{SiteState, Sites},
};

/// Of a site's numbers.
const SITE: &str = "footfall.site";
/// Why something failed.
const ERROR: &str = "error.type";

/// Instruments without attributes cost an atomic addition; those with some are for what is rare.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) connections: UpDownCounter<i64>,
    pub(crate) sockets: UpDownCounter<i64>,
    requests: Histogram<f64>,
    closes: Counter<u64>,
    denied: Counter<u64>,
    pub(crate) ack_seconds: Histogram<f64>,
    pub(crate) record_events: Histogram<u64>,
    sent: Arc<Sent>,
    pub(crate) dead_letters: Counter<u64>,
    pub(crate) dead_letters_suppressed: Counter<u64>,
}

/// Records given to Kafka, by topic; of those that failed, by error as well.
#[derive(Debug, Default)]
struct Sent {
    taken: [AtomicU64; TOPICS.len()],
    failed: Mutex<BTreeMap<(&'static str, String), u64>>,
}

const ROUTES: [&str; 9] =
    ["/ws", "/ws-echo", "/e", "/e.gif", "/api/v1/events", "/healthz", "/readyz", "/metrics", "/demo/"];
const METHODS: [&str; 9] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];
const TOPICS: [&str; 3] = [topics::EVENTS, topics::DEAD_LETTERS, topics::PRESENCE];

fn meter() -> Meter {
    opentelemetry::global::meter("footfall.ingest")
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = meter();
        let sent = Arc::new(Sent::default());
        observe_sent(&meter, Arc::clone(&sent));
        let counter = |name, unit, description| {
            let counter = meter.u64_counter(name).with_unit(unit).with_description(description).build();
            // Told from the start: a rate that begins with the first failure would miss it.
            counter.add(0, &[]);
            counter
        };
        Self {
            connections: meter
                .i64_up_down_counter("footfall.ingest.connection.count")
                .with_unit("{connection}")
                .with_description("Open TCP connections")
                .build(),
            sockets: meter
                .i64_up_down_counter("footfall.ingest.socket.count")
                .with_unit("{connection}")
                .with_description("Open WebSockets")
                .build(),
            requests: meter
                .f64_histogram("http.server.request.duration")
                .with_unit("s")
                .with_description("From a request's header to its answer; an upgrade ends with the 101")
                .with_boundaries(vec![
                    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
                ])
                .build(),
            closes: counter(
                "footfall.ingest.closes",
                "{connection}",
                "WebSockets closed from this side, by close code",
            ),
            denied: counter(
                "footfall.ingest.denied",
                "{request}",
                "Requests refused before any event was read, by reason",
            ),
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
            sent,
            dead_letters: counter(
                "footfall.ingest.dead_letters",
                "{event}",
                "Refused events kept on the dead-letter topic",
            ),
            dead_letters_suppressed: counter(
                "footfall.ingest.dead_letters.suppressed",
                "{event}",
                "Refused events counted but not kept: over the site's rate, or no room",
            ),
        }
    }

    /// By the conventions for HTTP servers. What is asked for that is not here has no route.
    pub(crate) fn answered(&self, request: &warp::log::Info<'_>) {
        let method = known(&METHODS, request.method().as_str()).unwrap_or("_OTHER");
        let mut attributes = vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.response.status_code", i64::from(request.status().as_u16())),
        ];
        attributes.extend(route(request.path()).map(|route| KeyValue::new("http.route", route)));
        self.requests.record(request.elapsed().as_secs_f64(), &attributes);
    }

    pub(crate) fn closed(&self, code: u16) {
        self.closes.add(1, &[KeyValue::new("footfall.close.code", i64::from(code))]);
    }

    pub(crate) fn denied(&self, reason: &'static str) {
        self.denied.add(1, &[KeyValue::new(ERROR, reason)]);
    }

    pub(crate) fn delivered(&self, topic: &'static str) {
        if let Some(place) = TOPICS.iter().position(|known| *known == topic) {
            self.sent.taken[place].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn delivery_error(&self, topic: &'static str, error: String) {
        let mut failed = self.sent.failed.lock().unwrap_or_else(PoisonError::into_inner);
        *failed.entry((topic, error)).or_default() += 1;
    }

    /// From now on these sites' numbers are told. They outlive the node, so that the last export has its last counts.
    #[rustfmt::skip] // a table
    pub(crate) fn observe(&self, sites: &Arc<Sites>) {
        let meter = meter();
        let counter = |name, description, callback: Callback| {
            meter
                .u64_observable_counter(name)
                .with_unit("{event}")
                .with_description(description)
                .with_callback(callback)
                .build();
        };
        counter("footfall.ingest.events.received", "Events that arrived",
            each(sites, |site| site.ledger.received_so_far()));
        counter("footfall.ingest.events.accepted", "Events in the log",
            each(sites, |site| site.ledger.accepted_so_far()));
        counter("footfall.ingest.events.evicted", "Events lost in trackers' outboxes, as they report",
            each(sites, |site| site.ledger.evicted_so_far()));
        counter("footfall.ingest.events.refused", "Events refused for good, by reason",
            each_reason(sites, |site, tell| {
                site.ledger.refused_so_far().for_each(|(reason, events)| tell(reason.as_str(), events));
            }));
        counter("footfall.ingest.events.retried", "Events told to come again, by reason",
            each_reason(sites, |site, tell| {
                site.ledger.retried_so_far().for_each(|(reason, events)| tell(reason.as_str(), events));
            }));
        let all = Arc::clone(sites);
        meter
            .i64_observable_up_down_counter("footfall.ingest.events.in_flight")
            .with_unit("{event}")
            .with_description("Events received and not yet settled")
            .with_callback(move |observer| {
                for site in all.known().values() {
                    observer.observe(site.ledger.in_flight().cast_signed(), &[of(site)]);
                }
            })
            .build();
        meter
            .u64_observable_gauge("footfall.ingest.visitors.online")
            .with_unit("{visitor}")
            .with_description("Visitors connected to this node, by site")
            .with_callback(each(sites, |site| site.online.load(Ordering::Relaxed).into()))
            .build();
    }
}

fn known(known: &[&'static str], text: &str) -> Option<&'static str> {
    known.iter().find(|known| **known == text).copied()
}

/// A script's paths, whichever hash they name, are one route.
fn route(path: &str) -> Option<&'static str> {
    if path.starts_with("/demo/") {
        return Some("/demo/");
    }
    let script = || Some(&*path.strip_prefix('/')?.parse::<Asked>().ok()?.script.path);
    known(&ROUTES, path).or_else(script)
}

type Callback = Box<dyn Fn(&dyn AsyncInstrument<u64>) + Send + Sync>;

fn of(site: &SiteState) -> KeyValue {
    KeyValue::new(SITE, site.key().to_string())
}

/// One number a site.
fn each(sites: &Arc<Sites>, number: fn(&SiteState) -> u64) -> Callback {
    let sites = Arc::clone(sites);
    Box::new(move |observer| {
        sites.known().values().for_each(|site| observer.observe(number(site), &[of(site)]));
    })
}

/// One number a site and reason.
fn each_reason(sites: &Arc<Sites>, numbers: fn(&SiteState, &mut dyn FnMut(&'static str, u64))) -> Callback {
    let sites = Arc::clone(sites);
    Box::new(move |observer| {
        for site in sites.known().values() {
            observer.observe(0, &[of(site)]);
            numbers(site, &mut |reason, events| {
                observer.observe(events, &[of(site), KeyValue::new(ERROR, reason)]);
            });
        }
    })
}

/// By the conventions for messaging clients.
fn observe_sent(meter: &Meter, sent: Arc<Sent>) {
    let of = |topic: &'static str| {
        [
            KeyValue::new("messaging.system", "kafka"),
            KeyValue::new("messaging.operation.name", "send"),
            KeyValue::new("messaging.destination.name", topic),
        ]
    };
    meter
        .u64_observable_counter("messaging.client.sent.messages")
        .with_unit("{message}")
        .with_description("Records given to Kafka; with error.type, those that it did not take")
        .with_callback(move |observer| {
            for (topic, taken) in TOPICS.iter().zip(&sent.taken) {
                observer.observe(taken.load(Ordering::Relaxed), &of(topic));
            }
            let failed = sent.failed.lock().unwrap_or_else(PoisonError::into_inner);
            for ((topic, error), records) in failed.iter() {
                let [system, operation, topic] = of(topic);
                observer.observe(*records, &[system, operation, topic, KeyValue::new(ERROR, error.clone())]);
            }
        })
        .build();
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("/ws", Some("/ws"))]
    #[case("/demo/app/ferns", Some("/demo/"))]
    #[case("/f.js", Some("/f.js"))]
    #[case::another_version("/f.0123456789abcdef.js", Some("/f.js"))]
    #[case("/f-anything.js", None)]
    #[case("/f.anything.js", None)]
    #[case("*", None)]
    #[case("", None)]
    fn routes_are_a_closed_set(#[case] path: &str, #[case] expected: Option<&str>) {
        assert_eq!(route(path), expected);
    }
}
