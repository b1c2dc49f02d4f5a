//! The dashboard role: merges what the aggregators and the ingest nodes tell and pushes it to viewers.
//!
//! ```text
//! footfall.live ─────┐
//! footfall.presence ─┼▶ source ─▶ hub: partition + presence + alerts ─▶ view ─▶ feed ─┬▶ subscriber ─▶ viewer's socket
//! footfall.alerts ───┘                                                                └▶ sse ─▶ viewer's stream
//! ClickHouse ─┬▶ filtered: filter_query ─▶ view ─▶ feed, as above
//!             └▶ archive: history, day, firings, doctor, export ─▶ routes/api
//! footfall.events ─▶ tails: tail ─▶ subscriber, sse
//! footfall.directory ──▶ (directory) ─▶ accounts ─▶ access: may this be watched, may that be changed?
//! ```
//!
//! The core is pure and takes time as an argument: [`footfall_schemas::partition_view`] (what one partition tells),
//! [`presence`] (who is connected), [`alerts`] (what fired), [`goals`] (what was reached), [`view`] (all of it merged for
//! a site), [`feed`] (positions, changes kept for a resume, conflation), [`selection`] (a filter as SQL) and [`tail`] (the
//! newest events). Around it: [`source`] reads Kafka, [`hub`] ticks, [`feeds`] follows the sites that come and go,
//! [`filtered`] asks for views of what matches a filter, [`tails`] reads events while somebody watches them,
//! [`subscription`] is what a viewer watches, [`subscriber`] serves a socket, [`sse`] a stream, [`server`] accepts
//! connections, [`routes`] names the paths, [`archive`] asks ClickHouse.
//!
//! Who may do what stands in the [directory](footfall_schemas::directory): [`auth`] tells who asks, by a session's
//! cookie, an API key, a share link or nothing, and what they may do as it stands now; [`accounts`] changes it through
//! [`directory::Edit`]. A socket asks again whenever the directory changes.

mod accounts;
mod alerts;
mod archive;
mod assets;
mod auth;
mod clock;
mod config;
mod day;
pub mod directory;
mod doctor;
mod error;
mod export;
mod feed;
mod feeds;
mod filter_query;
mod filtered;
mod firings;
mod goals;
mod history;
mod hub;
mod metrics;
mod pages;
pub mod password;
mod presence;
mod routes;
mod run;
mod selection;
mod server;
mod source;
mod sse;
mod subscriber;
mod subscription;
mod tail;
mod tails;
mod upgrade;
mod view;

pub use auth::{login_url, set_up_url};
pub use config::{Config, InvalidConfig};
pub use error::Error;
pub use run::{MetricsText, Parts, run};
