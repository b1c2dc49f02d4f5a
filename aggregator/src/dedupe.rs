//! Recognises resends: which sequences of which stream were seen.
//!
//! What is remembered is bounded. What is forgotten is not guessed: [`Verdict::Unknown`] asks the caller to look the
//! event up among the stored rows, so the outcome does not depend on when something was forgotten.

use std::{
    collections::{HashMap, HashSet},
    hash::{Hash, Hasher},
};

use footfall_schemas::{EventId, StreamId, time::RESEND_WINDOW_MS};
use hashbrown::DefaultHashBuilder;
use serde::{Deserialize, Serialize};

/// Intervals remembered of one stream. An honest tracker has one or two.
const MAX_INTERVALS: usize = 32;
/// A page cannot have been loaded after its event was received, but by a wrong clock. Beyond this much it must not
/// lift the floor, or one tab from the year 2100 would send every page load to the slow path.
const CLOCK_SKEW_MS: i64 = 10 * 60 * 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fresh,
    Duplicate,
    /// Seen or not: only the stored rows can tell.
    Unknown,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) horizon_ms: i64,
    pub(crate) streams: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Dedupe {
    streams: HashMap<StreamKey, Seen, DefaultHashBuilder>,
    /// Of the few streams with gaps: what was seen, disjoint, ascending, not adjacent, both ends included.
    intervals: HashMap<StreamKey, Vec<(u32, u32)>, DefaultHashBuilder>,
    /// Largest page-load time of any stream ever forgotten: what was loaded later was never forgotten.
    floor: u64,
    /// Page-load times of forgotten streams whose clock was ahead.
    odd: Option<(u64, u64)>,
    /// The state does not reach back to the log's beginning: until this log time, a stream that is not remembered
    /// may have been seen before.
    unknown_until: Option<i64>,
    swept_at: i64,
    /// Streams with too many intervals, to be cut at the next sweep.
    wide: HashSet<StreamKey>,
}

/// 16 bytes, as the table is large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct StreamKey {
    /// Its number in this partition.
    site: u32,
    stream: [u8; 12],
}

impl Hash for StreamKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, rest @ ..] = self.stream;
        state.write_u64(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
        state.write_u64(u64::from(self.site) << 32 | u64::from(u32::from_ne_bytes(rest)));
    }
}

/// What was seen of a stream. With its key 32 bytes and one of the table's: at the most streams that the default allows,
/// 38 bytes a stream.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Seen {
    /// The one interval seen, both ends included; the first is larger when there are several, in `intervals`.
    first: u32,
    last: u32,
    /// From here on what is in no interval was not seen; below it may have been.
    sure_from: u32,
    /// Log time of its last event, the low bits of ms: a stream is remembered for less than 24 days.
    touched: u32,
}

impl Dedupe {
    /// For a log read from its beginning: nothing was seen yet.
    pub(crate) fn from_the_beginning() -> Self {
        Self {
            streams: HashMap::default(),
            intervals: HashMap::default(),
            floor: 0,
            odd: None,
            unknown_until: None,
            swept_at: i64::MIN,
            wide: HashSet::new(),
        }
    }

    /// For a log whose beginning is gone and of which no state was kept: everything may have been seen, until a
    /// resend window has passed.
    pub(crate) fn from_the_unknown(log_time: i64) -> Self {
        Self { unknown_until: Some(log_time.saturating_add(RESEND_WINDOW_MS)), ..Self::from_the_beginning() }
    }

    pub(crate) fn check(&self, site: u32, id: EventId, log_time: i64) -> Verdict {
        let key = StreamKey { site, stream: *id.stream.as_bytes() };
        match self.streams.get(&key) {
            Some(seen) => self.verdict(&key, seen, id.sequence.get()),
            None => self.verdict_on_new(id.stream, log_time),
        }
    }

