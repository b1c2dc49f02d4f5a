//! The aggregator: reads `footfall.events`, recognises resends, splits visits into sessions, counts, and writes every
//! event into ClickHouse exactly once.
//!
//! ```text
//! source ─records─▶ driver ─▶ partition (dedupe → session → minute, panes) ─▶ block ─▶ keep ─▶ ClickHouse
//!   ▲                 │ └─▶ live ─▶ outlet ─▶ footfall.live                              │
//!   └─── commits ─────┴──────────────────────── boundary, before the rows ◀──────────────┘
//! ```
//!
//! One member also holds the sites' alert rules against the live windows ([`alerts`]).
//! [`audit`] holds what was written against the log, all the time and for `footfall audit`.
//!
//! [`partition`] is pure: a function of the log. Everything that touches the world goes through [`ports`], so the
//! same driver runs in the tests over an in-memory log and store with kills, fences and lost answers.

mod alerts;
pub mod audit;
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
mod pairs;
mod panes;
mod partition;
mod payloads;
mod ports;
mod record;
mod refusal;
mod rows;
mod run;
mod sample;
mod session;
mod site;
mod snapshot;
mod source;
mod status;
mod store;
mod trace;
mod values;
mod work;

#[cfg(test)]
mod kafka_tests;
#[cfg(test)]
mod partition_tests;
#[cfg(test)]
mod sim;

pub use alerts::{Alerts, Webhooks};
pub use config::Config;
pub use error::{Error, StoreError};
pub use run::{Parts, run};
pub use source::GROUP;
pub use status::{Audit, PartitionStatus, Phase, Status};
