//! What a site's viewers are shown: its partitions and nodes, merged.

use std::collections::BTreeMap;

use footfall_schemas::{
    SiteId,
    live::{LiveRecord, LiveState, MinuteCounts, SecondCounts},
    partition_view::{PartitionView, Taken},
    presence::PresenceReport,
    viewer::{Freshness, Online, Position, SiteLedger, ViewUpdate},
};

use crate::{clock::Moment, presence::PresenceBoard};

/// Silence is looked for this often when no record comes.
const RECHECK_MS: i64 = 500;

/// Bounds and times of the merge.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) partition_silence_ms: i64,
    pub(crate) presence_silence_ms: i64,
    /// Values shown of each dimension.
    pub(crate) top_values: usize,
}

/// Everything a page shows of a site.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct View {
    pub(crate) online: Online,
    pub(crate) freshness: Freshness,
    pub(crate) ledger: SiteLedger,
    pub(crate) live: LiveState,
}

impl View {
    pub(crate) fn whole(&self, site: &SiteId, position: Position, now: i64) -> ViewUpdate {
        ViewUpdate {
            site: site.clone(),
            position,
            now,
            online: Some(self.online.clone()),
            freshness: Some(self.freshness),
            ledger: Some(self.ledger.clone()),
            live: self.live.clone(),
            goals: BTreeMap::new(),
            alerts: None,
        }
    }

    /// What leads from `self` to `newer`; `None` when nothing does.
    pub(crate) fn change_to(
        &self,
        newer: &Self,
        site: &SiteId,
        position: Position,
        now: i64,
    ) -> Option<ViewUpdate> {
        let live = self.live.change_to(&newer.live);
        if live.is_none()
            && self.online == newer.online
            && self.freshness == newer.freshness
            && self.ledger == newer.ledger
        {
            return None;
        }
        Some(ViewUpdate {
            site: site.clone(),
            position,
            now,
            online: (self.online != newer.online).then(|| newer.online.clone()),
            freshness: (self.freshness != newer.freshness).then_some(newer.freshness),
            ledger: (self.ledger != newer.ledger).then(|| newer.ledger.clone()),
            live: live.unwrap_or_default(),
            goals: BTreeMap::new(),
            alerts: None,
        })
    }
}

/// Sources of a site's view.
#[derive(Debug)]
pub(crate) struct SiteState {
    limits: Limits,
    partitions: BTreeMap<i32, PartitionView>,
    presence: PresenceBoard,
    /// The partitions merged, as last computed.
    merged: LiveState,
    live_changed: bool,
    changed: bool,
    checked_at: i64,
}

