//! Instruments of the meter `footfall.aggregator`.

use std::sync::Arc;

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram, Meter},
};

use crate::status::{PartitionStatus, Status};

#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) rows: Counter<u64>,
    pub(crate) duplicates: Counter<u64>,
    pub(crate) conflicts: Counter<u64>,
    pub(crate) late: Counter<u64>,
    pub(crate) poison: Counter<u64>,
    pub(crate) blocks: Counter<u64>,
    pub(crate) block_seconds: Histogram<f64>,
    pub(crate) doubtful: Counter<u64>,
    pub(crate) reconciled: Counter<u64>,
    pub(crate) looked_up: Counter<u64>,
    pub(crate) failures: Counter<u64>,
    pub(crate) mismatches: Counter<u64>,
    pub(crate) dead_letters: Counter<u64>,
    pub(crate) differences: Counter<u64>,
}

impl Metrics {
    /// `status` feeds the gauges for as long as somebody else holds it.
    pub(crate) fn new(status: &Arc<Status>) -> Self {
        let meter = global::meter("footfall.aggregator");
        observe(&meter, status);
        let counter = |name, unit, says| {
            let counter = meter.u64_counter(name).with_unit(unit).with_description(says).build();
            // Told from the start: a rate that begins with the first failure would miss it.
            counter.add(0, &[]);
            counter
        };
        Self {
            rows: counter("footfall.aggregator.rows", "{event}", "Events that became rows"),
            duplicates: counter("footfall.aggregator.duplicates", "{event}", "Resends recognised"),
            conflicts: counter(
                "footfall.aggregator.conflicts",
                "{event}",
                "Duplicates with another payload than the first, which counts",
            ),
            late: counter(
                "footfall.aggregator.late",
                "{event}",
                "Events that came after their minute was closed",
            ),
            poison: counter("footfall.aggregator.poison", "{event}", "Records and lines that cannot be read"),
            blocks: counter("footfall.aggregator.blocks", "{block}", "Blocks written"),
            block_seconds: meter
                .f64_histogram("footfall.aggregator.block.duration")
                .with_unit("s")
                .with_description("From a block's boundary to its rows known to be stored")
                .with_boundaries(vec![
                    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
                ])
                .build(),
            doubtful: counter(
                "footfall.aggregator.inserts.doubtful",
                "{insert}",
                "Inserts whose outcome was looked up",
            ),
            reconciled: counter(
                "footfall.aggregator.rows.reconciled",
                "{event}",
                "Rows inserted after they were missed",
            ),
            looked_up: counter(
                "footfall.aggregator.events.looked_up",
                "{event}",
                "Events too old for memory, looked up",
            ),
            failures: counter(
                "footfall.aggregator.failures",
                "{attempt}",
                "Attempts that failed and are tried again",
            ),
            mismatches: counter(
                "footfall.aggregator.blocks.mismatched",
                "{block}",
                "Blocks rebuilt other than announced",
            ),
            dead_letters: counter(
                "footfall.aggregator.dead_letters",
                "{event}",
                "Dead letters written to ClickHouse",
            ),
            differences: counter(
                "footfall.aggregator.audit.differences",
                "{difference}",
                "What the audit found to be other than the log says",
            ),
        }
    }

    pub(crate) fn of(&self, partition: i32) -> [KeyValue; 1] {
        of_partition(partition)
    }
}

/// By the conventions for messaging clients, where a partition's id is text.
fn of_partition(partition: i32) -> [KeyValue; 1] {
    [KeyValue::new("messaging.destination.partition.id", partition.to_string())]
}

impl Metrics {
    /// Counts findings of the audit. With none a partition's series begin, so that its first finding is seen to rise.
    pub(crate) fn differ(&self, partition: i32, kind: &'static str, findings: u64) {
        let [partition] = of_partition(partition);
        self.differences.add(findings, &[partition, KeyValue::new("footfall.audit.kind", kind)]);
    }
}

fn observe(meter: &Meter, status: &Arc<Status>) {
    let gauge = |name, unit, says, value: fn(&PartitionStatus) -> i64| {
        let weak = Arc::downgrade(status);
        meter
            .i64_observable_gauge(name)
            .with_unit(unit)
            .with_description(says)
            .with_callback(move |observer| {
                for (partition, status) in weak.upgrade().iter().flat_map(|status| status.partitions()) {
                    observer.observe(value(&status), &of_partition(partition));
                }
            })
            .build();
    };
    gauge(
        "footfall.aggregator.lag",
        "{message}",
        "Records of the log that are not yet rows",
        PartitionStatus::lag,
    );
    gauge(
        "footfall.aggregator.failing",
        "",
        "1 while something is being tried again; the status page says what",
        |status| status.last_error.is_some().into(),
    );
    gauge("footfall.aggregator.sites.memory", "By", "What the windows of all sites hold, about", |status| {
        status.bytes as i64
    });
    gauge(
        "footfall.aggregator.sites.narrowed",
        "{site}",
        "Sites that know less exactly, so that the others keep what they have",
        |status| status.narrowed_sites as i64,
    );
    let weak = Arc::downgrade(status);
    meter
        .f64_observable_gauge("footfall.aggregator.audit.clean")
        .with_unit("s")
        .with_description("When the audit last found everything as it must be, in seconds since 1970")
        .with_callback(move |observer| {
            for (partition, status) in weak.upgrade().iter().flat_map(|status| status.partitions()) {
                if let Some(clean_at) = status.audit.clean_at {
                    observer.observe(clean_at as f64 / 1_000.0, &of_partition(partition));
                }
            }
        })
        .build();
}
