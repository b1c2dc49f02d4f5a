//! Records that Kafka does not take now wait on the disk, in order, up to a cap.
//!
//! A record that was packed has a number; a partition's records leave the spool by rising number, whatever the order
//! in which they came in (one that timed out on its way is older than those that never set out). Segments hold
//! [`frames`]; a segment is deleted when all of it is in Kafka. A crash in between sends some of it again, with the
//! same event ids, which is what the dedupe behind Kafka is for.
//!
//! What goes wrong with the disk ends in a refusal: a full one takes no more until there is room, one that fails takes
//! no more until the node is restarted, and nothing that was not written is acked. What is damaged is told, counted and
//! kept: its segment is renamed to `.bad` when the rest of it is in Kafka.

mod directory;
mod frame;
mod metrics;
mod segment;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::Path,
};

use tracing::{error, info, warn};

pub use self::frame::{Ending, Frame, Frames, frames};
use self::{
    directory::{Directory, EXTENSION},
    frame::{HEADER_BYTES, MAGIC},
    metrics::SpoolMetrics,
    segment::{Create, Medium, Place, Segment},
};
use crate::config::{SpoolAck, SpoolConfig};

/// A record on its way into the spool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) number: u64,
    pub(crate) partition: u32,
    pub(crate) payload: &'a [u8],
}

pub(crate) struct Spool {
    directory: Directory,
    create: Create,
    max_bytes: u64,
    segment_bytes: u64,
    /// Acked from here: every write is synced.
    durable: bool,
    segments: BTreeMap<u64, Segment>,
    /// The newest segment, while it is written to.
    writer: Option<(u64, Box<dyn Medium>)>,
    /// By partition and number.
    waiting: BTreeMap<u32, BTreeMap<u64, Place>>,
    /// On their way to Kafka.
    flying: HashMap<u64, (u32, Place)>,
    bytes: u64,
    /// The disk failed: nothing is written any more.
    broken: bool,
    /// Told once, until something fits again.
    full: bool,
    metrics: SpoolMetrics,
}

impl Spool {
    /// Takes over what an earlier process left. `None`: no spool is configured.
    pub(crate) fn open(config: &SpoolConfig, partitions: u32) -> io::Result<Option<Self>> {
        let Some(path) = config.path.as_deref().filter(|_| config.max_bytes > 0) else { return Ok(None) };
        Self::open_with(path, config, partitions, Box::new(segment::create)).map(Some)
    }

    fn open_with(path: &Path, config: &SpoolConfig, partitions: u32, create: Create) -> io::Result<Self> {
        let directory = Directory::claim(path)?;
        let mut spool = Self {
            bytes: directory.bad_bytes()?,
            directory,
            create,
            max_bytes: config.max_bytes,
            segment_bytes: (config.max_bytes / 16).clamp(64 * 1024, 16 * 1024 * 1024),
            durable: config.ack == SpoolAck::Spool,
            segments: BTreeMap::new(),
            writer: None,
            waiting: BTreeMap::new(),
            flying: HashMap::new(),
            broken: false,
            full: false,
            metrics: SpoolMetrics::new(),
        };
        for path in spool.directory.segments()? {
            spool.recover(Segment::open(path)?, partitions)?;
        }
        let (records, bytes) = (spool.records(), spool.bytes);
        if records > 0 {
            info!(records, bytes, path = %spool.directory.path().display(), "the spool holds records of an earlier run; they go to kafka first");
        }
        Ok(spool)
    }

    fn recover(&mut self, mut segment: Segment, partitions: u32) -> io::Result<()> {
        let id = self.segments.last_key_value().map_or(0, |(id, _)| id + 1);
        let (mut pending, mut stray) = (0, 0);
        let ending = segment.scan(|frame| {
            if frame.partition >= partitions {
                stray += 1;
                return;
            }
            let place = Place::new(id, frame.offset, frame.payload.len());
            let waiting = self.waiting.entry(frame.partition).or_default();
            // Two nodes whose spools came together may have given the same number.
            let number = (frame.number..).find(|number| !waiting.contains_key(number)).unwrap_or(u64::MAX);
            waiting.insert(number, place);
            pending += 1;
        });
        segment.pending = pending;
        let path = segment.path().display();
        match ending? {
            Ending::Whole => {}
            Ending::Torn { at } => {
                let cut = segment.bytes - at as u64;
                warn!(segment = %path, cut, "the end of a spool segment was not written whole and is cut off: it was not acked");
                self.metrics.torn.add(1, &[]);
                segment.cut(at)?;
            }
            Ending::Corrupt { at } => {
                let skipped = segment.bytes - at as u64;
                error!(segment = %path, at, skipped, "a spool segment is damaged: what is behind the damage is not sent; the segment is kept as .bad, look at the disk");
                self.metrics.bad.add(1, &[]);
                segment.flawed = true;
            }
        }
        if stray > 0 {
            error!(segment = %segment.path().display(), stray, partitions, "the spool holds records of partitions that the events topic does not have; the segment is kept as .bad");
            self.metrics.bad.add(stray, &[]);
            segment.flawed = true;
        }
        self.bytes += segment.bytes;
        self.segments.insert(id, segment);
        self.tidy(id);
        Ok(())
    }

