//! A partition at work: reads, folds, closes blocks and sends them on their way, tells the live windows.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use footfall_schemas::{EventId, SiteId};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info};

use crate::{
    audit::{Checkpoint, Watch},
    block::{Block, Boundary, Counts},
    driver::{Driver, End, Plan},
    error::Error,
    keep::Gone,
    live::Teller,
    partition::{Partition, Stored, Tally},
    ports::{Input, Log, Outlet, RawRecord, Store},
    record::Record,
    session::gaps_of,
    snapshot::{Id, Save},
    status::Phase,
    trace::Traced,
};

/// Pulse of a partition: how exactly block and live intervals are kept.
const TICK: Duration = Duration::from_millis(25);
/// Silence after the log's end was reached that makes a partition idle.
const IDLE_MS: i64 = 1_000;
/// Records taken from the inbox at once; look-ups are asked for together.
const PENDING: usize = 64;
/// Records folded without emitting between two sweeps. Few in tests, so that the simulation comes to it.
const SWEEP_RECORDS: usize = if cfg!(test) { 10 } else { 1_000 };

/// A partition at work.
pub(crate) struct Work<L, S, O> {
    driver: Driver<L, S, O>,
    partition: Partition,
    plan: Plan,
    teller: Teller,
    pending: VecDeque<RawRecord>,
    traced: Traced,
    /// Answers of the store, good until the open block is closed.
    asked: HashSet<(SiteId, EventId)>,
    stored: Stored,
    /// The one block on its way.
    writing: Option<AbortOnDropHandle<Result<(), Gone>>>,
    /// What is written when `writing` is done.
    writing_end: Checkpoint,
    watch: Watch,
    /// Offset committed without metadata; lag is told by it.
    settled: Option<i64>,
    opened_at: i64,
    /// Wall clock at which the log's end was reached, while nothing came after.
    idle_since: Option<i64>,
    clock: i64,
    told_at: i64,
    counted_at: i64,
    recounted_at: i64,
    snapshot_at: i64,
    snapshot_offset: i64,
    snapshots: u64,
    /// Events folded to be written, and how many when the state was last kept.
    folded: u64,
    snapshot_folded: u64,
    folded_silently: usize,
}

impl<L: Log, S: Store, O: Outlet> Work<L, S, O> {
    pub(crate) fn new(driver: Driver<L, S, O>, partition: Partition, plan: Plan) -> Self {
        let now = (driver.wall)();
        let full_every = driver.keeper.config.live_full_ms as i64;
        Self {
            teller: Teller::new(driver.keeper.partition, driver.epoch, full_every),
            pending: VecDeque::new(),
            traced: Traced::default(),
            asked: HashSet::new(),
            stored: Stored::new(),
            writing: None,
            writing_end: partition.checkpoint(),
            watch: Watch::new(driver.audits.clone(), &driver.keeper, now),
            settled: None,
            opened_at: now,
            idle_since: None,
            clock: 0,
            told_at: 0,
            counted_at: 0,
            recounted_at: 0,
            snapshot_at: now,
            snapshot_offset: partition.next(),
            snapshots: 0,
            folded: 0,
            snapshot_folded: 0,
            folded_silently: 0,
            driver,
            partition,
            plan,
        }
    }

