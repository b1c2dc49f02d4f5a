//! Splits a visitor's events into sessions by event time: a session is a maximal run of events that lie less than the
//! site's gap apart. A function of the log's order and of nothing else.
//!
//! Events may come in any order: a late one extends a session, becomes its entry or exit, or joins two, of which the
//! one that began first keeps its id. So whatever the order, the sessions are the same, as long as a session is
//! remembered: until log time has passed its last event's arrival by the gap and five minutes, and among the
//! [`MAX_VISITS`] of its visitor that were touched last, and among the [`MAX_SESSIONS`] of the site that were made last.
//! What comes later joins what is still remembered, or makes a session of its own.

mod started;
#[cfg(test)]
mod tests;
mod texts;
mod visit;

use std::collections::{BTreeMap, HashMap, VecDeque};

use footfall_schemas::{
    SessionId, SiteId, directory::Directory, record::EventRef, rows::SessionRow, site::SESSION_GAP_MINUTES,
    time::MINUTE_MS,
};
use hashbrown::DefaultHashBuilder;
use serde::{Deserialize, Serialize};

use self::{started::Started, texts::Texts, visit::Visit};
use crate::{panes::first_minute_shown, site::Windows};

/// Sessions remembered of one visitor: the newest and a few that late events may still join.
const MAX_VISITS: usize = 8;
/// Sessions remembered of one site and partition, about 120 MB: nobody fills a node's memory with made-up visitors.
const MAX_SESSIONS: usize = 1 << 19;
/// A session is forgotten this long after log time has passed its last event's arrival by the gap.
const ALLOWANCE_MS: i64 = 5 * MINUTE_MS;
/// A session that goes on changing is written this often.
const WRITE_EVERY_MS: i64 = 5 * MINUTE_MS;

/// Silence that ends a session (ms), by site; other sites have the default.
pub(crate) type Gaps = BTreeMap<SiteId, i64>;

/// The gap of a site that names none, ms.
pub(crate) const DEFAULT_GAP_MS: i64 = SESSION_GAP_MINUTES as i64 * MINUTE_MS;

/// The gaps that the sites name.
pub(crate) fn gaps_of(directory: &Directory) -> Gaps {
    let gaps = directory.sites.iter().map(|(key, listed)| (key.clone(), listed.site.session_gap_ms()));
    gaps.filter(|(_, gap_ms)| *gap_ms != DEFAULT_GAP_MS).collect()
}

/// Sessions of one site's visitors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sessions {
    gap_ms: i64,
    /// By visitor, where its newest session lies. One probe finds it, and each names the one before.
    newest: HashMap<u64, u32, DefaultHashBuilder>,
    visits: Vec<Option<Visit>>,
    /// Places in `visits` to be used again.
    free: Vec<u32>,
    /// Visitor and session, in the order in which they were made. Some may have been forgotten since.
    order: VecDeque<(u64, u64)>,
    most: usize,
    texts: Texts,
    started: Started,
    /// No longer remembered, and not yet written.
    left: Vec<Left>,
    swept_at: i64,
    /// Visitors with a changed session, and since when (log time). Known when rows are first asked for: until then
    /// everything counts as not written.
    #[serde(skip)]
    unwritten: Option<VecDeque<(i64, u64)>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Left {
    visit: Visit,
    /// The session that it was found to be a part of; 0 for one that was forgotten.
    joined: u64,
}

impl Sessions {
    pub(crate) fn new(gap_ms: i64) -> Self {
        Self {
            gap_ms,
            newest: HashMap::default(),
            visits: Vec::new(),
            free: Vec::new(),
            order: VecDeque::new(),
            most: MAX_SESSIONS,
            texts: Texts::default(),
            started: Started::new(),
            left: Vec::new(),
            swept_at: 0,
            unwritten: None,
        }
    }

    /// Holds for the events to come: what was joined or kept apart stays so.
    pub(crate) fn set_gap(&mut self, gap_ms: i64) {
        self.gap_ms = gap_ms;
    }

