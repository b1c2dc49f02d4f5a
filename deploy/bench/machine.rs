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

/// Most resident bytes of a process so far.
pub fn resident_peak(pid: u32) -> u64 {
    kib(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap(), "VmHWM:")
}

/// Resident bytes of a process, pages that it shares with others by their share.
pub fn proportional(pid: u32) -> u64 {
    kib(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap(), "Pss:")
}

/// Those that its threads started: a child belongs to the thread that did, and any of a runtime's may have.
pub fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let children: String = threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok())
        .map(|children| children + " ")
        .collect();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Bytes of the kernel's own objects: sockets, descriptors, epoll entries. Of the whole machine.
pub fn slab() -> u64 {
    kib(&fs::read_to_string("/proc/meminfo").unwrap(), "Slab:")
}

fn kib(text: &str, field: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}

/// Rows of a table: what was measured, when, and on what.
pub fn description() -> Vec<[String; 2]> {
    let read = |path: &str| fs::read_to_string(path).unwrap();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    [
        ("CPU", model.trim_start_matches(['\t', ' ', ':']).to_owned()),
        ("Cores", std::thread::available_parallelism().unwrap().to_string()),
        ("Memory", format!("{} GiB", kib(&read("/proc/meminfo"), "MemTotal:") >> 30)),
        ("Kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("Compiler", said("rustc", &["--version"])),
        ("Commit", said("git", &["describe", "--always", "--dirty", "--abbrev=12"])),
        ("Date", said("date", &["-u", "+%F"])),
        ("Load before", read("/proc/loadavg").split(' ').next().unwrap().to_owned()),
    ]
    .map(|(name, value)| [name.to_owned(), value])
    .into()
}

/// What a program prints; nothing when it is not there.
fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}
