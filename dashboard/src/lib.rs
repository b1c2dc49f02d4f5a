//! The dashboard role: merges what the aggregators and the ingest nodes tell and pushes it to viewers.
//!
//! ```text
//! footfall.live ──────┐
//! footfall.presence ──┴▶ source ─▶ hub: partition + presence ─▶ view ─▶ feed ─▶ subscriber ─▶ viewer's socket
//! ClickHouse ──▶ history ─▶ /api/history
//! footfall.directory ──▶ (directory) ─▶ accounts ─▶ access: may this be watched, may that be changed?
//! ```
//!
//! The core is pure and takes time as an argument: [`footfall_schemas::partition_view`] (what one partition tells),
//! [`presence`] (who is connected), [`view`] (the two merged for a site) and [`feed`] (positions, changes kept for a
//! resume, conflation). Around it: [`source`] reads Kafka, [`hub`] ticks, [`subscriber`] serves a socket, [`server`]
//! accepts connections, [`routes`] names the paths, [`history`] asks ClickHouse.
//!
//! Who may do what stands in the [directory](footfall_schemas::directory): [`auth`] tells who asks, by a session's
//! cookie, an API key, a share link or nothing, and what they may do as it stands now; [`accounts`] changes it through
//! [`directory::Edit`]. A socket asks again whenever the directory changes.

mod accounts;
mod assets;
mod auth;
mod clock;
mod config;
pub mod directory;
mod error;
mod feed;
mod history;
mod hub;
mod metrics;
mod pages;
pub mod password;
mod presence;
mod routes;
mod run;
mod server;
mod source;
mod subscriber;
mod upgrade;
mod view;

pub use auth::{login_url, set_up_url};
pub use config::{Config, InvalidConfig};
pub use error::Error;
pub use run::{MetricsText, Parts, run};
