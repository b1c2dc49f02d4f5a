//! The state of one partition, and how a record changes it. No I/O, no clock: log time is when the broker took the
//! newest record.

use std::collections::{BTreeSet, HashMap, HashSet};

use footfall_schemas::{
    EventId, SiteId,
    record::EventRef,
    rows::{Coordinates, RollingRow, SessionRow},
    time::{MINUTE_MS, minute_of},
};
use hashbrown::DefaultHashBuilder;
use serde::{Deserialize, Serialize};

use crate::{
    audit::{Account, Books, Checkpoint, Known},
    block::{Block, Counts, Letter},
    dedupe::{Bounds, Dedupe, Verdict},
    panes::first_minute_shown,
    payloads::Payloads,
    record::Record,
    rows::Counted,
    session::{DEFAULT_GAP_MS, Gaps},
    site::{Site, SiteBounds, Windows},
};

/// Two ingest nodes' clocks differ by less than this.
const NODE_SKEW_MS: i64 = 5 * MINUTE_MS;
/// A site's bounds are halved at most so often.
const MOST_NARROWED: u8 = 12;
/// Rows of sessions taken at once: a row is some hundred bytes, and after a restart there is one of each session. Few in
/// tests, so that the simulation comes to it.
const SESSION_ROWS: usize = if cfg!(test) { 5 } else { 50_000 };
/// Pause between two writes of sessions while the log is busy: each INSERT makes a part to be merged.
const SESSIONS_EVERY_MS: i64 = 30_000;
/// The floor until the first record after an unknown past has told the time.
const UNKNOWN_FLOOR: i64 = i64::MAX;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) lateness_ms: i64,
    pub(crate) site: SiteBounds,
    pub(crate) live_values: usize,
    /// Beyond it the largest site is narrowed.
    pub(crate) bytes: usize,
    pub(crate) dedupe: Bounds,
}

/// What a partition's sites hold, for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size {
    /// About.
    pub(crate) bytes: usize,
    /// Sites whose bounds were halved, once or more.
    pub(crate) narrowed: usize,
}

/// Events that had to be looked up and are stored.
pub(crate) type Stored = HashMap<(SiteId, EventId), StoredEvent>;

/// A row that an event has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredEvent {
    /// Offset and index.
    pub(crate) place: (i64, u16),
    pub(crate) payload_hash: u64,
}

/// What happened, for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) rows: u64,
    pub(crate) duplicates: u64,
    /// Of these, how many came with another payload than the first.
    pub(crate) conflicts: u64,
    pub(crate) late: u64,
    pub(crate) poison: u64,
}

pub(crate) struct Partition {
    number: i32,
    limits: Limits,
    state: State,
    /// Cells to be written, by minute and site.
    dirty: BTreeSet<(i64, u32)>,
    /// Sites changed since they were last told.
    touched: HashSet<u32>,
    open: Block,
    open_bytes: usize,
    recent: Recent,
    payloads: Payloads,
    size: Size,
    /// Clock at which sessions were last taken.
    sessions_at: i64,
}

/// What a snapshot holds: a pure function of the records before `next`, and of the settings adopted among them.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    /// Offset after the last record.
    next: i64,
    log_time: i64,
    books: Books,
    sites: Vec<Site>,
    dedupe: Dedupe,
    /// Minutes before are not in memory.
    floor: i64,
    /// Minutes not in memory that changed: site and start in ms.
    recount: BTreeSet<(u32, i64)>,
    /// As adopted last.
    gaps: Gaps,
    #[serde(skip)]
    numbers: HashMap<SiteId, u32, DefaultHashBuilder>,
}

/// Ids of the open block and of the one before, which may not be stored yet: what a look-up cannot find.
#[derive(Default)]
struct Recent {
    open: Vec<(u32, EventId)>,
    before: Vec<(u32, EventId)>,
    /// Built when it is first asked for.
    index: Option<HashSet<(u32, EventId)>>,
}

