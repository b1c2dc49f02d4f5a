//! What the aggregator costs.
//!
//! `run` measures it from outside: broker, engine and aggregator are processes of the release binary, this program
//! feeds and watches them. `make bench-aggregator` runs it; RESULTS.md is what it writes. `fold` measures in memory
//! where the time of an event goes.
#![allow(clippy::unwrap_used, reason = "a bench may panic")]
#![allow(unreachable_pub, reason = "each module is a part of this program")]

#[path = "../../../deploy/bench/mod.rs"]
mod bench;
mod fold;
mod insert;
mod latency;
mod live;
mod produce;
mod restart;
#[path = "../../../deploy/bench/stack.rs"]
mod stack;
mod start;
mod traffic;

use std::{fs, path::PathBuf};

use clap::{Parser, Subcommand};

use crate::bench::{
    machine,
    report::{Results, table},
};

// As the binary has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What `cargo bench` adds
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Rows, latency and restart of the binary
    Run(Run),
    /// Parse, fold and encode in memory: CPU time by stage
    Fold(fold::Args),
}

#[derive(Debug, clap::Args)]
struct Run {
    /// The release binary
    #[arg(long, value_name = "FILE")]
    binary: PathBuf,
    /// A directory on a disk; emptied first
    #[arg(long, value_name = "DIR")]
    scratch: PathBuf,
    /// Where the tables go
    #[arg(long, value_name = "FILE")]
    results: PathBuf,
    /// Events that are written as fast as it goes
    #[arg(long, env, default_value_t = 1_000_000)]
    events: u64,
    /// Events a second, and for how long, of the latency
    #[arg(long, env, default_value_t = 5_000)]
    latency_rate: u64,
    #[arg(long, env, default_value_t = 20)]
    latency_seconds: u64,
    /// Events a second of log time, and minutes of it, before the restart
    #[arg(long, env, default_value_t = 2_000)]
    restart_rate: u64,
    #[arg(long, env, default_value_t = 30)]
    restart_minutes: u64,
    #[command(flatten)]
    size: traffic::Size,
    /// Only this one
    #[arg(long, value_enum)]
    only: Option<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Insert,
    Latency,
    Restart,
    Fold,
}

fn main() {
    match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Fold(args) => println!("{}", fold::run(&args)),
    }
}

fn run(args: &Run) {
    let Run { binary, scratch, results, size, .. } = args;
    let wanted = |part| args.only.is_none_or(|only| only == part);
    let head = "# What the aggregator costs\n\nWritten by `make bench-aggregator`.\n";
    let results = Results::new(results, head);
    results.write("Machine", &table(["", ""], &machine::description()));
    let part = |part: Part, title: &str, measure: &dyn Fn() -> String| {
        if wanted(part) {
            // What lies there may be of a run that was stopped.
            let _ = fs::remove_dir_all(scratch);
            results.write(title, &measure());
        }
    };
    part(Part::Insert, "From the log into the tables", &|| insert::run(binary, scratch, *size, args.events));
    part(Part::Latency, "Until an event is seen", &|| {
        latency::run(binary, scratch, *size, args.latency_rate, args.latency_seconds)
    });
    part(Part::Restart, "After a kill", &|| {
        restart::run(binary, scratch, *size, args.restart_rate, args.restart_minutes)
    });
    part(Part::Fold, "Where the time of an event goes", &|| fold::run(&fold::Args::of(*size)));
    let _ = fs::remove_dir_all(scratch);
}
