//! What this process holds: memory by its allocator, and tasks.

use tikv_jemalloc_ctl::{epoch, stats};
use tokio::runtime::Handle;

/// Registers the gauges with the global meter, for the runtime it is called on. Once a process.
pub fn observe() {
    let meter = opentelemetry::global::meter("footfall.process");
    meter
        .u64_observable_gauge("footfall.process.allocated")
        .with_unit("By")
        .with_description("Memory that the Rust side has allocated and not freed")
        .with_callback(|gauge| {
            if let Some(memory) = Memory::now() {
                gauge.observe(memory.allocated, &[]);
            }
        })
        .build();
    meter
        .u64_observable_gauge("footfall.process.resident")
        .with_unit("By")
        .with_description("Memory that the Rust side's allocator has mapped and touched")
        .with_callback(|gauge| {
            if let Some(memory) = Memory::now() {
                gauge.observe(memory.resident, &[]);
            }
        })
        .build();
    let runtime = Handle::current();
    meter
        .u64_observable_gauge("footfall.process.tasks")
        .with_unit("{task}")
        .with_description("Tasks that have not ended")
        .with_callback(move |gauge| gauge.observe(runtime.metrics().num_alive_tasks() as u64, &[]))
        .build();
}

struct Memory {
    allocated: u64,
    resident: u64,
}

impl Memory {
    fn now() -> Option<Self> {
        // jemalloc's numbers stand still until they are asked to move on.
        epoch::advance().ok()?;
        Some(Self {
            allocated: stats::allocated::read().ok()? as u64,
            resident: stats::resident::read().ok()? as u64,
        })
    }
}
