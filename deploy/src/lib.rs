//! Footfall's binary as a library, so that its tests can start the same parts.
//!
//! - [`cli`]: the command line
//! - [`settings`]: the one TOML file, checked at boot; [`identity`]: what a standalone node makes for itself
//! - [`standalone`], [`roles`], [`supervisor`]: who runs in this process, and in which order it starts and stops
//! - [`prefork`]: several ingest processes on one address; [`reload`]: SIGHUP; [`descriptors`]: how many files there may be
//! - [`directory`]: sites, users, keys and links, as every node sees them, and how they are changed
//! - [`embedded`]: the Kafka-protocol broker and the ClickHouse engine that `footfall standalone` brings along
//! - [`operator`]: what an aggregator of its own tells over HTTP
//! - [`snippet`]: what a site's owner pastes
//! - [`migrate`]: topics and tables; [`telemetry`], [`process`]: logs, metrics, traces; [`ready`]: what is told once all
//!   is up; [`terminal`]: how a password is asked for
//! - [`load`], [`ledger`], [`audit`]: synthetic visitors, what they issued, and the oracle that holds it against
//!   ClickHouse

pub mod audit;
pub mod cli;
pub mod descriptors;
pub mod directory;
pub mod duration;
pub mod embedded;
pub mod identity;
pub mod ledger;
pub mod load;
pub mod migrate;
pub mod operator;
pub mod prefork;
pub mod process;
pub mod ready;
pub mod reload;
pub mod roles;
pub mod settings;
pub mod snippet;
pub mod standalone;
pub mod supervisor;
pub mod telemetry;
pub mod terminal;
