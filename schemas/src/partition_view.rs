//! What one partition's aggregator tells of one site, followed: by the dashboard nodes to show it, by the evaluator of
//! alerts to judge it.

use crate::live::{LiveRecord, LiveState, Totals};

/// Follows the records of a (site, partition). `state` is at all times exactly what an aggregator held at
/// (`epoch`, `seq`): a record that does not fit changes nothing.
#[derive(Debug)]
pub struct PartitionView {
    epoch: u64,
    seq: u64,
    state: LiveState,
    /// False from a gap, or from the first record of an epoch that is no full one, to the next full record.
    whole: bool,
    clock: i64,
    newest: i64,
    /// When the clock last moved, monotonic ms.
    moved_at: i64,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The state or its clock is newer now.
    Applied,
    /// Older than what is held, from a member that lost the partition, or seen before.
    Stale,
    /// A record before this one is missing: the next full record heals it.
    Gap,
}

impl PartitionView {
    /// Nothing is told yet. `now_ms`, here and below: a monotonic clock.
    pub fn new(epoch: u64, now_ms: i64) -> Self {
        Self {
            epoch,
            seq: 0,
            state: LiveState::default(),
            whole: false,
            clock: 0,
            newest: 0,
            moved_at: now_ms,
        }
    }

    /// Takes a record over, if it fits.
    pub fn take(&mut self, record: LiveRecord, now_ms: i64) -> Taken {
        let newer_epoch = record.epoch > self.epoch;
        if record.epoch < self.epoch || (!newer_epoch && record.seq <= self.seq) {
            return Taken::Stale;
        }
        if record.full {
            self.state = record.state;
            self.whole = true;
        } else if !newer_epoch && self.whole && record.seq == self.seq + 1 {
            self.state.apply(&record.state);
        } else {
            // The old state stays on screen, said to be silent. In a newer epoch nothing of it can be continued.
            self.whole = false;
            if newer_epoch {
                self.epoch = record.epoch;
                self.seq = 0;
            }
            return Taken::Gap;
        }
        self.epoch = record.epoch;
        self.seq = record.seq;
        self.newest = record.newest;
        if record.clock != self.clock {
            self.clock = record.clock;
            self.moved_at = now_ms;
        }
        self.state.prune(self.clock);
        Taken::Applied
    }

    /// The windows as they were told last.
    pub fn state(&self) -> &LiveState {
        &self.state
    }

    /// Log time (ms since 1970) up to which the state is told.
    pub fn clock(&self) -> i64 {
        self.clock
    }

    /// Received-at of the newest event counted in (ms since 1970); 0 for none yet.
    pub fn newest(&self) -> i64 {
        self.newest
    }

    /// [`Self::clock`], gone on since it was told: only of use where nothing is told because nothing happens.
    pub fn clock_at(&self, now_ms: i64) -> i64 {
        self.clock + (now_ms - self.moved_at)
    }

    /// Nothing is in its windows: its aggregator need not tell any more.
    pub fn is_idle(&self) -> bool {
        let LiveState { totals, seconds, minutes, tops, .. } = &self.state;
        let Totals { active, visitors, .. } = totals.unwrap_or_default();
        self.whole
            && active == 0
            && visitors == 0
            && seconds.is_empty()
            && minutes.is_empty()
            && tops.is_empty()
    }