impl Partition {
    /// For a log read from its beginning.
    pub(crate) fn from_the_beginning(number: i32, limits: Limits) -> Self {
        Self::new(number, limits, State::new(0, Dedupe::from_the_beginning(), i64::MIN))
    }

    /// For a log of which the records before `next` are gone and no state was kept.
    pub(crate) fn from_the_unknown(number: i32, limits: Limits, next: i64) -> Self {
        Self::new(number, limits, State::new(next, Dedupe::from_the_unknown(i64::MAX), UNKNOWN_FLOOR))
    }

    /// From [`Self::encode`]. Everything in memory counts as not written.
    pub(crate) fn decode(number: i32, limits: Limits, bytes: &[u8]) -> Result<Self, postcard::Error> {
        let mut state: State = postcard::from_bytes(bytes)?;
        state.numbers = (0..).zip(&state.sites).map(|(number, site)| (site.id.clone(), number)).collect();
        state.sites.iter_mut().for_each(Site::index);
        let mut partition = Self::new(number, limits, state);
        for (number, site) in (0..).zip(&partition.state.sites) {
            partition.dirty.extend(site.minutes().map(|minute| (minute, number)));
            partition.touched.insert(number);
        }
        Ok(partition)
    }

    /// Whether these are the settings adopted last.
    pub(crate) fn has_adopted(&self, gaps: &Gaps) -> bool {
        self.state.gaps == *gaps
    }

    /// Takes over the sites' settings, at a block's start. `true` when they differ from those adopted before: a replay
    /// over this offset comes to the same sessions only from a state that is kept here.
    pub(crate) fn adopt(&mut self, gaps: &Gaps) -> bool {
        if self.has_adopted(gaps) {
            return false;
        }
        self.state.gaps.clone_from(gaps);
        for site in &mut self.state.sites {
            site.sessions.set_gap(gaps.get(&site.id).copied().unwrap_or(DEFAULT_GAP_MS));
        }
        true
    }

    fn new(number: i32, limits: Limits, state: State) -> Self {
        let open = Block { start: state.next, end: state.next, ..Block::default() };
        Self {
            number,
            limits,
            state,
            dirty: BTreeSet::new(),
            touched: HashSet::new(),
            open,
            open_bytes: 0,
            recent: Recent::default(),
            payloads: Payloads::default(),
            size: Size::default(),
            sessions_at: 0,
        }
    }

