//! Keeps this process's directory: what is declared, and what is on the topic.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use footfall_schemas::{connect::KafkaSettings, directory::Directory, topics::DIRECTORY};
use tokio::{sync::watch, time::timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::{
    contents::Contents,
    source::{Read, Source},
};

/// Records applied before the directory is shown again.
const AT_ONCE: usize = 1_000;

/// How far the topic is read.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// Offset after the last record that the directory shows.
    pub(super) next: i64,
    /// All that lay on the topic at the start was read.
    is_caught_up: bool,
    /// Records that were left out.
    unreadable: u64,
    /// Why nothing is read at the moment.
    problem: Option<String>,
}

/// Follows the topic until it is dropped.
#[derive(Debug)]
pub struct Reader {
    directory: watch::Receiver<Arc<Directory>>,
    progress: watch::Receiver<Progress>,
    _following: AbortOnDropHandle<()>,
}

impl Reader {
    /// `declared` is what the settings file says at any time. Until the topic was read once, only that is shown.
    pub fn spawn(kafka: &KafkaSettings, declared: watch::Receiver<Directory>) -> anyhow::Result<Self> {
        let source = Source::spawn(kafka).context("kafka: the directory's consumer")?;
        let (show, directory) = watch::channel(Arc::new(declared.borrow().clone()));
        let (note, progress) = watch::channel(Progress::default());
        let contents = Contents::declaring(declared.borrow().clone());
        let follower = Follower { contents, declared, show, note };
        let following = AbortOnDropHandle::new(tokio::spawn(follower.run(source)));
        Ok(Self { directory, progress, _following: following })
    }

    pub fn directory(&self) -> watch::Receiver<Arc<Directory>> {
        self.directory.clone()
    }

    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Records that could not be read and are left out.
    pub fn unreadable(&self) -> u64 {
        self.progress.borrow().unreadable
    }

    /// Waits until everything that lay on the topic is shown. The error names what is in the way.
    pub async fn caught_up(&self, within: Duration) -> anyhow::Result<()> {
        let mut progress = self.progress.clone();
        let caught_up = progress.wait_for(|progress| progress.is_caught_up);
        match timeout(within, caught_up).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(_)) => bail!("the reader of {DIRECTORY} has ended"),
            Err(_) => {}
        }
        let problem = self.progress.borrow().problem.clone();
        let problem = problem.unwrap_or_else(|| format!("{DIRECTORY} is long, or comes slowly"));
        bail!("the directory was not read within {within:?}: {problem}")
    }
}

struct Follower {
    contents: Contents,
    declared: watch::Receiver<Directory>,
    show: watch::Sender<Arc<Directory>>,
    note: watch::Sender<Progress>,
}

impl Follower {
    async fn run(mut self, mut source: Source) {
        let mut reads = Vec::with_capacity(AT_ONCE);
        loop {
            tokio::select! {
                Ok(()) = self.declared.changed() => {
                    let declared = self.declared.borrow_and_update().clone();
                    for error in self.contents.declare(declared) {
                        warn!(%error, "an entry of the directory cannot be read and is left out");
                    }
                }
                count = source.reads.recv_many(&mut reads, AT_ONCE) => {
                    if count == 0 {
                        return;
                    }
                }
            }
            let mut progress = self.note.borrow().clone();
            for read in reads.drain(..) {
                self.take(read, &mut progress);
            }
            // Half of the topic is no directory: a user may be in it who was removed in the other half.
            if progress.is_caught_up || self.contents.records() == 0 {
                self.show.send_replace(Arc::new(self.contents.directory().clone()));
            }
            // Last: who waits for an offset finds the directory that shows it.
            self.note.send_replace(progress);
        }
    }

    fn take(&mut self, read: Read, progress: &mut Progress) {
        match read {
            Read::Record { offset, key, value } => {
                let key = key.as_deref().map_or(Ok(""), str::from_utf8).unwrap_or_default();
                if let Err(error) = self.contents.take(key, value.as_deref()) {
                    progress.unreadable += 1;
                    warn!(offset, %error, "a record of the directory cannot be read and is left out");
                }
                progress.next = offset + 1;
                progress.problem = None;
            }
            Read::End => {
                if !progress.is_caught_up {
                    let (entries, unreadable) = (self.contents.records(), progress.unreadable);
                    info!(entries, unreadable, "the directory is read");
                }
                progress.is_caught_up = true;
                progress.problem = None;
            }
            Read::Problem(problem) => {
                if progress.problem.as_ref() != Some(&problem) {
                    warn!(problem, "the directory cannot be read; trying again");
                }
                progress.problem = Some(problem);
            }
        }
    }
}
