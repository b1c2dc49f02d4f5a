//! A partition's segments in order, and the offsets between which they can be read.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::Path;

use super::batch;
use super::config::TopicConfig;
use super::durable;
use super::error::BrokerError;
use super::producer_state::ProducerStates;
use super::segment::{Segment, Span};

/// Holds the first offset that DeleteRecords left readable.
pub(super) const START_OFFSET_FILE: &str = "start-offset";

#[derive(Debug)]
pub(super) struct Log {
    /// Never empty; the last one is written to.
    pub segments: VecDeque<Segment>,
    /// First offset that may be read.
    pub start_offset: i64,
    /// Offset of the next record. Everything before it is durable, so it is the high watermark too.
    pub end_offset: i64,
}

impl Log {
    /// Opens or creates the log in `directory`: a torn tail is cut off, and what the producers wrote last is learned
    /// from the batches themselves.
    pub(super) fn recover(directory: &Path) -> Result<(Self, ProducerStates), BrokerError> {
        let at = |source| BrokerError::at(directory, source);
        fs::create_dir_all(directory).map_err(at)?;
        let bases = segment_files(directory).map_err(at)?;
        let mut producers = ProducerStates::default();
        let mut segments: VecDeque<Segment> = VecDeque::new();
        for (number, base) in bases.iter().copied().enumerate() {
            let is_last = number + 1 == bases.len();
            let path = Segment::path_in(directory, base);
            if segments.back().is_some_and(|previous| previous.last_offset >= base) {
                // Compaction had merged it into its predecessor and was killed before it could remove it.
                fs::remove_file(&path).map_err(|source| BrokerError::at(&path, source))?;
                continue;
            }
            let (segment, end) = Segment::open(path.clone(), base, is_last, |header| {
                producers.record(header);
            })
            .map_err(|source| BrokerError::at(&path, source))?;
            if let Some(damage) = end.damage {
                if !is_last {
                    let reason = format!("at byte {}: {damage}", end.valid);
                    return Err(BrokerError::corrupt(&path, reason));
                }
                let length = segment.file.metadata().map_err(at)?.len();
                let cut = length - end.valid;
                tracing::warn!(path = %path.display(), cut, at = end.valid, %damage, "cut a torn tail off the log");
                segment.file.set_len(end.valid).map_err(at)?;
                segment.file.sync_all().map_err(at)?;
            }
            segments.push_back(segment);
        }
        let start = durable::read(&directory.join(START_OFFSET_FILE)).map_err(at)?;
        let start = start.and_then(|text| String::from_utf8(text).ok()?.trim().parse().ok()).unwrap_or(0);
        if segments.is_empty() {
            segments.push_back(Segment::create(directory, start).map_err(at)?);
        }
        let end_offset = segments.back().map_or(start, |segment| segment.last_offset + 1);
        let start_offset = start.max(segments[0].base_offset).min(end_offset);
        Ok((Self { segments, start_offset, end_offset }, producers))
    }

    /// The stretch of the log that begins at or shortly before `offset`.
    pub(super) fn span_at(&self, offset: i64) -> Option<Span> {
        let after = self.segments.partition_point(|segment| segment.base_offset <= offset);
        let mut from = self.segments.range(after.saturating_sub(1)..);
        // Compaction leaves segments empty: their last offset says nothing, and what follows is further on.
        let segment = from.find(|segment| segment.size > 0 && segment.last_offset >= offset)?;
        Some(segment.span_at(offset))
    }

