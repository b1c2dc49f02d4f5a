//! What Linux tells of a process and of the machine.

use std::{fs, process::Command};

/// Ticks of /proc/PID/stat; Linux fixes them for user space.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU-seconds of a process's threads so far.
pub fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name, in parentheses, may hold spaces.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    [11, 12].map(|field| fields[field].parse::<f64>().unwrap()).iter().sum::<f64>() / TICKS_PER_SECOND
}

/// Most resident bytes of a process so far.
pub fn resident_peak(pid: u32) -> u64 {
    kib(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap(), "VmHWM:")
}

/// Those that its threads started.
pub fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let children: String = threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok())
        .map(|children| children + " ")
        .collect();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn kib(text: &str, field: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}

/// Rows of a table: what was measured, when, and on what.
pub fn description() -> Vec<[String; 2]> {
    let read = |path: &str| fs::read_to_string(path).unwrap();
    let said = |program: &str, args: &[&str]| {
        let output =
            Command::new(program).args(args).output().map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&output).trim().to_owned()
    };
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
