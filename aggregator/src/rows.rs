//! The rows of a block, column by column as ClickHouse's format Native has them: a row is a few numbers and the texts
//! that are new, so a block of 50,000 is 10 MB where rows of their own would be 60.

use footfall_schemas::{
    SessionId,
    record::EventRef,
    rows::{Coordinates, EventRow},
    topics,
};
use uuid::Uuid;

use crate::{
    dictionary::Dictionary,
    native::{KEYS_FOLLOW, count, number, text, uuid},
};

/// What counting adds to an event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    pub(crate) session: SessionId,
    pub(crate) session_start: bool,
    pub(crate) late: bool,
    pub(crate) at: Coordinates,
}

/// A column in memory.
trait Column: Default {
    const TYPE: &'static str;
    /// As an [`EventRow`] has it.
    type Cell;
    fn put(&mut self, cell: &Self::Cell);
    fn get(&self, row: usize) -> Self::Cell;
    fn write(&self, block: &mut Vec<u8>);
}

/// Declares [`Rows`]: of each column its name, its kind, and how an event tells its cell.
macro_rules! rows {
    (|$event:ident, $counted:ident| $($column:ident: $kind:ty = $cell:expr,)*) => {
        /// Rows of `events`.
        #[derive(Debug, Clone, Default)]
        pub(crate) struct Rows {
            len: usize,
            $($column: $kind,)*
        }

        impl Rows {
            pub(crate) const COLUMNS: &'static [(&'static str, &'static str)] =
                &[$((stringify!($column), <$kind as Column>::TYPE)),*];

            pub(crate) fn push(&mut self, $event: &EventRef<'_>, $counted: Counted) {
                $(self.$column.push($cell);)*
                self.len += 1;
            }

            pub(crate) fn put(&mut self, row: &EventRow) {
                $(self.$column.put(&row.$column);)*
                self.len += 1;
            }

            pub(crate) fn get(&self, row: usize) -> EventRow {
                EventRow { $($column: self.$column.get(row),)* }
            }

            /// As one block of the format Native.
            pub(crate) fn encode(&self) -> Vec<u8> {
                let mut block = Vec::with_capacity(self.len * 256);
                count(&mut block, Self::COLUMNS.len());
                count(&mut block, self.len);
                $(
                    text(&mut block, stringify!($column));
                    text(&mut block, <$kind as Column>::TYPE);
                    if self.len > 0 {
                        self.$column.write(&mut block);
                    }
                )*
                block
            }
        }
    };
}

rows! {
    |event, counted|
    site: Keys = &event.site,
    event_time: Millis = event.event_time,
    received_at: Millis = event.received_at,
    event_id: Ids = event.event_id.to_uuid(),
    visitor: Numbers<u64> = event.visitor.0,
    session: Numbers<u64> = counted.session.0,
    session_start: Numbers<u8> = counted.session_start.into(),
    kind: Keys = event.kind.as_str(),
    name: Keys = &event.name,
    host: Keys = &event.host,
    path: Texts = &event.path,
    title: Texts = &event.title,
    referrer: Texts = &event.referrer,
    referrer_host: Keys = &event.referrer_host,
    channel: Keys = &event.channel,
    utm_source: Keys = &event.utm_source,
    utm_medium: Keys = &event.utm_medium,
    utm_campaign: Keys = &event.utm_campaign,
    utm_term: Keys = &event.utm_term,
    utm_content: Keys = &event.utm_content,
    country: Keys = &event.country,
    region: Keys = &event.region,
    city: Keys = &event.city,
    language: Keys = &event.language,
    time_zone: Keys = &event.time_zone,
    browser: Keys = &event.browser,
    system: Keys = &event.system,
    device: Keys = &event.device,
    screen_width: Numbers<u16> = event.screen_width,
    engaged_ms: Numbers<u32> = event.engaged_ms,
    scroll_depth: Numbers<u8> = event.scroll_depth,
    page_view: Numbers<u32> = event.page_view,
    props: Pairs = event.props.iter().map(|(key, value)| (&**key, &**value)),
    clock: Keys = event.clock.as_str(),
    late: Numbers<u8> = counted.late.into(),
    payload_hash: Numbers<u64> = event.payload_hash,
    _topic: Keys = topics::EVENTS,
    _partition: Numbers<i32> = counted.at.partition,
    _offset: Numbers<i64> = counted.at.offset,
    _index: Numbers<u16> = counted.at.index,
}

impl Rows {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = EventRow> {
        (0..self.len).map(|row| self.get(row))
    }

    /// Offset and index in the record, of each row.
    pub(crate) fn places(&self) -> impl Iterator<Item = (i64, u16)> {
        self._offset.0.iter().copied().zip(self._index.0.iter().copied())
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = Uuid> {
        self.event_id.0.iter().copied()
    }

    pub(crate) fn sessions(&self) -> impl Iterator<Item = u64> {
        self.session.0.iter().copied()
    }
}

impl<'a> FromIterator<&'a EventRow> for Rows {
    fn from_iter<I: IntoIterator<Item = &'a EventRow>>(rows: I) -> Self {
        let mut columns = Self::default();
        rows.into_iter().for_each(|row| columns.put(row));
        columns
    }
}

#[derive(Debug, Clone, Default)]
struct Numbers<T>(Vec<T>);

impl<T> Numbers<T> {
    fn push(&mut self, cell: T) {
        self.0.push(cell);
    }
}

macro_rules! numbers {
    ($($number:ty = $name:literal,)*) => {$(
        impl Column for Numbers<$number> {
            const TYPE: &'static str = $name;
            type Cell = $number;

            fn put(&mut self, cell: &$number) {
                self.push(*cell);
            }

            fn get(&self, row: usize) -> $number {
                self.0[row]
            }

            fn write(&self, block: &mut Vec<u8>) {
                self.0.iter().for_each(|cell| block.extend_from_slice(&cell.to_le_bytes()));
            }
        }
    )*};
}

