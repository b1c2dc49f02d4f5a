//! System calls of a process, counted by `perf`.

use std::process::Command;

/// Groups of calls, by the kernel's names.
const GROUPS: [(&str, &[&str]); 4] = [
    ("write", &["sendto", "sendmsg", "write", "writev"]),
    ("read", &["recvfrom", "recvmsg", "read", "readv"]),
    ("epoll", &["epoll_wait", "epoll_pwait", "epoll_ctl"]),
    ("futex", &["futex"]),
];
const ALL: &str = "raw_syscalls:sys_enter";

/// What a table calls the numbers of [`count`].
pub const NAMES: [&str; GROUPS.len() + 1] = ["all", GROUPS[0].0, GROUPS[1].0, GROUPS[2].0, GROUPS[3].0];

/// Calls in so many seconds: all, then by group. `None`: perf is missing, or may not count here.
pub fn count(pid: u32, seconds: u64) -> Option<[f64; NAMES.len()]> {
    let event = |call: &&str| format!("syscalls:sys_enter_{call}");
    let calls = GROUPS.iter().flat_map(|(_, calls)| calls.iter().map(event));
    let events: Vec<_> = [ALL.to_owned()].into_iter().chain(calls).collect();
    let output = Command::new("perf")
        .args(["stat", "-x", ",", "-e", &events.join(","), "-p", &pid.to_string()])
        .args(["--", "sleep", &seconds.to_string()])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    // `COUNT,UNIT,EVENT,…`
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let counted = |event: &str| {
        let line = text.lines().find(|line| line.split(',').nth(2) == Some(event))?;
        line.split(',').next()?.parse::<f64>().ok()
    };
    let mut counts = [counted(ALL)?; NAMES.len()];
    for (count, (_, calls)) in counts[1..].iter_mut().zip(GROUPS) {
        *count = calls.iter().filter_map(|call| counted(&event(call))).sum();
    }
    Some(counts)
}