    /// Checks the event and remembers it.
    pub(crate) fn see(&mut self, site: u32, id: EventId, log_time: i64) -> Verdict {
        let (key, sequence) = (StreamKey { site, stream: *id.stream.as_bytes() }, id.sequence.get());
        let touched = log_time as u32;
        let Some(seen) = self.streams.get(&key) else {
            let verdict = self.verdict_on_new(id.stream, log_time);
            // Of a stream that may have been forgotten, no sequence but those seen from now on is certain.
            let sure_from = if verdict == Verdict::Fresh { 1 } else { u32::MAX };
            self.streams.insert(key, Seen { first: sequence, last: sequence, sure_from, touched });
            return verdict;
        };
        let verdict = self.verdict(&key, seen, sequence);
        let Self { streams, intervals, wide, .. } = self;
        let seen = streams.get_mut(&key).expect("found above");
        seen.touched = touched;
        if verdict == Verdict::Duplicate {
            return verdict;
        }
        if seen.has_gaps() {
            let intervals = intervals.get_mut(&key).expect("a stream with gaps has intervals");
            add(intervals, sequence);
            if let [(first, last)] = intervals[..] {
                (seen.first, seen.last) = (first, last);
                self.intervals.remove(&key);
            } else if intervals.len() > MAX_INTERVALS {
                wide.insert(key);
            }
        } else if seen.last.checked_add(1) == Some(sequence) {
            seen.last = sequence;
        } else if sequence.checked_add(1) == Some(seen.first) {
            seen.first = sequence;
        } else {
            let mut two = [(seen.first, seen.last), (sequence, sequence)];
            two.sort_unstable();
            intervals.insert(key, two.into());
            (seen.first, seen.last) = Seen::GAPS;
        }
        verdict
    }

    /// Forgets what passes the bounds. Between two sweeps nothing is forgotten.
    pub(crate) fn sweep(&mut self, log_time: i64, bounds: Bounds) {
        for key in std::mem::take(&mut self.wide) {
            if let (Some(seen), Some(intervals)) = (self.streams.get_mut(&key), self.intervals.get_mut(&key))
            {
                cut(seen, intervals);
            }
        }
        let due = log_time.saturating_sub(self.swept_at) >= (bounds.horizon_ms / 16).max(1);
        if due {
            self.swept_at = log_time;
            self.forget(log_time, |seen| seen.age(log_time) > bounds.horizon_ms);
        }
        if self.streams.len() > bounds.streams {
            // An eighth at once, so that the scan is paid for by many insertions.
            let excess = self.streams.len() - (bounds.streams - bounds.streams / 8);
            let mut ages: Vec<i64> = self.streams.values().map(|seen| -seen.age(log_time)).collect();
            let (_, threshold, _) = ages.select_nth_unstable(excess - 1);
            let oldest = -*threshold;
            let mut left = excess;
            self.forget(log_time, |seen| {
                let forget = left > 0 && seen.age(log_time) >= oldest;
                left -= usize::from(forget);
                forget
            });
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.streams.len()
    }

    fn verdict(&self, key: &StreamKey, seen: &Seen, sequence: u32) -> Verdict {
        let held = if seen.has_gaps() {
            self.intervals.get(key).is_some_and(|intervals| holds(intervals, sequence))
        } else {
            (seen.first..=seen.last).contains(&sequence)
        };
        if held {
            Verdict::Duplicate
        } else if sequence >= seen.sure_from {
            Verdict::Fresh
        } else {
            Verdict::Unknown
        }
    }

    fn verdict_on_new(&self, stream: StreamId, log_time: i64) -> Verdict {
        let loaded = stream.loaded_at_ms();
        let surely_new = self.unknown_until.is_none_or(|until| log_time > until)
            && loaded > self.floor
            && self.odd.is_none_or(|(first, last)| !(first..=last).contains(&loaded));
        if surely_new { Verdict::Fresh } else { Verdict::Unknown }
    }

    fn forget(&mut self, log_time: i64, mut which: impl FnMut(&Seen) -> bool) {
        let edge = u64::try_from(log_time.saturating_add(CLOCK_SKEW_MS)).unwrap_or(0);
        let Self { streams, intervals, floor, odd, .. } = self;
        streams.retain(|key, seen| {
            if !which(seen) {
                return true;
            }
            if seen.has_gaps() {
                intervals.remove(key);
            }
            let loaded = StreamId::new(key.stream).loaded_at_ms();
            if loaded <= edge {
                *floor = (*floor).max(loaded);
            } else {
                let (first, last) = odd.unwrap_or((loaded, loaded));
                *odd = Some((first.min(loaded), last.max(loaded)));
            }
            false
        });
    }
}

impl Seen {
    const GAPS: (u32, u32) = (1, 0);

    fn has_gaps(&self) -> bool {
        self.first > self.last
    }

