//! Alerts: the rules of the sites, held against the live windows; what fires goes to the topic `footfall.alerts`, the
//! table `alerts` and the sites' webhooks.
//!
//! ```text
//! footfall.live ─▶ follower ─▶ watch (partitions, growth) ─▶ verdict ─▶ book ─▶ journal ─▶ footfall.alerts
//!                                                                       └─▶ courier ─▶ table, webhooks
//! ```
//!
//! [`growth`], [`watch`], [`verdict`] and [`book`] are pure. A change is on the log before anybody is told, and the log
//! says when everybody was: whoever takes over tells the rest, under the same id.

mod address;
mod book;
mod config;
mod courier;
mod evaluator;
mod follower;
mod growth;
mod journal;
mod metrics;
mod post;
mod signature;
#[cfg(test)]
mod tests;
mod verdict;
mod watch;

use std::{sync::Arc, time::Duration};

use footfall_schemas::{connect::KafkaSettings, directory::Directory};
use tokio::sync::watch::Receiver;

pub use config::{Alerts, Webhooks};
pub(crate) use courier::AlertTable;
pub(crate) use evaluator::Evaluator;

use crate::{config::Config, driver::WallClock, error::Error, status::Status};

/// The evaluator of the sites' rules.
pub(crate) fn evaluator<T: AlertTable>(
    directory: Receiver<Arc<Directory>>,
    (kafka, member): (&KafkaSettings, &str),
    config: &Config,
    table: Arc<T>,
    status: Arc<Status>,
    wall: WallClock,
) -> Result<Evaluator<T>, Error> {
    let webhooks = config.webhooks.clone();
    let reach = address::Reach::new(webhooks.allow.clone());
    let poster = post::Poster::new(reach, post::system_roots(), Duration::from_millis(webhooks.timeout_ms));
    let metrics = metrics::Metrics::new();
    let listed = directory.borrow().clone();
    Ok(Evaluator {
        follower: follower::Follower::new(kafka, config, member)?,
        journal: journal::Journal::new(kafka, member)?,
        courier: courier::Courier::new(table, poster, webhooks, wall.clone(), metrics.clone()),
        listed,
        directory,
        config: config.alerts.clone(),
        status,
        wall,
        metrics,
    })
}
