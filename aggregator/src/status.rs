//! What the role can say of itself: for readiness, the status page and tests.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

use crate::partition::Size;

/// Shared with the process that runs the role.
#[derive(Debug, Default)]
pub struct Status {
    partitions: Mutex<BTreeMap<i32, PartitionStatus>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionStatus {
    pub phase: Phase,
    /// Offset up to which everything is written.
    pub stored: i64,
    /// Offset after the last record of the log, as far as known.
    pub end: i64,
    /// `true` once the end of the log was reached after the assignment, until records are waiting again.
    pub caught_up: bool,
    /// What its sites hold in memory, about, and how many of them were narrowed so that the others keep theirs.
    pub bytes: usize,
    pub narrowed_sites: usize,
    /// What is being tried again, and why it failed.
    pub last_error: Option<String>,
    pub audit: Audit,
}

/// What the audit found since the partition was assigned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// When everything audited was found as it must be (ms since 1970).
    pub clean_at: Option<i64>,
    /// Differences found, those healed included.
    pub differences: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Loads the state.
    Loading,
    /// Reads the log up to where it was left.
    Replaying,
    Running,
}

impl PartitionStatus {
    /// Records that are not yet written.
    pub fn lag(&self) -> i64 {
        (self.end - self.stored).max(0)
    }
}

impl Status {
    /// The partitions assigned to this member.
    pub fn partitions(&self) -> BTreeMap<i32, PartitionStatus> {
        self.lock().clone()
    }

    /// At least one partition is assigned, and none is loading, replaying or behind.
    pub fn is_caught_up(&self) -> bool {
        let partitions = self.lock();
        !partitions.is_empty() && partitions.values().all(|p| p.phase == Phase::Running && p.caught_up)
    }

    /// The error of some partition that is being tried again now.
    pub fn last_error(&self) -> Option<String> {
        self.lock().values().find_map(|partition| partition.last_error.clone())
    }

    pub(crate) fn assigned(&self, partition: i32) {
        let status = PartitionStatus {
            phase: Phase::Loading,
            stored: 0,
            end: 0,
            caught_up: false,
            bytes: 0,
            narrowed_sites: 0,
            last_error: None,
            audit: Audit::default(),
        };
        self.lock().insert(partition, status);
    }

    pub(crate) fn revoked(&self, partition: i32) {
        self.lock().remove(&partition);
    }

    pub(crate) fn phase(&self, partition: i32, phase: Phase) {
        self.change(partition, |status| status.phase = phase);
    }

    pub(crate) fn stored(&self, partition: i32, offset: i64) {
        self.change(partition, |status| {
            status.stored = offset;
            status.end = status.end.max(offset);
        });
    }

    pub(crate) fn end(&self, partition: i32, offset: i64) {
        self.change(partition, |status| status.end = status.end.max(offset));
    }

    pub(crate) fn caught_up(&self, partition: i32, caught_up: bool) {
        self.change(partition, |status| status.caught_up = caught_up);
    }

    pub(crate) fn size(&self, partition: i32, size: Size) {
        self.change(partition, |status| {
            status.bytes = size.bytes;
            status.narrowed_sites = size.narrowed;
        });
    }

    pub(crate) fn failed(&self, partition: i32, reason: String) {
        self.change(partition, |status| status.last_error = Some(reason));
    }

    pub(crate) fn worked(&self, partition: i32) {
        self.change(partition, |status| status.last_error = None);
    }

    /// A round of the audit found `differences` at `now` (ms since 1970).
    pub(crate) fn audited(&self, partition: i32, differences: u64, now: i64) {
        self.change(partition, |status| {
            status.audit.differences += differences;
            if differences == 0 {
                status.audit.clean_at = Some(now);
            }
        });
    }

    pub(crate) fn is_failing(&self, partition: i32) -> bool {
        self.lock().get(&partition).is_some_and(|status| status.last_error.is_some())
    }

    fn change(&self, partition: i32, change: impl FnOnce(&mut PartitionStatus)) {
        if let Some(status) = self.lock().get_mut(&partition) {
            change(status);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, PartitionStatus>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
