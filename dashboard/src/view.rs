//! What a site's viewers are shown: its partitions and nodes, merged.

use std::collections::BTreeMap;

use footfall_schemas::{
    SiteId,
    alert::Alert,
    goal::Goal,
    live::{LiveRecord, LiveState, MinuteCounts, SecondCounts},
    partition_view::{PartitionView, Taken},
    presence::PresenceReport,
    viewer::{Freshness, Online, Position, SiteLedger, ViewUpdate},
};

use crate::{clock::Moment, goals, presence::PresenceBoard};

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
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct View {
    /// What is `None` here is not known of this view, and never will be.
    pub(crate) online: Option<Online>,
    pub(crate) freshness: Freshness,
    pub(crate) ledger: Option<SiteLedger>,
    pub(crate) live: LiveState,
    /// By name, those that nobody reached included.
    pub(crate) goals: BTreeMap<String, u64>,
    pub(crate) alerts: Option<Vec<Alert>>,
}

impl View {
    pub(crate) fn whole(&self, site: &SiteId, position: Position, now: i64) -> ViewUpdate {
        ViewUpdate {
            site: site.clone(),
            position,
            now,
            online: self.online.clone(),
            freshness: Some(self.freshness),
            ledger: self.ledger.clone(),
            live: self.live.clone(),
            goals: self.goals.clone(),
            alerts: self.alerts.clone(),
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
        if self == newer {
            return None;
        }
        let is_new = |(name, count): &(&String, &u64)| self.goals.get(*name) != Some(*count);
        let goals = newer.goals.iter().filter(is_new);
        Some(ViewUpdate {
            site: site.clone(),
            position,
            now,
            online: newer.online.clone().filter(|_| self.online != newer.online),
            freshness: (self.freshness != newer.freshness).then_some(newer.freshness),
            ledger: newer.ledger.clone().filter(|_| self.ledger != newer.ledger),
            live: self.live.change_to(&newer.live).unwrap_or_default(),
            goals: goals.map(|(name, count)| (name.clone(), *count)).collect(),
            alerts: newer.alerts.clone().filter(|_| self.alerts != newer.alerts),
        })
    }

    /// Whether a change can lead to `newer`: what is gone, other than a count, cannot be told by one.
    pub(crate) fn can_become(&self, newer: &Self) -> bool {
        self.goals.keys().all(|name| newer.goals.contains_key(name))
            && (self.online.is_none() || newer.online.is_some())
    }
}

/// Sources of a site's view.
#[derive(Debug)]
pub(crate) struct SiteState {
    limits: Limits,
    goals: Vec<Goal>,
    partitions: BTreeMap<i32, PartitionView>,
    presence: PresenceBoard,
    /// The partitions merged, as last computed, and the goals reached.
    merged: LiveState,
    reached: BTreeMap<String, u64>,
    live_changed: bool,
    changed: bool,
    checked_at: i64,
}

impl SiteState {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            goals: Vec::new(),
            partitions: BTreeMap::new(),
            presence: PresenceBoard::default(),
            merged: LiveState::default(),
            reached: BTreeMap::new(),
            live_changed: true,
            changed: true,
            checked_at: 0,
        }
    }

    pub(crate) fn set_goals(&mut self, goals: &[Goal]) {
        if self.goals != goals {
            self.goals = goals.to_vec();
            (self.live_changed, self.changed) = (true, true);
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

    /// An alert of the site is another.
    pub(crate) fn touch(&mut self) {
        self.changed = true;
    }

    /// Whether the view may have changed since it was last computed.
    pub(crate) fn is_due(&self, now: Moment) -> bool {
        self.changed || now.mono - self.checked_at >= RECHECK_MS
    }

    /// The view at `now`. `nodes`: ingest nodes that report.
    pub(crate) fn view(&mut self, now: Moment, nodes: u32, alerts: Vec<Alert>) -> View {
        if std::mem::take(&mut self.live_changed) {
            self.merge();
        }
        self.changed = false;
        self.checked_at = now.mono;
        self.presence.forget_old(now);
        View {
            online: Some(self.presence.online(now, self.limits.presence_silence_ms)),
            freshness: self.freshness(now, nodes),
            ledger: Some(self.presence.ledger()),
            live: self.merged.clone(),
            goals: self.reached.clone(),
            alerts: Some(alerts),
        }
    }

    /// Instead of [`Self::view`] while nobody watches: nothing is merged. Partitions that are silent.
    pub(crate) fn rest(&mut self, now: Moment) -> u32 {
        self.presence.forget_old(now);
        self.silent_partitions(now)
    }

    fn merge(&mut self) {
        let mut merged = LiveState::default();
        merged.totals.get_or_insert_default();
        for partition in self.partitions.values() {
            merged.add(partition.state());
        }
        // The partitions' clocks differ a little; the windows shown end with the newest.
        merged.prune(self.partitions.values().map(PartitionView::clock).max().unwrap_or_default());
        tidy(&mut merged);
        self.reached = goals::reached(&self.goals, &merged);
        cut_tops(&mut merged, self.limits.top_values);
        self.merged = merged;
    }

    fn silent_partitions(&self, now: Moment) -> u32 {
        let silence_ms = self.limits.partition_silence_ms;
        self.partitions.values().filter(|partition| partition.is_silent(now.mono, silence_ms)).count() as u32
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
            silent_partitions: self.silent_partitions(now),
            nodes,
        }
    }
}

