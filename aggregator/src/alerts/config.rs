//! `[aggregator.alerts]` and `[aggregator.webhooks]`

use footfall_schemas::network::Network;
use serde::Deserialize;

use crate::error::Error;

/// When rules are held against what is told.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alerts {
    /// How long a node that takes over listens first: every partition that has something tells it within a few seconds.
    pub warm_up_ms: u64,
    /// A partition whose clock stands still for longer stops the rules of its sites: its silence is not theirs.
    pub partition_silence_ms: u64,
}

/// How webhooks are posted to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Webhooks {
    /// Networks that are not public and may be posted to all the same.
    pub allow: Vec<Network>,
    /// From the name's resolution to the answer.
    pub timeout_ms: u64,
    /// Tries before a webhook is given up.
    pub tries: u32,
    /// Pause after the first try; doubles, with a quarter of jitter.
    pub backoff_ms: u64,
    /// POSTs at once.
    pub in_flight: usize,
    /// Firings on their way. Full: a firing waits in the rules' state, where the newest of each rule wins.
    pub pending: usize,
}

impl Default for Alerts {
    fn default() -> Self {
        Self { warm_up_ms: 30_000, partition_silence_ms: 10_000 }
    }
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            timeout_ms: 10_000,
            tries: 10,
            backoff_ms: 2_000,
            in_flight: 16,
            pending: 1_000,
        }
    }
}

impl Webhooks {
    /// Refuses at boot what could never work.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let invalid = |field, reason| Err(Error::Config { field, reason });
        if self.timeout_ms == 0 || self.backoff_ms == 0 {
            return invalid("webhooks.timeout_ms / webhooks.backoff_ms", "must be at least 1");
        }
        if self.tries == 0 || self.tries > 20 {
            return invalid("webhooks.tries", "must lie between 1 and 20: the pauses double");
        }
        if self.in_flight == 0 || self.in_flight > 10_000 || self.pending == 0 {
            return invalid(
                "webhooks.in_flight / webhooks.pending",
                "must be at least 1, in_flight at most 10000",
            );
        }
        Ok(())
    }
}
