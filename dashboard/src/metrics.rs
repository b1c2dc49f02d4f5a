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
    /// Answers of `/api/history`, by outcome.
    pub(crate) history: Counter<u64>,
    /// Logins by outcome.
    pub(crate) logins: Counter<u64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = global::meter("footfall.dashboard");
        Self {
            viewers: meter.i64_up_down_counter("footfall.dashboard.viewers").build(),
            frames: meter.u64_counter("footfall.dashboard.frames").build(),
            bytes: meter.u64_counter("footfall.dashboard.sent").with_unit("By").build(),
            conflations: meter.u64_counter("footfall.dashboard.conflations").build(),
            closed: meter.u64_counter("footfall.dashboard.closed").build(),
            lag: meter
                .f64_histogram("footfall.dashboard.hub.lag")
                .with_unit("s")
                .with_boundaries(vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
                .build(),
            records: meter.u64_counter("footfall.dashboard.records").build(),
            silent_partitions: meter.u64_gauge("footfall.dashboard.silent_partitions").build(),
            history: meter.u64_counter("footfall.dashboard.history").build(),
            logins: meter.u64_counter("footfall.dashboard.logins").build(),
        }
    }

    pub(crate) fn count(counter: &Counter<u64>, key: &'static str, value: &'static str) {
        counter.add(1, &[KeyValue::new(key, value)]);
    }
}
