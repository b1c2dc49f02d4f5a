//! How long a site has been over its rate, and which share of the lesser events its trackers should leave out. Pure.

use std::time::Duration;

use footfall_schemas::{EventKind, tracker::ServerFrame};
use tokio::time::Instant;

/// So long without a refusal, and the site is within its rate again.
const CALM: Duration = Duration::from_secs(2);
/// How long trackers leave events out. Told again while it lasts.
const FOR_MS: u32 = 10_000;
/// Over the rate for so long: so many percent. A moment is what the burst is for, and says nothing.
const STEPS: [(Duration, u8); 3] =
    [(Duration::from_secs(30), 90), (Duration::from_secs(10), 75), (Duration::from_secs(3), 50)];

/// Of one site on this node.
#[derive(Debug, Default)]
pub(crate) struct Excess {
    /// Since when it lasts, and when it was last seen.
    seen: Option<(Instant, Instant)>,
}

/// What to leave out of the lesser events, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share(u8);

impl Share {
    pub(crate) fn frame(self) -> ServerFrame {
        // A view says that somebody was there, a custom event what the site wants to know.
        let kinds = vec![EventKind::Engagement];
        ServerFrame::Sample { drop_percent: self.0, kinds, for_ms: FOR_MS }
    }
}

impl Excess {
    /// The rate was exceeded at `now`. What the sender should leave out, once it has been for some seconds.
    pub(crate) fn exceeded(&mut self, now: Instant) -> Option<Share> {
        let since = match self.seen {
            Some((since, last)) if now.duration_since(last) <= CALM => since,
            _ => now,
        };
        self.seen = Some((since, now));
        let lasts = now.duration_since(since);
        STEPS.into_iter().find(|(step, _)| lasts >= *step).map(|(_, percent)| Share(percent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// The share told at the last of these times (ms), each an excess.
    fn told(times: impl IntoIterator<Item = u64>) -> Option<u8> {
        let (mut excess, start) = (Excess::default(), Instant::now());
        let last = times.into_iter().map(|at| excess.exceeded(start + Duration::from_millis(at))).last();
        last.unwrap().map(|Share(percent)| percent)
    }

    #[rstest]
    #[case::at_once(0, None)]
    #[case::a_moment(2_900, None)]
    #[case::three_seconds(3_000, Some(50))]
    #[case::ten_seconds(10_000, Some(75))]
    #[case::half_a_minute(30_000, Some(90))]
    #[case::an_hour(3_600_000, Some(90))]
    fn the_longer_it_lasts_the_more_is_left_out(#[case] lasts_ms: u64, #[case] share: Option<u8>) {
        assert_eq!(told((0..=lasts_ms).step_by(100)), share);
    }

    #[test]
    fn after_two_calm_seconds_it_begins_anew() {
        assert_eq!(told([0, 2_000, 4_000]), Some(50));
        assert_eq!(told([0, 2_000, 4_001]), None);
    }
}
