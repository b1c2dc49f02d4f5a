//! Rows as one block of ClickHouse's format Native: column after column, as the server keeps them in memory, so that
//! it copies them and parses nothing.
//!
//! A block is the number of columns and of rows, then of each column its name, its type and its data. Columns are
//! named, here and in the INSERT: those that a table has besides take their defaults. See
//! <https://clickhouse.com/docs/interfaces/formats/Native> and, for `LowCardinality`, the server's
//! `SerializationLowCardinality`.

use footfall_schemas::rows::{RollingRow, SessionRow};
use uuid::Uuid;

use crate::dictionary::Dictionary;

/// A row type and the table it is written to.
pub(crate) trait Columns: Sized + 'static {
    const TABLE: &'static str;
    const COLUMNS: &'static [Column<Self>];
}

pub(crate) struct Column<T> {
    name: &'static str,
    cells: Cells<T>,
}

/// A column's type, and how its cell is taken from a row.
enum Cells<T> {
    UInt8(fn(&T) -> u8),
    UInt32(fn(&T) -> u32),
    UInt64(fn(&T) -> u64),
    Int32(fn(&T) -> i32),
    /// s since 1970.
    DateTime(fn(&T) -> u32),
    /// ms since 1970.
    DateTime64(fn(&T) -> i64),
    Text(fn(&T) -> &str),
    /// Text of few distinct values.
    LowCardinality(fn(&T) -> &str),
}

use Cells::{DateTime, DateTime64, Int32, LowCardinality, Text, UInt8, UInt32, UInt64};

const fn column<T>(name: &'static str, cells: Cells<T>) -> Column<T> {
    Column { name, cells }
}

impl Columns for SessionRow {
    const TABLE: &'static str = "sessions";
    const COLUMNS: &'static [Column<Self>] = &[
        column("site", LowCardinality(|row| &row.site)),
        column("session", UInt64(|row| row.session)),
        column("visitor", UInt64(|row| row.visitor)),
        column("opened", DateTime64(|row| row.opened)),
        column("start", DateTime64(|row| row.start)),
        column("end", DateTime64(|row| row.end)),
        column("duration_ms", UInt64(|row| row.duration_ms)),
        column("entry_path", Text(|row| &row.entry_path)),
        column("exit_path", Text(|row| &row.exit_path)),
        column("views", UInt32(|row| row.views)),
        column("events", UInt32(|row| row.events)),
        column("customs", UInt32(|row| row.customs)),
        column("engaged_ms", UInt64(|row| row.engaged_ms)),
        column("is_bounce", UInt8(|row| row.is_bounce)),
        column("referrer_host", LowCardinality(|row| &row.referrer_host)),
        column("channel", LowCardinality(|row| &row.channel)),
        column("utm_campaign", LowCardinality(|row| &row.utm_campaign)),
        column("country", LowCardinality(|row| &row.country)),
        column("browser", LowCardinality(|row| &row.browser)),
        column("system", LowCardinality(|row| &row.system)),
        column("device", LowCardinality(|row| &row.device)),
        column("joined", UInt64(|row| row.joined)),
        column("_partition", Int32(|row| row._partition)),
        column("version", UInt64(|row| row.version)),
        column("is_deleted", UInt8(|row| row.is_deleted)),
    ];
}

impl Columns for RollingRow {
    const TABLE: &'static str = "rolling_counts";
    const COLUMNS: &'static [Column<Self>] = &[
        column("site", LowCardinality(|row| &row.site)),
        column("minute", DateTime(|row| row.minute)),
        column("dimension", LowCardinality(|row| &row.dimension)),
        column("value", Text(|row| &row.value)),
        column("_partition", Int32(|row| row._partition)),
        column("events", UInt64(|row| row.events)),
        column("views", UInt64(|row| row.views)),
        column("visitors", UInt64(|row| row.visitors)),
        column("engaged_ms", UInt64(|row| row.engaged_ms)),
        column("version", UInt64(|row| row.version)),
    ];
}

/// The statement that a block with these columns follows.
pub(crate) fn insert(table: &str, columns: impl IntoIterator<Item = &'static str>) -> String {
    let names: Vec<&str> = columns.into_iter().collect();
    format!("INSERT INTO {table} ({}) FORMAT Native", names.join(", "))
}

/// Name and type of each column.
pub(crate) fn columns<T: Columns>() -> impl Iterator<Item = (&'static str, &'static str)> {
    T::COLUMNS.iter().map(|column| (column.name, column.cells.type_name()))
}

/// Rows taken at once: few enough that they stay in the processor's cache until their last column is written.
const ROWS_AT_ONCE: usize = 128;

/// The rows as one block.
pub(crate) fn encode<T: Columns>(rows: &[T]) -> Vec<u8> {
    let mut columns: Vec<Data> = T::COLUMNS.iter().map(|_| Data::default()).collect();
    for rows in rows.chunks(ROWS_AT_ONCE) {
        for (column, data) in T::COLUMNS.iter().zip(&mut columns) {
            column.cells.add(rows, data);
        }
    }
    let head = 1_024;
    let mut block = Vec::with_capacity(head + columns.iter().map(Data::len).sum::<usize>());
    count(&mut block, T::COLUMNS.len());
    count(&mut block, rows.len());
    for (column, data) in T::COLUMNS.iter().zip(&columns) {
        text(&mut block, column.name);
        text(&mut block, column.cells.type_name());
        if matches!(column.cells, LowCardinality(_)) && !rows.is_empty() {
            number(&mut block, KEYS_FOLLOW);
        }
        block.extend_from_slice(&data.cells);
        data.keys.write(&mut block);
    }
    block
}