/// Takes out what is zero: a change tells zero and absence alike, so the whole must not tell them apart.
pub(crate) fn tidy(state: &mut LiveState) {
    state.seconds.retain(|_, counts| *counts != SecondCounts::default());
    state.minutes.retain(|_, counts| *counts != MinuteCounts::default());
    state.tops.values_mut().for_each(|values| values.retain(|_, count| *count > 0));
    state.tops.retain(|_, values| !values.is_empty());
}

/// Keeps the `most` largest values of each dimension and tells how much a value that was cut may have.
pub(crate) fn cut_tops(state: &mut LiveState, most: usize) {
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

    fn goal(name: &str, page: &str) -> Goal {
        serde_json::from_value(serde_json::json!({ "name": name, "page": page })).unwrap()
    }

    fn alert(opened_at: i64) -> Alert {
        let golden = include_str!("../../schemas/golden/alert.json");
        Alert { opened_at, ..serde_json::from_str(golden).unwrap() }
    }

    #[test]
    fn goals_are_counted_over_all_partitions_and_before_the_lists_are_cut() {
        let mut sources = SiteState::new(LIMITS);
        sources.set_goals(&[goal("Thanks", "/thanks/*"), goal("Never", "/never")]);
        let large =
            top(&[("/1", 9), ("/2", 9), ("/3", 9), ("/4", 9), ("/thanks/a", 1), ("/thanks/b?x=1", 2)]);
        sources.take_live(record(0, 1, START * 1_000, large.clone()), at(0));
        sources.take_live(record(1, 1, START * 1_000, large), at(0));
        let view = sources.view(at(0), 1, Vec::new());
        assert_eq!(view.live.tops[&Dimension::Page].len(), LIMITS.top_values);
        assert_eq!(view.goals, BTreeMap::from([("Never".to_owned(), 0), ("Thanks".to_owned(), 6)]));
        // A change of the goals is one of the view.
        sources.set_goals(&[goal("First", "/1")]);
        assert!(sources.is_due(at(1)));
        assert_eq!(sources.view(at(1), 1, Vec::new()).goals, BTreeMap::from([("First".to_owned(), 18)]));
    }

    #[test]
    fn partitions_add_up_and_the_slowest_that_tells_says_how_fresh() {
        let mut sources = SiteState::new(LIMITS);
        sources.take_live(record(0, 1, (START + 2) * 1_000, state(3, START)), at(0));
        sources.take_live(record(1, 1, (START + 1) * 1_000, state(2, START)), at(0));
        sources.take_live(record(2, 1, (START - 90) * 1_000, LiveState::default()), at(0));
        let view = sources.view(at(0), 1, Vec::new());
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
        sources.view(at(0), 0, Vec::new());
        assert!(!sources.is_due(at(RECHECK_MS - 1)));
        assert!(sources.is_due(at(RECHECK_MS)));
        sources.take_live(record(0, 2, (START + 10) * 1_000, state(3, START)), at(10_000));
        let view = sources.view(at(10_001), 0, Vec::new());
        assert_eq!((view.freshness.silent_partitions, view.freshness.clock), (1, (START + 10) * 1_000));
        assert_eq!(view.live.totals.unwrap().active, 6);
    }

    #[test]
    fn windows_end_with_the_newest_clock() {
        let mut sources = SiteState::new(LIMITS);
        sources.take_live(record(0, 1, START * 1_000, state(1, START - 59)), at(0));
        sources.take_live(record(1, 1, (START + 1) * 1_000, state(1, START)), at(0));
        let view = sources.view(at(0), 0, Vec::new());
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
            steps in prop::collection::vec((0..3i32, 0..5u64, 0..40i64, prop::collection::btree_map("/[a-h]", 1..5u64, 0..7)), 1..40)
        ) {
            let mut sources = SiteState::new(LIMITS);
            sources.set_goals(&[goal("On a or b", "/a"), goal("On c", "/c")]);
            let mut shown = View::default();
            let mut page = View::default();
            let position = Position { epoch: 1, seq: 1 };
            for (index, (partition, active, second, pages)) in steps.into_iter().enumerate() {
                let now = at(index as i64 * 250);
                let mut told = state(active, START + second);
                told.tops.insert(Dimension::Page, pages);
                sources.take_live(record(partition, index as u64 + 1, (START + index as i64) * 1_000, told), now);
                let alerts = (active > 2).then(|| alert(active as i64)).into_iter().collect();
                let newer = sources.view(now, 1, alerts);
                if let Some(update) = shown.change_to(&newer, &site(), position, 0) {
                    page.live.apply(&update.live);
                    page.goals.extend(update.goals);
                    page.online = update.online.or(page.online);
                    page.freshness = update.freshness.unwrap_or(page.freshness);
                    page.ledger = update.ledger.or(page.ledger);
                    page.alerts = update.alerts.or(page.alerts);
                }
                prop_assert_eq!(&page, &newer);
                shown = newer;
            }
        }
    }
}
