//! Committed offsets with their metadata, in a log of their own.
//!
//! One task owns them. It writes all commits that wait as one line, a checksum and a JSON array, calls fdatasync,
//! then answers. Reads pass through the same queue, so whoever reads after a commit was accepted sees it on disk.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use kafka_protocol::error::ResponseError;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::durable;
use super::error::BrokerError;

/// Requests waiting for the owner. Full: the requests after them wait, and with them their connections.
const QUEUED_COMMANDS: usize = 256;
/// The file is rewritten once it is larger than this and mostly outdated.
const REWRITE_BYTES: u64 = 4 << 20;

/// A group's position in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Committed {
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
}

/// One line's element: a commit, or with no `committed` its removal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Commit {
    pub group: String,
    pub topic: String,
    pub partition: i32,
    pub committed: Option<Committed>,
}

/// A group's commits, by topic and partition.
pub(super) type GroupOffsets = BTreeMap<(String, i32), Committed>;

pub(super) enum Command {
    Write(Vec<Commit>, oneshot::Sender<Result<(), ResponseError>>),
    Read(String, oneshot::Sender<GroupOffsets>),
    Groups(oneshot::Sender<Vec<String>>),
    DropTopic(String, oneshot::Sender<Result<(), ResponseError>>),
    Close(oneshot::Sender<()>),
}

#[derive(Debug, Clone)]
pub(super) struct Offsets(mpsc::Sender<Command>);

impl Offsets {
    /// Recovers the offsets and starts their owner on the current runtime. Blocks.
    pub(super) fn open(data_dir: &Path) -> Result<Self, BrokerError> {
        let store = Store::recover(data_dir.join("offsets.log"))?;
        let (commands, queue) = mpsc::channel(QUEUED_COMMANDS);
        tokio::spawn(own(store, queue));
        Ok(Self(commands))
    }

    /// A place in the queue. What is sent through it is ordered by the moment of sending, so a group that sends
    /// while it holds its lock has its commits ordered like its decisions.
    pub(super) async fn place(&self) -> Result<mpsc::Permit<'_, Command>, ResponseError> {
        self.0.reserve().await.map_err(|_| ResponseError::CoordinatorNotAvailable)
    }

    pub(super) async fn read(&self, group: &str) -> Result<GroupOffsets, ResponseError> {
        self.ask(|answer| Command::Read(group.to_owned(), answer)).await
    }

    pub(super) async fn groups(&self) -> Result<Vec<String>, ResponseError> {
        self.ask(Command::Groups).await
    }

    pub(super) async fn drop_topic(&self, topic: &str) -> Result<(), ResponseError> {
        self.ask(|answer| Command::DropTopic(topic.to_owned(), answer)).await?
    }

    pub(super) async fn close(&self) {
        let _ = self.ask(Command::Close).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, ResponseError> {
        let (answer, answered) = oneshot::channel();
        self.place().await?.send(command(answer));
        answered.await.map_err(|_| ResponseError::CoordinatorNotAvailable)
    }
}

async fn own(mut store: Store, mut queue: mpsc::Receiver<Command>) {
    while let Some(first) = queue.recv().await {
        let mut group = vec![first];
        while let Ok(next) = queue.try_recv() {
            group.push(next);
        }
        let done = tokio::task::spawn_blocking(move || {
            let closed = store.serve(group);
            (store, closed)
        });
        let Ok((back, closed)) = done.await else { return };
        store = back;
        if let Some(closed) = closed {
            queue.close();
            let _ = closed.send(());
            return;
        }
    }
}

#[derive(Debug)]
struct Store {
    path: PathBuf,
    file: File,
    size: u64,
    size_after_rewrite: u64,
    groups: BTreeMap<String, GroupOffsets>,
    /// A sync failed: nothing is taken any more until a restart.
    failed: bool,
}

impl Store {
    fn recover(path: PathBuf) -> Result<Self, BrokerError> {
        let at = |source| BrokerError::at(&path, source);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(at)?;
        durable::sync_parent(&path).map_err(at)?;
        let content = fs::read(&path).map_err(at)?;
        let mut groups = BTreeMap::new();
        let mut whole = 0;
        let mut damaged = false;
        for line in content.split_inclusive(|byte| *byte == b'\n') {
            match parse_line(line) {
                // Only the last line can be torn: everything before it was synced before the next was begun.
                Some(_) if damaged => {
                    return Err(BrokerError::corrupt(&path, format!("bad line at byte {whole}")));
                }
                Some(commits) => {
                    commits.into_iter().for_each(|commit| apply(&mut groups, commit));
                    whole += line.len() as u64;
                }
                None => damaged = true,
            }
        }
        if damaged {
            let cut = content.len() as u64 - whole;
            tracing::warn!(path = %path.display(), cut, "cut a torn tail off the committed offsets");
            file.set_len(whole).map_err(at)?;
            file.sync_all().map_err(at)?;
        }
        Ok(Self { file, size: whole, size_after_rewrite: 0, groups, failed: false, path })
    }

