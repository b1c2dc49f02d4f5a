//! What the aggregator costs.
//!
//! `fold` measures in memory where the time of an event goes.
#![allow(clippy::unwrap_used, reason = "a bench may panic")]
#![allow(unreachable_pub, reason = "each module is a part of this program")]

mod fold;
mod report;
mod traffic;

use clap::{Parser, Subcommand};

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
    /// Parse, fold and encode in memory: CPU time by stage
    Fold(fold::Args),
}

fn main() {
    match Cli::parse().command {
        Command::Fold(args) => fold::run(&args),
    }
}