    /// A record is missing, or the clock has stood still for longer than `silence_ms`.
    pub fn is_silent(&self, now_ms: i64, silence_ms: i64) -> bool {
        !self.is_idle() && (!self.whole || now_ms - self.moved_at > silence_ms)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::{Dimension, SiteId};
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const EPOCH: u64 = 7;

    fn counted(views: u64) -> LiveState {
        let page = BTreeMap::from([("/".to_owned(), views)]);
        LiveState { tops: BTreeMap::from([(Dimension::Page, page)]), ..LiveState::default() }
    }

    fn record(epoch: u64, seq: u64, full: bool, state: LiveState) -> LiveRecord {
        LiveRecord {
            site: SiteId::try_from("demo").unwrap(),
            partition: 0,
            epoch,
            seq,
            full,
            clock: 1_000 * seq as i64,
            newest: 0,
            at: 0,
            state,
        }
    }

    #[rstest]
    #[case::the_next_delta(EPOCH, 6, false, Taken::Applied, 9, false)]
    #[case::a_delta_again(EPOCH, 5, false, Taken::Stale, 1, false)]
    #[case::a_full_again(EPOCH, 4, true, Taken::Stale, 1, false)]
    #[case::a_delta_after_a_gap(EPOCH, 7, false, Taken::Gap, 1, true)]
    #[case::a_full_after_a_gap(EPOCH, 9, true, Taken::Applied, 9, false)]
    #[case::of_a_member_that_lost_the_partition(EPOCH - 1, 99, true, Taken::Stale, 1, false)]
    #[case::a_full_of_the_next_member(EPOCH + 1, 1, true, Taken::Applied, 9, false)]
    #[case::a_delta_of_the_next_member(EPOCH + 1, 2, false, Taken::Gap, 1, true)]
    fn at_epoch_7_and_seq_5_comes(
        #[case] epoch: u64,
        #[case] seq: u64,
        #[case] full: bool,
        #[case] taken: Taken,
        #[case] views: u64,
        #[case] silent: bool,
    ) {
        let mut view = PartitionView::new(EPOCH, 0);
        view.take(record(EPOCH, 5, true, counted(1)), 0);
        assert_eq!(view.take(record(epoch, seq, full, counted(9)), 10), taken);
        assert_eq!(view.state(), &counted(views));
        assert_eq!(view.is_silent(10, 10_000), silent);
    }

    #[test]
    fn a_partition_that_was_never_told_whole_is_silent() {
        let mut view = PartitionView::new(EPOCH, 0);
        assert_eq!(view.take(record(EPOCH, 5, false, counted(1)), 0), Taken::Gap);
        assert!(view.is_silent(0, 10_000));
        assert_eq!(view.state(), &LiveState::default());
    }

    #[test]
    fn a_clock_that_stands_still_is_silence_and_an_empty_site_is_none() {
        let mut view = PartitionView::new(EPOCH, 0);
        view.take(record(EPOCH, 1, true, counted(1)), 0);
        let standing = LiveRecord { clock: 1_000, ..record(EPOCH, 2, false, counted(2)) };
        view.take(standing, 9_000);
        assert!(!view.is_silent(10_000, 10_000));
        assert!(view.is_silent(10_001, 10_000));
        view.take(record(EPOCH, 3, true, LiveState::default()), 11_000);
        assert!(!view.is_silent(99_000, 10_000));
    }

    /// What the log does to a record on its way here.
    #[derive(Debug, Clone, Copy)]
    enum Fate {
        Arrives,
        Dropped,
        Doubled,
        /// Arrives after the one behind it.
        Late,
    }

    fn fates() -> impl Strategy<Value = Vec<(Fate, u64, bool)>> {
        let fate = prop_oneof![
            4 => Just(Fate::Arrives),
            1 => Just(Fate::Dropped),
            1 => Just(Fate::Doubled),
            1 => Just(Fate::Late),
        ];
        prop::collection::vec((fate, 0..4u64, prop::bool::weighted(0.2)), 1..60)
    }

    proptest! {
        #[test]
        fn whatever_is_lost_doubled_or_swapped_the_state_is_one_the_aggregator_held(steps in fates()) {
            let mut told: Vec<LiveState> = vec![LiveState::default()];
            let mut arriving: Vec<LiveRecord> = Vec::new();
            let mut held_back = None;
            for (index, (fate, views, full)) in steps.iter().enumerate() {
                let seq = index as u64 + 1;
                let last = told.last().unwrap().clone();
                let newer = counted(*views + 1);
                let change = last.change_to(&newer).unwrap_or_default();
                let record = record(EPOCH, seq, *full || index == 0, if *full || index == 0 { newer.clone() } else { change });
                told.push(newer);
                match fate {
                    Fate::Arrives => arriving.push(record),
                    Fate::Dropped => {}
                    Fate::Doubled => { arriving.push(record.clone()); arriving.push(record); }
                    Fate::Late => { arriving.extend(held_back.replace(record)); continue }
                }
                arriving.extend(held_back.take());
            }
            let last = told.last().unwrap().clone();
            arriving.push(record(EPOCH, told.len() as u64, true, last.clone()));

            let mut view = PartitionView::new(EPOCH, 0);
            for record in arriving {
                view.take(record, 0);
                if view.seq > 0 && view.seq < told.len() as u64 {
                    prop_assert_eq!(view.state(), &told[view.seq as usize]);
                }
            }
            prop_assert_eq!(view.state(), &last);
            prop_assert!(view.whole);
        }
    }
}
