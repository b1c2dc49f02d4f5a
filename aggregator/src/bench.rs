//! What the benches, and the tests of other crates, reach inside. No part of the interface.

use footfall_schemas::{
    connect::ClickHouseSettings,
    rows::{EventRow, RollingRow, SessionRow},
};

use crate::{
    config::Config,
    native::{self, Columns as _},
    partition::{Partition, Stored},
    ports::Store as _,
    record::Record,
    rows::Rows,
    store::ClickHouse,
};

/// One partition, fed record by record.
#[allow(missing_debug_implementations)] // a bench prints none
pub struct Folding {
    partition: Partition,
    offset: i64,
}

/// A record between parsing and folding.
#[allow(missing_debug_implementations)] // a bench prints none
pub struct Parsed<'a>(Record<'a>);

/// The rows of a block.
#[allow(missing_debug_implementations)] // a bench prints none
pub struct Block(Rows);

impl Block {
    /// As it is sent to ClickHouse.
    pub fn encode(&self) -> Vec<u8> {
        self.0.encode()
    }
}

impl Folding {
    /// With the default limits, at the log's beginning.
    #[allow(clippy::new_without_default)] // a bench makes it once
    pub fn new() -> Self {
        Self { partition: Partition::from_the_beginning(0, Config::default().limits()), offset: 0 }
    }

    /// The next record, from its value; the broker took it at `timestamp` (ms since 1970).
    pub fn parse<'a>(&mut self, value: &'a [u8], timestamp: i64) -> Parsed<'a> {
        self.offset += 1;
        Parsed(Record::parse(0, self.offset - 1, timestamp, value))
    }

    pub fn fold(&mut self, parsed: Parsed<'_>) {
        self.partition.fold(&parsed.0, &Stored::new(), true);
    }

    /// Ends a block as a driver does, and returns its rows.
    pub fn close(&mut self) -> Block {
        let counts = self.partition.take_counts(Some(self.partition.log_time()), true);
        self.partition.sweep();
        let block = self.partition.close();
        std::hint::black_box((counts, block.boundary()));
        Block(block.rows)
    }

    pub fn snapshot(&self) -> Vec<u8> {
        self.partition.encode()
    }
}

/// Name and type of each column that a block of events, of counts and of sessions has.
pub fn columns() -> [(&'static str, Vec<(&'static str, &'static str)>); 3] {
    [
        ("events", Rows::COLUMNS.to_vec()),
        (RollingRow::TABLE, native::columns::<RollingRow>().collect()),
        (SessionRow::TABLE, native::columns::<SessionRow>().collect()),
    ]
}

/// Writes as the role does.
#[allow(missing_debug_implementations)] // holds a password
pub struct Writer(ClickHouse);

impl Writer {
    pub fn new(settings: &ClickHouseSettings) -> Self {
        Self(ClickHouse::new(settings, &Config::default(), "writer", 0))
    }

    /// # Errors
    /// With the text of the status page.
    pub async fn events(&self, token: &str, rows: &[EventRow]) -> Result<(), String> {
        self.0.insert_events(0, token, &rows.iter().collect()).await.map_err(|error| error.to_string())
    }

    /// # Errors
    /// With the text of the status page.
    pub async fn counts(&self, rows: &[RollingRow]) -> Result<(), String> {
        self.0.insert_counts(rows).await.map_err(|error| error.to_string())
    }
}
