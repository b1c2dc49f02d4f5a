//! Counts of a page or an event by minute, told by how a top list grows. The list holds the sums of half an hour; what
//! comes shows as a rise between one record and the next.
//!
//! A count is never too high. It may be too low by what came in the record in which a minute left the half hour (one
//! record in 240), and by what a value had before it rose into a list that is cut at its bound.

use std::collections::BTreeMap;

use footfall_schemas::{
    Dimension,
    alert_rule::Subject,
    live::{LiveState, MINUTES_SHOWN},
    time::{MINUTE_MS, SECOND_MS, minute_of},
};

/// Follows the matching values of one partition's list.
#[derive(Debug, Clone)]
pub(crate) struct Growth {
    /// As they were told last.
    held: BTreeMap<String, u64>,
    /// A value that was not in the list had at most so many; 0 when the list was whole.
    floor: u64,
    /// Log time (ms) of the last record; `None` before the first.
    clock: Option<i64>,
    /// Log time (ms) from which on everything is counted.
    from: i64,
    /// By start of the minute (s since 1970), the last half hour.
    minutes: BTreeMap<i64, u64>,
    /// Log time (ms) of the newest rise.
    newest: Option<i64>,
}

impl Growth {
    /// `since`: log time (ms) at which the partition began to be watched.
    pub(crate) fn new(since: i64) -> Self {
        Self {
            held: BTreeMap::new(),
            floor: 0,
            clock: None,
            from: since,
            minutes: BTreeMap::new(),
            newest: None,
        }
    }

    /// Takes the state told at `clock`.
    pub(crate) fn take(&mut self, subject: &Subject, state: &LiveState, clock: i64) {
        let Some((dimension, matches)) = matching(subject) else { return };
        let list = state.tops.get(&dimension);
        let told: BTreeMap<String, u64> = list
            .into_iter()
            .flatten()
            .filter(|(value, _)| matches(value))
            .map(|(value, count)| (value.clone(), *count))
            .collect();
        let first = self.clock.is_none();
        let before = self.clock.unwrap_or(clock);
        if first && state.minutes.keys().any(|minute| minute * SECOND_MS < minute_of(self.from)) {
            // Of what is in the list, some may be older than the watch.
            self.from = clock;
        } else {
            let risen = told.iter().map(|(value, count)| {
                count.saturating_sub(self.held.get(value).copied().unwrap_or(self.floor))
            });
            let risen: u64 = risen.sum();
            if risen > 0 {
                self.spread(risen, before, clock);
                self.newest = Some(clock);
            }
        }
        self.floor = state.errors.get(&dimension).copied().unwrap_or(0);
        self.held = told;
        self.clock = Some(clock);
        let oldest = minute_of(clock) / SECOND_MS - MINUTES_SHOWN * MINUTE_MS / SECOND_MS;
        self.minutes.retain(|minute, _| *minute > oldest);
    }

    /// What came after a gap came somewhere in it: as much in every minute, what is left over in the newest.
    fn spread(&mut self, risen: u64, before: i64, clock: i64) {
        let newest = minute_of(clock);
        let oldest = minute_of(before).clamp(newest - (MINUTES_SHOWN - 1) * MINUTE_MS, newest);
        let minutes = ((newest - oldest) / MINUTE_MS + 1) as u64;
        // A record that comes in time and only crosses a minute's end is none of a gap.
        let minutes = if clock - before < MINUTE_MS { 1 } else { minutes };
        let each = risen / minutes;
        for back in 0..minutes {
            let count = if back == 0 { risen - each * (minutes - 1) } else { each };
            if count > 0 {
                *self.minutes.entry((newest - back as i64 * MINUTE_MS) / SECOND_MS).or_default() += count;
            }
        }
    }

    pub(crate) fn minutes(&self) -> &BTreeMap<i64, u64> {
        &self.minutes
    }

    pub(crate) fn from(&self) -> i64 {
        self.from
    }

    pub(crate) fn newest(&self) -> Option<i64> {
        self.newest
    }

    /// The matching counts of the half hour, as they were told last.
    pub(crate) fn half_hour(&self) -> u64 {
        self.held.values().sum()
    }
}

type Matches<'a> = Box<dyn Fn(&str) -> bool + 'a>;

/// In which list a subject is, and which of its values; `None` when it is in none.
fn matching(subject: &Subject) -> Option<(Dimension, Matches<'_>)> {
    match subject {
        Subject::Views | Subject::Events => None,
        Subject::Page(pattern) => {
            // A site may keep parameters with a path.
            let matches = |page: &str| pattern.matches(page.split('?').next().unwrap_or(page));
            Some((Dimension::Page, Box::new(matches)))
        }
        Subject::Event(name) => Some((Dimension::Event, Box::new(move |event: &str| event == name))),
    }
}

