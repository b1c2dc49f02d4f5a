//! The aggregator: reads `footfall.events`, recognises resends, splits visits into sessions, counts, and writes every
//! event into ClickHouse exactly once.
//!
//! ```text
//! source ─records─▶ driver ─▶ partition (dedupe → session → minute, panes) ─▶ block ─▶ keep ─▶ ClickHouse
//!   ▲                 │ └─▶ live ─▶ outlet ─▶ footfall.live                              │
//!   └─── commits ─────┴──────────────────────── boundary, before the rows ◀──────────────┘
//! ```
//!
//! [`audit`] holds what was written against the log, all the time and for `footfall audit`.
//!
//! [`partition`] is pure: a function of the log. Everything that touches the world goes through [`ports`], so the
//! same driver runs in the tests over an in-memory log and store with kills, fences and lost answers.

pub mod audit;
mod block;
mod config;
mod dedupe;
mod driver;
mod error;
mod keep;
mod letters;
mod live;
mod metrics;
mod minute;
mod outlet;
mod panes;
mod partition;
mod ports;
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
pub use error::{Error, StoreError};
pub use run::{Parts, run};
pub use source::GROUP;
pub use status::{Audit, PartitionStatus, Phase, Status};
