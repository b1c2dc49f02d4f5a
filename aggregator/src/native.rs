//! Rows as one block of ClickHouse's format Native: column after column, as the server keeps them in memory, so that
//! it copies them and parses nothing.
//!
//! A block is the number of columns and of rows, then of each column its name, its type and its data. Columns are
//! named, here and in the INSERT: those that a table has besides take their defaults. See
//! <https://clickhouse.com/docs/interfaces/formats/Native> and, for `LowCardinality`, the server's
//! `SerializationLowCardinality`.

use footfall_schemas::rows::{EventRow, RollingRow, SessionRow};
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
    UInt16(fn(&T) -> u16),
    UInt32(fn(&T) -> u32),
    UInt64(fn(&T) -> u64),
    Int32(fn(&T) -> i32),
    Int64(fn(&T) -> i64),
    /// s since 1970.
    DateTime(fn(&T) -> u32),
    /// ms since 1970.
    DateTime64(fn(&T) -> i64),
    Uuid(fn(&T) -> Uuid),
    Text(fn(&T) -> &str),
    /// Text of few distinct values.
    LowCardinality(fn(&T) -> &str),
    /// From text of few distinct values to text.
    Map(fn(&T) -> &[(String, String)]),
}

use Cells::{DateTime, DateTime64, Int32, Int64, LowCardinality, Map, Text, UInt8, UInt16, UInt32, UInt64};

const fn column<T>(name: &'static str, cells: Cells<T>) -> Column<T> {
    Column { name, cells }
}

impl Columns for EventRow {
    const TABLE: &'static str = "events";
    const COLUMNS: &'static [Column<Self>] = &[
        column("site", LowCardinality(|row| &row.site)),
        column("event_time", DateTime64(|row| row.event_time)),
        column("received_at", DateTime64(|row| row.received_at)),
        column("event_id", Cells::Uuid(|row| row.event_id)),
        column("visitor", UInt64(|row| row.visitor)),
        column("session", UInt64(|row| row.session)),
        column("session_start", UInt8(|row| row.session_start)),
        column("kind", LowCardinality(|row| &row.kind)),
        column("name", LowCardinality(|row| &row.name)),
        column("host", LowCardinality(|row| &row.host)),
        column("path", Text(|row| &row.path)),
        column("title", Text(|row| &row.title)),
        column("referrer", Text(|row| &row.referrer)),
        column("referrer_host", LowCardinality(|row| &row.referrer_host)),
        column("channel", LowCardinality(|row| &row.channel)),
        column("utm_source", LowCardinality(|row| &row.utm_source)),
        column("utm_medium", LowCardinality(|row| &row.utm_medium)),
        column("utm_campaign", LowCardinality(|row| &row.utm_campaign)),
        column("utm_term", LowCardinality(|row| &row.utm_term)),
        column("utm_content", LowCardinality(|row| &row.utm_content)),
        column("country", LowCardinality(|row| &row.country)),
        column("region", LowCardinality(|row| &row.region)),
        column("city", LowCardinality(|row| &row.city)),
        column("language", LowCardinality(|row| &row.language)),
        column("time_zone", LowCardinality(|row| &row.time_zone)),
        column("browser", LowCardinality(|row| &row.browser)),
        column("system", LowCardinality(|row| &row.system)),
        column("device", LowCardinality(|row| &row.device)),
        column("screen_width", UInt16(|row| row.screen_width)),
        column("engaged_ms", UInt32(|row| row.engaged_ms)),
        column("scroll_depth", UInt8(|row| row.scroll_depth)),
        column("page_view", UInt32(|row| row.page_view)),
        column("props", Map(|row| &row.props)),
        column("clock", LowCardinality(|row| &row.clock)),
        column("late", UInt8(|row| row.late)),
        column("payload_hash", UInt64(|row| row.payload_hash)),
        column("_topic", LowCardinality(|row| &row._topic)),
        column("_partition", Int32(|row| row._partition)),
        column("_offset", Int64(|row| row._offset)),
        column("_index", UInt16(|row| row._index)),
    ];
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

/// The statement that such a block follows.
pub(crate) fn insert<T: Columns>() -> String {
    let names: Vec<&str> = T::COLUMNS.iter().map(|column| column.name).collect();
    format!("INSERT INTO {} ({}) FORMAT Native", T::TABLE, names.join(", "))
}

/// The table, and name and type of each column.
pub(crate) fn columns<T: Columns>() -> (&'static str, Vec<(&'static str, &'static str)>) {
    (T::TABLE, T::COLUMNS.iter().map(|column| (column.name, column.cells.type_name())).collect())
}

/// Rows taken at once: few enough that they stay in the processor's cache until their last column is written.
const ROWS_AT_ONCE: usize = 128;

/// The rows as one block.
pub(crate) fn encode<T: Columns>(rows: &[T]) -> Vec<u8> {
    let mut columns: Vec<Data<'_>> = T::COLUMNS.iter().map(|_| Data::default()).collect();
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
        if column.cells.has_keys() && !rows.is_empty() {
            number(&mut block, KEYS_FOLLOW);
        }
        data.write(&mut block);
    }
    block
}

