//! `footfall`: one binary, four roles.

use std::process::ExitCode;

use footfall::{
    cli,
    embedded::clickhouse::{ENGINE_SUBCOMMAND, engine_main},
};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    // Before any thread is started: the engine's sandbox binds the thread that asks for it and its children.
    if args.next().is_some_and(|command| command == ENGINE_SUBCOMMAND) {
        engine_main(args);
    }
    cli::main()
}
