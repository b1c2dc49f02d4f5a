//! Splits a visitor's events into sessions: a function of the log's order and of nothing else.

use std::collections::HashMap;

use footfall_schemas::{
    EventId, SessionId, SiteId, VisitorId,
    time::{MINUTE_MS, SESSION_GAP_MS},
};
use serde::{Deserialize, Serialize};

/// Sessions remembered of one visitor: the newest and a few that late events may still join.
const MAX_VISITS: usize = 4;
/// A visit is forgotten this long after log time has passed its last event by the gap.
const ALLOWANCE_MS: i64 = 5 * MINUTE_MS;

/// Visits of one site's visitors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sessions {
    visitors: HashMap<u64, Vec<Visit>>,
    swept_at: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Visit {
    session: u64,
    /// Event times.
    first: i64,
    last: i64,
    /// Log time of its last event; not before `last`.
    touched: i64,
}

impl Visit {
    fn is_forgotten(&self, log_time: i64) -> bool {
        log_time > self.touched + SESSION_GAP_MS + ALLOWANCE_MS
    }

    fn joins(&self, at: i64) -> bool {
        at < self.last + SESSION_GAP_MS && at > self.first - SESSION_GAP_MS
    }
}

impl Sessions {
    /// The event's session, and whether the event starts it. An event that comes late joins the session it lies in
    /// or next to; the newest, when there are several.
    pub(crate) fn assign(
        &mut self,
        site: &SiteId,
        visitor: VisitorId,
        id: EventId,
        at: i64,
        log_time: i64,
    ) -> (SessionId, bool) {
        let visits = self.visitors.entry(visitor.0).or_default();
        // Here and not only in the sweep: when something is forgotten must not depend on when the sweep ran.
        visits.retain(|visit| !visit.is_forgotten(log_time));
        if let Some(visit) = visits.iter_mut().filter(|visit| visit.joins(at)).max_by_key(|visit| visit.last)
        {
            visit.first = visit.first.min(at);
            visit.last = visit.last.max(at);
            visit.touched = visit.touched.max(log_time);
            return (SessionId(visit.session), false);
        }
        let session = SessionId::starting_with(site, visitor, id);
        if visits.len() == MAX_VISITS {
            let oldest = (0..MAX_VISITS).min_by_key(|index| visits[*index].touched).unwrap_or(0);
            visits.remove(oldest);
        }
        visits.push(Visit { session: session.0, first: at, last: at, touched: log_time });
        (session, true)
    }

    /// Frees memory; changes nothing that is seen.
    pub(crate) fn sweep(&mut self, log_time: i64) {
        if log_time.saturating_sub(self.swept_at) >= MINUTE_MS {
            self.swept_at = log_time;
            self.visitors.retain(|_, visits| {
                visits.retain(|visit| !visit.is_forgotten(log_time));
                !visits.is_empty()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use footfall_schemas::{Sequence, StreamId};
    use proptest::prelude::*;
    use rstest::rstest;

    const DAY: i64 = 24 * 60 * MINUTE_MS;

    fn assign(sessions: &mut Sessions, sequence: u32, at: i64, log_time: i64) -> (SessionId, bool) {
        let site = SiteId::try_from("demo").unwrap();
        let id = EventId::new(StreamId::from_parts(1, 1), Sequence::new(sequence).unwrap());
        sessions.assign(&site, VisitorId(7), id, at, log_time)
    }

    #[rstest]
    #[case::at_once(0, false)]
    #[case::just_before_the_gap(SESSION_GAP_MS - 1, false)]
    #[case::at_the_gap(SESSION_GAP_MS, true)]
    #[case::the_next_day(DAY, true)]
    #[case::late_but_near(1 - SESSION_GAP_MS, false)]
    #[case::late_and_far(-SESSION_GAP_MS, true)]
    fn a_session_ends_with_thirty_minutes_of_silence(#[case] later: i64, #[case] starts: bool) {
        let mut sessions = Sessions::default();
        let (first, started) = assign(&mut sessions, 1, DAY, DAY);
        assert!(started);
        let (second, started) = assign(&mut sessions, 2, DAY + later, DAY + later.max(0));
        assert_eq!((second != first, started), (starts, starts));
    }

    #[test]
    fn what_was_kept_offline_becomes_one_session_of_its_own() {
        let mut sessions = Sessions::default();
        let (now, _) = assign(&mut sessions, 9, DAY, DAY);
        let (old, started) = assign(&mut sessions, 1, DAY - 10 * SESSION_GAP_MS, DAY + 1);
        assert!(started && old != now);
        assert_eq!(assign(&mut sessions, 2, DAY - 10 * SESSION_GAP_MS + 5, DAY + 2), (old, false));
        assert_eq!(assign(&mut sessions, 10, DAY + 3, DAY + 3), (now, false));
    }

    proptest! {
        #[test]
        fn when_memory_is_freed_does_not_matter(
            events in prop::collection::vec((0..60 * MINUTE_MS, 0..90 * MINUTE_MS, any::<bool>()), 1..60),
        ) {
            let (mut swept, mut kept) = (Sessions::default(), Sessions::default());
            let mut log_time = 10 * DAY;
            for (sequence, (passed, age, sweep)) in (1..).zip(events) {
                log_time += passed;
                if sweep {
                    swept.sweep(log_time);
                }
                let at = log_time - age;
                prop_assert_eq!(assign(&mut swept, sequence, at, log_time), assign(&mut kept, sequence, at, log_time));
            }
        }
    }
}
