//! All consumer groups behind one lock, and the task that keeps their deadlines.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kafka_protocol::error::ResponseError;
use tokio::sync::{Notify, mpsc, oneshot};

use super::group::Group;
use super::member::{Join, JoinAnswer, Speaker, SyncAnswer};
use super::offsets::{Command, Commit};

/// With more groups than this, those without members are forgotten; their offsets are kept elsewhere.
const REMEMBERED_GROUPS: usize = 1_000;

#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: Mutex<HashMap<String, Group>>,
    /// A deadline may have come closer.
    changed: Notify,
}

impl Groups {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<String, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `act` on a group that is created where missing.
    pub(super) fn with<T>(&self, name: &str, act: impl FnOnce(&mut Group, Instant) -> T) -> T {
        let mut groups = self.lock();
        if groups.len() >= REMEMBERED_GROUPS && !groups.contains_key(name) {
            groups.retain(|_, group| !group.is_idle());
        }
        let outcome = act(groups.entry(name.to_owned()).or_default(), Instant::now());
        drop(groups);
        self.changed.notify_one();
        outcome
    }

    /// Runs `act` on a group that exists.
    pub(super) fn with_known<T>(
        &self,
        name: &str,
        act: impl FnOnce(&mut Group, Instant) -> Result<T, ResponseError>,
    ) -> Result<T, ResponseError> {
        let outcome = match self.lock().get_mut(name) {
            Some(group) => act(group, Instant::now()),
            None => Err(ResponseError::UnknownMemberId),
        };
        self.changed.notify_one();
        outcome
    }

    /// The second value is the id that a member without one is to come back with.
    pub(super) fn join(&self, name: &str, join: Join) -> (oneshot::Receiver<JoinAnswer>, Option<String>) {
        let (answer, answered) = oneshot::channel();
        let member_id = self.with(name, |group, now| group.join(join, now, answer));
        (answered, member_id)
    }

    pub(super) fn sync(
        &self,
        name: &str,
        speaker: Speaker<'_>,
        protocol: (Option<&str>, Option<&str>),
        assignments: Vec<(String, bytes::Bytes)>,
    ) -> oneshot::Receiver<SyncAnswer> {
        let (answer, answered) = oneshot::channel();
        // An unknown group: the dropped sender makes the caller say that the member is unknown.
        let _ = self.with_known(name, |group, now| {
            group.sync(speaker, protocol, assignments, now, answer);
            Ok(())
        });
        answered
    }

    /// Checks the fence and queues the commits in one step, so that no rebalance comes between the two.
    pub(super) fn commit(
        &self,
        name: &str,
        speaker: Speaker<'_>,
        commits: Vec<Commit>,
        place: mpsc::Permit<'_, Command>,
    ) -> Result<oneshot::Receiver<Result<(), ResponseError>>, ResponseError> {
        let mut groups = self.lock();
        match groups.get_mut(name) {
            Some(group) => group.admit_commit(speaker, Instant::now())?,
            None if speaker.generation < 0 => {}
            None => return Err(ResponseError::IllegalGeneration),
        }
        let (answer, answered) = oneshot::channel();
        place.send(Command::Write(commits, answer));
        Ok(answered)
    }

    /// Applies the deadlines as they come. Runs until it is aborted.
    pub(super) async fn keep_deadlines(self: Arc<Self>) {
        loop {
            let next = self.lock().values().filter_map(Group::next_deadline).min();
            match next {
                Some(next) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(next.into()) => {}
                        () = self.changed.notified() => {}
                    }
                }
                None => self.changed.notified().await,
            }
            let now = Instant::now();
            for group in self.lock().values_mut() {
                if group.next_deadline().is_some_and(|next| next <= now) {
                    group.expire(now);
                }
            }
        }
    }
}
