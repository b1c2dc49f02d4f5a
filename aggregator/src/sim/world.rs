//! The log, the group, the store and the other topics, in memory, and everything that can go wrong with them.

mod log;
mod store;
mod tables;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use footfall_schemas::{
    EventId, SiteId,
    directory::Directory,
    live::{LiveRecord, LiveState},
    rollup::Measures,
    rows::{EventRow, RollingRow, SessionRow},
    site::Site,
    time::minute_of,
};
use serde_json::Value;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, sleep},
};

pub(super) use self::log::PlayedLog;
use super::{
    Felt, PARTITION,
    generator::{BEGAN, Rng},
    reference::{self, Cell},
};
use crate::{
    block::Letter,
    driver::WallClock,
    error::{LogError, StoreError},
    partition::{Stored, StoredEvent},
    ports::{Committed, Input, Log, Outlet, RawRecord, Store},
    rows::Rows,
    snapshot::{Assembly, Chunk, Stored as StoredSnapshot},
};

thread_local! {
    pub(super) static FELT: RefCell<Felt> = RefCell::default();
}

pub(super) fn felt(what: &'static str) {
    FELT.with_borrow_mut(|felt| felt.note(what));
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    /// Chance of each call to go wrong.
    pub(super) percent: u64,
    /// The log's beginning and the snapshots may be lost.
    pub(super) truncation: bool,
    /// Every owner comes with other settings; snapshots are not lost.
    pub(super) settings: bool,
}

pub(super) struct World {
    faults: Faults,
    began: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    rng: Rng,
    records: Vec<RawRecord>,
    /// How many of them the log holds by now.
    published: usize,
    /// First offset still held.
    low: i64,
    committed: Option<Committed>,
    /// What was announced of the blocks that start at an offset.
    announced: BTreeMap<i64, String>,
    epoch: u64,
    rows: Vec<EventRow>,
    /// Token and part, as the store remembers them.
    tokens: HashSet<(String, i64)>,
    /// Inserts still on their way: token, rows.
    underway: Vec<(String, Vec<EventRow>)>,
    counts: BTreeMap<Cell, (u64, Measures)>,
    sessions: BTreeMap<u64, SessionRow>,
    snapshots: Vec<Chunk>,
    letters: Vec<(i64, u16)>,
    told: BTreeMap<SiteId, Told>,
    /// Somebody else has changed the rows.
    is_spoiled: bool,
}

/// What a dashboard node holds of a site.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    epoch: u64,
    seq: u64,
    pub(super) clock: i64,
    pub(super) state: LiveState,
}

impl Inner {
    /// Inserts as the store does it: by parts, each remembered before it lands.
    fn insert(&mut self, token: &str, rows: &[EventRow], fate: Fate) {
        let part_of = |row: &EventRow| minute_of(row.event_time) / 60_000 % 2;
        for part in [0, 1] {
            let of_part: Vec<_> = rows.iter().filter(|row| part_of(row) == part).cloned().collect();
            if of_part.is_empty() {
                continue;
            }
            if fate == Fate::Half && part == 1 {
                felt("insert: half landed");
                return;
            }
            if !self.tokens.insert((token.to_owned(), part)) {
                felt("insert: dropped by its token");
                continue;
            }
            if fate == Fate::Lost {
                felt("insert: part lost, token kept");
                return;
            }
            self.rows.extend(of_part);
        }
    }