#[cfg(test)]
mod tests {
    use footfall_schemas::live::MinuteCounts;
    use rstest::rstest;

    use super::*;

    /// A full minute, in s.
    const START: i64 = 1_800_000_000;

    fn state(second: i64, pages: &[(&str, u64)]) -> LiveState {
        let minute = (START + second) / 60 * 60;
        let pages = pages.iter().map(|(page, count)| ((*page).to_owned(), *count));
        LiveState {
            minutes: [(minute, MinuteCounts { views: 1, events: 1, ..Default::default() })].into(),
            tops: [(Dimension::Page, pages.collect())].into(),
            ..LiveState::default()
        }
    }

    /// Of records told as `second page=count page=count`; `cut` when the list is.
    fn minutes(pattern: &str, told: &[&str]) -> Vec<(i64, u64)> {
        let subject = Subject::Page(pattern.try_into().unwrap());
        let mut growth = Growth::new(START * 1_000);
        for record in told {
            let mut words = record.split(' ');
            let second: i64 = words.next().unwrap().parse().unwrap();
            let pages = words.clone().filter_map(|word| word.rsplit_once('='));
            let pages: Vec<_> = pages.map(|(page, count)| (page, count.parse().unwrap())).collect();
            let mut state = state(second, &pages);
            state.errors.extend(words.any(|word| word == "cut").then_some((Dimension::Page, 5)));
            growth.take(&subject, &state, (START + second) * 1_000);
        }
        growth.minutes().iter().map(|(minute, count)| ((minute - START) / 60, *count)).collect()
    }

    #[rstest]
    #[case::a_list_that_begins_with_the_watch("/404", &["0 /404=2"], &[(0, 2)])]
    #[case::a_rise("/404", &["0", "1 /404=1", "2 /404=4"], &[(0, 4)])]
    #[case::another_page("/404", &["0", "1 /=7"], &[])]
    #[case::several_pages("/404/**", &["0", "1 /404=1 /404/a=2 /405=3"], &[(0, 3)])]
    #[case::with_parameters("/404", &["0", "1 /404?q=a=1"], &[(0, 1)])]
    #[case::the_next_minute("/404", &["0", "59 /404=1", "60 /404=3"], &[(0, 1), (1, 2)])]
    #[case::a_minute_leaves("/404", &["0 /404=5", "1800 /404=1", "1801 /404=2"], &[(30, 1)])]
    #[case::a_gap_of_four_minutes("/404", &["0", "180 /404=9"], &[(0, 2), (1, 2), (2, 2), (3, 3)])]
    #[case::a_gap_longer_than_the_window("/404", &["0", "36000 /404=1"], &[(600, 1)])]
    #[case::into_a_list_that_is_cut("/404", &["0 /=8 /a=5 cut", "1 /=8 /404=6 cut"], &[(0, 1)])]
    #[case::into_a_list_that_was_cut("/404", &["0 /=8 /a=5 cut", "1 /=8 /404=6"], &[(0, 1)])]
    fn what_came_is_how_the_list_rose(
        #[case] pattern: &str,
        #[case] told: &[&str],
        #[case] expected: &[(i64, u64)],
    ) {
        assert_eq!(minutes(pattern, told), expected);
    }

    #[test]
    fn what_was_there_before_the_watch_is_not_counted() {
        let subject = Subject::Page("/404".try_into().unwrap());
        let mut growth = Growth::new((START + 60) * 1_000);
        growth.take(&subject, &state(0, &[("/404", 9)]), (START + 70) * 1_000);
        assert_eq!((growth.minutes().len(), growth.from(), growth.half_hour()), (0, (START + 70) * 1_000, 9));
        growth.take(&subject, &state(80, &[("/404", 10)]), (START + 80) * 1_000);
        assert_eq!(growth.minutes().values().sum::<u64>(), 1);
        assert_eq!(growth.newest(), Some((START + 80) * 1_000));
    }

    #[test]
    fn an_event_is_counted_by_its_name() {
        let subject = Subject::Event("signup".into());
        let mut growth = Growth::new(START * 1_000);
        let list = [("signup".to_owned(), 3), ("signups".to_owned(), 4)].into();
        let state = LiveState { tops: [(Dimension::Event, list)].into(), ..LiveState::default() };
        growth.take(&subject, &state, START * 1_000);
        assert_eq!(growth.half_hour(), 3);
    }
}
