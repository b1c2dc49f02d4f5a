//! The dashboard role: merges what the aggregators and the ingest nodes tell and pushes it to viewers.
//!
//! ```text
//! footfall.live ─────┐
//! footfall.presence ─┼▶ source ─▶ hub: partition + presence + alerts ─▶ view ─▶ feed ─┬▶ subscriber ─▶ viewer's socket
//! footfall.alerts ───┘                                                                └▶ sse ─▶ viewer's stream
//! ClickHouse ─┬▶ filtered: filter_query ─▶ view ─▶ feed, as above
//!             └▶ archive: history, day, firings, doctor, export ─▶ answers
//! footfall.events ─▶ tails: tail ─▶ subscriber, sse
//! ```
//!
//! The core is pure and takes time as an argument: [`footfall_schemas::partition_view`] (what one partition tells),
//! [`presence`] (who is connected), [`alerts`] (what fired), [`goals`] (what was reached), [`view`] (all of it merged for
//! a site), [`feed`] (positions, changes kept for a resume, conflation), [`selection`] (a filter as SQL) and [`tail`] (the
//! newest events). Around it: [`source`] reads Kafka, [`hub`] ticks, [`feeds`] follows the sites that come and go,
//! [`filtered`] asks for views of what matches a filter, [`tails`] reads events while somebody watches them,
//! [`subscription`] is what a viewer watches, [`subscriber`] serves a socket, [`sse`] a stream, [`server`] accepts
//! connections, [`routes`] and [`answers`] name the paths, [`auth`] lets people in, [`archive`] asks ClickHouse.

mod alerts;
mod answers;
mod archive;
mod assets;
mod auth;
mod clock;
mod config;
mod day;
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

pub use auth::login_url;
pub use config::{Config, InvalidConfig};
pub use error::Error;
pub use run::{MetricsText, Parts, run};
