//! What Linux tells of a process and of the machine.

use std::{fs, process::Command};

/// Ticks of /proc/PID/stat; Linux fixes them for user space.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time of all threads so far, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    pub user: f64,
    pub system: f64,
}

impl Cpu {
    pub fn of(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // The name, in parentheses, may hold spaces.
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let seconds = |field: usize| fields[field].parse::<f64>().unwrap() / TICKS_PER_SECOND;
        Self { user: seconds(11), system: seconds(12) }
    }

    pub fn since(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }

    pub fn and(self, other: Self) -> Self {
        Self { user: self.user + other.user, system: self.system + other.system }
    }

    pub fn total(self) -> f64 {
        self.user + self.system
    }
}

/// Resident bytes of a process.
pub fn resident(pid: u32) -> u64 {
    kib(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap(), "VmRSS:")
}

/// Bytes of the kernel's own objects: sockets, descriptors, epoll entries. Of the whole machine.
pub fn slab() -> u64 {
    kib(&fs::read_to_string("/proc/meminfo").unwrap(), "Slab:")
}

fn kib(text: &str, field: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}

/// Rows of a table: what the numbers were measured on.
pub fn description() -> Vec<[String; 2]> {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let memory = kib(&fs::read_to_string("/proc/meminfo").unwrap(), "MemTotal:");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let rustc =
        Command::new("rustc").arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    [
        ("CPU", model.trim_start_matches(['\t', ' ', ':']).to_owned()),
        ("Cores", std::thread::available_parallelism().unwrap().to_string()),
        ("Memory", format!("{} GiB", memory >> 30)),
        ("Kernel", kernel.trim().to_owned()),
        ("Compiler", String::from_utf8_lossy(&rustc).trim().to_owned()),
    ]
    .map(|(name, value)| [name.to_owned(), value])
    .into()
}