impl SiteState {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            partitions: BTreeMap::new(),
            presence: PresenceBoard::default(),
            merged: LiveState::default(),
            live_changed: true,
            changed: true,
            checked_at: 0,
        }
    }

    pub(crate) fn take_live(&mut self, record: LiveRecord, now: Moment) -> Taken {
        let (partition, epoch) = (record.partition, record.epoch);
        let view = self.partitions.entry(partition).or_insert_with(|| PartitionView::new(epoch, now.mono));
        let taken = view.take(record, now.mono);
        if taken != Taken::Stale {
            self.live_changed |= taken == Taken::Applied;
            self.changed = true;
        }
        taken
    }

    pub(crate) fn take_presence(&mut self, report: PresenceReport, heard_at: i64) {
        self.changed |= self.presence.take(report, heard_at);
    }

    /// Whether the view may have changed since it was last computed.
    pub(crate) fn is_due(&self, now: Moment) -> bool {
        self.changed || now.mono - self.checked_at >= RECHECK_MS
    }

    /// The view at `now`. `nodes`: ingest nodes that report.
    pub(crate) fn view(&mut self, now: Moment, nodes: u32) -> View {
        if std::mem::take(&mut self.live_changed) {
            self.merge();
        }
        self.changed = false;
        self.checked_at = now.mono;
        self.presence.forget_old(now);
        View {
            online: self.presence.online(now, self.limits.presence_silence_ms),
            freshness: self.freshness(now, nodes),
            ledger: self.presence.ledger(),
            live: self.merged.clone(),
        }
    }

    fn merge(&mut self) {
        let mut merged = LiveState::default();
        merged.totals.get_or_insert_default();
        for partition in self.partitions.values() {
            merged.add(partition.state());
        }
        // The partitions' clocks differ a little; the windows shown end with the newest.
        merged.prune(self.partitions.values().map(PartitionView::clock).max().unwrap_or_default());
        // A change tells zero and absence alike, so the whole must not tell them apart.
        merged.seconds.retain(|_, counts| *counts != SecondCounts::default());
        merged.minutes.retain(|_, counts| *counts != MinuteCounts::default());
        merged.tops.values_mut().for_each(|values| values.retain(|_, count| *count > 0));
        merged.tops.retain(|_, values| !values.is_empty());
        cut_tops(&mut merged, self.limits.top_values);
        self.merged = merged;
    }

    fn freshness(&self, now: Moment, nodes: u32) -> Freshness {
        let silent =
            |partition: &&PartitionView| partition.is_silent(now.mono, self.limits.partition_silence_ms);
        let partitions = || self.partitions.values();
        let telling = partitions().filter(|partition| !silent(partition) && !partition.is_idle());
        // With nothing in any window, nothing is missing either: the last that was told stands.
        let clock = telling.map(PartitionView::clock).min().or(partitions().map(PartitionView::clock).max());
        Freshness {
            clock: clock.unwrap_or_default(),
            newest: partitions().map(PartitionView::newest).max().unwrap_or_default(),
            silent_partitions: partitions().filter(silent).count() as u32,
            nodes,
        }
    }
}

