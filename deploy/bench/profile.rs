//! Where the time goes: samples of a process's stacks by `perf`, folded into layers.

use std::{
    collections::HashMap,
    path::Path,
    process::{Command, Stdio},
};

use super::report::table;

/// Samples a second and thread. Not a divisor of the timers' ticks.
const FREQUENCY: &str = "499";
/// Lines of the table of functions.
const SYMBOLS: usize = 25;
/// Bytes of each stack that are copied. Deeper frames are lost, and with them the layer.
const STACK: &str = "dwarf,16384";

/// Shares of the samples, largest first.
#[derive(Debug)]
pub struct Profile {
    pub samples: usize,
    pub layers: Vec<(&'static str, f64)>,
    pub symbols: Vec<(String, f64)>,
}

/// Layers by what a function's name holds; the innermost function that is in one decides. What a library does for a
/// layer (parsing, hashing, allocating) is thereby the layer's.
#[derive(Debug)]
pub struct Layers {
    pub by_name: &'static [(&'static str, &'static [&'static str])],
    /// Those that call librdkafka: what its C functions do for them is its own, not theirs, on its threads only.
    pub over_kafka: &'static [&'static str],
}

impl Profile {
    /// The tables; `of` says whose samples under what.
    pub fn section(&self, of: &str) -> String {
        let percent = |share: f64| format!("{share:.1} %");
        let layers: Vec<_> =
            self.layers.iter().map(|(layer, share)| [(*layer).to_owned(), percent(*share)]).collect();
        let symbols = self.symbols.iter().take(SYMBOLS);
        let symbols: Vec<_> =
            symbols.map(|(symbol, share)| [format!("`{symbol}`"), percent(*share)]).collect();
        format!(
            "{} samples of {of}.\n\n{}\n{}",
            self.samples,
            table(["Layer", "Share"], &layers),
            table(["Function", "Share"], &symbols),
        )
    }
}

/// Samples process `pid` for `seconds` and reads the samples.
pub fn take(pid: u32, seconds: u64, scratch: &Path, layers: &Layers) -> Option<Profile> {
    let file = scratch.join("perf.data");
    let recorded = Command::new("perf")
        .args(["record", "-q", "-e", "cpu-clock", "-F", FREQUENCY, "--call-graph", STACK, "-o"])
        .arg(&file)
        .args(["-p", &pid.to_string(), "--", "sleep", &seconds.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !recorded.is_ok_and(|status| status.success()) {
        println!("no profile: perf is missing, or may not sample here");
        return None;
    }
    let script = Command::new("perf")
        .args(["script", "--no-inline", "-F", "comm,ip,sym,dso", "-i"])
        .arg(&file)
        .stderr(Stdio::null())
        .output()
        .ok()?;
    Some(fold(&String::from_utf8_lossy(&script.stdout), layers))
}

/// `perf script`: a line with the thread's name, a line a frame from the innermost on, an empty line.
fn fold(script: &str, of: &Layers) -> Profile {
    let (mut layers, mut symbols) = (HashMap::new(), HashMap::new());
    let mut samples = 0;
    for sample in script.split("\n\n") {
        let mut lines = sample.trim_matches('\n').lines();
        let Some(thread) = lines.next() else { continue };
        let frames: Vec<(&str, &str)> = lines.filter_map(frame).collect();
        let Some((symbol, library)) = frames.first() else { continue };
        samples += 1;
        *layers.entry(of.of(thread.trim(), &frames)).or_insert(0_usize) += 1;
        let kernel = if is_kernel(library) { " (kernel)" } else { "" };
        *symbols.entry(format!("{}{kernel}", plain(symbol))).or_insert(0_usize) += 1;
    }
    Profile { samples, layers: shares(layers, samples), symbols: shares(symbols, samples) }
}

/// `  ADDRESS SYMBOL (LIBRARY)`
fn frame(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.trim().split_once(' ')?;
    let (symbol, library) = rest.rsplit_once(" (")?;
    Some((symbol, library.trim_end_matches(')')))
}

fn is_kernel(library: &str) -> bool {
    library.starts_with('[') && library != "[vdso]" && library != "[unknown]"
}

impl Layers {
    fn of(&self, thread: &str, frames: &[(&str, &str)]) -> &'static str {
        // librdkafka names its threads; deliveries are called from one of ours, named by the crate.
        let kafka = thread.starts_with("rdk:");
        if is_kernel(frames[0].1) {
            let any = |names: &[&str]| {
                frames.iter().any(|(symbol, library)| {
                    is_kernel(library) && names.iter().any(|name| symbol.starts_with(name))
                })
            };
            return match () {
                () if any(&[
                    "tcp_",
                    "inet_",
                    "__sys_send",
                    "__sys_recv",
                    "sock_",
                    "ksys_write",
                    "ksys_read",
                    "vfs_",
                ]) && kafka =>
                {
                    "kernel: sockets to Kafka"
                }
                () if any(&["tcp_", "inet_", "__sys_send", "__sys_recv", "sock_"]) => "kernel: sockets",
                () if any(&["do_epoll", "ep_", "__x64_sys_epoll"]) => "kernel: epoll",
                () if any(&[
                    "do_futex",
                    "futex_",
                    "schedule",
                    "__schedule",
                    "try_to_wake_up",
                    "eventfd_",
                ]) =>
                {
                    "kernel: waking and scheduling"
                }
                () => "kernel: other",
            };
        }
        let of_ours = frames.iter().find_map(|(symbol, _)| {
            self.by_name
                .iter()
                .find(|(_, names)| names.iter().any(|name| symbol.contains(name)))
                .map(|(layer, _)| *layer)
        });
        // Its C functions come before any of Rust's.
        let in_kafka =
            frames.iter().any(|(symbol, _)| symbol.starts_with("rd_kafka_") || symbol.starts_with("LZ4"));
        match of_ours {
            Some(layer) if !kafka && self.over_kafka.contains(&layer) => layer,
            _ if kafka || in_kafka => "librdkafka and lz4",
            Some(layer) => layer,
            None => "other",
        }
    }
}

/// Without the hash and the type's parameters.
fn plain(symbol: &str) -> String {
    let symbol = symbol.split("::h").next().unwrap_or(symbol);
    let mut plain = String::new();
    let mut depth = 0_i32;
    for letter in symbol.chars() {
        match letter {
            '<' => depth += 1,
            '>' => depth -= 1,
            letter if depth <= 0 => plain.push(letter),
            _ => {}
        }
    }
    if plain.is_empty() || plain.starts_with("::") { symbol.chars().take(80).collect() } else { plain }
}

fn shares<K: Ord>(counts: HashMap<K, usize>, samples: usize) -> Vec<(K, f64)> {
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|(a, many), (b, few)| few.cmp(many).then_with(|| a.cmp(b)));
    counts.into_iter().map(|(what, count)| (what, 100.0 * count as f64 / samples as f64)).collect()
}
