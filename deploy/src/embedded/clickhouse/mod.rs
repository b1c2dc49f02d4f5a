//! The ClickHouse engine that `footfall standalone` brings along: a real ClickHouse HTTP server on loopback.
//!
//! `process` starts this same binary again as a child (`footfall engine …`), waits until it answers and stops
//! it; in the child, `library` loads libchdb and hands it the command line, after `sandbox` has taken the file
//! system and the network away from it. `server_config` writes what that server reads: its limits and its users.
//! The pipe on the child's stdin is its lifetime: when the parent goes, however it goes, the child stops.

mod config;
mod error;
mod library;
mod login;
mod process;
mod sandbox;
mod server_config;

pub use config::{ADMIN, DATABASE, EngineConfig, READER, WRITER, default_library_path};
pub use error::EngineError;
pub use library::engine_main;
pub use process::Engine;

/// The release of `@chdb/lib-linux-x64-gnu` that `deploy/engine/package-lock.json` pins with its hash.
pub const LIBRARY_VERSION: &str = "26.7.3-stable.1";

/// Hidden subcommand under which the binary becomes the engine's child process.
pub const ENGINE_SUBCOMMAND: &str = "engine";
