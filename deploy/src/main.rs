//! `footfall`: one binary, four roles.

use std::process::ExitCode;

use footfall::{
    cli,
    embedded::clickhouse::{ENGINE_SUBCOMMAND, engine_main},
};

// An idle connection is a few small blocks: what glibc adds to each, and keeps after a burst, would be most of it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    // Before any thread is started: the engine's sandbox binds the thread that asks for it and its children.
    if args.next().is_some_and(|command| command == ENGINE_SUBCOMMAND) {
        engine_main(args);
    }
    cli::main()
}
