//! Instruments of the meter `footfall.aggregator`.

use std::sync::Arc;

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram, Meter},
};

use crate::status::Status;

#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) rows: Counter<u64>,
    pub(crate) duplicates: Counter<u64>,
    pub(crate) late: Counter<u64>,
    pub(crate) poison: Counter<u64>,
    pub(crate) blocks: Counter<u64>,
    pub(crate) insert_seconds: Histogram<f64>,
    pub(crate) doubtful: Counter<u64>,
    pub(crate) reconciled: Counter<u64>,
    pub(crate) looked_up: Counter<u64>,
    pub(crate) failures: Counter<u64>,
    pub(crate) mismatches: Counter<u64>,
    pub(crate) dead_letters: Counter<u64>,
}

impl Metrics {
    /// `status` feeds the gauges for as long as somebody else holds it.
    pub(crate) fn new(status: &Arc<Status>) -> Self {
        let meter = global::meter("footfall.aggregator");
        observe(&meter, status);
        let counter = |name, says| meter.u64_counter(name).with_description(says).build();
        Self {
            rows: counter("footfall.aggregator.rows", "Events that became rows"),
            duplicates: counter("footfall.aggregator.duplicates", "Resends recognised"),
            late: counter("footfall.aggregator.late", "Events that came after their minute was closed"),
            poison: counter("footfall.aggregator.poison", "Records and lines that cannot be read"),
            blocks: counter("footfall.aggregator.blocks", "Blocks written"),
            insert_seconds: meter
                .f64_histogram("footfall.aggregator.insert")
                .with_unit("s")
                .with_description("From a block's boundary to its rows known to be stored")
                .with_boundaries(vec![
                    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
                ])
                .build(),
            doubtful: counter("footfall.aggregator.inserts.doubtful", "Inserts whose outcome was looked up"),
            reconciled: counter(
                "footfall.aggregator.rows.reconciled",
                "Rows inserted after they were missed",
            ),
            looked_up: counter(
                "footfall.aggregator.events.looked_up",
                "Events too old for memory, looked up",
            ),
            failures: counter("footfall.aggregator.failures", "Attempts that failed and are tried again"),
            mismatches: counter(
                "footfall.aggregator.blocks.mismatched",
                "Blocks rebuilt other than announced",
            ),
            dead_letters: counter("footfall.aggregator.dead_letters", "Dead letters written to ClickHouse"),
        }
    }

    pub(crate) fn of(&self, partition: i32) -> [KeyValue; 1] {
        [KeyValue::new("partition", i64::from(partition))]
    }
}

fn observe(meter: &Meter, status: &Arc<Status>) {
    let weak = Arc::downgrade(status);
    meter
        .i64_observable_gauge("footfall.aggregator.lag")
        .with_description("Records not yet written")
        .with_callback(move |observer| {
            for (partition, status) in weak.upgrade().iter().flat_map(|status| status.partitions()) {
                observer.observe(status.lag(), &[KeyValue::new("partition", i64::from(partition))]);
            }
        })
        .build();
    let weak = Arc::downgrade(status);
    meter
        .u64_observable_gauge("footfall.aggregator.failing")
        .with_description("1 while something is being tried again; the status page says what")
        .with_callback(move |observer| {
            for (partition, status) in weak.upgrade().iter().flat_map(|status| status.partitions()) {
                let failing = u64::from(status.last_error.is_some());
                observer.observe(failing, &[KeyValue::new("partition", i64::from(partition))]);
            }
        })
        .build();
}