    fn count(&mut self, row: RollingRow) {
        let measures = Measures {
            events: row.events,
            views: row.views,
            visitors: row.visitors,
            engaged_ms: row.engaged_ms,
        };
        let cell = (row.site, i64::from(row.minute) * 1_000, row.dimension, row.value);
        let (version, counted) = self.counts.entry(cell.clone()).or_insert((row.version, measures));
        if row.version == *version && !self.is_spoiled {
            assert_eq!(*counted, measures, "two truths of one version: {cell:?} {version}");
        }
        if row.version > *version {
            (*version, *counted) = (row.version, measures);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Whole,
    Half,
    Lost,
}

impl World {
    pub(super) fn new(seed: u64, faults: Faults, records: Vec<RawRecord>) -> Arc<Self> {
        let inner = Inner {
            rng: Rng::new(!seed),
            records,
            published: 0,
            low: 0,
            committed: None,
            announced: BTreeMap::new(),
            epoch: 0,
            rows: Vec::new(),
            tokens: HashSet::new(),
            underway: Vec::new(),
            counts: BTreeMap::new(),
            sessions: BTreeMap::new(),
            snapshots: Vec::new(),
            letters: Vec::new(),
            told: BTreeMap::new(),
            is_spoiled: false,
        };
        Arc::new(Self { faults, began: Instant::now(), inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(super) fn wall(&self) -> WallClock {
        let began = self.began;
        Arc::new(move || BEGAN + i64::try_from(began.elapsed().as_millis()).unwrap())
    }

    pub(super) async fn publish(self: Arc<Self>) {
        loop {
            let pause = {
                let mut inner = self.lock();
                if inner.published == inner.records.len() {
                    return;
                }
                inner.published = (inner.published + inner.rng.below(5) as usize).min(inner.records.len());
                inner.rng.below(120)
            };
            sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Makes a new owner; the one before can no longer commit.
    pub(super) fn assign(world: &Arc<Self>) -> (PlayedLog, UnboundedReceiver<Input>, u64) {
        let (send, inbox) = unbounded_channel();
        let epoch = world.fence();
        (PlayedLog { world: world.clone(), epoch, inbox: send }, inbox, epoch)
    }

    pub(super) fn fence(&self) -> u64 {
        let mut inner = self.lock();
        inner.epoch += 1;
        inner.epoch
    }

    pub(super) fn lose_snapshots(&self) {
        felt("snapshot: lost");
        self.lock().snapshots.clear();
    }

    /// Loses the snapshots and every record before the committed offset. `true` when there was one.
    pub(super) fn truncate(&self) -> bool {
        let mut inner = self.lock();
        inner.snapshots.clear();
        inner.low = inner.committed.as_ref().map_or(0, |committed| committed.offset);
        if inner.low > 0 {
            felt("log: beginning lost");
        }
        inner.low > 0
    }

    /// Everything published is written and the plain offset is committed.
    pub(super) fn is_settled(&self) -> bool {
        let inner = self.lock();
        let end = inner.records.len() as i64;
        inner.published == inner.records.len()
            && inner
                .committed
                .as_ref()
                .is_some_and(|committed| committed.offset == end && committed.metadata.is_empty())
    }

    /// No block is announced.
    pub(super) fn is_put_down(&self) -> bool {
        self.lock().committed.as_ref().is_some_and(|committed| committed.metadata.is_empty())
    }

    pub(super) fn records(&self) -> Vec<RawRecord> {
        self.lock().records.clone()
    }

    pub(super) fn rows(&self) -> Vec<EventRow> {
        let mut rows = self.lock().rows.clone();
        rows.sort_by_key(|row| (row._offset, row._index));
        rows
    }

    pub(super) fn counts(&self) -> BTreeMap<Cell, Measures> {
        self.lock().counts.iter().map(|(cell, (_, measures))| (cell.clone(), *measures)).collect()
    }

    /// The settings that an owner finds.
    pub(super) fn directory(&self) -> Arc<Directory> {
        if !self.faults.settings {
            return Arc::default();
        }
        let session_gap_minutes = 1 + self.lock().rng.below(120) as u16;
        let site = Site { session_gap_minutes, ..Site::new("a".parse().unwrap(), Vec::new()) };
        Arc::new(Directory::declaring([(site, Value::Null)]))
    }

    /// Newest row of each session, those that were joined to another included.
    pub(super) fn sessions(&self) -> BTreeMap<u64, SessionRow> {
        self.lock().sessions.clone()
    }

    pub(super) fn letters(&self) -> BTreeSet<(i64, u16)> {
        let letters = self.lock().letters.clone();
        let distinct: BTreeSet<_> = letters.iter().copied().collect();
        if distinct.len() < letters.len() {
            felt("letter: sent twice");
        }
        distinct
    }

    pub(super) fn told(&self) -> BTreeMap<SiteId, Told> {
        self.lock().told.clone()
    }

    /// A moment passes, inserts on their way arrive; then perhaps the call goes wrong.
    async fn call(&self, kinds: u64) -> Option<u64> {
        let pause = self.lock().rng.below(15);
        sleep(Duration::from_millis(pause)).await;
        let mut inner = self.lock();
        if !inner.underway.is_empty() && inner.rng.percent(30) {
            let count = inner.underway.len() as u64;
            let index = inner.rng.below(count) as usize;
            let (token, rows) = inner.underway.swap_remove(index);
            inner.insert(&token, &rows, Fate::Whole);
        }
        let percent = self.faults.percent;
        if inner.rng.percent(percent) { Some(inner.rng.below(kinds)) } else { None }
    }
}

fn broken() -> StoreError {
    StoreError("played".into())
}

impl Outlet for World {
    async fn send_letters(&self, letters: &[Letter]) -> Result<(), LogError> {
        let fault = self.call(2).await;
        if fault == Some(0) {
            return Err(LogError::Retry("played".into()));
        }
        self.lock().letters.extend(letters.iter().map(|letter| (letter.at.offset, letter.at.index)));
        if fault.is_some() { Err(LogError::Retry("played".into())) } else { Ok(()) }
    }

    fn tell(&self, record: &LiveRecord) -> bool {
        let mut inner = self.lock();
        if inner.rng.percent(self.faults.percent) {
            return false;
        }
        let known = inner.told.entry(record.site.clone()).or_default();
        // As a dashboard node does: the highest epoch holds, a gap waits for the next full record.
        if record.epoch < known.epoch {
            return true;
        }
        if record.full {
            *known = Told {
                epoch: record.epoch,
                seq: record.seq,
                clock: record.clock,
                state: record.state.clone(),
            };
        } else if record.epoch == known.epoch && record.seq == known.seq + 1 {
            (known.seq, known.clock) = (record.seq, record.clock);
            known.state.apply(&record.state);
        }
        true
    }

    async fn save(&self, _partition: i32, chunks: Vec<Chunk>) -> Result<(), LogError> {
        for chunk in chunks {
            if self.call(1).await.is_some() {
                return Err(LogError::Retry("played".into()));
            }
            self.lock().snapshots.push(chunk);
        }
        Ok(())
    }

    async fn saved(&self, _partition: i32) -> Result<Vec<StoredSnapshot>, LogError> {
        if self.call(1).await.is_some() {
            return Err(LogError::Retry("played".into()));
        }
        let mut assembly = Assembly::default();
        self.lock().snapshots.iter().cloned().for_each(|chunk| assembly.add(chunk));
        let found = assembly.complete();
        if !found.is_empty() {
            felt("snapshot: read");
        }
        Ok(found)
    }
}