numbers! { u8 = "UInt8", u16 = "UInt16", u32 = "UInt32", u64 = "UInt64", i32 = "Int32", i64 = "Int64", }

/// ms since 1970.
#[derive(Debug, Clone, Default)]
struct Millis(Numbers<i64>);

impl Millis {
    fn push(&mut self, cell: i64) {
        self.0.push(cell);
    }
}

impl Column for Millis {
    const TYPE: &'static str = "DateTime64(3, 'UTC')";
    type Cell = i64;

    fn put(&mut self, cell: &i64) {
        self.push(*cell);
    }

    fn get(&self, row: usize) -> i64 {
        self.0.get(row)
    }

    fn write(&self, block: &mut Vec<u8>) {
        self.0.write(block);
    }
}

#[derive(Debug, Clone, Default)]
struct Ids(Vec<Uuid>);

impl Ids {
    fn push(&mut self, cell: Uuid) {
        self.0.push(cell);
    }
}

impl Column for Ids {
    const TYPE: &'static str = "UUID";
    type Cell = Uuid;

    fn put(&mut self, cell: &Uuid) {
        self.push(*cell);
    }

    fn get(&self, row: usize) -> Uuid {
        self.0[row]
    }

    fn write(&self, block: &mut Vec<u8>) {
        self.0.iter().for_each(|cell| block.extend_from_slice(&uuid(*cell)));
    }
}

/// Texts with their lengths, and where each ends.
#[derive(Debug, Clone, Default)]
struct Texts {
    bytes: Vec<u8>,
    /// Begin and end of each text, its length not included.
    places: Vec<(u32, u32)>,
}

impl Texts {
    fn push(&mut self, cell: &str) {
        text(&mut self.bytes, cell);
        let end = self.bytes.len() as u32;
        self.places.push((end - cell.len() as u32, end));
    }
}

impl Column for Texts {
    const TYPE: &'static str = "String";
    type Cell = String;

    fn put(&mut self, cell: &String) {
        self.push(cell);
    }

    fn get(&self, row: usize) -> String {
        let (begin, end) = self.places[row];
        String::from_utf8_lossy(&self.bytes[begin as usize..end as usize]).into_owned()
    }

    fn write(&self, block: &mut Vec<u8>) {
        block.extend_from_slice(&self.bytes);
    }
}

/// Texts of few distinct values.
#[derive(Debug, Clone, Default)]
struct Keys(Dictionary);

impl Keys {
    fn push(&mut self, cell: &str) {
        self.0.add(cell);
    }
}

impl Column for Keys {
    const TYPE: &'static str = "LowCardinality(String)";
    type Cell = String;

    fn put(&mut self, cell: &String) {
        self.push(cell);
    }

    fn get(&self, row: usize) -> String {
        self.0.text(row).to_owned()
    }

    fn write(&self, block: &mut Vec<u8>) {
        number(block, KEYS_FOLLOW);
        self.0.write(block);
    }
}

/// Names with values; where each row's end, the names, the values.
#[derive(Debug, Clone, Default)]
struct Pairs {
    ends: Vec<u64>,
    names: Dictionary,
    values: Texts,
}

impl Pairs {
    fn push<'a>(&mut self, pairs: impl Iterator<Item = (&'a str, &'a str)>) {
        for (name, value) in pairs {
            self.names.add(name);
            self.values.push(value);
        }
        self.ends.push(self.names.len() as u64);
    }
}

impl Column for Pairs {
    const TYPE: &'static str = "Map(LowCardinality(String), String)";
    type Cell = Vec<(String, String)>;

    fn put(&mut self, cell: &Vec<(String, String)>) {
        self.push(cell.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    }

    fn get(&self, row: usize) -> Vec<(String, String)> {
        let begin = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        let pair = |at: u64| (self.names.text(at as usize).to_owned(), self.values.get(at as usize));
        (begin..self.ends[row]).map(pair).collect()
    }

    fn write(&self, block: &mut Vec<u8>) {
        number(block, KEYS_FOLLOW);
        self.ends.iter().for_each(|end| number(block, *end));
        self.names.write(block);
        self.values.write(block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clickhouse::Row as _;
    use footfall_schemas::EventRecord;

    use crate::sim::reference;

    #[test]
    fn every_column_of_a_row_is_written_in_its_order() {
        let names: Vec<&str> = Rows::COLUMNS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, EventRow::COLUMN_NAMES);
    }

    #[test]
    fn what_was_pushed_is_told_again() {
        let golden = include_str!("../../schemas/golden/event_record.json");
        let golden: EventRecord = serde_json::from_str(golden).unwrap();
        let mut rows = Rows::default();
        let mut expected = Vec::new();
        for index in 0..3u16 {
            let event = EventRecord {
                path: format!("/{index}"),
                props: if index == 1 { Default::default() } else { golden.props.clone() },
                ..golden.clone()
            };
            let at = Coordinates { partition: 3, offset: 9, index };
            rows.push(
                &event.borrowed(),
                Counted { session: SessionId(5), session_start: index == 0, late: index == 2, at },
            );
            expected.push(reference::row(event, SessionId(5), index == 0, index == 2, at));
        }
        assert_eq!(rows.iter().collect::<Vec<_>>(), expected);
        assert_eq!(rows.places().collect::<Vec<_>>(), [(9, 0), (9, 1), (9, 2)]);
        let again: Rows = expected.iter().collect();
        assert_eq!(again.encode(), rows.encode());
    }
}
