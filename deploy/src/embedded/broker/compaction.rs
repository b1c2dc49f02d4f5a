//! Compaction: of the closed segments of a topic that asks for it, only the newest record of each key stays.
//!
//! Offsets never change. A rewritten segment takes the old one's place by a rename, oldest first, so that a crash
//! at any point leaves at worst an old value whose successor is still there.

use std::collections::HashMap;
use std::fs;
use std::io;

use bytes::Bytes;

use super::batch::{self, BatchHeader};
use super::durable;
use super::partition::{Shared, remove_files};
use super::segment::{Segment, Span};

/// Keys remembered in one run. More: the rest of the log waits for the next run.
const MAX_KEYS: usize = 1_000_000;

/// A closed segment as this run found it.
struct Closed {
    base_offset: i64,
    last_offset: i64,
    size: u64,
    span: Span,
}

/// Compacts if the topic wants it and enough is new since `compacted_to`; returns the new `compacted_to`.
pub(super) fn run(shared: &Shared, compacted_to: i64, now_ms: i64) -> io::Result<i64> {
    let config = shared.config();
    if !config.compact {
        return Ok(compacted_to);
    }
    let closed = closed_segments(shared);
    let total: u64 = closed.iter().map(|segment| segment.size).sum();
    let dirty: u64 = closed.iter().filter(|one| one.last_offset >= compacted_to).map(|one| one.size).sum();
    if dirty == 0 || (dirty as f64) < config.min_cleanable_dirty_ratio * total as f64 {
        return Ok(compacted_to);
    }
    let (newest, end) = newest_offsets(&closed, compacted_to)?;
    let oldest_tombstone = now_ms - config.delete_retention_ms;
    let keep = |header: &BatchHeader, record: &batch::RecordView| {
        let offset = header.base_offset + record.offset_delta;
        let Some(key) = &record.key else { return true };
        let is_newest = newest.get(key).is_none_or(|newest| offset >= *newest);
        let expired = record.is_tombstone && offset < end && header.time_of(record) < oldest_tombstone;
        is_newest && !expired
    };
    let mut removed_bytes = 0;
    for group in groups(closed, config.segment_bytes) {
        removed_bytes += rewrite(shared, &group, &keep)?;
    }
    tracing::debug!(path = %shared.directory.display(), removed_bytes, keys = newest.len(), "compacted");
    Ok(end)
}

fn closed_segments(shared: &Shared) -> Vec<Closed> {
    let log = shared.log();
    let closed = log.segments.len() - 1;
    let copy = |segment: &Segment| Closed {
        base_offset: segment.base_offset,
        last_offset: segment.last_offset,
        size: segment.size,
        span: segment.span_at(segment.base_offset),
    };
    log.segments.iter().take(closed).map(copy).collect()
}

/// The newest offset of every key from `from` on, and the offset up to which that is known.
fn newest_offsets(closed: &[Closed], from: i64) -> io::Result<(HashMap<Bytes, i64>, i64)> {
    let mut newest = HashMap::new();
    let mut end = from;
    for segment in closed.iter().filter(|segment| segment.last_offset >= from) {
        let mut span = segment.span.clone();
        while !span.is_empty() {
            let header = span.header()?;
            for record in batch::records(&header, &span.batch(&header)?).unwrap_or_default() {
                if let Some(key) = record.key {
                    // Copied: a slice would keep the whole batch in memory.
                    newest.insert(Bytes::copy_from_slice(&key), header.base_offset + record.offset_delta);
                }
            }
            span.advance(&header);
            end = header.last_offset() + 1;
            if newest.len() >= MAX_KEYS {
                return Ok((newest, end));
            }
        }
        end = end.max(segment.last_offset + 1);
    }
    Ok((newest, end))
}

/// Neighbours that fit into one segment together become one.
fn groups(closed: Vec<Closed>, segment_bytes: u64) -> Vec<Vec<Closed>> {
    let mut groups: Vec<Vec<Closed>> = Vec::new();
    let mut size = 0;
    for segment in closed {
        match groups.last_mut() {
            Some(group) if size + segment.size <= segment_bytes => {
                size += segment.size;
                group.push(segment);
            }
            _ => {
                size = segment.size;
                groups.push(vec![segment]);
            }
        }
    }
    groups
}

/// Writes what is kept of a group into one new segment and puts it in the group's place; returns the bytes saved.
fn rewrite(
    shared: &Shared,
    group: &[Closed],
    keep: &impl Fn(&BatchHeader, &batch::RecordView) -> bool,
) -> io::Result<u64> {
    let before: u64 = group.iter().map(|segment| segment.size).sum();
    let mut fresh: Vec<u8> = Vec::new();
    let mut changed = group.len() > 1;
    for segment in group {
        let mut span = segment.span.clone();
        while !span.is_empty() {
            let header = span.header()?;
            let bytes = span.batch(&header)?;
            span.advance(&header);
            let Ok(records) = batch::records(&header, &bytes) else {
                fresh.extend_from_slice(&bytes);
                continue;
            };
            let count = records.len();
            let kept: Vec<_> = records.into_iter().filter(|record| keep(&header, record)).collect();
            if kept.len() == count {
                fresh.extend_from_slice(&bytes);
                continue;
            }
            changed = true;
            fresh.extend(batch::rebuilt(&header, &bytes, &kept).unwrap_or_default());
        }
    }
    if !changed {
        return Ok(0);
    }
    let base = group[0].base_offset;
    let path = Segment::path_in(&shared.directory, base);
    let cleaned = path.with_extension("cleaned");
    let file = fs::File::create(&cleaned)?;
    io::Write::write_all(&mut &file, &fresh)?;
    file.sync_all()?;
    fs::rename(&cleaned, &path)?;
    durable::sync_parent(&path)?;
    let (segment, _) = Segment::open(path, base, false, |_| ())?;
    let mut log = shared.log();
    let at = log.segments.partition_point(|segment| segment.base_offset < base);
    let replaced: Vec<Segment> = log.segments.drain(at..at + group.len()).collect();
    log.segments.insert(at, segment);
    drop(log);
    remove_files(&replaced[1..]);
    Ok(before.saturating_sub(fresh.len() as u64))
}
