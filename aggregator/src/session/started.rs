//! The live figures of sessions, by the minute in which they start: each change of a session is a change of a few sums.

use std::collections::{BTreeMap, HashMap};

use footfall_schemas::{Dimension, time::SECOND_MS};
use hashbrown::DefaultHashBuilder;
use serde::{Deserialize, Serialize};

use super::texts::{TextId, Texts};
use crate::{panes::first_minute_shown, site::Windows, values::Top};

/// What is counted of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// In which it starts (ms).
    pub(super) minute: i64,
    pub(super) duration_ms: i64,
    pub(super) is_bounce: bool,
    /// Its entry and its exit page.
    pub(super) paths: [TextId; 2],
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Started {
    /// Minutes (ms) before are no longer counted.
    floor: i64,
    minutes: BTreeMap<i64, Sums>,
    /// First minute (ms) shown, and the sums from there on; made from the minutes when it is first asked for.
    #[serde(skip)]
    shown: Option<(i64, Sums)>,
}

/// Of the sessions that start in a minute, or in the minutes shown.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Sums {
    sessions: i64,
    bounces: i64,
    duration_ms: i64,
    /// How many enter and how many leave by a page.
    paths: HashMap<TextId, [i64; 2], DefaultHashBuilder>,
}

impl Started {
    pub(super) fn new() -> Self {
        Self { floor: i64::MIN, minutes: BTreeMap::new(), shown: None }
    }

    /// A session was `before` and is `after`: `None` for a session that did not, or does no longer, exist.
    pub(super) fn change(&mut self, before: Option<Seen>, after: Option<Seen>, texts: &mut Texts) {
        match (before, after) {
            (Some(one), Some(other)) if one.minute != other.minute => {
                self.change_in(one.minute, before, None, texts);
                self.change_in(other.minute, None, after, texts);
            }
            (Some(seen), _) | (None, Some(seen)) => self.change_in(seen.minute, before, after, texts),
            (None, None) => {}
        }
    }

    fn change_in(&mut self, minute: i64, before: Option<Seen>, after: Option<Seen>, texts: &mut Texts) {
        // What starts before the floor was never counted, or it has been forgotten with its minute.
        if minute < self.floor {
            return;
        }
        if let Some((_, sums)) = self.shown.as_mut().filter(|(from, _)| *from <= minute) {
            sums.change(before, after, |_, _| ());
        }
        let sums = self.minutes.entry(minute).or_default();
        sums.change(before, after, |path, is_new| {
            if is_new {
                texts.hold_again(path);
            } else {
                texts.release(path);
            }
        });
        if sums.sessions == 0 {
            self.minutes.remove(&minute);
        }
    }

    /// Puts the sessions' figures at `clock` into a site's windows; lists are cut after the `longest` most counted pages.
    pub(super) fn tell(&mut self, clock: i64, longest: usize, texts: &Texts, windows: &mut Windows) {
        let from = first_minute_shown(clock);
        self.show_from(from);
        for (minute, sums) in self.minutes.range(from..) {
            windows.minutes.entry(minute / SECOND_MS).or_default().sessions = sums.sessions.unsigned_abs();
        }
        let Some((_, sums)) = &self.shown else { return };
        let totals = &mut windows.totals;
        totals.sessions = sums.sessions.unsigned_abs();
        totals.bounces = sums.bounces.unsigned_abs();
        totals.duration_ms = sums.duration_ms.unsigned_abs();
        for (which, dimension) in [Dimension::Entry, Dimension::Exit].into_iter().enumerate() {
            let counts = sums.paths.iter().map(|(path, counts)| (*path, counts[which].unsigned_abs()));
            let counts = counts.filter(|(_, count)| *count > 0);
            let counts = counts.map(|(path, count)| (texts.shared(path), count));
            let top = Top::of(counts.collect(), longest);
            windows.errors[dimension as usize] = top.beyond;
            windows.tops[dimension as usize] = top;
        }
    }

    /// Moves the first minute shown: what leaves is subtracted.
    fn show_from(&mut self, from: i64) {
        match &mut self.shown {
            Some((first, sums)) if *first <= from => {
                self.minutes.range(*first..from).for_each(|(_, left)| sums.add(left, -1));
                *first = from;
            }
            _ => {
                let mut sums = Sums::default();
                self.minutes.range(from..).for_each(|(_, minute)| sums.add(minute, 1));
                self.shown = Some((from, sums));
            }
        }
    }

    /// Forgets the minutes before `floor`, which is not shown again.
    pub(super) fn sweep(&mut self, floor: i64, texts: &mut Texts) {
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        if self.shown.as_ref().is_some_and(|(first, _)| *first < floor) {
            self.show_from(floor);
        }
        let kept = self.minutes.split_off(&floor);
        for sums in std::mem::replace(&mut self.minutes, kept).into_values() {
            sums.paths.into_keys().for_each(|path| texts.release(path));
        }
    }
}

impl Sums {
    /// `pages` hears of each page that is new in the sums (`true`) or has left them (`false`).
    fn change(&mut self, before: Option<Seen>, after: Option<Seen>, mut pages: impl FnMut(TextId, bool)) {
        let counted = |seen: Option<Seen>| {
            seen.map_or((0, 0, 0), |seen| (1, i64::from(seen.is_bounce), seen.duration_ms))
        };
        let (old, new) = (counted(before), counted(after));
        self.sessions += new.0 - old.0;
        self.bounces += new.1 - old.1;
        self.duration_ms += new.2 - old.2;
        for which in [0, 1] {
            let path_of = |seen: Option<Seen>| seen.map(|seen| seen.paths[which]);
            let (old, new) = (path_of(before), path_of(after));
            if old != new {
                let mut step = |path: Option<TextId>, by: i64| {
                    if let Some((path, is_new)) = path.and_then(|path| self.step(path, which, by)) {
                        pages(path, is_new);
                    }
                };
                step(new, 1);
                step(old, -1);
            }
        }
    }

    /// Counts `by` at a page; tells when it is new or has left.
    fn step(&mut self, path: TextId, which: usize, by: i64) -> Option<(TextId, bool)> {
        let counts = self.paths.entry(path).or_default();
        let was_new = *counts == [0, 0];
        counts[which] += by;
        let has_left = *counts == [0, 0];
        if has_left {
            self.paths.remove(&path);
        }
        (was_new != has_left).then_some((path, was_new))
    }

    fn add(&mut self, other: &Self, sign: i64) {
        self.sessions += sign * other.sessions;
        self.bounces += sign * other.bounces;
        self.duration_ms += sign * other.duration_ms;
        for (path, counts) in &other.paths {
            for which in [0, 1] {
                if counts[which] != 0 {
                    self.step(*path, which, sign * counts[which]);
                }
            }
        }
    }
}