    pub(super) fn size(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size).sum()
    }

    pub(super) fn active(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("a log always has its active segment")
    }

    /// Removes segments at the front that `config` no longer wants. The active one stays; `true` says that it is
    /// past its time as well and should be closed first.
    pub(super) fn retain(&mut self, config: &TopicConfig, now_ms: i64) -> (Vec<Segment>, bool) {
        let mut removed = Vec::new();
        if !config.delete {
            return (removed, false);
        }
        let mut size = self.size();
        loop {
            let front = &self.segments[0];
            let expired =
                config.retention_ms.is_some_and(|ms| now_ms - front.max_timestamp > ms) && front.size > 0;
            let surplus =
                config.retention_bytes.is_some_and(|bytes| size.saturating_sub(front.size) >= bytes);
            if !expired && !surplus {
                return (removed, false);
            }
            if self.segments.len() == 1 {
                return (removed, expired || (surplus && front.size > 0));
            }
            size -= front.size;
            removed.extend(self.segments.pop_front());
            self.start_offset = self.start_offset.max(self.segments[0].base_offset);
        }
    }

    /// Makes records before `offset` unreadable and takes out the segments that held nothing else.
    pub(super) fn advance_start(&mut self, offset: i64) -> Vec<Segment> {
        self.start_offset = self.start_offset.max(offset);
        let mut removed = Vec::new();
        while self.segments.len() > 1 && self.segments[1].base_offset <= self.start_offset {
            removed.extend(self.segments.pop_front());
        }
        removed
    }

    /// First record at or after `timestamp`: its timestamp and offset. Reads files, so it takes a copy of where to
    /// look and needs no lock.
    pub(super) fn search_by_time(&self, timestamp: i64) -> TimeSearch {
        let candidates = self.segments.iter().filter(|segment| segment.max_timestamp >= timestamp);
        let spans = candidates.map(|segment| segment.span_at_time(timestamp)).collect();
        TimeSearch { spans, timestamp, start_offset: self.start_offset }
    }

    pub(super) fn max_timestamp(&self) -> i64 {
        self.segments.iter().map(|segment| segment.max_timestamp).max().unwrap_or(-1)
    }
}

/// Where to look for a record by its timestamp.
#[derive(Debug)]
pub(super) struct TimeSearch {
    spans: Vec<Span>,
    timestamp: i64,
    start_offset: i64,
}

impl TimeSearch {
    pub(super) fn run(self) -> io::Result<Option<(i64, i64)>> {
        let bad = |reason| io::Error::new(io::ErrorKind::InvalidData, reason);
        for mut span in self.spans {
            let wanted = |header: &batch::BatchHeader| {
                header.max_timestamp >= self.timestamp && header.last_offset() >= self.start_offset
            };
            while let Some(header) = span.find(wanted)? {
                for record in batch::records(&header, &span.batch(&header)?).map_err(bad)? {
                    let timestamp = header.time_of(&record);
                    let offset = header.base_offset + record.offset_delta;
                    if timestamp >= self.timestamp && offset >= self.start_offset {
                        return Ok(Some((timestamp, offset)));
                    }
                }
                span.advance(&header);
            }
        }
        Ok(None)
    }
}

/// Base offsets of the segments in `directory`, ascending; half-written files of a killed compaction are removed.
fn segment_files(directory: &Path) -> io::Result<Vec<i64>> {
    let mut bases = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("cleaned") => fs::remove_file(&path)?,
            Some("log") => {
                bases.extend(path.file_stem().and_then(|stem| stem.to_str()?.parse::<i64>().ok()));
            }
            _ => {}
        }
    }
    bases.sort_unstable();
    Ok(bases)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(base_offset: i64) -> batch::BatchHeader {
        batch::BatchHeader {
            base_offset,
            len: 100,
            attributes: 0,
            last_offset_delta: 9,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: batch::NO_PRODUCER,
            producer_epoch: -1,
            base_sequence: -1,
            count: 10,
        }
    }

    #[test]
    fn a_read_goes_on_behind_segments_that_compaction_emptied() {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::recover(directory.path()).unwrap();
        for base in [280, 410, 501] {
            log.segments.push_back(Segment::create(directory.path(), base).unwrap());
        }
        log.segments[2].note(&header(490));
        log.end_offset = 501;
        for offset in [0, 100, 279, 280, 410, 499] {
            let span = log.span_at(offset).expect("there is a batch further on");
            assert_eq!((span.position, span.end), (0, 100), "from offset {offset}");
        }
        assert!(log.span_at(500).is_none(), "the end is not a place to read from");
    }
}
