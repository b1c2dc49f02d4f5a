//! What a node costs: memory by connection, CPU by event, time from frame to ack, and where the time goes.
//!
//! Three parties, each a process of its own: the node under test and the broker are the release binary, the client is
//! this program again. `make bench-ingest` and `make bench-hold` run it; RESULTS.md is what it writes.
#![allow(clippy::unwrap_used, reason = "a bench may panic")]
#![allow(unreachable_pub, reason = "each module is a part of this program")]

#[path = "../../../deploy/bench/mod.rs"]
mod bench;
mod client;
mod frames;
mod hold;
mod ingest;
mod layers;
mod node;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::bench::report::Results;

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
    /// Memory, CPU, latency and a profile of one node
    Ingest(ingest::Args),
    /// Many connections over several nodes, held with heartbeats
    Hold(hold::Args),
    #[command(hide = true)]
    LoadClient(client::load::Args),
    #[command(hide = true)]
    HoldClient(client::hold::Args),
}

/// What both benches are told.
#[derive(Debug, Clone, clap::Args)]
struct Place {
    /// The release binary
    #[arg(long, value_name = "FILE")]
    binary: PathBuf,
    /// A directory on a disk, for the broker's log and the nodes' settings; emptied first
    #[arg(long, value_name = "DIR")]
    scratch: PathBuf,
    /// Where the tables go
    #[arg(long, value_name = "FILE")]
    results: PathBuf,
}

impl Place {
    fn results(&self) -> Results {
        let head = "# What a node costs\n\nWritten by `make bench-ingest` and `make bench-hold`.\n";
        Results::new(&self.results, head)
    }
}

fn main() {
    match Cli::parse().command {
        Command::Ingest(args) => ingest::run(&args),
        Command::Hold(args) => hold::run(&args),
        Command::LoadClient(args) => client::load::run(args),
        Command::HoldClient(args) => client::hold::run(&args),
    }
}