    /// Serves a group of commands with one sync for all that write.
    fn serve(&mut self, commands: Vec<Command>) -> Option<oneshot::Sender<()>> {
        let mut writes = Vec::new();
        let mut waiting = Vec::new();
        let mut closing = None;
        for command in commands {
            match command {
                Command::Write(commits, answer) => {
                    writes.extend(commits);
                    waiting.push(answer);
                }
                Command::DropTopic(topic, answer) => {
                    self.flush(&mut writes, &mut waiting);
                    writes.extend(self.removals_of(&topic));
                    waiting.push(answer);
                }
                Command::Read(group, answer) => {
                    self.flush(&mut writes, &mut waiting);
                    let _ = answer.send(self.groups.get(&group).cloned().unwrap_or_default());
                }
                Command::Groups(answer) => {
                    self.flush(&mut writes, &mut waiting);
                    let _ = answer.send(self.groups.keys().cloned().collect());
                }
                Command::Close(answer) => closing = Some(answer),
            }
        }
        self.flush(&mut writes, &mut waiting);
        closing
    }

    fn removals_of(&self, topic: &str) -> Vec<Commit> {
        let all = self.groups.iter().flat_map(|(group, offsets)| offsets.keys().map(move |at| (group, at)));
        all.filter(|(_, (name, _))| name == topic)
            .map(|(group, (name, partition))| Commit {
                group: group.clone(),
                topic: name.clone(),
                partition: *partition,
                committed: None,
            })
            .collect()
    }

    fn flush(
        &mut self,
        writes: &mut Vec<Commit>,
        waiting: &mut Vec<oneshot::Sender<Result<(), ResponseError>>>,
    ) {
        let written = if writes.is_empty() { Ok(()) } else { self.write(&line(writes)) };
        let outcome = written.map_err(|error| {
            tracing::error!(path = %self.path.display(), %error, stopped = self.failed, "cannot store offsets");
            ResponseError::CoordinatorNotAvailable
        });
        if outcome.is_ok() {
            writes.drain(..).for_each(|commit| apply(&mut self.groups, commit));
        }
        writes.clear();
        for answer in waiting.drain(..) {
            let _ = answer.send(outcome);
        }
        if self.size > REWRITE_BYTES.max(2 * self.size_after_rewrite)
            && let Err(error) = self.rewrite()
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot rewrite the committed offsets; they go on growing");
            self.size_after_rewrite = self.size;
        }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("an earlier sync failed; restart the broker"));
        }
        if let Err(error) = self.file.write_all_at(line, self.size) {
            self.failed = self.file.set_len(self.size).is_err();
            return Err(error);
        }
        self.file.sync_data().inspect_err(|_| self.failed = true)?;
        self.size += line.len() as u64;
        Ok(())
    }

    /// Replaces the file by one that holds only what is current.
    fn rewrite(&mut self) -> io::Result<()> {
        let current = self.groups.iter().flat_map(|(group, offsets)| {
            offsets.iter().map(|((topic, partition), committed)| Commit {
                group: group.clone(),
                topic: topic.clone(),
                partition: *partition,
                committed: Some(committed.clone()),
            })
        });
        let line = line(&current.collect::<Vec<_>>());
        durable::replace(&self.path, &line)?;
        self.file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        self.size = line.len() as u64;
        self.size_after_rewrite = self.size;
        Ok(())
    }
}

fn apply(groups: &mut BTreeMap<String, GroupOffsets>, commit: Commit) {
    let at = (commit.topic, commit.partition);
    match commit.committed {
        Some(committed) => {
            groups.entry(commit.group).or_default().insert(at, committed);
        }
        None => {
            if let Some(offsets) = groups.get_mut(&commit.group) {
                offsets.remove(&at);
                if offsets.is_empty() {
                    groups.remove(&commit.group);
                }
            }
        }
    }
}

fn line(commits: &[Commit]) -> Vec<u8> {
    let json = serde_json::to_vec(commits).expect("strings and numbers serialise");
    let mut line = format!("{:08x} ", crc32c::crc32c(&json)).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    line
}

fn parse_line(line: &[u8]) -> Option<Vec<Commit>> {
    let line = line.strip_suffix(b"\n")?;
    let (checksum, json) = line.split_at_checked(9)?;
    let checksum = std::str::from_utf8(checksum).ok()?.strip_suffix(' ')?;
    let intact = u32::from_str_radix(checksum, 16).ok()? == crc32c::crc32c(json);
    intact.then(|| serde_json::from_slice(json).ok())?
}
