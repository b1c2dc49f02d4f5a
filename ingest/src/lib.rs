//! Takes events from browsers and acks them once Kafka has them.
//!
//! A connection comes in by the [`listener`] and the [`routes`]; a tracker's socket by hand ([`upgrade`]) and then has
//! a task of its own ([`connection`]), a request goes through the [`fallback`] or the [`pixel`]. All give their batches
//! to the [`intake`]: limit → visitor → [`validate`] → [`enrich`] → [`batcher`]. On a thread of its own the [`shipper`]
//! packs batches into records and sends them to the [`log`], or sets them down in the [`spool`] while Kafka takes
//! nothing. The delivery report settles the batch's [`receipt`], and only then is there an ack. A site's own servers send
//! through the [`server_api`]. The tracker itself is served, too ([`scripts`]).

mod answers;
mod batcher;
mod body;
mod clock;
pub mod config;
mod connection;
mod conversation;
mod cut;
mod dead_letter;
mod demo;
mod echo;
mod engine;
mod enrich;
pub mod error;
mod excess;
mod fallback;
pub mod frame;
mod hand_over;
mod intake;
mod lane;
mod ledger;
mod limits;
mod line;
mod listener;
mod log;
mod metrics;
pub mod network;
mod node;
mod peer;
mod pixel;
mod place;
mod presence;
pub mod proxy_protocol;
mod rates;
pub mod raw;
mod receipt;
mod reload;
mod reply;
mod room;
mod routes;
mod run;
mod scripts;
mod seldom;
mod server_api;
mod server_batch;
mod shipper;
pub mod sift;
mod signature;
mod sites;
mod socket;
pub mod spool;
mod tls;
mod trace;
mod transport;
mod upgrade;
pub mod validate;
pub mod visitor;
pub mod web_url;
mod wheel;

pub use config::Config;
pub use error::Error;
pub use listener::{Listener, Listeners, Speaks};
pub use reload::Reload;
pub use run::{Parts, run};
pub use scripts::{Script, scripts};
pub use tls::TlsError;
