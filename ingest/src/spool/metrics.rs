//! What an operator sees of the spool.

use opentelemetry::metrics::{Counter, Gauge};

#[derive(Debug)]
pub(super) struct SpoolMetrics {
    pub(super) bytes: Gauge<u64>,
    pub(super) frames: Gauge<u64>,
    pub(super) oldest: Gauge<f64>,
    pub(super) written: Counter<u64>,
    pub(super) drained: Counter<u64>,
    pub(super) refused: Counter<u64>,
    pub(super) torn: Counter<u64>,
    pub(super) bad: Counter<u64>,
}

impl SpoolMetrics {
    pub(super) fn new() -> Self {
        let meter = opentelemetry::global::meter("footfall.ingest");
        let counter = |name, unit, description| {
            let counter = meter.u64_counter(name).with_unit(unit).with_description(description).build();
            // Told from the start: a rate that begins with the first failure would miss it.
            counter.add(0, &[]);
            counter
        };
        let records = |name, description| counter(name, "{record}", description);
        let spool = Self {
            bytes: meter
                .u64_gauge("footfall.ingest.spool.size")
                .with_unit("By")
                .with_description("Bytes of the spool on the disk, segments kept aside included")
                .build(),
            frames: meter
                .u64_gauge("footfall.ingest.spool.records")
                .with_unit("{record}")
                .with_description("Records in the spool that are not in Kafka yet")
                .build(),
            oldest: meter
                .f64_gauge("footfall.ingest.spool.age")
                .with_unit("s")
                .with_description("Age of the oldest record in the spool")
                .build(),
            written: records("footfall.ingest.spool.written", "Records put into the spool"),
            drained: records("footfall.ingest.spool.drained", "Records of the spool that are in Kafka now"),
            refused: records(
                "footfall.ingest.spool.refused",
                "Records that found no room, or a disk that failed: their batches were told to come again",
            ),
            torn: counter(
                "footfall.ingest.spool.torn",
                "{segment}",
                "Segments whose unfinished last write was cut off at start",
            ),
            bad: counter(
                "footfall.ingest.spool.bad",
                "{place}",
                "Damaged places, and records that Kafka refuses: their segments are kept as .bad",
            ),
        };
        spool.bytes.record(0, &[]);
        spool.frames.record(0, &[]);
        spool.oldest.record(0.0, &[]);
        spool
    }
}
