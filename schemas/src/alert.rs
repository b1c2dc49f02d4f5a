//! A rule that fires: what is told of it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use crate::{SiteId, time::minute_of};

macro_rules! kinds {
    ($($(#[doc = $doc:expr])* $variant:ident = $text:literal,)*) => {
        /// Kind of a rule.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
        pub enum AlertKind {
            $($(#[doc = $doc])* #[serde(rename = $text)] $variant,)*
        }

        impl AlertKind {
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

kinds! {
    /// At least so many.
    Threshold = "threshold",
    /// So many times as many as before.
    Change = "change",
    /// None any more.
    Silence = "silence",
}

/// A firing. Body of a webhook's POST, and a row of the table `alerts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Alert {
    /// A function of site, rule and `opened_at`: whoever is told twice can tell.
    #[schemars(with = "String")]
    pub id: Uuid,
    pub site: SiteId,
    /// Name of the rule.
    pub rule: String,
    pub kind: AlertKind,
    /// The minute in which it opened: its start, in log time (ms since 1970).
    pub opened_at: i64,
    /// Log time (ms since 1970) at which it was over; absent while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<i64>,
    /// What was counted when it opened; minutes without any, of kind `silence`.
    pub value: f64,
    /// What `value` was held against.
    pub threshold: f64,
    /// For people, on one line.
    pub text: String,
}

/// Value of a record on `footfall.alerts`. Key: `site/rule`. The newest is the rule's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AlertRecord {
    pub alert: Alert,
    /// The table has it, and every webhook was told or given up: whoever evaluates next need not.
    pub settled: bool,
}

impl Alert {
    /// The start of `clock`'s minute, and the id of a firing that opens then.
    pub fn opening(site: &SiteId, rule: &str, clock: i64) -> (i64, Uuid) {
        let opened_at = minute_of(clock);
        // A site's key has no slash, so no two firings are written alike.
        let text = format!("{site}/{rule}/{opened_at}");
        (opened_at, Uuid::from_u128(xxh3_128(text.as_bytes())))
    }

    pub fn is_open(&self) -> bool {
        self.resolved_at.is_none()
    }

    /// Grows with every change of the firing.
    pub fn version(&self) -> u64 {
        u64::try_from(self.resolved_at.unwrap_or(self.opened_at)).unwrap_or(0)
    }
}

impl AlertRecord {
    pub fn key(&self) -> String {
        format!("{}/{}", self.alert.site, self.alert.rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const NOON: i64 = 1_800_000_000_000;

    #[rstest]
    #[case::a_second_later("a", "b", NOON + 1_000, true)]
    #[case::at_the_minutes_end("a", "b", NOON + 59_999, true)]
    #[case::a_minute_later("a", "b", NOON + 60_000, false)]
    #[case::another_rule("a", "c", NOON, false)]
    #[case::another_site("c", "b", NOON, false)]
    fn a_firing_of_the_same_minute_is_the_same(
        #[case] site: &str,
        #[case] rule: &str,
        #[case] clock: i64,
        #[case] same: bool,
    ) {
        let first = Alert::opening(&"a".parse().unwrap(), "b", NOON);
        assert_eq!(first.0, NOON);
        assert_eq!(Alert::opening(&site.parse().unwrap(), rule, clock) == first, same);
    }
}