impl<T> Cells<T> {
    const fn type_name(&self) -> &'static str {
        match self {
            UInt8(_) => "UInt8",
            UInt32(_) => "UInt32",
            UInt64(_) => "UInt64",
            Int32(_) => "Int32",
            DateTime(_) => "DateTime('UTC')",
            DateTime64(_) => "DateTime64(3, 'UTC')",
            Text(_) => "String",
            LowCardinality(_) => "LowCardinality(String)",
        }
    }

    fn add(&self, rows: &[T], data: &mut Data) {
        let Data { cells, keys } = data;
        match self {
            UInt8(cell) => fixed(cells, rows, |row| cell(row).to_le_bytes()),
            UInt32(cell) | DateTime(cell) => fixed(cells, rows, |row| cell(row).to_le_bytes()),
            UInt64(cell) => fixed(cells, rows, |row| cell(row).to_le_bytes()),
            Int32(cell) => fixed(cells, rows, |row| cell(row).to_le_bytes()),
            DateTime64(cell) => fixed(cells, rows, |row| cell(row).to_le_bytes()),
            Text(cell) => rows.iter().for_each(|row| text(cells, cell(row))),
            LowCardinality(cell) => rows.iter().for_each(|row| keys.add(cell(row))),
        }
    }
}

/// What a column holds: cells, or keys and each cell's place among them.
#[derive(Default)]
struct Data {
    cells: Vec<u8>,
    keys: Dictionary,
}

impl Data {
    fn len(&self) -> usize {
        self.cells.len() + self.keys.bytes()
    }
}

/// Version of the `LowCardinality` form: each block brings its own dictionary.
pub(crate) const KEYS_FOLLOW: u64 = 1;

/// Two halves, the high one first, each with its lowest byte first.
pub(crate) fn uuid(id: Uuid) -> [u8; 16] {
    let (high, low) = id.as_u64_pair();
    (u128::from(high) | u128::from(low) << 64).to_le_bytes()
}

/// LEB128.
pub(crate) fn count(bytes: &mut Vec<u8>, mut count: usize) {
    while count >= 0x80 {
        bytes.push(count as u8 | 0x80);
        count >>= 7;
    }
    bytes.push(count as u8);
}

pub(crate) fn number(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend_from_slice(&number.to_le_bytes());
}

pub(crate) fn text(bytes: &mut Vec<u8>, text: &str) {
    count(bytes, text.len());
    bytes.extend_from_slice(text.as_bytes());
}

pub(crate) fn fixed<T, const N: usize>(bytes: &mut Vec<u8>, rows: &[T], cell: impl Fn(&T) -> [u8; N]) {
    bytes.reserve(rows.len() * N);
    rows.iter().for_each(|row| bytes.extend_from_slice(&cell(row)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use clickhouse::Row as _;

    struct Pair {
        text: String,
        number: u8,
    }

    impl Columns for Pair {
        const TABLE: &'static str = "pairs";
        const COLUMNS: &'static [Column<Self>] =
            &[column("t", LowCardinality(|row| &row.text)), column("n", UInt8(|row| row.number))];
    }

    fn pairs(texts: &[&str]) -> Vec<Pair> {
        (0..).zip(texts).map(|(number, text)| Pair { text: (*text).to_owned(), number }).collect()
    }

    #[test]
    fn a_block_is_columns_by_name_and_type() {
        let header: &[&[u8]] = &[b"\x02\x03", b"\x01t", b"\x16LowCardinality(String)"];
        let keys: &[&[u8]] = &[
            &1u64.to_le_bytes(),
            &0x600u64.to_le_bytes(),
            &2u64.to_le_bytes(),
            b"\x01a\x00",
            &3u64.to_le_bytes(),
            &[0, 1, 0],
        ];
        let numbers: &[&[u8]] = &[b"\x01n", b"\x05UInt8", &[0, 1, 2]];
        let expected = [header.concat(), keys.concat(), numbers.concat()].concat();
        assert_eq!(encode(&pairs(&["a", "", "a"])), expected);
    }

    #[test]
    fn a_block_without_rows_has_columns_without_cells() {
        assert_eq!(encode::<Pair>(&[]), b"\x02\x00\x01t\x16LowCardinality(String)\x01n\x05UInt8");
    }

    #[test]
    fn the_insert_names_every_column() {
        let names = columns::<Pair>().map(|(name, _)| name);
        assert_eq!(insert(Pair::TABLE, names), "INSERT INTO pairs (t, n) FORMAT Native");
    }

    #[test]
    fn no_field_of_a_row_is_left_out() {
        fn names<T: Columns>() -> Vec<&'static str> {
            columns::<T>().map(|(name, _)| name).collect()
        }
        assert_eq!(names::<SessionRow>(), SessionRow::COLUMN_NAMES);
        assert_eq!(names::<RollingRow>(), RollingRow::COLUMN_NAMES);
    }

    #[test]
    fn a_uuid_is_two_halves() {
        let id = Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
        assert_eq!(
            uuid(id),
            [0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99, 0x88]
        );
    }
}
