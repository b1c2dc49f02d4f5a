//! A record batch (magic 2) as it lies in a request, on disk and in a response: the same bytes, of which the
//! broker writes only the base offset and the leader epoch, neither of which the checksum covers; and, in topics that
//! go by its clock, when it took the batch.

use bytes::{Buf, Bytes};
use kafka_protocol::compression::{Decompressor, Gzip, Lz4, Snappy, Zstd};

/// Bytes before the first record.
pub(super) const HEADER_LEN: usize = 61;
/// Offset and length, which stand before what the length counts.
pub(super) const PREFIX_LEN: usize = 12;
const CRC_FROM: usize = 21;
pub(super) const NO_PRODUCER: i64 = -1;

const CODEC_MASK: i16 = 0b111;
/// The records' time is the batch's newest timestamp, which the broker has set.
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// Why bytes are not a record batch that this broker takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadBatch {
    #[error("shorter than a record batch")]
    Short,
    #[error("message format {0}, only 2 is supported")]
    OldFormat(i8),
    #[error("checksum mismatch")]
    Checksum,
    #[error("{0}")]
    Malformed(&'static str),
}

/// The fields of a batch's header that the broker decides by.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchHeader {
    pub base_offset: i64,
    /// Of the whole batch, prefix included.
    pub len: usize,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub count: i32,
}

impl BatchHeader {
    /// Reads a header from the front of `bytes`, which need not hold the records.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, BadBatch> {
        if bytes.len() < HEADER_LEN {
            return Err(BadBatch::Short);
        }
        let mut field = bytes;
        let base_offset = field.get_i64();
        let length = field.get_i32();
        let _leader_epoch = field.get_i32();
        let magic = field.get_i8();
        if magic != 2 {
            return Err(BadBatch::OldFormat(magic));
        }
        let _crc = field.get_u32();
        let len = usize::try_from(length).map_err(|_| BadBatch::Malformed("negative length"))? + PREFIX_LEN;
        if len < HEADER_LEN {
            return Err(BadBatch::Short);
        }
        let header = Self {
            base_offset,
            len,
            attributes: field.get_i16(),
            last_offset_delta: field.get_i32(),
            base_timestamp: field.get_i64(),
            max_timestamp: field.get_i64(),
            producer_id: field.get_i64(),
            producer_epoch: field.get_i16(),
            base_sequence: field.get_i32(),
            count: field.get_i32(),
        };
        if header.base_offset < 0 || header.last_offset_delta < 0 || header.count < 0 {
            return Err(BadBatch::Malformed("negative offset or count"));
        }
        Ok(header)
    }

    pub(super) fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// Sequence of the batch's last record; sequences wrap from `i32::MAX` to 0.
    pub(super) fn last_sequence(&self) -> i32 {
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        i32::try_from(last & i64::from(i32::MAX)).unwrap_or(0)
    }

    /// When a record of this batch was made, or was taken where the topic goes by the broker's clock; ms since 1970.
    pub(super) fn time_of(&self, record: &RecordView) -> i64 {
        if self.attributes & LOG_APPEND_TIME != 0 {
            self.max_timestamp
        } else {
            self.base_timestamp + record.timestamp_delta
        }
    }

    pub(super) fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }
}

pub(super) fn checksum_matches(batch: &[u8]) -> bool {
    batch.len() > CRC_FROM
        && u32::from_be_bytes([batch[17], batch[18], batch[19], batch[20]])
            == crc32c::crc32c(&batch[CRC_FROM..])
}

/// Checks a batch as a producer sends it: one whole batch, intact, with plain records only.
pub(super) fn verify_produced(batch: &[u8]) -> Result<BatchHeader, BadBatch> {
    let header = BatchHeader::parse(batch)?;
    if header.len != batch.len() {
        return Err(BadBatch::Malformed("a request carries exactly one batch per partition"));
    }
    if !checksum_matches(batch) {
        return Err(BadBatch::Checksum);
    }
    if header.count == 0 || i64::from(header.count) != i64::from(header.last_offset_delta) + 1 {
        return Err(BadBatch::Malformed("record count and last offset disagree"));
    }
    if header.attributes & CONTROL != 0 {
        return Err(BadBatch::Malformed("clients may not write control records"));
    }
    if header.producer_id != NO_PRODUCER && (header.base_sequence < 0 || header.producer_epoch < 0) {
        return Err(BadBatch::Malformed("an idempotent batch needs an epoch and a sequence"));
    }
    Ok(header)
}

