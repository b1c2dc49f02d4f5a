//! Instruments of alerts, of the meter `footfall.aggregator`.

use footfall_schemas::alert::Alert;
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge},
};

#[derive(Clone)]
pub(crate) struct Metrics {
    alerts: Counter<u64>,
    webhooks: Counter<u64>,
    /// Firings open now.
    pub(crate) open: Gauge<u64>,
    /// Sites with rules that are not held against anything now.
    pub(crate) suspended: Gauge<u64>,
}

/// What became of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Delivered,
    /// It failed and is tried again.
    Retried,
    /// It failed for the last time.
    GivenUp,
    /// It leads to an address that is not allowed.
    Refused,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retried => "retried",
            Self::GivenUp => "given_up",
            Self::Refused => "refused",
        }
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = global::meter("footfall.aggregator");
        let counter = |name, unit, says| {
            let counter = meter.u64_counter(name).with_unit(unit).with_description(says).build();
            // Told from the start: a rate that begins with the first failure would miss it.
            counter.add(0, &[]);
            counter
        };
        let gauge = |name, unit, says| meter.u64_gauge(name).with_unit(unit).with_description(says).build();
        Self {
            alerts: counter("footfall.aggregator.alerts", "{alert}", "Firings opened and resolved"),
            webhooks: counter("footfall.aggregator.webhooks", "{attempt}", "Tries to post to a webhook"),
            open: gauge("footfall.aggregator.alerts.open", "{alert}", "Firings that are open"),
            suspended: gauge(
                "footfall.aggregator.alerts.suspended",
                "{site}",
                "Sites whose rules wait for a partition that does not tell",
            ),
        }
    }

    pub(crate) fn changed(&self, alert: &Alert) {
        let state = if alert.is_open() { "opened" } else { "resolved" };
        let attributes = [
            KeyValue::new("footfall.site", alert.site.to_string()),
            KeyValue::new("footfall.alert.kind", alert.kind.as_str()),
            KeyValue::new("footfall.alert.state", state),
        ];
        self.alerts.add(1, &attributes);
    }

    pub(crate) fn tried(&self, outcome: Outcome) {
        self.webhooks.add(1, &[KeyValue::new("footfall.outcome", outcome.as_str())]);
    }
}
