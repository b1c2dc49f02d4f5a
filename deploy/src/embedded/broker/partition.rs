//! A partition: one writer task that appends in groups, any number of readers beside it.
//!
//! Appends queue up while the writer waits for the disk; it then takes all that came, writes them with one call,
//! calls fdatasync once, and only then answers. So a lone producer waits for one sync and many share one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use tokio::sync::{mpsc, oneshot, watch};

use super::batch::{self, BatchHeader};
use super::compaction;
use super::config::TopicConfig;
use super::durable;
use super::error::BrokerError;
use super::log::{Log, START_OFFSET_FILE};
use super::producer_state::{Producer, ProducerStates, Verdict};
use super::segment::{Segment, Span};

/// Appends waiting for the writer. Full: the producer's connection is not read until there is room.
const QUEUED_APPENDS: usize = 64;
/// A group is written when it has grown to this, even if more is waiting.
const GROUP_BYTES: usize = 8 << 20;

/// Where a batch landed, or why it did not.
pub(super) type AppendResult = Result<Placed, ResponseError>;

/// Where a batch lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub base_offset: i64,
    /// ms since 1970; -1 where the topic goes by its producers' clocks, and for a batch that was there before.
    pub append_time_ms: i64,
}

pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[derive(Debug)]
enum Command {
    Append {
        header: BatchHeader,
        batch: Bytes,
        reply: oneshot::Sender<AppendResult>,
    },
    /// Close the active segment, so that retention or compaction can have it.
    Roll(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

#[derive(Debug)]
pub(super) struct Partition {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

/// What the writer and the readers both see.
#[derive(Debug)]
pub(super) struct Shared {
    pub directory: PathBuf,
    /// Held for moments only, never while a file is read or written.
    log: Mutex<Log>,
    config: RwLock<TopicConfig>,
    end_offset: watch::Sender<i64>,
    /// Held by whatever takes segments away: retention, compaction, DeleteRecords.
    removal: Mutex<Removal>,
}

#[derive(Debug, Default)]
struct Removal {
    /// Compaction has seen everything before this offset.
    compacted_to: i64,
}

impl Shared {
    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn config(&self) -> TopicConfig {
        *self.config.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn removal(&self) -> MutexGuard<'_, Removal> {
        self.removal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Partition {
    /// Recovers the log in `directory` (created where missing) and starts its writer on the current runtime.
    pub(super) fn open(directory: &Path, config: TopicConfig) -> Result<Self, BrokerError> {
        let (log, producers) = Log::recover(directory)?;
        let shared = Arc::new(Shared {
            directory: directory.to_owned(),
            end_offset: watch::Sender::new(log.end_offset),
            log: Mutex::new(log),
            config: RwLock::new(config),
            removal: Mutex::default(),
        });
        let (commands, queue) = mpsc::channel(QUEUED_APPENDS);
        let writer = Writer::new(Arc::clone(&shared), producers);
        tokio::spawn(write(writer, queue));
        Ok(Self { shared, commands })
    }

    pub(super) fn set_config(&self, config: TopicConfig) {
        *self.shared.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    pub(super) fn config(&self) -> TopicConfig {
        self.shared.config()
    }

    /// Queues a verified batch; the answer comes once it is durable. Batches are appended in the order of the calls.
    pub(super) async fn append(&self, header: BatchHeader, batch: Bytes) -> oneshot::Receiver<AppendResult> {
        let (reply, answer) = oneshot::channel();
        // A closed queue means that the topic was deleted; dropping `reply` says so to the caller.
        let _ = self.commands.send(Command::Append { header, batch, reply }).await;
        answer
    }

    /// First readable offset and the one after the last.
    pub(super) fn offsets(&self) -> (i64, i64) {
        let log = self.shared.log();
        (log.start_offset, log.end_offset)
    }

    /// Changes whenever something was appended.
    pub(super) fn watch_end(&self) -> watch::Receiver<i64> {
        self.shared.end_offset.subscribe()
    }

    /// Bounds of the log, and where to read from `offset` on; `None` at the very end.
    pub(super) fn span_at(&self, offset: i64) -> Result<(i64, i64, Option<Span>), ResponseError> {
        let log = self.shared.log();
        if offset < log.start_offset || offset > log.end_offset {
            return Err(ResponseError::OffsetOutOfRange);
        }
        Ok((log.start_offset, log.end_offset, log.span_at(offset)))
    }

    /// Timestamp and offset of the first record at or after `timestamp`. Reads files.
    pub(super) fn offset_at_time(&self, timestamp: i64) -> io::Result<Option<(i64, i64)>> {
        let search = self.shared.log().search_by_time(timestamp);
        search.run()
    }

    /// Timestamp and offset of the newest record by timestamp. Reads files.
    pub(super) fn newest_by_time(&self) -> io::Result<Option<(i64, i64)>> {
        let newest = self.shared.log().max_timestamp();
        if newest < 0 { Ok(None) } else { self.offset_at_time(newest) }
    }

    /// Removes records before `offset` (-1: all) and returns the new first offset.
    pub(super) fn delete_records(&self, offset: i64) -> Result<i64, ResponseError> {
        let _removal = self.shared.removal();
        let (start, end) = self.offsets();
        let offset = if offset == -1 { end } else { offset };
        if offset < 0 || offset > end {
            return Err(ResponseError::OffsetOutOfRange);
        }
        if offset <= start {
            return Ok(start);
        }
        let path = self.shared.directory.join(START_OFFSET_FILE);
        durable::replace(&path, offset.to_string().as_bytes()).map_err(|error| {
            tracing::error!(path = %path.display(), %error, "cannot store the start offset");
            ResponseError::KafkaStorageError
        })?;
        let removed = self.shared.log().advance_start(offset);
        remove_files(&removed);
        Ok(offset)
    }

    /// Applies retention once.
    pub(super) async fn apply_retention(self: &Arc<Self>, now_ms: i64) {
        if self.retain_once(now_ms).await {
            let (done, rolled) = oneshot::channel();
            if self.commands.send(Command::Roll(done)).await.is_ok() && rolled.await.is_ok() {
                self.retain_once(now_ms).await;
            }
        }
    }

    async fn retain_once(self: &Arc<Self>, now_ms: i64) -> bool {
        let partition = Arc::clone(self);
        let retained = tokio::task::spawn_blocking(move || {
            let _removal = partition.shared.removal();
            let (removed, active_expired) = partition.shared.log().retain(&partition.config(), now_ms);
            remove_files(&removed);
            active_expired
        });
        retained.await.unwrap_or(false)
    }

    /// Compacts what was closed since the last time, where the topic wants that and enough has come. Blocks.
    pub(super) fn compact(&self, now_ms: i64) {
        let mut removal = self.shared.removal();
        match compaction::run(&self.shared, removal.compacted_to, now_ms) {
            Ok(compacted_to) => removal.compacted_to = compacted_to,
            Err(error) => {
                tracing::error!(path = %self.shared.directory.display(), %error, "compaction failed; it is tried again");
            }
        }
    }

    /// Waits for what is queued and ends the writer; later appends fail.
    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
    }
}

pub(super) fn remove_files(segments: &[Segment]) {
    for segment in segments {
        if let Err(error) = fs::remove_file(&segment.path) {
            tracing::warn!(path = %segment.path.display(), %error, "cannot remove a segment that is no longer needed");
        }
    }
    if let Some(segment) = segments.first()
        && let Err(error) = durable::sync_parent(&segment.path)
    {
        tracing::warn!(path = %segment.path.display(), %error, "cannot sync the directory");
    }
}

async fn write(mut writer: Writer, mut queue: mpsc::Receiver<Command>) {
    while let Some(first) = queue.recv().await {
        let mut group = vec![first];
        let mut bytes = 0;
        while bytes < GROUP_BYTES {
            let Ok(next) = queue.try_recv() else { break };
            if let Command::Append { batch, .. } = &next {
                bytes += batch.len();
            }
            group.push(next);
        }
        let written = tokio::task::spawn_blocking(move || {
            let closed = writer.write_group(group);
            (writer, closed)
        });
        // A panic in the writer or a runtime that is going away: dropping the queue fails the appends that wait.
        let Ok((back, closed)) = written.await else { return };
        writer = back;
        if let Some(closed) = closed {
            queue.close();
            let _ = closed.send(());
            return;
        }
    }
}

/// The only one to write to the active segment.
#[derive(Debug)]
struct Writer {
    shared: Arc<Shared>,
    producers: ProducerStates,
    active: Arc<File>,
    /// Where the next byte goes.
    position: u64,
    next_offset: i64,
    /// When the active segment got its first batch, as far as this process knows.
    first_append_ms: Option<i64>,
    /// A sync failed. What the page cache holds can no longer be trusted, so nothing is taken until a restart.
    failed: bool,
    buffer: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Debug)]
struct Pending {
    reply: oneshot::Sender<AppendResult>,
    placed: Placed,
    /// The batch in the buffer, and what its producer was before; `None` for a duplicate.
    appended: Option<(BatchHeader, Option<Producer>)>,
}

impl Writer {
    fn new(shared: Arc<Shared>, producers: ProducerStates) -> Self {
        let mut log = shared.log();
        let next_offset = log.end_offset;
        let active = log.active();
        let (position, file) = (active.size, Arc::clone(&active.file));
        drop(log);
        Self {
            shared,
            producers,
            active: file,
            position,
            next_offset,
            first_append_ms: None,
            failed: false,
            buffer: Vec::new(),
            pending: Vec::new(),
        }
    }

    fn write_group(&mut self, group: Vec<Command>) -> Option<oneshot::Sender<()>> {
        let config = self.shared.config();
        let mut closing = None;
        for command in group {
            match command {
                Command::Append { header, batch, reply } => self.append(&config, header, &batch, reply),
                Command::Roll(done) => {
                    self.flush();
                    if self.position > 0 {
                        self.roll();
                    }
                    let _ = done.send(());
                }
                Command::Close(done) => closing = Some(done),
            }
        }
        self.flush();
        closing
    }

    fn append(
        &mut self,
        config: &TopicConfig,
        mut header: BatchHeader,
        batch: &Bytes,
        reply: oneshot::Sender<AppendResult>,
    ) {
        if self.failed {
            let _ = reply.send(Err(ResponseError::KafkaStorageError));
            return;
        }
        match self.producers.check(&header) {
            Verdict::Refuse(reason) => {
                let _ = reply.send(Err(reason));
                return;
            }
            // The first copy may be in this very group: the answer waits for the same sync.
            Verdict::Duplicate(base_offset) => {
                let placed = Placed { base_offset, append_time_ms: -1 };
                self.pending.push(Pending { reply, placed, appended: None });
                return;
            }
            Verdict::Append => {}
        }
        let used = self.position + self.buffer.len() as u64;
        let aged = self.first_append_ms.is_some_and(|first| now_ms() - first > config.segment_ms);
        if used > 0 && (used + batch.len() as u64 > config.segment_bytes || aged) {
            self.flush();
            self.roll();
        }
        let at = self.buffer.len();
        header.base_offset = self.next_offset;
        self.buffer.extend_from_slice(batch);
        batch::place(&mut self.buffer[at..], header.base_offset);
        let mut append_time_ms = -1;
        if config.log_append_time {
            append_time_ms = now_ms();
            batch::stamp(&mut header, &mut self.buffer[at..], append_time_ms);
        }
        self.next_offset = header.last_offset() + 1;
        let before = self.producers.record(&header);
        self.pending.push(Pending {
            reply,
            placed: Placed { base_offset: header.base_offset, append_time_ms },
            appended: Some((header, before)),
        });
    }

    /// Writes the buffer, syncs, publishes and answers.
    fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        if let Err(error) = self.write_buffer() {
            self.give_up(&error);
            return;
        }
        self.position += self.buffer.len() as u64;
        self.buffer.clear();
        let mut log = self.shared.log();
        for (header, _) in self.pending.iter().filter_map(|pending| pending.appended.as_ref()) {
            log.active().note(header);
            log.end_offset = header.last_offset() + 1;
        }
        let end_offset = log.end_offset;
        drop(log);
        self.first_append_ms.get_or_insert_with(now_ms);
        self.shared.end_offset.send_if_modified(|end| std::mem::replace(end, end_offset) != end_offset);
        for pending in self.pending.drain(..) {
            let _ = pending.reply.send(Ok(pending.placed));
        }
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.active.write_all_at(&self.buffer, self.position)?;
        self.active.sync_data().inspect_err(|_| self.failed = true)
    }

    /// Nothing of the group counts: the producers are told, and may try again where the file could be put right.
    fn give_up(&mut self, error: &io::Error) {
        tracing::error!(
            path = %self.shared.directory.display(), %error, stopped = self.failed,
            "cannot write to the log; producers are refused until it works again"
        );
        self.buffer.clear();
        if let Err(error) = self.active.set_len(self.position) {
            tracing::error!(path = %self.shared.directory.display(), %error, "cannot take back a failed write");
            self.failed = true;
        }
        for pending in self.pending.drain(..).rev() {
            if let Some((header, before)) = pending.appended {
                self.producers.restore(header.producer_id, before);
                self.next_offset = header.base_offset;
            }
            let _ = pending.reply.send(Err(ResponseError::KafkaStorageError));
        }
    }

    fn roll(&mut self) {
        match Segment::create(&self.shared.directory, self.next_offset) {
            Ok(segment) => {
                self.active = Arc::clone(&segment.file);
                self.position = 0;
                self.first_append_ms = None;
                self.shared.log().segments.push_back(segment);
            }
            // The old segment goes on growing, which harms nobody.
            Err(error) => {
                tracing::warn!(path = %self.shared.directory.display(), %error, "cannot begin a new segment");
            }
        }
    }
}