/// Gives a batch its place in the log.
pub(super) fn place(batch: &mut [u8], base_offset: i64) {
    batch[..8].copy_from_slice(&base_offset.to_be_bytes());
    batch[12..16].copy_from_slice(&0_i32.to_be_bytes());
}

/// Notes in the batch that the broker took it at `now` (ms since 1970).
pub(super) fn stamp(header: &mut BatchHeader, batch: &mut [u8], now: i64) {
    header.attributes |= LOG_APPEND_TIME;
    header.max_timestamp = now;
    batch[21..23].copy_from_slice(&header.attributes.to_be_bytes());
    batch[35..43].copy_from_slice(&now.to_be_bytes());
    seal(batch);
}

fn seal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// One record inside a batch.
#[derive(Debug)]
pub(super) struct RecordView {
    /// The record as encoded, its length included.
    pub raw: Bytes,
    pub offset_delta: i64,
    pub timestamp_delta: i64,
    pub key: Option<Bytes>,
    pub is_tombstone: bool,
}

/// The records of a whole batch, decompressed.
pub(super) fn records(header: &BatchHeader, batch: &Bytes) -> Result<Vec<RecordView>, BadBatch> {
    let mut payload = batch.slice(HEADER_LEN..);
    let take = |buffer: &mut Bytes| Ok(std::mem::take(buffer));
    let unpacked = match header.attributes & CODEC_MASK {
        0 => Ok(payload),
        1 => Gzip::decompress(&mut payload, take),
        2 => Snappy::decompress(&mut payload, take),
        3 => Lz4::decompress(&mut payload, take),
        4 => Zstd::decompress(&mut payload, take),
        _ => return Err(BadBatch::Malformed("unknown codec")),
    };
    let mut rest = unpacked.map_err(|_| BadBatch::Malformed("records do not decompress"))?;
    let mut records = Vec::new();
    for _ in 0..header.count {
        records.push(next_record(&mut rest).ok_or(BadBatch::Malformed("records do not parse"))?);
    }
    Ok(records)
}

fn next_record(rest: &mut Bytes) -> Option<RecordView> {
    let mut body = rest.clone();
    let length = usize::try_from(varint(&mut body)?).ok()?;
    let prefix = rest.len() - body.len();
    let raw = (prefix + length <= rest.len()).then(|| rest.split_to(prefix + length))?;
    let mut body = raw.slice(prefix..);
    let _attributes = body.try_get_i8().ok()?;
    let timestamp_delta = varint(&mut body)?;
    let offset_delta = varint(&mut body)?;
    let key = nullable(&mut body)?;
    let value = nullable(&mut body)?;
    Some(RecordView { raw, offset_delta, timestamp_delta, key, is_tombstone: value.is_none() })
}

fn nullable(body: &mut Bytes) -> Option<Option<Bytes>> {
    match varint(body)? {
        -1 => Some(None),
        length => {
            let length = usize::try_from(length).ok()?;
            (length <= body.len()).then(|| Some(body.split_to(length)))
        }
    }
}

/// A zigzag varint of up to 64 bits.
fn varint(body: &mut Bytes) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = body.try_get_u8().ok()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

/// The same batch with only the given records, uncompressed, at the same offsets. `None` where nothing is kept.
pub(super) fn rebuilt(header: &BatchHeader, batch: &Bytes, kept: &[RecordView]) -> Option<Vec<u8>> {
    if kept.is_empty() {
        return None;
    }
    let mut fresh = batch[..HEADER_LEN].to_vec();
    for record in kept {
        fresh.extend_from_slice(&record.raw);
    }
    let length = i32::try_from(fresh.len() - PREFIX_LEN).ok()?;
    fresh[8..12].copy_from_slice(&length.to_be_bytes());
    fresh[21..23].copy_from_slice(&(header.attributes & !CODEC_MASK).to_be_bytes());
    let newest = kept.iter().map(|record| header.time_of(record)).max()?;
    fresh[35..43].copy_from_slice(&newest.to_be_bytes());
    fresh[57..61].copy_from_slice(&i32::try_from(kept.len()).ok()?.to_be_bytes());
    seal(&mut fresh);
    Some(fresh)
}
