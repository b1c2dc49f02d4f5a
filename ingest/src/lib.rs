//! Takes events from browsers and acks them once Kafka has them.
//!
//! A connection comes in by the [`listener`] and the [`routes`]; a tracker's socket by hand ([`upgrade`]) and then has
//! a task of its own ([`connection`]), a request goes through the [`fallback`]. Both give their batches to the
//! [`intake`]: limit → visitor → [`validate`] → [`enrich`] → [`batcher`]. On a thread of its own the [`shipper`] packs
//! batches into records and sends them to the [`log`], or sets them down in the [`spool`] while Kafka takes nothing. The
//! delivery report settles the batch's [`receipt`], and only then is there an ack.

mod agent;
mod answers;
mod assets;
mod batcher;
mod channel;
mod clock;
pub mod config;
mod connection;
mod dead_letter;
mod enrich;
pub mod error;
mod fallback;
mod intake;
mod lane;
mod limits;
mod listener;
mod log;
mod metrics;
pub mod network;
mod node;
mod presence;
mod receipt;
mod room;
mod routes;
mod run;
mod shipper;
mod sites;
pub mod spool;
mod transport;
mod upgrade;
pub mod validate;
pub mod visitor;
mod zones;

pub use config::Config;
pub use error::Error;
pub use run::{Parts, run};
