//! What this role tells about itself.

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge, Histogram, UpDownCounter},
};

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// Open viewers' sockets.
    pub(crate) viewers: UpDownCounter<i64>,
    /// Frames sent to viewers, by kind.
    pub(crate) frames: Counter<u64>,
    pub(crate) bytes: Counter<u64>,
    /// Viewers that were too far behind and got a snapshot instead.
    pub(crate) conflations: Counter<u64>,
    /// Sockets closed by this side, by code.
    pub(crate) closed: Counter<u64>,
    /// From a record's telling to its arrival here.
    pub(crate) lag: Histogram<f64>,
    /// Records read, by topic and what became of them.
    pub(crate) records: Counter<u64>,
    /// Partitions that are told as silent, over all sites.
    pub(crate) silent_partitions: Gauge<u64>,
    /// Distinct filtered views that are kept.
    pub(crate) filters: Gauge<u64>,
    /// Queries for filtered views, by outcome, and the time that they took.
    pub(crate) filter_queries: Counter<u64>,
    pub(crate) filter_time: Counter<f64>,
    /// Events read for those who watch them go by.
    pub(crate) tailed: Counter<u64>,
    /// Answers from ClickHouse about the past, by outcome.
    pub(crate) history: Counter<u64>,
    /// Logins by outcome.
    pub(crate) logins: Counter<u64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = global::meter("footfall.dashboard");
        let counter = |name, unit, says| {
            let counter = meter.u64_counter(name).with_unit(unit).with_description(says).build();
            // Told from the start: a rate that begins with the first failure would miss it.
            counter.add(0, &[]);
            counter
        };
        let viewers = meter
            .i64_up_down_counter("footfall.dashboard.viewer.count")
            .with_unit("{connection}")
            .with_description("Open viewers' sockets")
            .build();
        viewers.add(0, &[]);
        let filters = meter
            .u64_gauge("footfall.dashboard.filter.count")
            .with_unit("{filter}")
            .with_description("Distinct filtered views that are kept")
            .build();
        filters.record(0, &[]);
        let filter_time = meter
            .f64_counter("footfall.dashboard.filter.time")
            .with_unit("s")
            .with_description("Time that queries for filtered views took")
            .build();
        filter_time.add(0.0, &[]);
        Self {
            viewers,
            frames: counter("footfall.dashboard.frames", "{frame}", "Frames sent to viewers, by kind"),
            bytes: counter("footfall.dashboard.sent", "By", "Bytes of frames sent to viewers"),
            conflations: counter(
                "footfall.dashboard.conflations",
                "{viewer}",
                "Viewers that were too far behind and got the newest whole",
            ),
            closed: counter(
                "footfall.dashboard.closes",
                "{connection}",
                "Sockets closed from this side, by close code",
            ),
            lag: meter
                .f64_histogram("footfall.dashboard.hub.lag")
                .with_unit("s")
                .with_description("From a live record's telling to its arrival here")
                .with_boundaries(vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
                .build(),
            records: counter("footfall.dashboard.records", "{message}", "Live records read, by outcome"),
            silent_partitions: meter
                .u64_gauge("footfall.dashboard.silent_partitions")
                .with_unit("{partition}")
                .with_description("Partitions that are told as silent, over all sites")
                .build(),
            filters,
            filter_queries: counter(
                "footfall.dashboard.filter.queries",
                "{query}",
                "Queries for filtered views, by outcome",
            ),
            filter_time,
            tailed: counter(
                "footfall.dashboard.events",
                "{event}",
                "Events read for viewers who watch them go by",
            ),
            history: counter(
                "footfall.dashboard.history",
                "{request}",
                "Questions about the past that ClickHouse was asked, by outcome",
            ),
            logins: counter("footfall.dashboard.logins", "{attempt}", "Logins, by outcome"),
        }
    }

    pub(crate) fn count(counter: &Counter<u64>, key: &'static str, value: &'static str) {
        counter.add(1, &[KeyValue::new(key, value)]);
    }
}
