//! Reads a partition's log again and says what the tables must hold. The same code as the owner's, without an owner.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use footfall_schemas::{
    EventId, SiteId,
    directory::Directory,
    rows::{Coordinates, DeadLetterRow, EventRow},
};

use super::{
    Account, Place, RowDifferences,
    account::Checkpoint,
    event_id, first_places,
    tables::{Tables, letter_row},
};
use crate::{
    config::Config,
    error::StoreError,
    partition::{Partition, Stored, StoredEvent},
    record::Record,
    session,
};

type Key = (SiteId, EventId);

/// A record of `footfall.events` as it lies on Kafka.
#[derive(Debug, Clone)]
pub struct RawLine {
    pub offset: i64,
    /// ms since 1970.
    pub timestamp: i64,
    pub value: Vec<u8>,
}

/// What the tables must hold of offsets `from..to`.
#[derive(Debug)]
pub struct Expected {
    pub from: i64,
    pub to: i64,
    pub rows: Vec<EventRow>,
    pub dead: Vec<(Coordinates, DeadLetterRow)>,
}

/// One partition's log, read from where it begins.
pub struct Replay {
    number: i32,
    partition: Partition,
    block_rows: usize,
    block_bytes: usize,
    from: i64,
    /// Answers of the store, good until the open range is taken.
    asked: HashSet<Key>,
    stored: Stored,
    /// What the tables were found to hold wrongly so far; look-ups must not believe it.
    missing: HashMap<Key, Place>,
    foreign: HashSet<Place>,
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("number", &self.number).field("next", &self.partition.next()).finish()
    }
}

impl Replay {
    /// `low`: first offset that the log holds. Sessions are those of the sites' settings now.
    pub fn new(number: i32, low: i64, config: &Config, directory: &Directory) -> Self {
        let limits = config.limits();
        let mut partition = if low == 0 {
            Partition::from_the_beginning(number, limits)
        } else {
            Partition::from_the_unknown(number, limits, low)
        };
        partition.adopt(&session::gaps_of(directory));
        Self {
            number,
            partition,
            block_rows: config.block_rows,
            block_bytes: config.block_bytes,
            from: if low == 0 { i64::MIN } else { low },
            asked: HashSet::new(),
            stored: Stored::new(),
            missing: HashMap::new(),
            foreign: HashSet::new(),
        }
    }

    /// Folds the next records in, the events too old for memory looked up together.
    ///
    /// # Errors
    /// A look-up failed; the replay cannot go on.
    pub async fn fold(&mut self, tables: &Tables, lines: Vec<RawLine>) -> Result<(), StoreError> {
        for (number, line) in lines.iter().enumerate() {
            let record = self.parse(line);
            let mut wanted = self.wanted(&record);
            if !wanted.is_empty() {
                for line in &lines[number + 1..] {
                    wanted.extend(self.wanted(&self.parse(line)));
                }
                let wanted: Vec<Key> = wanted.into_iter().collect();
                let places = tables.places(self.number, &wanted, self.partition.open_start()).await?;
                let first = first_places(places, &self.foreign, &self.missing, wanted.iter().cloned());
                // Payloads are not compared here: which event counts does not depend on them.
                let stored = |(event, place)| (event, StoredEvent { place, payload_hash: 0 });
                self.stored.extend(first.into_iter().map(stored));
                self.asked.extend(wanted);
            }
            self.partition.fold(record, &self.stored, true);
        }
        Ok(())
    }

    fn parse<'a>(&self, line: &'a RawLine) -> Record<'a> {
        Record::parse(self.number, line.offset, line.timestamp, &line.value)
    }

    /// The record's events to be asked for.
    fn wanted(&self, record: &Record<'_>) -> HashSet<Key> {
        let unknown = self.partition.unknown(record).filter_map(|(site, id)| {
            let key = (SiteId::try_from(site).ok()?, id);
            (!self.asked.contains(&key)).then_some(key)
        });
        unknown.collect()
    }

    /// `true` when what was folded since the last [`Self::take`] is as much as one block.
    pub fn is_full(&self) -> bool {
        self.partition.open_rows() >= self.block_rows || self.partition.open_bytes() >= self.block_bytes
    }

    /// What the tables must hold of the offsets since the last call; `to`: the next record lies there or after.
    pub fn take(&mut self, to: i64) -> Expected {
        self.partition.skip_to(to);
        self.partition.sweep();
        // Nobody writes these counts: they are compared by minutes, when all rows are known.
        self.partition.take_counts(None, true);
        self.asked.clear();
        self.stored.clear();
        let block = self.partition.close();
        let dead = block.letters.into_iter().map(letter_row).collect();
        let from = std::mem::replace(&mut self.from, block.end);
        Expected { from, to: block.end, rows: block.rows.iter().collect(), dead }
    }

    /// Remembers what the tables hold wrongly of a range taken.
    pub fn note(&mut self, expected: &Expected, differences: &RowDifferences) {
        for index in differences.missing.iter().chain(&differences.spoiled) {
            let row = &expected.rows[*index];
            if let (Ok(site), Some(id)) = (SiteId::try_from(row.site.as_str()), event_id(row.event_id)) {
                self.missing.insert((site, id), (row._offset, row._index));
            }
        }
        // What is at a spoiled place may be another event; the right one is told from `missing`.
        let spoiled = differences.spoiled.iter().map(|index| &expected.rows[*index]);
        self.foreign.extend(spoiled.map(|row| (row._offset, row._index)));
        self.foreign.extend(&differences.foreign);
    }

    /// What became of the lines so far.
    pub fn account(&self) -> Account {
        let Checkpoint { account, .. } = self.partition.checkpoint();
        account
    }

    /// Received-at (ms) of the newest event so far.
    pub fn log_time(&self) -> i64 {
        self.partition.log_time()
    }
}