impl<T> Cells<T> {
    const fn type_name(&self) -> &'static str {
        match self {
            UInt8(_) => "UInt8",
            UInt16(_) => "UInt16",
            UInt32(_) => "UInt32",
            UInt64(_) => "UInt64",
            Int32(_) => "Int32",
            Int64(_) => "Int64",
            DateTime(_) => "DateTime('UTC')",
            DateTime64(_) => "DateTime64(3, 'UTC')",
            Self::Uuid(_) => "UUID",
            Text(_) => "String",
            LowCardinality(_) => "LowCardinality(String)",
            Map(_) => "Map(LowCardinality(String), String)",
        }
    }

    const fn has_keys(&self) -> bool {
        matches!(self, LowCardinality(_) | Map(_))
    }

    fn add<'a>(&self, rows: &'a [T], data: &mut Data<'a>) {
        let Data { cells, keys, values } = data;
        match self {
            UInt8(cell) => fixed(cells, rows, |row| cell(row).to_le_bytes()),
            UInt16(cell) => fixed(cells, rows, |row| cell(row).to_le_bytes()),
            UInt32(cell) | DateTime(cell) => fixed(cells, rows, |row| cell(row).to_le_bytes()),
            UInt64(cell) => fixed(cells, rows, |row| cell(row).to_le_bytes()),
            Int32(cell) => fixed(cells, rows, |row| cell(row).to_le_bytes()),
            Int64(cell) | DateTime64(cell) => fixed(cells, rows, |row| cell(row).to_le_bytes()),
            Self::Uuid(cell) => fixed(cells, rows, |row| uuid(cell(row))),
            Text(cell) => rows.iter().for_each(|row| text(cells, cell(row))),
            LowCardinality(cell) => rows.iter().for_each(|row| keys.add(cell(row))),
            Map(cell) => {
                for row in rows {
                    for (key, value) in cell(row) {
                        keys.add(key);
                        text(values, value);
                    }
                    number(cells, keys.indexes().len() as u64);
                }
            }
        }
    }
}

/// Two halves, the high one first, each with its lowest byte first.
fn uuid(id: Uuid) -> [u8; 16] {
    let (high, low) = id.as_u64_pair();
    (u128::from(high) | u128::from(low) << 64).to_le_bytes()
}

/// Version of the `LowCardinality` form: each block brings its own dictionary.
const KEYS_FOLLOW: u64 = 1;
/// Of an indexed column: its keys are in this block and in no other.
const OWN_KEYS: u64 = 1 << 9 | 1 << 10;

/// What a column holds: cells, or keys and each cell's place among them. A map is where each row's pairs end, their
/// keys, and their values.
#[derive(Default)]
struct Data<'a> {
    cells: Vec<u8>,
    keys: Dictionary<'a>,
    values: Vec<u8>,
}

impl Data<'_> {
    /// Bytes written, but for the texts of the keys.
    fn len(&self) -> usize {
        self.cells.len() + self.keys.indexes().len() * 4 + self.values.len()
    }

    fn write(&self, block: &mut Vec<u8>) {
        block.extend_from_slice(&self.cells);
        let (keys, indexes) = (self.keys.keys(), self.keys.indexes());
        if !indexes.is_empty() {
            let width = match keys.len() {
                ..=0x100 => 0,
                0x101..=0x1_0000 => 1,
                _ => 2,
            };
            number(block, OWN_KEYS | width);
            number(block, keys.len() as u64);
            keys.iter().for_each(|key| text(block, key));
            number(block, indexes.len() as u64);
            match width {
                0 => fixed(block, indexes, |index| [*index as u8]),
                1 => fixed(block, indexes, |index| (*index as u16).to_le_bytes()),
                _ => fixed(block, indexes, |index| index.to_le_bytes()),
            }
        }
        block.extend_from_slice(&self.values);
    }
}

/// LEB128.
fn count(bytes: &mut Vec<u8>, mut count: usize) {
    while count >= 0x80 {
        bytes.push(count as u8 | 0x80);
        count >>= 7;
    }
    bytes.push(count as u8);
}

fn number(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend_from_slice(&number.to_le_bytes());
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    count(bytes, text.len());
    bytes.extend_from_slice(text.as_bytes());
}

fn fixed<T, const N: usize>(bytes: &mut Vec<u8>, rows: &[T], cell: impl Fn(&T) -> [u8; N]) {
    bytes.reserve(rows.len() * N);
    rows.iter().for_each(|row| bytes.extend_from_slice(&cell(row)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use clickhouse::Row as _;

    struct Pair {
        text: String,
        number: u16,
    }

    impl Columns for Pair {
        const TABLE: &'static str = "pairs";
        const COLUMNS: &'static [Column<Self>] =
            &[column("t", LowCardinality(|row| &row.text)), column("n", UInt16(|row| row.number))];
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
        let numbers: &[&[u8]] = &[b"\x01n", b"\x06UInt16", &[0, 0, 1, 0, 2, 0]];
        let expected = [header.concat(), keys.concat(), numbers.concat()].concat();
        assert_eq!(encode(&pairs(&["a", "", "a"])), expected);
    }

    #[test]
    fn a_block_without_rows_has_columns_without_cells() {
        assert_eq!(encode::<Pair>(&[]), b"\x02\x00\x01t\x16LowCardinality(String)\x01n\x06UInt16");
    }

    #[test]
    fn the_insert_names_every_column() {
        assert_eq!(insert::<Pair>(), "INSERT INTO pairs (t, n) FORMAT Native");
    }

    #[test]
    fn no_field_of_a_row_is_left_out() {
        fn names<T: Columns>() -> Vec<&'static str> {
            columns::<T>().1.into_iter().map(|(name, _)| name).collect()
        }
        assert_eq!(names::<EventRow>(), EventRow::COLUMN_NAMES);
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
