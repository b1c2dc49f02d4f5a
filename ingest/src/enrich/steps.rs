//! What each step of enrichment did, as closed labels. Every number counts events.
//!
//! A batch counts in an array of its own and adds it to the node's once: next to nothing per event.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use opentelemetry::{KeyValue, metrics::Meter};

macro_rules! steps {
    ($($variant:ident = $step:literal $outcome:literal,)*) => {
        /// What a step did to an event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Did {
            $($variant,)*
        }

        impl Did {
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),*];

            /// Step and outcome.
            pub(crate) fn labels(self) -> (&'static str, &'static str) {
                match self { $(Self::$variant => ($step, $outcome),)* }
            }
        }
    };
}

// In the order of the steps.
steps! {
    VisitorDerived = "visitor" "derived",
    VisitorToken = "visitor" "token",
    VisitorServer = "visitor" "server",
    VisitorBadToken = "visitor" "bad_token",
    BotMarked = "bot" "marked",
    BotHuman = "bot" "human",
    AgentNamed = "agent" "named",
    AgentUnknown = "agent" "unknown",
    GeographyDatabase = "geography" "database",
    GeographyTimeZone = "geography" "time_zone",
    GeographyUnknown = "geography" "unknown",
    PageClean = "page" "clean",
    PageQueryKept = "page" "query_kept",
    PageRule = "page" "path_rule",
    PageIgnored = "page" "ignored",
    CampaignNamed = "campaign" "named",
    CampaignClick = "campaign" "click_id",
    CampaignNone = "campaign" "none",
    ReferrerExternal = "referrer" "external",
    ReferrerInternal = "referrer" "internal",
    ReferrerNone = "referrer" "none",
}

const OUTCOMES: usize = Did::ALL.len();

/// What was done to the events of one batch.
#[derive(Debug, Default)]
pub(crate) struct StepTally([u32; OUTCOMES]);

impl StepTally {
    pub(crate) fn count(&mut self, did: Did) {
        self.0[did as usize] += 1;
    }

    pub(crate) fn count_all(&mut self, did: Did, events: usize) {
        self.0[did as usize] += events as u32;
    }

    #[cfg(test)]
    pub(crate) fn of(&self, did: Did) -> u32 {
        self.0[did as usize]
    }
}

/// What was done to the events of a node since it started.
#[derive(Debug, Default)]
pub(crate) struct Steps([AtomicU64; OUTCOMES]);

impl Steps {
    pub(crate) fn add(&self, tally: &StepTally) {
        for (total, events) in self.0.iter().zip(tally.0) {
            if events > 0 {
                total.fetch_add(events.into(), Ordering::Relaxed);
            }
        }
    }

    /// Read when metrics are collected, and only then.
    pub(crate) fn observe(self: &Arc<Self>, meter: &Meter) {
        let steps = Arc::clone(self);
        meter
            .u64_observable_counter("footfall.ingest.enrich.steps")
            .with_unit("{event}")
            .with_description("Events that a step of enrichment has passed, by step and outcome")
            .with_callback(move |observer| {
                for (did, total) in Did::ALL.iter().zip(&steps.0) {
                    let (step, outcome) = did.labels();
                    let attributes =
                        [KeyValue::new("footfall.step", step), KeyValue::new("footfall.outcome", outcome)];
                    observer.observe(total.load(Ordering::Relaxed), &attributes);
                }
            })
            .build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_added_to_the_node_and_no_label_comes_twice() {
        let steps = Steps::default();
        for _ in 0..2 {
            let mut tally = StepTally::default();
            tally.count(Did::PageClean);
            tally.count_all(Did::BotHuman, 3);
            steps.add(&tally);
        }
        let total = |did: Did| steps.0[did as usize].load(Ordering::Relaxed);
        assert_eq!((total(Did::PageClean), total(Did::BotHuman), total(Did::BotMarked)), (2, 6, 0));
        let labels: std::collections::HashSet<_> = Did::ALL.iter().map(|did| did.labels()).collect();
        assert_eq!(labels.len(), OUTCOMES);
    }
}