/// Keeps the `most` largest values of each dimension and tells how much a value that was cut may have.
fn cut_tops(state: &mut LiveState, most: usize) {
    for (dimension, values) in &mut state.tops {
        if values.len() > most {
            let mut counts: Vec<(u64, &String)> =
                values.iter().map(|(value, count)| (*count, value)).collect();
            counts.select_nth_unstable_by(most, |a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
            let (count, value) = (counts[most].0, counts[most].1.clone());
            values.retain(|other, other_count| {
                *other_count > count || (*other_count == count && *other < value)
            });
            *state.errors.entry(*dimension).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use footfall_schemas::{Dimension, live::Totals};
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const LIMITS: Limits = Limits { partition_silence_ms: 10_000, presence_silence_ms: 5_000, top_values: 4 };
    /// A full minute, in s.
    const START: i64 = 1_800_000_000;

    fn at(mono: i64) -> Moment {
        Moment { wall: START * 1_000 + mono, mono }
    }

    fn site() -> SiteId {
        SiteId::try_from("demo").unwrap()
    }

    fn record(partition: i32, seq: u64, clock: i64, state: LiveState) -> LiveRecord {
        let newest = clock - 100;
        LiveRecord { site: site(), partition, epoch: 1, seq, full: true, clock, newest, at: clock, state }
    }

    fn state(active: u64, second: i64) -> LiveState {
        LiveState {
            totals: Some(Totals { active, visitors: active, ..Totals::default() }),
            seconds: BTreeMap::from([(second, SecondCounts { views: 1, events: 2 })]),
            minutes: BTreeMap::from([(
                START,
                MinuteCounts { views: 1, visitors: active, ..Default::default() },
            )]),
            ..LiveState::default()
        }
    }

    #[test]
    fn partitions_add_up_and_the_slowest_that_tells_says_how_fresh() {
        let mut sources = SiteState::new(LIMITS);
        sources.take_live(record(0, 1, (START + 2) * 1_000, state(3, START)), at(0));
        sources.take_live(record(1, 1, (START + 1) * 1_000, state(2, START)), at(0));
        sources.take_live(record(2, 1, (START - 90) * 1_000, LiveState::default()), at(0));
        let view = sources.view(at(0), 1);
        assert_eq!(view.live.totals.unwrap().active, 5);
        assert_eq!(view.live.seconds[&START], SecondCounts { views: 2, events: 4 });
        assert_eq!(view.live.minutes[&START].visitors, 5);
        assert_eq!(
            view.freshness,
            Freshness {
                clock: (START + 1) * 1_000,
                newest: (START + 2) * 1_000 - 100,
                silent_partitions: 0,
                nodes: 1
            }
        );
    }

    #[test]
    fn a_partition_that_falls_silent_is_told_without_a_record() {
        let mut sources = SiteState::new(LIMITS);
        sources.take_live(record(0, 1, START * 1_000, state(3, START)), at(0));
        sources.take_live(record(1, 1, START * 1_000, state(3, START)), at(0));
        sources.view(at(0), 0);
        assert!(!sources.is_due(at(RECHECK_MS - 1)));
        assert!(sources.is_due(at(RECHECK_MS)));
        sources.take_live(record(0, 2, (START + 10) * 1_000, state(3, START)), at(10_000));
        let view = sources.view(at(10_001), 0);
        assert_eq!((view.freshness.silent_partitions, view.freshness.clock), (1, (START + 10) * 1_000));
        assert_eq!(view.live.totals.unwrap().active, 6);
    }

    #[test]
    fn windows_end_with_the_newest_clock() {
        let mut sources = SiteState::new(LIMITS);
        sources.take_live(record(0, 1, START * 1_000, state(1, START - 59)), at(0));
        sources.take_live(record(1, 1, (START + 1) * 1_000, state(1, START)), at(0));
        let view = sources.view(at(0), 0);
        assert_eq!(view.live.seconds.keys().copied().collect::<Vec<_>>(), [START]);
    }

    fn top(counts: &[(&str, u64)]) -> LiveState {
        let values = counts.iter().map(|(value, count)| ((*value).to_owned(), *count)).collect();
        LiveState { tops: BTreeMap::from([(Dimension::Page, values)]), ..LiveState::default() }
    }

    #[rstest]
    #[case::fits(&[("a", 1), ("b", 2)], &["a", "b"], 0)]
    #[case::at_the_bound(&[("a", 1), ("b", 2), ("c", 1), ("d", 1)], &["a", "b", "c", "d"], 0)]
    #[case::over_it(&[("a", 1), ("b", 2), ("c", 9), ("d", 1), ("e", 1)], &["a", "b", "c", "d"], 1)]
    #[case::all_equal(&[("e", 3), ("d", 3), ("c", 3), ("b", 3), ("a", 3)], &["a", "b", "c", "d"], 3)]
    fn a_list_is_cut_at_its_bound(#[case] counts: &[(&str, u64)], #[case] kept: &[&str], #[case] error: u64) {
        let mut state = top(counts);
        cut_tops(&mut state, 4);
        assert_eq!(state.tops[&Dimension::Page].keys().collect::<Vec<_>>(), kept);
        assert_eq!(state.errors.get(&Dimension::Page).copied().unwrap_or(0), error);
    }

    proptest! {
        #[test]
        fn applying_the_changes_in_order_gives_the_view(
            steps in prop::collection::vec((0..3i32, 0..5u64, 0..40i64, prop::collection::btree_map("[a-h]", 1..5u64, 0..7)), 1..40)
        ) {
            let mut sources = SiteState::new(LIMITS);
            let mut shown = View::default();
            let mut page = View::default();
            let position = Position { epoch: 1, seq: 1 };
            for (index, (partition, active, second, pages)) in steps.into_iter().enumerate() {
                let now = at(index as i64 * 250);
                let mut told = state(active, START + second);
                told.tops.insert(Dimension::Page, pages);
                sources.take_live(record(partition, index as u64 + 1, (START + index as i64) * 1_000, told), now);
                let newer = sources.view(now, 1);
                if let Some(update) = shown.change_to(&newer, &site(), position, 0) {
                    page.live.apply(&update.live);
                    if let Some(online) = update.online { page.online = online; }
                    if let Some(freshness) = update.freshness { page.freshness = freshness; }
                    if let Some(ledger) = update.ledger { page.ledger = ledger; }
                }
                prop_assert_eq!(&page, &newer);
                shown = newer;
            }
        }
    }
}