    /// Whether records of this partition wait here: then a new one goes behind them.
    pub(crate) fn waits(&self, partition: u32) -> bool {
        self.waiting.contains_key(&partition)
    }

    /// The partitions that records wait of.
    pub(crate) fn partitions(&self) -> Vec<u32> {
        self.waiting.keys().copied().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.flying.is_empty()
    }

    /// Whether a record would be taken now, as far as is known.
    pub(crate) fn has_room(&self) -> bool {
        !self.broken && !self.full
    }

    /// The highest number that is here; new ones have to be above it.
    pub(crate) fn highest(&self) -> u64 {
        self.waiting.values().filter_map(|waiting| waiting.keys().last().copied()).max().unwrap_or(0)
    }

    fn records(&self) -> usize {
        self.waiting.values().map(BTreeMap::len).sum::<usize>() + self.flying.len()
    }

    /// Writes as many of the records as there is room for, in order, and says how many. These are written; with
    /// `ack = "spool"` they are on the disk. The others are refused.
    pub(crate) fn put(&mut self, records: &[Record<'_>]) -> usize {
        let taken = self.write(records);
        self.metrics.written.add(taken as u64, &[]);
        let refused = records.len() - taken;
        self.metrics.refused.add(refused as u64, &[]);
        self.full = refused > 0;
        taken
    }

    fn write(&mut self, records: &[Record<'_>]) -> usize {
        if self.broken {
            return 0;
        }
        let mut buffer = Vec::new();
        let mut ends = Vec::with_capacity(records.len());
        for record in records {
            let after =
                self.bytes + (buffer.len() + HEADER_BYTES + record.payload.len() + MAGIC.len()) as u64;
            if after > self.max_bytes {
                break;
            }
            frame::put(&mut buffer, record.number, record.partition, record.payload);
            ends.push(buffer.len());
        }
        if ends.len() < records.len() && !self.full {
            warn!(
                bytes = self.bytes,
                max_bytes = self.max_bytes,
                "the spool is full: events are refused until it drains"
            );
        }
        if ends.is_empty() {
            return 0;
        }
        let (id, start) = match self.append(&buffer) {
            Ok(place) => place,
            Err(error) => {
                self.failed(&error);
                return 0;
            }
        };
        let starts = std::iter::once(0).chain(ends.iter().copied());
        for (record, offset) in records.iter().zip(starts).take(ends.len()) {
            let place = Place::new(id, start + offset, record.payload.len());
            self.waiting.entry(record.partition).or_default().insert(record.number, place);
        }
        if let Some(segment) = self.segments.get_mut(&id) {
            segment.pending += ends.len();
        }
        ends.len()
    }

    /// Gives the segment and where in it the bytes begin.
    fn append(&mut self, bytes: &[u8]) -> io::Result<(u64, usize)> {
        let full = |id: u64| self.segments.get(&id).is_none_or(|segment| segment.bytes >= self.segment_bytes);
        if let Some((id, mut medium)) = self.writer.take_if(|(id, _)| full(*id)) {
            medium.sync()?;
            drop(medium);
            self.tidy(id);
        }
        if self.writer.is_none() {
            let id = self.segments.last_key_value().map_or(0, |(id, _)| id + 1);
            // In the order of their making; told apart also where two processes make one in the same millisecond, because
            // the one may take over the other's.
            let (made_at, own) = (crate::clock::now_ms(), rand::random::<u32>());
            let name = format!("{made_at:020}-{:04}-{own:08x}.{EXTENSION}", id % 10_000);
            let path = self.directory.path().join(name);
            let mut medium = (self.create)(&path)?;
            if let Err(error) = medium.append(MAGIC) {
                // Left there, it would be one more at every try.
                let _ = std::fs::remove_file(&path);
                return Err(error);
            }
            if self.durable {
                self.directory.sync()?;
            }
            let segment = Segment::open(path)?;
            self.bytes += MAGIC.len() as u64;
            self.segments.insert(id, segment);
            self.writer = Some((id, medium));
        }
        let Some((id, medium)) = &mut self.writer else { return Err(io::ErrorKind::NotFound.into()) };
        let Some(segment) = self.segments.get_mut(id) else { return Err(io::ErrorKind::NotFound.into()) };
        let start = MAGIC.len().max(segment.bytes as usize);
        let written = medium.append(bytes).and_then(|()| if self.durable { medium.sync() } else { Ok(()) });
        if let Err(error) = written {
            // What is there of it was neither kept nor acked.
            medium.cut(start as u64)?;
            return Err(error);
        }
        segment.bytes = (start + bytes.len()) as u64;
        self.bytes += bytes.len() as u64;
        Ok((*id, start))
    }

    fn failed(&mut self, error: &io::Error) {
        let path = self.directory.path().display();
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            if !self.full {
                warn!(%error, %path, "no room on the disk of the spool: events are refused until there is");
            }
            return;
        }
        // After a failed sync nobody knows what is on the disk: this segment gets nothing more, nor does another.
        error!(%error, %path, "the disk of the spool failed: nothing is spooled until this node is restarted");
        self.broken = true;
        self.writer = None;
    }

    /// Number and payload bytes of the record of this partition that has to go first.
    pub(crate) fn first(&self, partition: u32) -> Option<(u64, usize)> {
        let (number, place) = self.waiting.get(&partition)?.first_key_value()?;
        Some((*number, place.payload_bytes()))
    }

    /// The payload of the first record of this partition, which is now on its way: [`Spool::delivered`],
    /// [`Spool::back`] or [`Spool::refused`] says how that ended. `Ok(None)`: it was damaged, and is kept aside.
    pub(crate) fn send_first(&mut self, partition: u32) -> io::Result<Option<Vec<u8>>> {
        let Some((number, place)) = self.waiting.get(&partition).and_then(|w| w.first_key_value()) else {
            return Ok(None);
        };
        let (number, place) = (*number, *place);
        let payload = match self.segments.get(&place.segment).map(|segment| segment.read(place)) {
            Some(Ok(payload)) => Some(payload),
            Some(Err(error)) if error.kind() != io::ErrorKind::InvalidData => return Err(error),
            _ => None,
        };
        if let Some(waiting) = self.waiting.get_mut(&partition) {
            waiting.remove(&number);
            if waiting.is_empty() {
                self.waiting.remove(&partition);
            }
        }
        self.flying.insert(number, (partition, place));
        if payload.is_none() {
            self.refused(number);
        }
        Ok(payload)
    }

    /// Whether the record is of the spool.
    pub(crate) fn has_sent(&self, number: u64) -> bool {
        self.flying.contains_key(&number)
    }

    /// Gives its payload bytes, as the other two do.
    pub(crate) fn delivered(&mut self, number: u64) -> usize {
        self.metrics.drained.add(1, &[]);
        self.settle(number, false)
    }

    /// It never will be delivered: damaged, or Kafka refuses it. It stays on the disk for somebody to look at.
    pub(crate) fn refused(&mut self, number: u64) -> usize {
        if let Some((partition, place)) = self.flying.get(&number) {
            let segment =
                self.segments.get(&place.segment).map(|segment| segment.path().display().to_string());
            error!(
                partition,
                number, segment, "a record of the spool cannot be delivered; its segment is kept as .bad"
            );
        }
        self.metrics.bad.add(1, &[]);
        self.settle(number, true)
    }

    /// It was not delivered and goes again.
    pub(crate) fn back(&mut self, number: u64) -> usize {
        let Some((partition, place)) = self.flying.remove(&number) else { return 0 };
        self.waiting.entry(partition).or_default().insert(number, place);
        place.payload_bytes()
    }

    fn settle(&mut self, number: u64, flawed: bool) -> usize {
        let Some((_, place)) = self.flying.remove(&number) else { return 0 };
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            segment.pending -= 1;
            segment.flawed |= flawed;
        }
        if self.is_empty() {
            self.writer = None;
            self.segments.keys().copied().collect::<Vec<_>>().into_iter().for_each(|id| self.tidy(id));
        } else {
            self.tidy(place.segment);
        }
        place.payload_bytes()
    }