    /// ms since its last event. Log time never goes back.
    fn age(&self, log_time: i64) -> i64 {
        i64::from((log_time as u32).wrapping_sub(self.touched))
    }
}

fn holds(intervals: &[(u32, u32)], sequence: u32) -> bool {
    let after = intervals.partition_point(|(first, _)| *first <= sequence);
    after > 0 && sequence <= intervals[after - 1].1
}

fn add(intervals: &mut Vec<(u32, u32)>, sequence: u32) {
    let after = intervals.partition_point(|(first, _)| *first <= sequence);
    if after > 0 && sequence <= intervals[after - 1].1 {
        return;
    }
    let joins_left = after > 0 && intervals[after - 1].1.checked_add(1) == Some(sequence);
    let joins_right = intervals.get(after).is_some_and(|(first, _)| sequence.checked_add(1) == Some(*first));
    match (joins_left, joins_right) {
        (true, true) => {
            intervals[after - 1].1 = intervals[after].1;
            intervals.remove(after);
        }
        (true, false) => intervals[after - 1].1 = sequence,
        (false, true) => intervals[after].0 = sequence,
        (false, false) => intervals.insert(after, (sequence, sequence)),
    }
}

/// Keeps the first interval, which says most, and the newest ones.
fn cut(seen: &mut Seen, intervals: &mut Vec<(u32, u32)>) {
    if intervals.len() > MAX_INTERVALS {
        let excess = intervals.len() - MAX_INTERVALS;
        let last_cut = intervals.drain(1..=excess).next_back();
        if let Some((_, end)) = last_cut {
            seen.sure_from = seen.sure_from.max(end.saturating_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use footfall_schemas::Sequence;
    use proptest::prelude::*;
    use rstest::rstest;
    use std::collections::BTreeSet;

    const BOUNDS: Bounds = Bounds { horizon_ms: 1_000, streams: 8 };

    fn id(loaded: u64, sequence: u32) -> EventId {
        EventId::new(StreamId::from_parts(loaded, loaded), Sequence::new(sequence).unwrap())
    }

    #[test]
    fn an_event_is_fresh_once() {
        let mut dedupe = Dedupe::from_the_beginning();
        assert_eq!(dedupe.check(0, id(10, 1), 10), Verdict::Fresh);
        dedupe.see(0, id(10, 1), 10);
        assert_eq!(dedupe.check(0, id(10, 1), 11), Verdict::Duplicate);
        assert_eq!(dedupe.check(1, id(10, 1), 11), Verdict::Fresh, "another site's stream is another stream");
    }

    #[rstest]
    #[case::older_than_what_was_forgotten(9, Verdict::Unknown)]
    #[case::as_old(10, Verdict::Unknown)]
    #[case::younger(11, Verdict::Fresh)]
    fn after_forgetting_only_younger_streams_are_certain(#[case] loaded: u64, #[case] expected: Verdict) {
        let mut dedupe = Dedupe::from_the_beginning();
        dedupe.see(0, id(10, 1), 10);
        dedupe.sweep(5_000, BOUNDS);
        assert_eq!(dedupe.len(), 0);
        assert_eq!(dedupe.check(0, id(loaded, 7), 5_000), expected);
    }

    #[test]
    fn a_stream_seen_again_after_it_was_forgotten_is_certain_of_nothing_but_what_it_saw() {
        let mut dedupe = Dedupe::from_the_beginning();
        (1..=3).for_each(|sequence| {
            dedupe.see(0, id(10, sequence), 10);
        });
        dedupe.sweep(5_000, BOUNDS);
        dedupe.see(0, id(10, 4), 5_000);
        assert_eq!(dedupe.check(0, id(10, 4), 5_000), Verdict::Duplicate);
        assert_eq!(dedupe.check(0, id(10, 2), 5_000), Verdict::Unknown);
        assert_eq!(dedupe.check(0, id(10, 5), 5_000), Verdict::Unknown);
    }

    #[test]
    fn a_clock_from_the_future_does_not_make_every_stream_doubtful() {
        let mut dedupe = Dedupe::from_the_beginning();
        let far = 4_000_000_000_000;
        dedupe.see(0, id(far, 1), 10);
        dedupe.sweep(5_000, BOUNDS);
        assert_eq!(dedupe.check(0, id(5_000, 1), 5_000), Verdict::Fresh);
        assert_eq!(dedupe.check(0, id(far, 1), 5_000), Verdict::Unknown);
    }

    #[test]
    fn the_least_recently_touched_are_forgotten_first() {
        let mut dedupe = Dedupe::from_the_beginning();
        (1..=9).rev().for_each(|loaded| {
            dedupe.see(0, id(loaded, 1), 100 - loaded as i64);
        });
        dedupe.sweep(100, BOUNDS);
        assert_eq!(dedupe.len(), 7);
        assert_eq!(dedupe.check(0, id(9, 1), 100), Verdict::Unknown);
        assert_eq!(dedupe.check(0, id(1, 1), 100), Verdict::Duplicate);
    }

    #[test]
    fn without_a_beginning_nothing_is_certain_until_a_resend_window_has_passed() {
        let dedupe = Dedupe::from_the_unknown(1_000);
        assert_eq!(dedupe.check(0, id(900, 1), 1_000 + RESEND_WINDOW_MS), Verdict::Unknown);
        assert_eq!(dedupe.check(0, id(900, 1), 1_001 + RESEND_WINDOW_MS), Verdict::Fresh);
    }

    #[test]
    fn the_last_sequence_is_an_event_like_any() {
        let mut dedupe = Dedupe::from_the_beginning();
        for sequence in [u32::MAX, u32::MAX - 1, 1] {
            assert_eq!(dedupe.check(0, id(10, sequence), 10), Verdict::Fresh);
            dedupe.see(0, id(10, sequence), 10);
            assert_eq!(dedupe.check(0, id(10, sequence), 10), Verdict::Duplicate);
        }
    }

    proptest! {
        /// Whatever is forgotten in between: a verdict is right, or it is `Unknown`.
        #[test]
        fn a_verdict_is_right_or_unknown(
            events in prop::collection::vec((1..6u64, 1..200u32, 0..400i64, any::<bool>()), 1..400),
        ) {
            let mut dedupe = Dedupe::from_the_beginning();
            let mut seen = BTreeSet::new();
            let mut log_time = 0;
            for (loaded, sequence, passed, sweep) in events {
                log_time += passed;
                let id = id(loaded * 1_000, sequence);
                match dedupe.check(0, id, log_time) {
                    Verdict::Fresh => prop_assert!(!seen.contains(&id)),
                    Verdict::Duplicate => prop_assert!(seen.contains(&id)),
                    Verdict::Unknown => {}
                }
                seen.insert(id);
                dedupe.see(0, id, log_time);
                prop_assert_eq!(dedupe.check(0, id, log_time), Verdict::Duplicate);
                if sweep {
                    dedupe.sweep(log_time, Bounds { horizon_ms: 1_000, streams: 3 });
                    prop_assert!(dedupe.len() <= 3);
                }
            }
        }

        #[test]
        fn intervals_are_a_set(sequences in prop::collection::vec(1..40u32, 0..80)) {
            let mut intervals = Vec::new();
            let mut set = BTreeSet::new();
            for sequence in sequences {
                add(&mut intervals, sequence);
                set.insert(sequence);
                prop_assert!((1..40).all(|s| holds(&intervals, s) == set.contains(&s)));
                prop_assert!(intervals.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            }
        }
    }

    #[test]
    fn a_stream_costs_less_than_64_bytes() {
        // Of the table only: a page load without a gap, which is nearly every one, has nothing else.
        let entry = size_of::<(StreamKey, Seen)>() + 1;
        let streams = crate::config::Config::default().streams;
        let slots = (streams * 8 / 7).next_power_of_two();
        assert!(slots * entry <= 64 * streams, "{} bytes a stream", slots * entry / streams);
    }

    #[test]
    fn a_stream_whose_gaps_are_filled_needs_no_more_than_one_without() {
        let mut dedupe = Dedupe::from_the_beginning();
        for sequence in [5, 1, 3, 2] {
            assert_eq!(dedupe.see(0, id(10, sequence), 10), Verdict::Fresh);
        }
        assert_eq!(dedupe.intervals.len(), 1);
        assert_eq!(dedupe.see(0, id(10, 4), 10), Verdict::Fresh);
        assert!(dedupe.intervals.is_empty());
        (1..=5).for_each(|sequence| assert_eq!(dedupe.see(0, id(10, sequence), 10), Verdict::Duplicate));
        dedupe.see(0, id(10, 9), 10);
        dedupe.sweep(5_000, BOUNDS);
        assert!(dedupe.intervals.is_empty(), "forgotten with its stream");
    }
}
