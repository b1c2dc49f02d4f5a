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
        let records = |name, description| {
            meter.u64_counter(name).with_unit("{record}").with_description(description).build()
        };
        Self {
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
            torn: meter
                .u64_counter("footfall.ingest.spool.torn")
                .with_description("Segments whose unfinished last write was cut off at start")
                .build(),
            bad: meter
                .u64_counter("footfall.ingest.spool.bad")
                .with_description(
                    "Damaged places, and records that Kafka refuses: their segments are kept as .bad",
                )
                .build(),
        }
    }
}
