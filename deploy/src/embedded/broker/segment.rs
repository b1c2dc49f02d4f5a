//! One file of a partition's log: whole record batches one after the other, found through a sparse index in memory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::batch::{self, BadBatch, BatchHeader, HEADER_LEN};
use super::durable;

/// A batch is found by reading at most this many bytes' worth of headers.
const INDEX_INTERVAL: u64 = 4 << 10;

#[derive(Debug)]
pub(super) struct Segment {
    /// Offset of the first batch the segment may hold; it names the file.
    pub base_offset: i64,
    pub path: PathBuf,
    pub file: Arc<File>,
    /// Bytes that are durable and may be read.
    pub size: u64,
    /// Last offset in the segment; `base_offset - 1` while it is empty.
    pub last_offset: i64,
    /// Newest record timestamp in ms; -1 while it is empty.
    pub max_timestamp: i64,
    index: Vec<IndexEntry>,
}

#[derive(Debug, Clone, Copy)]
struct IndexEntry {
    base_offset: i64,
    position: u64,
    /// Newest timestamp of the segment before this position.
    max_timestamp_before: i64,
}

/// Where a segment stops being readable, and why when that is before its end.
#[derive(Debug)]
pub(super) struct ScanEnd {
    pub valid: u64,
    pub damage: Option<BadBatch>,
}

impl Segment {
    pub(super) fn path_in(directory: &Path, base_offset: i64) -> PathBuf {
        directory.join(format!("{base_offset:020}.log"))
    }

    /// A new, empty segment whose file is durably there.
    pub(super) fn create(directory: &Path, base_offset: i64) -> io::Result<Self> {
        let path = Self::path_in(directory, base_offset);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        file.sync_all()?;
        durable::sync_parent(&path)?;
        Ok(Self::empty(base_offset, path, file))
    }

    fn empty(base_offset: i64, path: PathBuf, file: File) -> Self {
        let file = Arc::new(file);
        Self {
            base_offset,
            path,
            file,
            size: 0,
            last_offset: base_offset - 1,
            max_timestamp: -1,
            index: Vec::new(),
        }
    }

    /// Opens a segment and shows each of its batches to `seen`. With `verify` every checksum is checked; without,
    /// only the headers are read, which is enough for a segment that was closed in good order.
    pub(super) fn open(
        path: PathBuf,
        base_offset: i64,
        verify: bool,
        mut seen: impl FnMut(&BatchHeader),
    ) -> io::Result<(Self, ScanEnd)> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let length = file.metadata()?.len();
        let mut segment = Self::empty(base_offset, path, file);
        let mut damage = None;
        while segment.size < length {
            match next_batch(&segment, length, verify)? {
                Ok(header) => {
                    seen(&header);
                    segment.note(&header);
                }
                Err(reason) => {
                    damage = Some(reason);
                    break;
                }
            }
        }
        let valid = segment.size;
        Ok((segment, ScanEnd { valid, damage }))
    }

    /// Takes a batch that was written at the end into the books.
    pub(super) fn note(&mut self, header: &BatchHeader) {
        if self.index.last().is_none_or(|entry| self.size - entry.position >= INDEX_INTERVAL) {
            self.index.push(IndexEntry {
                base_offset: header.base_offset,
                position: self.size,
                max_timestamp_before: self.max_timestamp,
            });
        }
        self.size += header.len as u64;
        self.last_offset = header.last_offset();
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
    }

    /// The part of the file in which the first batch that reaches `offset` begins.
    pub(super) fn span_at(&self, offset: i64) -> Span {
        let after = self.index.partition_point(|entry| entry.base_offset <= offset);
        self.span_from(after)
    }

    /// The part of the file in which the first batch with a record at or after `timestamp` begins.
    pub(super) fn span_at_time(&self, timestamp: i64) -> Span {
        let after = self.index.partition_point(|entry| entry.max_timestamp_before < timestamp);
        self.span_from(after)
    }

    fn span_from(&self, after: usize) -> Span {
        let position = after.checked_sub(1).map_or(0, |entry| self.index[entry].position);
        Span { file: Arc::clone(&self.file), position, end: self.size }
    }
}

fn next_batch(segment: &Segment, length: u64, verify: bool) -> io::Result<Result<BatchHeader, BadBatch>> {
    let span = Span { file: Arc::clone(&segment.file), position: segment.size, end: length };
    let header = match span.header() {
        Ok(header) => header,
        Err(error) => return damage_or(error),
    };
    if header.base_offset <= segment.last_offset {
        return Ok(Err(BadBatch::Malformed("offsets run backwards")));
    }
    if verify && !batch::checksum_matches(&span.batch(&header)?) {
        return Ok(Err(BadBatch::Checksum));
    }
    Ok(Ok(header))
}

/// Tells damage in the file apart from a failure to read it.
fn damage_or(error: io::Error) -> io::Result<Result<BatchHeader, BadBatch>> {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<BadBatch>()) {
        Some(bad) => Ok(Err(*bad)),
        None => Err(error),
    }
}

/// A stretch of a segment's file that begins and ends between batches. It holds the file open, so that it can be
/// read without a lock and after the segment was removed or rewritten.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub file: Arc<File>,
    pub position: u64,
    pub end: u64,
}

impl Span {
    pub(super) fn is_empty(&self) -> bool {
        self.position >= self.end
    }

    /// Header of the batch at the front.
    pub(super) fn header(&self) -> io::Result<BatchHeader> {
        let bad = |reason: BadBatch| io::Error::new(io::ErrorKind::InvalidData, reason);
        let left = self.end.saturating_sub(self.position);
        if left < HEADER_LEN as u64 {
            return Err(bad(BadBatch::Short));
        }
        let mut bytes = [0; HEADER_LEN];
        self.file.read_exact_at(&mut bytes, self.position)?;
        let header = BatchHeader::parse(&bytes).map_err(bad)?;
        if header.len as u64 > left {
            return Err(bad(BadBatch::Short));
        }
        Ok(header)
    }

    /// The whole batch at the front, whose header is known.
    pub(super) fn batch(&self, header: &BatchHeader) -> io::Result<Bytes> {
        self.bytes(header.len)
    }

    fn bytes(&self, length: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, self.position)?;
        Ok(bytes.into())
    }

    pub(super) fn advance(&mut self, header: &BatchHeader) {
        self.position += header.len as u64;
    }

    /// Moves on to the first batch that satisfies `wanted`; `None` where there is none.
    pub(super) fn find(&mut self, wanted: impl Fn(&BatchHeader) -> bool) -> io::Result<Option<BatchHeader>> {
        while !self.is_empty() {
            let header = self.header()?;
            if wanted(&header) {
                return Ok(Some(header));
            }
            self.advance(&header);
        }
        Ok(None)
    }

    /// Whole batches from the one that holds `offset` on, together at most `max_bytes`; with `at_least_one` the
    /// first comes even where it alone is larger.
    pub(super) fn read(mut self, offset: i64, max_bytes: usize, at_least_one: bool) -> io::Result<Bytes> {
        let Some(first) = self.find(|header| header.last_offset() >= offset)? else {
            return Ok(Bytes::new());
        };
        let budget = if at_least_one { max_bytes.max(first.len) } else { max_bytes };
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let mut bytes = self.bytes(left.min(budget))?;
        let mut whole = 0;
        while let Ok(header) = BatchHeader::parse(&bytes[whole..]) {
            if whole + header.len > bytes.len() {
                break;
            }
            whole += header.len;
        }
        bytes.truncate(whole);
        Ok(bytes)
    }
}