    /// Lets go of a segment that nothing waits in.
    fn tidy(&mut self, id: u64) {
        let written = self.writer.as_ref().is_some_and(|(writing, _)| *writing == id);
        if written || self.segments.get(&id).is_none_or(|segment| segment.pending > 0) {
            return;
        }
        let Some(segment) = self.segments.remove(&id) else { return };
        let path = segment.path().to_owned();
        match segment.retire() {
            Ok(bytes) => self.bytes -= bytes,
            Err(error) => {
                warn!(%error, segment = %path.display(), "a spool segment stays; its records will be sent again");
            }
        }
    }

    /// Everything that was written is on the disk after this.
    pub(crate) fn sync(&mut self) {
        if let Some((_, medium)) = &mut self.writer
            && let Err(error) = medium.sync()
        {
            self.failed(&error);
        }
    }

    pub(crate) fn measure(&self, now_us: u64) {
        let oldest =
            self.waiting.values().filter_map(|waiting| waiting.keys().next()).chain(self.flying.keys()).min();
        let age = oldest.map_or(0.0, |oldest| now_us.saturating_sub(*oldest) as f64 / 1e6);
        self.metrics.bytes.record(self.bytes, &[]);
        self.metrics.frames.record(self.records() as u64, &[]);
        self.metrics.oldest.record(age, &[]);
    }
}
