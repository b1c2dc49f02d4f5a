//! What a viewer costs: many subscribers of one site's live feed, beside Centrifugo with as many of one channel, and
//! beside a loop that only writes.
//!
//! Every party is a process of its own: broker, engine and the roles are the release binary, the client and the bare
//! loop are this program again. `make bench-dashboard` runs it; RESULTS.md is what it writes.
#![allow(clippy::unwrap_used, reason = "a bench may panic")]
#![allow(unreachable_pub, reason = "each module is a part of this program")]

#[path = "../../../deploy/bench/mod.rs"]
mod bench;
mod centrifugo;
mod client;
mod floor;
mod footfall;
mod frames;
mod layers;
mod run;
#[path = "../../../deploy/bench/stack.rs"]
mod stack;
mod subscriber;
mod syscalls;
mod tables;
mod tally;

use clap::{Parser, Subcommand};

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
    /// All servers, one after the other
    Run(run::Args),
    #[command(hide = true)]
    Client(client::Args),
    #[command(hide = true)]
    Floor(floor::Args),
}

fn main() {
    match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Client(args) => client::run(args),
        Command::Floor(args) => floor::run(&args),
    }
}
