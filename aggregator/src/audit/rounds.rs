//! The owner's audit, round by round: what is due, and what the tables say to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use footfall_schemas::time::MINUTE_MS;
use tokio::time::sleep;
use tracing::{error, warn};

use super::{
    Account, Difference, SiteMinute,
    account::Checkpoint,
    compare_minute, compare_span,
    tables::{Sample, Span},
};
use crate::{block::Counts, error::StoreError};

/// Minutes older than this are not audited by their owner.
const REACH_MS: i64 = 60 * MINUTE_MS;
/// Minutes compared by one round, the oldest first; the others wait for the next.
const MINUTES: usize = 2_000;
/// Rounds in which dead letters, which come by way of a topic, may be missing.
const PATIENCE: u32 = 3;
/// What differs is asked for again after this, before it is believed: replicas may be behind.
const CONFIRM: Duration = Duration::from_secs(2);
/// Differences logged by one round, one a line.
const LINES: usize = 20;

/// What is to be audited of one partition.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    /// Everything before was audited.
    from: Option<Checkpoint>,
    /// Everything before is written.
    written: Option<Checkpoint>,
    letters: Option<Letters>,
    /// Minutes written since they were audited, the oldest first.
    minutes: BTreeSet<(i64, String)>,
    /// Minutes that were counted again because they differed. Once is enough: what still differs is not healed so.
    healed: BTreeSet<(i64, String)>,
}

/// A range whose dead letters were not all there yet.
#[derive(Debug, Clone, Copy)]
struct Letters {
    from: Checkpoint,
    to: Checkpoint,
    rounds: u32,
}

/// One round.
#[derive(Debug)]
pub(crate) struct Round {
    partition: i32,
    from: Checkpoint,
    to: Checkpoint,
    letters: Letters,
    /// With the events and views counted in memory, if they are.
    minutes: BTreeMap<SiteMinute, Option<(u64, u64)>>,
}

/// What a round found.
#[derive(Debug)]
pub(crate) struct Findings {
    plan: Round,
    differences: Vec<Difference>,
    letters: Option<Difference>,
    /// Minutes that were written meanwhile, and are due again.
    moved: Vec<SiteMinute>,
}

impl Rounds {
    /// Counts were written.
    pub(crate) fn counted(&mut self, counts: &Counts) {
        let of_rows =
            counts.rows.iter().filter(|row| row.dimension == "total").map(|row| (row.minute, &row.site));
        self.minutes.extend(of_rows.map(|(minute, site)| (i64::from(minute) * 1_000, site.clone())));
        let recounted = counts.recount.iter().map(|(site, minute)| (*minute, site.as_str().to_owned()));
        self.minutes.extend(recounted);
    }

    /// Everything before is written.
    pub(crate) fn written(&mut self, checkpoint: Checkpoint) {
        self.written = Some(checkpoint);
    }

    /// What is due at `clock` (ms). `oldest`: where to begin, when nothing was audited yet. `closed`: minutes that end
    /// by then are. `known` says of a minute whether it waits to be written, and what was counted of it.
    pub(crate) fn plan(
        &mut self,
        partition: i32,
        clock: i64,
        closed: i64,
        oldest: Option<Checkpoint>,
        known: impl Fn(&str, i64) -> Known,
    ) -> Option<Round> {
        let to = self.written?;
        let from = *self.from.get_or_insert(oldest.filter(|oldest| oldest.offset < to.offset).unwrap_or(to));
        let reach = clock - REACH_MS;
        self.minutes = self.minutes.split_off(&(reach, String::new()));
        self.healed = self.healed.split_off(&(reach, String::new()));
        let mut minutes = BTreeMap::new();
        for (minute, site) in self.minutes.iter().take_while(|(minute, _)| minute + MINUTE_MS <= closed) {
            match known(site, *minute) {
                Known::Waits => {}
                Known::Counted(sums) => drop(minutes.insert((site.clone(), *minute), Some(sums))),
                Known::Unknown => drop(minutes.insert((site.clone(), *minute), None)),
            }
            if minutes.len() == MINUTES {
                break;
            }
        }
        for (site, minute) in minutes.keys() {
            self.minutes.remove(&(*minute, site.clone()));
        }
        let letters = self.letters.unwrap_or(Letters { from, to, rounds: 0 });
        Some(Round { partition, from, to, letters, minutes })
    }

    /// Takes in what a round found; returns the differences and the minutes to be counted again.
    pub(crate) fn learn(&mut self, findings: Findings) -> (Vec<Difference>, Vec<SiteMinute>) {
        let Findings { plan, mut differences, letters, moved } = findings;
        self.from = Some(plan.to);
        self.minutes.extend(moved.into_iter().map(|(site, minute)| (minute, site)));
        let rows_differ =
            differences.iter().any(|difference| matches!(difference.kind(), "rows" | "doubled"));
        let mut heal = BTreeSet::new();
        for difference in &differences {
            let Difference::Counts { at, .. } = difference else { continue };
            let (site, minute) = at.clone();
            // Rows that are themselves in doubt are no truth to count by.
            let is_known = plan.minutes.get(at).is_some_and(Option::is_some);
            let rows_hold = !differences
                .iter()
                .any(|other| matches!(other, Difference::MinuteRows { at: wrong, .. } if wrong == at));
            if rows_hold && (is_known || !rows_differ) && self.healed.insert((minute, site)) {
                heal.insert(at.clone());
            }
        }
        let rounds = plan.letters.rounds + 1;
        match letters {
            Some(_) if rounds < PATIENCE => self.letters = Some(Letters { rounds, ..plan.letters }),
            late => {
                differences.extend(late);
                let from = plan.letters.to;
                // What was audited beyond the range of the letters is theirs for the next round.
                self.letters =
                    (from.offset < plan.to.offset).then_some(Letters { from, to: plan.to, rounds: 0 });
            }
        }
        (differences, heal.into_iter().collect())
    }