    /// The state at a block's end.
    pub(crate) fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(&self.state).expect("plain collections always serialise into memory")
    }

    /// Offset after the last record folded.
    pub(crate) fn next(&self) -> i64 {
        self.state.next
    }

    pub(crate) fn log_time(&self) -> i64 {
        self.state.log_time
    }

    /// The events of a record that must be looked up among the stored rows before it is folded.
    pub(crate) fn unknown<'a>(&'a self, record: &'a Record<'_>) -> impl Iterator<Item = (&'a str, EventId)> {
        let log_time = self.state.log_time.max(record.timestamp);
        record.lines.iter().filter_map(move |(_, line)| {
            let event = line.as_ref().ok()?;
            let site = self.state.numbers.get(&*event.site).copied().unwrap_or(u32::MAX);
            (self.state.dedupe.check(site, event.event_id, log_time) == Verdict::Unknown)
                .then_some((&*event.site, event.event_id))
        })
    }

    /// Folds the next record in. `emit`: its rows and dead letters go into the open block; otherwise they were
    /// written before.
    pub(crate) fn fold(&mut self, record: &Record<'_>, stored: &Stored, emit: bool) -> Tally {
        debug_assert!(record.offset >= self.state.next, "records come in the log's order");
        let mut tally = Tally::default();
        self.state.advance(record.timestamp);
        let (offset, lines) = (record.offset, record.lines.len() as u64);
        for (index, line) in &record.lines {
            let at = Coordinates { partition: self.number, offset, index: *index };
            match line {
                Ok(event) => self.event(event, at, stored, emit, &mut tally),
                Err(letter) => {
                    tally.poison += 1;
                    // Only of a site that is known: garbage must not fill the memory with sites.
                    let site = SiteId::try_from(letter.site.as_str()).ok();
                    if let Some(number) = site.and_then(|site| self.state.numbers.get(&site).copied()) {
                        self.state.sites[number as usize].poison += 1;
                        self.touched.insert(number);
                    }
                    if emit {
                        self.open.letters.push(Letter { at, letter: letter.clone() });
                    }
                }
            }
        }
        let Tally { rows, duplicates, poison: dead, .. } = tally;
        self.state.books.add(offset, self.state.log_time, Account { lines, rows, duplicates, dead });
        self.state.next = offset + 1;
        self.open.end = self.state.next;
        if emit {
            self.open_bytes += record.bytes;
        } else {
            self.open.start = self.state.next;
        }
        tally
    }

    fn event(
        &mut self,
        event: &EventRef<'_>,
        at: Coordinates,
        stored: &Stored,
        emit: bool,
        tally: &mut Tally,
    ) {
        let state = &mut self.state;
        let log_time = state.log_time;
        let number = state.number_of(&event.site);
        let key = (number, event.event_id);
        let first = match state.dedupe.see(number, event.event_id, log_time) {
            Verdict::Fresh => None,
            Verdict::Duplicate => Some(self.payloads.first(number, event.event_id)),
            Verdict::Unknown => {
                let row = stored.get(&(state.sites[number as usize].id.clone(), event.event_id));
                match row.filter(|row| row.place < (at.offset, at.index)) {
                    Some(row) => Some(Some(row.payload_hash)),
                    None => self.recent.contains(key).then(|| self.payloads.first(number, event.event_id)),
                }
            }
        };
        let site = &mut state.sites[number as usize];
        self.touched.insert(number);
        if let Some(payload) = first {
            site.duplicate += 1;
            tally.duplicates += 1;
            tally.conflicts += u64::from(payload.is_some_and(|payload| payload != event.payload_hash));
            return;
        }
        self.payloads.note(number, event.event_id, event.payload_hash);

        let (session, session_start) = site.sessions.count(event, log_time, at.offset as u64 + 1);
        let minute = minute_of(event.event_time);
        let late = minute + MINUTE_MS + self.limits.lateness_ms <= log_time;
        site.stored += 1;
        site.late += u64::from(late);
        site.newest = site.newest.max(event.received_at);
        tally.rows += 1;
        tally.late += u64::from(late);
        if minute >= state.floor {
            site.count(event, self.limits.site);
            self.dirty.insert((minute, number));
        } else {
            state.recount.insert((number, minute));
        }
        site.see(event, self.limits.site);
        if emit {
            self.recent.push(key);
            self.open.rows.push(event, Counted { session, session_start, late, at });
        }
    }

    /// Start of the open block.
    pub(crate) fn open_start(&self) -> i64 {
        self.open.start
    }

    pub(crate) fn open_rows(&self) -> usize {
        self.open.rows.len()
    }

    pub(crate) fn open_bytes(&self) -> usize {
        self.open_bytes
    }

    /// `true` when no record lies in the open block.
    pub(crate) fn is_at_a_boundary(&self) -> bool {
        self.open.start == self.state.next
    }

    /// Moves over offsets that hold no record (the log's control records).
    pub(crate) fn skip_to(&mut self, next: i64) {
        if next > self.state.next {
            if self.is_at_a_boundary() {
                self.open.start = next;
            }
            self.state.next = next;
            self.open.end = next;
        }
    }

    /// Ends the open block at the last record folded. The block before must be stored by now.
    pub(crate) fn close(&mut self) -> Block {
        let next = Block { start: self.state.next, end: self.state.next, ..Block::default() };
        self.open_bytes = 0;
        self.recent.roll();
        std::mem::replace(&mut self.open, next)
    }

    /// Takes what changed of the minutes that have ended at `clock` (of all with `None`), and of the sessions that are to
    /// be written then, as of the last record. Many sessions are taken a part at a time: the rest is taken next.
    /// `recount`: also what only the stored rows can tell.
    pub(crate) fn take_counts(&mut self, clock: Option<i64>, recount: bool) -> Counts {
        let closed = clock.map_or(i64::MAX, |clock| clock - MINUTE_MS - self.limits.lateness_ms);
        let mut counts = Counts::default();
        let State { sites, recount: uncertain, next, .. } = &mut self.state;
        let version = *next as u64;
        while let Some((start, number)) = self.dirty.first().copied().filter(|(start, _)| *start <= closed) {
            self.dirty.pop_first();
            let site = &mut sites[number as usize];
            let id = site.id.clone();
            let Some((minute, values)) = site.minute(start) else { continue };
            if minute.is_uncertain() {
                uncertain.insert((number, start));
                continue;
            }
            counts.rows.extend(minute.take_changed(values).map(|(dimension, value, measures)| {
                RollingRow::new(&id, start, (dimension, value), self.number, measures, version)
            }));
        }
        if recount {
            let uncertain = std::mem::take(uncertain);
            counts.recount =
                uncertain.into_iter().map(|(site, start)| (sites[site as usize].id.clone(), start)).collect();
        }
        if clock.is_none_or(|clock| clock - self.sessions_at >= SESSIONS_EVERY_MS) {
            for Site { id, sessions, .. } in sites {
                sessions.take_changed(id, self.number, clock, SESSION_ROWS, &mut counts.sessions);
            }
            if counts.sessions.len() < SESSION_ROWS {
                self.sessions_at = clock.unwrap_or(self.sessions_at);
            }
        }
        counts
    }

    /// Takes the sessions that left memory unwritten, when they are many: a long replay must not gather them all.
    pub(crate) fn take_left(&mut self) -> Vec<SessionRow> {
        let mut rows = Vec::new();
        let sites = &mut self.state.sites;
        if sites.iter().map(|site| site.sessions.left()).sum::<usize>() >= SESSION_ROWS {
            for Site { id, sessions, .. } in sites {
                sessions.take_left(id, self.number, &mut rows);
            }
        }
        rows
    }

    /// Frees what is out of every window. Only between records whose look-ups were answered.
    pub(crate) fn sweep(&mut self) {
        let state = &mut self.state;
        state.dedupe.sweep(state.log_time, self.limits.dedupe);
        // One minute more than shown, because windows are told at a clock that may lag by a tick.
        let floor = first_minute_shown(state.log_time)
            .min(minute_of(state.log_time - self.limits.lateness_ms))
            - MINUTE_MS;
        let moved = floor > state.floor && state.log_time > 0;
        if moved {
            state.floor = floor;
        }
        for (number, site) in (0..).zip(&mut state.sites) {
            for start in site.sweep(state.log_time, state.floor) {
                // What leaves memory unwritten is counted from the stored rows.
                if self.dirty.remove(&(start, number)) {
                    state.recount.insert((number, start));
                }
            }
        }
        self.fit(moved);
    }

    /// Narrows the largest site as long as all together hold too much, and widens them when there is room again.
    fn fit(&mut self, widen: bool) {
        let Limits { site: bounds, bytes: limit, .. } = self.limits;
        let mut sizes: Vec<usize> = self.state.sites.iter().map(Site::bytes).collect();
        let mut all: usize = sizes.iter().sum();
        if widen && all < limit / 2 {
            self.state.sites.iter_mut().for_each(Site::widen);
        }
        while all > limit {
            let may_narrow = |number: &usize| self.state.sites[*number].narrowed() < MOST_NARROWED;
            let Some(largest) = (0..sizes.len()).filter(may_narrow).max_by_key(|number| sizes[*number])
            else {
                break;
            };
            self.state.sites[largest].narrow(bounds);
            all -= sizes[largest];
            sizes[largest] = self.state.sites[largest].bytes();
            all += sizes[largest];
        }
        self.size =
            Size { bytes: all, narrowed: self.state.sites.iter().filter(|s| s.narrowed() > 0).count() };
    }

    /// What is held, as of the last sweep.
    pub(crate) fn size(&self) -> Size {
        self.size
    }

    /// What became of the lines of the records before [`Self::next`].
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint { offset: self.state.next, account: self.state.books.account() }
    }

    /// As it was some minutes of log time ago.
    pub(crate) fn oldest_checkpoint(&self) -> Option<Checkpoint> {
        self.state.books.oldest()
    }

    /// What the audit may expect of a minute's rows.
    pub(crate) fn known(&self, site: &str, minute: i64) -> Known {
        let number = SiteId::try_from(site).ok().and_then(|site| self.state.numbers.get(&site).copied());
        let Some(number) = number else { return Known::Unknown };
        if self.dirty.contains(&(minute, number)) || self.state.recount.contains(&(number, minute)) {
            return Known::Waits;
        }
        match self.state.sites[number as usize].counted(minute) {
            Some(total) => Known::Counted((total.events, total.views)),
            None => Known::Unknown,
        }
    }

    /// Has a minute counted again from the stored rows.
    pub(crate) fn recount(&mut self, site: &str, minute: i64) {
        let number = SiteId::try_from(site).ok().and_then(|site| self.state.numbers.get(&site).copied());
        self.state.recount.extend(number.map(|number| (number, minute)));
    }

    pub(crate) fn is_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Sites that changed since the last call.
    pub(crate) fn take_touched(&mut self) -> Vec<SiteId> {
        self.touched.drain().map(|number| self.state.sites[number as usize].id.clone()).collect()
    }

    /// A site's windows at `clock`.
    pub(crate) fn windows(&mut self, site: &SiteId, clock: i64) -> Windows {
        let number = self.state.number_of(site.as_str());
        self.state.sites[number as usize].windows(clock, self.limits.live_values)
    }
}