    /// Counts an event of a record that ends at offset `version`. Its session, and whether it starts it.
    pub(crate) fn count(&mut self, event: &EventRef<'_>, log_time: i64, version: u64) -> (SessionId, bool) {
        let (index, starts) = match self.goes_on(event, log_time) {
            Some(index) => (index, false),
            None => self.find(event, log_time, version),
        };
        let Self { visits, texts, started, unwritten, .. } = self;
        let visit = visits[index as usize].as_mut().expect("a visitor's session is remembered");
        let before = (!starts).then(|| visit.seen());
        visit.add(event, texts);
        (visit.touched, visit.version) = (log_time, version);
        started.change(before, Some(visit.seen()), texts);
        if !std::mem::replace(&mut visit.dirty, true)
            && let Some(unwritten) = unwritten
        {
            unwritten.push_back((log_time, visit.visitor));
        }
        let session = SessionId(visit.session);
        if starts {
            self.forget_oldest(log_time);
        }
        (session, starts)
    }

    /// The visitor's newest session, when the event goes on with it: the usual case. Nothing older lies near an event after
    /// that session's start, unless the gap has grown since; then what was kept apart stays so.
    fn goes_on(&self, event: &EventRef<'_>, log_time: i64) -> Option<u32> {
        let index = *self.newest.get(&event.visitor.0)?;
        let visit = self.visit(index);
        let is_it = event.event_time >= visit.start
            && visit.is_near(event.event_time, self.gap_ms)
            && !self.is_forgotten(visit, log_time);
        is_it.then_some(index)
    }

    /// The session of any other event, joined with whatever the event connects it to, or a new one.
    fn find(&mut self, event: &EventRef<'_>, log_time: i64, version: u64) -> (u32, bool) {
        let visitor = event.visitor.0;
        let mut others = self.remembered(visitor, log_time);
        let near: Vec<u32> = others
            .extract_if(.., |index| self.visit(*index).is_near(event.event_time, self.gap_ms))
            .collect();
        let found = match near.split_last() {
            Some((first, absorbed)) => {
                absorbed.iter().for_each(|index| self.join(*first, *index, version));
                (*first, false)
            }
            None => {
                if others.len() >= MAX_VISITS {
                    let touched = |at: &usize| self.visit(others[*at]).touched;
                    let oldest = (0..others.len()).rev().min_by_key(touched).unwrap_or(0);
                    let forgotten = others.remove(oldest);
                    self.leave(forgotten, 0);
                }
                let visit = Visit::new(event, &mut self.texts);
                self.order.push_back((visitor, visit.session));
                (self.remember(visit), true)
            }
        };
        // Those that began after the event's session come before it.
        let place = others.partition_point(|index| self.visit(*index).start > event.event_time);
        others.insert(place, found.0);
        self.chain(visitor, &others);
        found
    }

    /// Forgets the sessions made first, as long as there are too many. What a sweep has freed is forgotten by the same
    /// rule, so it does not matter when that was.
    fn forget_oldest(&mut self, log_time: i64) {
        while let Some((visitor, session)) = self.order.front().copied() {
            let mut remembered = self.remembered(visitor, log_time);
            let place = remembered.iter().position(|index| self.visit(*index).session == session);
            if place.is_some() && self.order.len() <= self.most {
                self.chain(visitor, &remembered);
                break;
            }
            self.order.pop_front();
            if let Some(place) = place {
                let oldest = remembered.remove(place);
                self.leave(oldest, 0);
            }
            self.chain(visitor, &remembered);
        }
    }

    /// The visitor's sessions that are not forgotten, the newest first.
    fn remembered(&mut self, visitor: u64, log_time: i64) -> Vec<u32> {
        let mut next = self.newest.get(&visitor).copied();
        let all = std::iter::from_fn(|| {
            let index = next?;
            next = self.visit(index).older;
            Some(index)
        });
        let (forgotten, remembered): (Vec<u32>, Vec<u32>) =
            all.partition(|index| self.is_forgotten(self.visit(*index), log_time));
        forgotten.into_iter().for_each(|index| self.leave(index, 0));
        remembered
    }

    /// These are the visitor's sessions from now on, the newest first.
    fn chain(&mut self, visitor: u64, visits: &[u32]) {
        match visits.first() {
            Some(newest) => self.newest.insert(visitor, *newest),
            None => self.newest.remove(&visitor),
        };
        for (place, index) in visits.iter().enumerate() {
            self.visits[*index as usize].as_mut().expect("just found").older = visits.get(place + 1).copied();
        }
    }

    fn remember(&mut self, visit: Visit) -> u32 {
        match self.free.pop() {
            Some(index) => {
                self.visits[index as usize] = Some(visit);
                index
            }
            None => {
                self.visits.push(Some(visit));
                u32::try_from(self.visits.len() - 1)
                    .expect("a node remembers fewer sessions than 32 bits count")
            }
        }
    }

