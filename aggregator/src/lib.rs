//! The aggregator: reads `footfall.events`, recognises resends, splits visits into sessions, counts, and writes every
//! event into ClickHouse exactly once.
//!
//! ```text
//! source ─records─▶ driver ─▶ partition (dedupe → session → minute, panes) ─▶ block ─▶ keep ─▶ ClickHouse
//!   ▲                 │ └─▶ live ─▶ outlet ─▶ footfall.live                              │
//!   └─── commits ─────┴──────────────────────── boundary, before the rows ◀──────────────┘
//! ```
//!
//! [`partition`] is pure: a function of the log. Everything that touches the world goes through [`ports`], so the
//! same driver runs in the tests over an in-memory log and store with kills, fences and lost answers.

#[doc(hidden)]
pub mod bench;
mod block;
mod config;
mod dedupe;
mod dictionary;
mod driver;
mod error;
mod keep;
mod letters;
mod live;
mod metrics;
mod minute;
mod native;
mod outlet;
mod panes;
mod partition;
mod ports;
mod refusal;
mod run;
mod session;
mod snapshot;
mod source;
mod status;
mod store;
mod trace;

#[cfg(test)]
mod kafka_tests;
#[cfg(test)]
mod sim;

pub use config::Config;
pub use error::Error;
pub use run::{Parts, run};
pub use status::{PartitionStatus, Phase, Status};
