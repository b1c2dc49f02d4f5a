//! Why the dashboard role could not go on.

use rdkafka::error::KafkaError;

use crate::config::InvalidConfig;

/// A fault that waiting does not heal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    #[error("[kafka]: the consumer of the live topics cannot be made: {0}")]
    Consumer(#[source] KafkaError),
    #[error("the dashboard's listener failed: {0}")]
    Listener(#[source] std::io::Error),
    #[error("the live view stopped: {0}")]
    Hub(String),
}