    /// Frees a session's place; what is not written yet is kept until it is.
    fn leave(&mut self, index: u32, joined: u64) {
        let visit = self.visits[index as usize].take().expect("left once");
        self.free.push(index);
        if visit.dirty {
            self.left.push(Left { visit, joined });
        } else {
            visit.release(&mut self.texts);
        }
    }

    /// `other` turns out to be a part of `first`.
    fn join(&mut self, first: u32, other: u32, version: u64) {
        let Self { visits, texts, started, unwritten, .. } = self;
        let mut absorbed = visits[other as usize].take().expect("joined once");
        let visit = visits[first as usize].as_mut().expect("a session joins another");
        let before = visit.seen();
        visit.absorb(&absorbed, texts);
        started.change(Some(absorbed.seen()), None, texts);
        started.change(Some(before), Some(visit.seen()), texts);
        // Both rows are written together, at once: in between, events would be missing or doubled.
        if let Some(unwritten) = unwritten {
            unwritten.push_front((i64::MIN, visit.visitor));
        }
        absorbed.version = version;
        let joined = visit.session;
        self.free.push(other);
        self.left.push(Left { visit: absorbed, joined });
    }

    fn visit(&self, index: u32) -> &Visit {
        self.visits[index as usize].as_ref().expect("a remembered session's place is taken")
    }

    fn is_forgotten(&self, visit: &Visit, log_time: i64) -> bool {
        log_time > visit.touched + self.gap_ms + ALLOWANCE_MS
    }

    /// Frees memory; changes nothing that is seen.
    pub(crate) fn sweep(&mut self, log_time: i64) {
        if log_time.saturating_sub(self.swept_at) < MINUTE_MS {
            return;
        }
        self.swept_at = log_time;
        let forgotten = self.visits.iter().flatten().filter(|visit| self.is_forgotten(visit, log_time));
        let visitors: Vec<u64> = forgotten.map(|visit| visit.visitor).collect();
        for visitor in visitors {
            let remembered = self.remembered(visitor, log_time);
            self.chain(visitor, &remembered);
        }
        // One minute more than shown, because the live view is told at a clock that may lag by a tick.
        self.started.sweep(first_minute_shown(log_time) - MINUTE_MS, &mut self.texts);
    }

    /// Sessions that left memory and are still to be written.
    pub(crate) fn left(&self) -> usize {
        self.left.len()
    }

    /// Takes the rows of what left memory.
    pub(crate) fn take_left(&mut self, site: &SiteId, partition: i32, rows: &mut Vec<SessionRow>) {
        for Left { visit, joined } in self.left.drain(..) {
            rows.push(visit.row(site, partition, joined, &self.texts));
            visit.release(&mut self.texts);
        }
    }

    /// Takes what is to be written at `clock`, and with `None` all that changed, until there are about `most` rows: what
    /// left memory, what was joined, what changed five minutes or a gap ago. A session that has ended is among these.
    pub(crate) fn take_changed(
        &mut self,
        site: &SiteId,
        partition: i32,
        clock: Option<i64>,
        most: usize,
        rows: &mut Vec<SessionRow>,
    ) {
        self.take_left(site, partition, rows);
        let due = clock.map_or(i64::MAX, |clock| clock - WRITE_EVERY_MS.min(self.gap_ms));
        let Self { newest, visits, texts, unwritten, .. } = self;
        let unwritten = unwritten.get_or_insert_with(|| {
            visits
                .iter()
                .flatten()
                .filter(|visit| visit.dirty)
                .map(|visit| (i64::MIN, visit.visitor))
                .collect()
        });
        while rows.len() < most
            && let Some((_, visitor)) = unwritten.pop_front_if(|(since, _)| *since <= due)
        {
            let mut next = newest.get(&visitor).copied();
            while let Some(visit) = next.and_then(|index| visits[index as usize].as_mut()) {
                if std::mem::take(&mut visit.dirty) {
                    rows.push(visit.row(site, partition, 0, texts));
                }
                next = visit.older;
            }
        }
    }

    /// Puts the sessions' live figures at `clock` into a site's windows; lists are cut after the `longest` most counted.
    pub(crate) fn tell(&mut self, clock: i64, longest: usize, windows: &mut Windows) {
        self.started.tell(clock, longest, &self.texts, windows);
    }
}