    /// A round failed: its minutes are due again.
    pub(crate) fn failed(&mut self, plan: Round) {
        self.minutes.extend(plan.minutes.into_keys().map(|(site, minute)| (minute, site)));
    }
}

/// What the state knows of a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It changed since it was last written.
    Waits,
    /// Its events and views.
    Counted((u64, u64)),
    Unknown,
}

impl Round {
    /// Asks the tables; what differs is asked for twice.
    pub(crate) async fn check(self, tables: &impl Sample) -> Result<Findings, (Round, StoreError)> {
        let asked = async {
            let mut differences = self.rows(tables).await?;
            if !differences.is_empty() {
                sleep(CONFIRM).await;
                let again = self.rows(tables).await?;
                differences.retain(|difference| again.contains(difference));
            }
            let letters = self.dead_letters(tables).await?;
            let (mut by_minute, mut moved) = self.by_minute(tables, self.minutes.keys()).await?;
            if !by_minute.is_empty() {
                sleep(CONFIRM).await;
                let (again, moved_again) = self.by_minute(tables, by_minute.keys()).await?;
                moved.extend(moved_again);
                by_minute.retain(|at, differences| again.get(at) == Some(differences));
            }
            differences.extend(by_minute.into_values().flatten());
            Ok((differences, letters, moved))
        };
        match asked.await {
            Ok((differences, letters, moved)) => Ok(Findings { plan: self, differences, letters, moved }),
            Err(error) => Err((self, error)),
        }
    }

    async fn rows(&self, tables: &impl Sample) -> Result<Vec<Difference>, StoreError> {
        let span = Span { from: self.from.offset, to: self.to.offset };
        if span.from == span.to {
            return Ok(Vec::new());
        }
        let stored = tables.booked(self.partition, span).await?;
        Ok(compare_span(span, self.to.account - self.from.account, stored))
    }

    async fn dead_letters(&self, tables: &impl Sample) -> Result<Option<Difference>, StoreError> {
        let Letters { from, to, .. } = self.letters;
        if from.offset == to.offset {
            return Ok(None);
        }
        let Account { dead: expected, .. } = to.account - from.account;
        let span = Span { from: from.offset, to: to.offset };
        let found = tables.dead(self.partition, span).await?;
        let (from, to) = (span.from, span.to);
        Ok((found != expected).then_some(Difference::DeadLetters { from, to, expected, found }))
    }

    /// The minutes that differ, and those whose counts know of later rows than this round.
    async fn by_minute(
        &self,
        tables: &impl Sample,
        minutes: impl Iterator<Item = &SiteMinute>,
    ) -> Result<(BTreeMap<SiteMinute, Vec<Difference>>, Vec<SiteMinute>), StoreError> {
        let mut minutes: Vec<SiteMinute> = minutes.cloned().collect();
        // Queries ask for some of them at once: near in time, so that each reads a short range.
        minutes.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        let (mut differing, mut moved) = (BTreeMap::new(), Vec::new());
        if minutes.is_empty() {
            return Ok((differing, moved));
        }
        let counted = tables.counted(self.partition, &minutes).await?;
        let raw = tables.raw(self.partition, &minutes, self.to.offset).await?;
        for at in minutes {
            let counted = counted.get(&at).copied().unwrap_or_default();
            if counted.version > self.to.offset {
                moved.push(at);
                continue;
            }
            let rows = raw.get(&at).copied().unwrap_or_default();
            let known = self.minutes.get(&at).copied().flatten();
            let differences = compare_minute(&at, known, &rows, &counted.sums);
            if !differences.is_empty() {
                differing.insert(at, differences);
            }
        }
        Ok((differing, moved))
    }
}

/// Logs differences, with what repairs them.
pub(crate) fn complain(partition: i32, differences: &[Difference], heal: &[SiteMinute]) {
    const REPAIR: &str = "footfall audit --repair";
    for difference in differences.iter().take(LINES) {
        match difference {
            Difference::Lines { from, to, account } => error!(
                partition,
                from,
                to,
                lines = account.lines,
                rows = account.rows,
                duplicates = account.duplicates,
                dead = account.dead,
                "audit: not every line became something; report it"
            ),
            Difference::Rows { from, to, expected, found } => {
                error!(
                    partition,
                    from,
                    to,
                    expected,
                    found,
                    repair = REPAIR,
                    "audit: rows differ from the log"
                );
            }
            Difference::Doubled { from, to, distinct, found } => {
                error!(partition, from, to, distinct, found, repair = REPAIR, "audit: rows are stored twice");
            }
            Difference::DeadLetters { from, to, expected, found } => {
                error!(
                    partition,
                    from,
                    to,
                    expected,
                    found,
                    repair = REPAIR,
                    "audit: dead letters differ from the log"
                );
            }
            Difference::MinuteRows { at: (site, minute), expected, found } => error!(
                partition,
                site,
                minute,
                expected_events = expected.0,
                found_events = found.0,
                expected_views = expected.1,
                found_views = found.1,
                repair = REPAIR,
                "audit: a minute's rows differ from the log"
            ),
            Difference::Counts { at, dimension, rows, counted } => {
                let healed = heal.contains(at);
                error!(
                    partition,
                    site = at.0,
                    minute = at.1,
                    dimension = dimension.as_str(),
                    ?rows,
                    ?counted,
                    healed,
                    repair = REPAIR,
                    "audit: rolling counts differ from the rows"
                );
            }
        }
    }
    if differences.len() > LINES {
        warn!(partition, more = differences.len() - LINES, "audit: further differences");
    }
}

#[cfg(test)]
mod tests;
