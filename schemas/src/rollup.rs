//! What is counted: dimensions and measures of `rolling_counts` and of the live view.

use serde::{Deserialize, Serialize};

use crate::EventRecord;

macro_rules! dimensions {
    ($($(#[doc = $doc:expr])* $variant:ident = $text:literal,)*) => {
        /// By what events are counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
        pub enum Dimension {
            $($(#[doc = $doc])* #[serde(rename = $text)] $variant,)*
        }

        impl Dimension {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

dimensions! {
    /// The whole site; the only value is the empty text.
    Total = "total",
    Page = "page",
    Referrer = "referrer",
    Channel = "channel",
    Campaign = "campaign",
    Country = "country",
    Browser = "browser",
    System = "system",
    Device = "device",
    /// Custom events by name.
    Event = "event",
    /// Sessions by the page they were entered on. From here on the dimensions are of sessions.
    Entry = "entry",
    /// Sessions by the page they were left from.
    Exit = "exit",
}

impl Dimension {
    /// The dimensions of `rolling_counts`. The others are of sessions: an event that comes late can change what was
    /// counted by them.
    pub const OF_EVENTS: &[Self] = Self::ALL.split_at(Self::Entry as usize).0;

    /// The value under which this event is counted; `None` when it is not counted by this dimension.
    /// [`Dimension::Total`] and [`Dimension::Page`] count every event, so that their sums equal the rows;
    /// [`Dimension::Event`] counts custom events; [`Dimension::Entry`] and [`Dimension::Exit`] count sessions and no
    /// event; the others count page views.
    pub fn value_of<'a>(self, event: &'a EventRecord) -> Option<&'a str> {
        use crate::EventKind::{Custom, PageView};
        let of_view = |value: &'a str| (event.kind == PageView && !value.is_empty()).then_some(value);
        match self {
            Self::Total => Some(""),
            Self::Page => Some(&event.path),
            Self::Event => (event.kind == Custom).then_some(&event.name),
            Self::Referrer => of_view(&event.referrer_host),
            Self::Channel => of_view(&event.channel),
            Self::Campaign => of_view(&event.utm_campaign),
            Self::Country => of_view(&event.country),
            Self::Browser => of_view(&event.browser),
            Self::System => of_view(&event.system),
            Self::Device => of_view(&event.device),
            Self::Entry | Self::Exit => None,
        }
    }
}

/// What is counted of a cell (site, minute, dimension, value, partition). Absolute values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Measures {
    /// Events of every kind.
    pub events: u64,
    pub views: u64,
    /// Distinct visitors; partitions hold disjoint visitors, so these add up over partitions, not over minutes.
    pub visitors: u64,
    pub engaged_ms: u64,
}

impl std::ops::AddAssign for Measures {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.views += other.views;
        self.visitors += other.visitors;
        self.engaged_ms += other.engaged_ms;
    }
}