impl State {
    fn new(next: i64, dedupe: Dedupe, floor: i64) -> Self {
        Self {
            next,
            log_time: 0,
            books: Books::default(),
            sites: Vec::new(),
            dedupe,
            floor,
            recount: BTreeSet::new(),
            gaps: Gaps::new(),
            numbers: HashMap::default(),
        }
    }

    /// A record comes that the broker took then.
    fn advance(&mut self, timestamp: i64) {
        self.log_time = self.log_time.max(timestamp);
        if self.floor == UNKNOWN_FLOOR {
            // Minutes that began earlier may have lost events: they are counted from the stored rows.
            self.floor = minute_of(self.log_time) + MINUTE_MS + NODE_SKEW_MS;
            self.dedupe = Dedupe::from_the_unknown(self.log_time);
        }
    }

    fn number_of(&mut self, site: &str) -> u32 {
        if let Some(number) = self.numbers.get(site) {
            return *number;
        }
        let number = u32::try_from(self.sites.len()).expect("a node knows fewer sites than 32 bits count");
        let id = SiteId::try_from(site).expect("a record's site is a key");
        let gap_ms = self.gaps.get(site).copied().unwrap_or(DEFAULT_GAP_MS);
        self.numbers.insert(id.clone(), number);
        self.sites.push(Site::new(id, gap_ms));
        number
    }
}

impl Recent {
    fn push(&mut self, key: (u32, EventId)) {
        self.open.push(key);
        if let Some(index) = &mut self.index {
            index.insert(key);
        }
    }

    fn contains(&mut self, key: (u32, EventId)) -> bool {
        let Self { open, before, index } = self;
        index.get_or_insert_with(|| open.iter().chain(before.iter()).copied().collect()).contains(&key)
    }

    fn roll(&mut self) {
        self.before = std::mem::take(&mut self.open);
        self.index = None;
    }
}