    pub(crate) async fn run(mut self) -> Result<(), End> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut inputs = Vec::with_capacity(PENDING);
        self.reached();
        loop {
            tokio::select! {
                biased;
                () = self.driver.revoked.cancelled() => return self.let_go().await,
                () = self.driver.drain.cancelled() => return self.finish().await,
                written = written(&mut self.writing) => {
                    written?;
                    self.written();
                }
                audited = self.watch.done() => {
                    let now = self.now();
                    self.watch.learn(&self.driver.keeper, &mut self.partition, audited, now);
                }
                Ok(()) = self.driver.directory.changed() => self.look_at_the_settings(),
                _ = ticks.tick() => self.tick(),
                count = self.driver.inbox.recv_many(&mut inputs, PENDING), if self.pending.is_empty() => {
                    if count == 0 {
                        return self.let_go().await;
                    }
                    self.take(&mut inputs);
                }
            }
            self.advance().await?;
        }
    }

    fn now(&self) -> i64 {
        (self.driver.wall)()
    }

    fn take(&mut self, inputs: &mut Vec<Input>) {
        for input in inputs.drain(..) {
            match input {
                Input::Record(record) => {
                    self.idle_since = None;
                    self.driver.keeper.ports.log.taken(record.value.len());
                    if let Some(parent) = record.trace.filter(|_| record.offset >= self.plan.emit_from) {
                        self.traced.note(record.offset, parent);
                    }
                    self.pending.push_back(record);
                }
                Input::End => {
                    // Everything sent before is in `pending`; what the log lacks at its end is not waited for.
                    self.idle_since = Some(self.now());
                }
            }
        }
    }

    /// Folds what is pending, as far as there is room.
    async fn advance(&mut self) -> Result<(), End> {
        while let Some(record) = self.pending.front() {
            let offset = record.offset;
            if offset < self.partition.next() {
                self.pending.pop_front();
                continue;
            }
            let emit = offset >= self.plan.emit_from;
            if emit {
                self.partition.skip_to(self.plan.emit_from);
                let at_cut = self.plan.cut.is_some_and(|cut| offset >= cut.end);
                if at_cut || self.is_full() {
                    if self.writing.is_some() {
                        break;
                    }
                    self.close();
                    continue;
                }
                if self.plan.adopt && self.plan.cut.is_none() {
                    if self.writing.is_some() {
                        break;
                    }
                    if !self.partition.is_at_a_boundary() {
                        self.close();
                        continue;
                    }
                    self.adopt();
                }
            }
            let raw = self.pending.pop_front().expect("looked at above");
            let record = self.parse(&raw);
            self.look_up(&record).await?;
            if emit && self.partition.is_at_a_boundary() {
                self.opened_at = self.now();
            }
            let tally = self.partition.fold(&record, &self.stored, emit);
            if emit {
                self.folded += tally.rows + tally.duplicates;
                self.count(tally);
            } else {
                self.folded_silently += 1;
                if self.folded_silently >= SWEEP_RECORDS {
                    self.folded_silently = 0;
                    self.partition.sweep();
                    self.forget_answers();
                    self.write_left().await?;
                }
            }
            self.reached();
        }
        if self.pending.is_empty() && self.idle_since.is_some() {
            self.driver.keeper.status.caught_up(self.driver.keeper.partition, true);
            self.partition.skip_to(self.plan.emit_from);
            self.reached();
        }
        if self.plan.cut.is_some() && self.writing.is_none() && self.is_emitting() {
            let cut_end = self.plan.cut.map_or(0, |cut| cut.end);
            let no_more = self.pending.is_empty() && self.idle_since.is_some();
            if self.partition.next() >= cut_end || no_more {
                self.close();
            }
        }
        Ok(())
    }

    /// The directory has changed; most changes are none of the aggregator's.
    fn look_at_the_settings(&mut self) {
        let gaps = gaps_of(&self.driver.directory.borrow_and_update());
        self.plan.adopt |= !self.partition.has_adopted(&gaps);
    }

    /// Takes over the settings between two blocks, the first time before the first block of this owner's own: the one
    /// that was announced is the last owner's, also in how it splits sessions. The state is kept before anything of the
    /// block is announced, so that whoever replays the block finds the settings that it was made with.
    fn adopt(&mut self) {
        self.plan.adopt = false;
        let gaps = gaps_of(&self.driver.directory.borrow_and_update());
        if self.partition.adopt(&gaps) || !self.plan.is_kept {
            self.plan.is_kept = true;
            let save = self.next_snapshot(self.now());
            self.put_down(Counts::default(), Some(save));
        }
    }

    /// Writes what a long replay gathers: earlier owners may not have come to it. Whatever they did write is the same.
    async fn write_left(&mut self) -> Result<(), End> {
        let sessions = self.partition.take_left();
        if !sessions.is_empty() {
            let counts = Counts { sessions, ..Counts::default() };
            self.driver.keeper.counts(&counts, self.partition.next()).await?;
        }
        Ok(())
    }

    /// Notes that the committed offset was reached, once.
    fn reached(&self) {
        if self.is_emitting() {
            self.driver.keeper.status.phase(self.driver.keeper.partition, Phase::Running);
        }
    }

    fn is_emitting(&self) -> bool {
        self.partition.next() >= self.plan.emit_from
    }

    fn is_full(&self) -> bool {
        let config = &self.driver.keeper.config;
        self.plan.cut.is_none()
            && (self.partition.open_rows() >= config.block_rows
                || self.partition.open_bytes() >= config.block_bytes)
    }

    /// Asks the store for the events of the pending records that are too old for memory.
    async fn look_up(&mut self, record: &Record<'_>) -> Result<(), End> {
        let mut wanted = self.wanted(record);
        if wanted.is_empty() {
            return Ok(());
        }
        for raw in &self.pending {
            wanted.extend(self.wanted(&self.parse(raw)));
        }
        let wanted: Vec<_> = wanted.into_iter().collect();
        // Rows of earlier offsets are stored, or their ids are in memory.
        let before = self.plan.emit_from.max(self.partition.open_start());
        let keeper = &self.driver.keeper;
        let found = keeper
            .retry("look-up of old events", || keeper.ports.store.look_up(keeper.partition, &wanted, before))
            .await?;
        keeper.metrics.looked_up.add(wanted.len() as u64, &keeper.metrics.of(keeper.partition));
        self.asked.extend(wanted);
        self.stored.extend(found);
        Ok(())
    }

    /// The record's events to be asked for.
    fn wanted(&self, record: &Record<'_>) -> HashSet<(SiteId, EventId)> {
        let unknown = self.partition.unknown(record).filter_map(|(site, id)| {
            let key = (SiteId::try_from(site).ok()?, id);
            (!self.asked.contains(&key)).then_some(key)
        });
        unknown.collect()
    }

    fn parse<'a>(&self, raw: &'a RawRecord) -> Record<'a> {
        Record::parse(self.driver.keeper.partition, raw.offset, raw.timestamp, &raw.value)
    }

    fn forget_answers(&mut self) {
        self.asked.clear();
        self.stored.clear();
    }

    fn count(&self, tally: Tally) {
        let (metrics, partition) = (&self.driver.keeper.metrics, self.driver.keeper.partition);
        let counters = [
            (&metrics.rows, tally.rows),
            (&metrics.duplicates, tally.duplicates),
            (&metrics.conflicts, tally.conflicts),
            (&metrics.late, tally.late),
            (&metrics.poison, tally.poison),
        ];
        for (counter, count) in counters.into_iter().filter(|(_, count)| *count > 0) {
            counter.add(count, &metrics.of(partition));
        }
    }

    /// Closes the open block and sends it on its way.
    fn close(&mut self) {
        let now = self.now();
        if let Some(cut) = self.plan.cut {
            self.partition.skip_to(cut.end);
        }
        let counts = if now - self.counted_at >= IDLE_MS {
            self.counted_at = now;
            let recount = now - self.recounted_at >= self.driver.keeper.config.recount_ms as i64;
            if recount {
                self.recounted_at = now;
            }
            self.partition.take_counts(Some(self.clock.max(self.partition.log_time())), recount)
        } else {
            Default::default()
        };
        self.partition.sweep();
        self.driver.keeper.status.size(self.driver.keeper.partition, self.partition.size());
        self.forget_answers();
        let save = self.snapshot_due(now);
        let state = save.is_some().then(|| self.partition.encode());
        let mut block = self.partition.close();
        block.snapshot = state;
        if let Some(cut) = self.plan.cut.take() {
            self.compare(cut, &block);
        }
        let in_doubt = block.start < self.plan.doubt_until;
        self.settled = None;
        self.writing_end = self.partition.checkpoint();
        self.watch.counted(&counts);
        let keeper = self.driver.keeper.clone();
        let span = self.traced.block(keeper.partition, &block);
        let writing = async move {
            let kept = keeper.keep(block, counts, in_doubt, save).await;
            drop(span);
            kept
        };
        self.writing = Some(AbortOnDropHandle::new(tokio::spawn(writing)));
    }

    /// What was announced and what was rebuilt must be equal; if not, rows are still compared by coordinates.
    fn compare(&self, announced: Boundary, block: &Block) {
        let rebuilt = block.boundary();
        if rebuilt != announced {
            let keeper = &self.driver.keeper;
            keeper.metrics.mismatches.add(1, &keeper.metrics.of(keeper.partition));
            error!(
                partition = keeper.partition,
                start = block.start,
                %announced,
                %rebuilt,
                "a block was rebuilt other than its last owner announced it"
            );
        }
    }

    fn snapshot_due(&mut self, now: i64) -> Option<Save> {
        let config = &self.driver.keeper.config;
        let due = now - self.snapshot_at >= config.snapshot_ms as i64
            || self.folded - self.snapshot_folded >= config.snapshot_events;
        if !due || self.partition.next() == self.snapshot_offset {
            return None;
        }
        Some(self.next_snapshot(now))
    }

    fn next_snapshot(&mut self, now: i64) -> Save {
        self.snapshots += 1;
        self.snapshot_at = now;
        self.snapshot_offset = self.partition.next();
        self.snapshot_folded = self.folded;
        // A restart begins at the committed offset, so the first of an owner's may lie too late for it. When the second
        // is written, the first does not.
        let forget = if self.snapshots > 1 { std::mem::take(&mut self.plan.kept_before) } else { Vec::new() };
        Save { id: Id { epoch: self.driver.epoch, number: self.snapshots }, forget }
    }

    fn written(&mut self) {
        self.driver.keeper.status.stored(self.driver.keeper.partition, self.writing_end.offset);
        self.watch.written(self.writing_end);
        self.audit();
    }

    fn audit(&mut self) {
        if self.writing.is_none() {
            let (now, clock) = (self.now(), self.clock.max(self.partition.log_time()));
            self.watch.begin(&self.driver.keeper, &self.partition, clock, now);
        }
    }

    fn tick(&mut self) {
        let now = self.now();
        let idle = self.idle_since.is_some_and(|since| now - since >= IDLE_MS) && self.pending.is_empty();
        // An idle partition's clock follows the wall: its windows empty and its minutes end.
        let clock = if idle { now } else { self.partition.log_time() };
        self.clock = self.clock.max(clock);
        if !self.is_emitting() {
            return;
        }
        let config = self.driver.keeper.config.clone();
        self.audit();
        if self.writing.is_none() && self.plan.cut.is_none() {
            if !self.partition.is_at_a_boundary() {
                if now - self.opened_at >= config.block_ms as i64 {
                    self.close();
                }
            } else if idle {
                self.settle(now);
            }
        }
        if now - self.told_at >= config.live_ms as i64 {
            // What only time changed does not hold up the next event.
            if self.partition.is_touched() {
                self.told_at = now;
            }
            for record in self.teller.tell(&mut self.partition, self.clock, now) {
                if !self.driver.keeper.ports.outlet.tell(&record) {
                    self.told_at = now;
                    self.teller.lost(&record.site);
                }
            }
        }
    }

    /// Between blocks, with nothing to read: writes the counts of the minutes not yet ended too, commits the plain
    /// offset, and keeps the state when that is due.
    fn settle(&mut self, now: i64) {
        if now - self.counted_at < IDLE_MS {
            return;
        }
        self.counted_at = now;
        let end = self.partition.next();
        let counts = self.partition.take_counts(None, true);
        let save = self.snapshot_due(now);
        if counts.is_empty() && save.is_none() && self.settled == Some(end) {
            return;
        }
        self.put_down(counts, save);
    }

    /// Between blocks: writes counts, commits the plain offset, and keeps the state when asked to.
    fn put_down(&mut self, counts: Counts, save: Option<Save>) {
        let end = self.partition.next();
        let state = save.map(|save| (save, self.partition.encode()));
        self.settled = Some(end);
        self.writing_end = self.partition.checkpoint();
        self.watch.counted(&counts);
        let keeper = self.driver.keeper.clone();
        let writing = async move {
            keeper.counts(&counts, end).await?;
            keeper.commit(end, String::new()).await?;
            if let Some((save, state)) = state {
                keeper.save(&save, end, &state).await?;
            }
            keeper.status.worked(keeper.partition);
            Ok(())
        };
        self.writing = Some(AbortOnDropHandle::new(tokio::spawn(writing)));
    }

    /// The partition was taken away: a block on its way may still arrive, the open one is the next owner's.
    async fn let_go(mut self) -> Result<(), End> {
        let patience = Duration::from_millis(self.driver.keeper.config.revoke_ms);
        if self.writing.is_some() {
            let _ = timeout(patience, written(&mut self.writing)).await;
        }
        Ok(())
    }

    /// Writes what is open, so that the next start has nothing to do.
    async fn finish(mut self) -> Result<(), End> {
        if self.writing.is_some() {
            written(&mut self.writing).await?;
            self.written();
        }
        if !self.is_emitting() || self.plan.cut.is_some() {
            return Ok(());
        }
        if !self.partition.is_at_a_boundary() {
            self.close();
            written(&mut self.writing).await?;
            self.written();
        }
        let end = self.partition.next();
        let keeper = self.driver.keeper.clone();
        loop {
            let counts = self.partition.take_counts(None, true);
            if counts.is_empty() {
                break;
            }
            keeper.counts(&counts, end).await?;
        }
        keeper.commit(end, String::new()).await?;
        if end != self.snapshot_offset {
            let save = self.next_snapshot(self.now());
            keeper.save(&save, end, &self.partition.encode()).await?;
        }
        info!(partition = keeper.partition, offset = end, "partition put down in order");
        Ok(())
    }
}

/// Waits for the block on its way; for ever when there is none.
async fn written(writing: &mut Option<AbortOnDropHandle<Result<(), Gone>>>) -> Result<(), End> {
    let Some(handle) = writing else { return std::future::pending().await };
    let result = handle.await;
    *writing = None;
    match result {
        Ok(result) => Ok(result?),
        Err(_) => Err(End::Fault(Error::Ended("writer of blocks"))),
    }
}
