//! The ledger: what a load client issued, and what became of it. NDJSON, appended while the load runs, so that a killed
//! client leaves a ledger that can still be audited.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Mutex,
};

use anyhow::{Context, bail};
use footfall_schemas::{EventId, RejectReason, Sequence, SiteId, StreamId};
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum Entry {
    /// First line.
    Start { seed: u64, site: SiteId, at: i64 },
    /// An event was made; `hash` is [`footfall_schemas::TrackerEvent::payload_hash`] in hex.
    Issued { stream: StreamId, seq: u32, hash: String },
    /// Events `first..=upto` were settled.
    Acked { stream: StreamId, first: u32, upto: u32 },
    /// One of those settled was refused.
    Refused { stream: StreamId, seq: u32, reason: RejectReason },
    /// The load ran to its end.
    End { at: i64 },
}

/// Appends entries from many connections.
#[derive(Debug)]
pub struct LedgerWriter {
    /// A std mutex: no await happens while it is held.
    file: Mutex<BufWriter<File>>,
    path: PathBuf,
}

impl LedgerWriter {
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file =
            File::create(path).with_context(|| format!("--ledger {}: cannot be written", path.display()))?;
        Ok(Self { file: Mutex::new(BufWriter::new(file)), path: path.to_owned() })
    }

    /// Errors end the load: a ledger with holes proves nothing.
    pub fn append(&self, entries: &[Entry]) -> anyhow::Result<()> {
        let mut lines = Vec::with_capacity(entries.len() * 96);
        for entry in entries {
            serde_json::to_writer(&mut lines, entry)?;
            lines.push(b'\n');
        }
        self.with_file(|file| file.write_all(&lines))
    }

    pub fn flush(&self) -> anyhow::Result<()> {
        self.with_file(|file| file.flush())
    }

    fn with_file(&self, work: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> anyhow::Result<()> {
        let mut file = self.file.lock().expect("no thread panics while it holds the ledger");
        work(&mut file).with_context(|| format!("{}: cannot write the ledger", self.path.display()))
    }
}

/// What became of an issued event, as its sender knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Sent or not, never answered.
    Unacked,
    Acked,
    Refused(RejectReason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Issued {
    pub payload_hash: u64,
    pub fate: Fate,
}

/// A ledger read back.
#[derive(Debug, Clone, PartialEq)]
pub struct Ledger {
    pub seed: u64,
    pub site: SiteId,
    pub started_at: i64,
    pub events: HashMap<EventId, Issued>,
}

impl Ledger {
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let file =
            File::open(path).with_context(|| format!("--ledger {}: cannot be read", path.display()))?;
        Self::parse(BufReader::new(file)).with_context(|| format!("--ledger {}", path.display()))
    }

    pub fn parse(lines: impl BufRead) -> anyhow::Result<Self> {
        let mut start = None;
        let mut streams: BTreeMap<StreamId, BTreeMap<u32, Issued>> = BTreeMap::new();
        let mut refusals = Vec::new();
        let mut lines = lines.lines().enumerate().peekable();
        while let Some((number, line)) = lines.next() {
            let line = line?;
            let entry = match serde_json::from_str(&line) {
                Ok(entry) => entry,
                // A killed client may leave half a line at the end; anywhere else the file is not a ledger.
                Err(_) if lines.peek().is_none() => break,
                Err(error) => bail!("line {}: {error}", number + 1),
            };
            match entry {
                Entry::Start { seed, site, at } => start = Some((seed, site, at)),
                Entry::Issued { stream, seq, hash } => {
                    let payload_hash = u64::from_str_radix(&hash, 16)?;
                    let issued = Issued { payload_hash, fate: Fate::Unacked };
                    if streams.entry(stream).or_default().insert(seq, issued).is_some() {
                        bail!("line {}: event {seq} of {stream} was issued twice", number + 1);
                    }
                }
                Entry::Acked { stream, first, upto } if first <= upto => {
                    let events = streams
                        .get_mut(&stream)
                        .into_iter()
                        .flat_map(|stream| stream.range_mut(first..=upto));
                    events.for_each(|(_, issued)| issued.fate = Fate::Acked);
                }
                Entry::Refused { stream, seq, reason } => refusals.push((stream, seq, reason)),
                Entry::Acked { .. } | Entry::End { .. } => {}
            }
        }
        for (stream, seq, reason) in refusals {
            if let Some(issued) = streams.get_mut(&stream).and_then(|events| events.get_mut(&seq)) {
                issued.fate = Fate::Refused(reason);
            }
        }
        let (seed, site, started_at) = start.context("no start line: not a ledger")?;
        let id = |stream, seq| Sequence::new(seq).map(|seq| EventId::new(stream, seq));
        let events = streams
            .into_iter()
            .flat_map(|(stream, events)| {
                events.into_iter().filter_map(move |(seq, issued)| Some((id(stream, seq)?, issued)))
            })
            .collect();
        Ok(Self { seed, site, started_at, events })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "01a315e46800a1b2c3d4e5f6";

    fn fates(lines: &[String]) -> Vec<(u32, Fate)> {
        let ledger = Ledger::parse(lines.join("\n").as_bytes()).unwrap();
        let mut fates: Vec<_> =
            ledger.events.iter().map(|(id, issued)| (id.sequence.get(), issued.fate)).collect();
        fates.sort_by_key(|(seq, _)| *seq);
        fates
    }

    fn start() -> String {
        r#"{"t":"start","seed":1,"site":"demo","at":5}"#.to_owned()
    }

    fn issued(seq: u32) -> String {
        format!(r#"{{"t":"issued","stream":"{STREAM}","seq":{seq},"hash":"ff"}}"#)
    }

    #[test]
    fn an_ack_settles_its_range_and_a_refusal_outlives_it() {
        let lines = [
            start(),
            issued(1),
            issued(2),
            issued(3),
            format!(r#"{{"t":"refused","stream":"{STREAM}","seq":2,"reason":"bad_url"}}"#),
            format!(r#"{{"t":"acked","stream":"{STREAM}","first":1,"upto":2}}"#),
        ];
        assert_eq!(
            fates(&lines),
            [(1, Fate::Acked), (2, Fate::Refused(RejectReason::BadUrl)), (3, Fate::Unacked)]
        );
    }

    #[test]
    fn half_a_line_at_the_end_is_what_a_killed_client_leaves() {
        let lines = [start(), issued(1), r#"{"t":"iss"#.to_owned()];
        assert_eq!(fates(&lines), [(1, Fate::Unacked)]);
        let torn_in_the_middle = [start(), r#"{"t":"iss"#.to_owned(), issued(1)];
        assert!(Ledger::parse(torn_in_the_middle.join("\n").as_bytes()).is_err());
    }

    #[test]
    fn a_file_without_a_start_is_no_ledger() {
        assert!(Ledger::parse(issued(1).as_bytes()).is_err());
    }
}
