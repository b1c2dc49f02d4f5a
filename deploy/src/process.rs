//! The process as the kernel sees it, by OpenTelemetry's conventions for processes, and what only it knows itself: its
//! allocator's memory and its tasks. Read when somebody asks.

use std::{fs, time::Instant};

use opentelemetry::{KeyValue, global, metrics::Meter};
use tikv_jemalloc_ctl::{epoch, stats};
use tokio::runtime::Handle;

/// Of the times in /proc/self/stat, on every Linux since 2.6 (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Registers the instruments with the global meter, for the runtime it is called on. Once a process.
pub fn observe() {
    let meter = global::meter("footfall.process");
    observe_kernel(&meter);
    observe_inside(&meter);
}

fn observe_kernel(meter: &Meter) {
    let started = Instant::now();
    meter
        .f64_observable_counter("process.cpu.time")
        .with_unit("s")
        .with_description("Processor time used")
        .with_callback(|observer| {
            let Some(times) = read("stat").as_deref().and_then(CpuTimes::parse) else { return };
            observer.observe(times.user, &[KeyValue::new("cpu.mode", "user")]);
            observer.observe(times.system, &[KeyValue::new("cpu.mode", "system")]);
        })
        .build();
    let sizes = [
        ("process.memory.usage", "By", "Physical memory in use", "VmRSS:", 1024),
        ("process.memory.virtual", "By", "Virtual memory committed", "VmSize:", 1024),
        ("process.thread.count", "{thread}", "Threads", "Threads:", 1),
    ];
    for (name, unit, description, field, factor) in sizes {
        meter
            .i64_observable_up_down_counter(name)
            .with_unit(unit)
            .with_description(description)
            .with_callback(move |observer| {
                if let Some(number) = read("status").as_deref().and_then(|status| number_of(status, field)) {
                    observer.observe(number * factor, &[]);
                }
            })
            .build();
    }
    meter
        .i64_observable_up_down_counter("process.unix.file_descriptor.count")
        .with_unit("{file_descriptor}")
        .with_description("File descriptors in use")
        .with_callback(|observer| {
            // The one that reads the directory is among them.
            if let Ok(entries) = fs::read_dir("/proc/self/fd") {
                observer.observe(entries.count() as i64 - 1, &[]);
            }
        })
        .build();
    meter
        .i64_observable_up_down_counter("footfall.process.file_descriptor.limit")
        .with_unit("{file_descriptor}")
        .with_description("File descriptors that the process may use")
        .with_callback(|observer| {
            if let Some(limit) = read("limits").as_deref().and_then(|text| number_of(text, "Max open files"))
            {
                observer.observe(limit, &[]);
            }
        })
        .build();
    meter
        .f64_observable_gauge("process.uptime")
        .with_unit("s")
        .with_description("Time since the start")
        .with_callback(move |observer| observer.observe(started.elapsed().as_secs_f64(), &[]))
        .build();
}

fn observe_inside(meter: &Meter) {
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

fn read(file: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/self/{file}")).ok()
}

#[derive(Debug, PartialEq)]
struct CpuTimes {
    user: f64,
    system: f64,
}

impl CpuTimes {
    /// Fields 14 and 15 of proc(5). The second one is a name that may hold anything, in parentheses.
    fn parse(stat: &str) -> Option<Self> {
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
        let mut seconds = || Some(fields.next()?.parse::<f64>().ok()? / TICKS_PER_SECOND);
        Some(Self { user: seconds()?, system: seconds()? })
    }
}

/// The number after `field` at the beginning of a line.
fn number_of(text: &str, field: &str) -> Option<i64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(field))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_named_to_confuse_has_its_times_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 250 75 6 7 20 0 9 0 100 1 2";
        assert_eq!(CpuTimes::parse(stat), Some(CpuTimes { user: 2.5, system: 0.75 }));
        assert_eq!(CpuTimes::parse("7 (a) S 1"), None);
    }

    #[test]
    fn a_number_is_found_by_its_field() {
        let status = "Name:\tfootfall\nVmSize:\t  2048 kB\nThreads:\t12\n";
        assert_eq!(number_of(status, "VmSize:"), Some(2048));
        assert_eq!(number_of(status, "Threads:"), Some(12));
        assert_eq!(number_of(status, "VmRSS:"), None);
        let limits = "Max processes             1 2 processes\nMax open files            20000                20000                files\n";
        assert_eq!(number_of(limits, "Max open files"), Some(20_000));
    }

    #[test]
    fn this_process_is_seen() {
        assert!(CpuTimes::parse(&read("stat").unwrap()).is_some());
        assert!(number_of(&read("status").unwrap(), "VmRSS:").unwrap() > 1_000);
    }
}
