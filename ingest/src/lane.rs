//! One partition as the shipper sees it: the record that is being packed, and how those before it are getting on.

use std::time::Duration;

use footfall_schemas::record::MAX_RECORD_EVENTS;
use tokio::time::Instant;

use crate::{batcher::Contribution, receipt::Receipt};

/// Below Kafka's default limit of 1 MB for a record batch.
const MAX_RECORD_BYTES: usize = 900 * 1024;

/// Batches of one partition that become one record. A batch goes whole into it: its ack hangs on one delivery.
#[derive(Debug, Default)]
pub(crate) struct OpenRecord {
    pub(crate) lines: Vec<u8>,
    pub(crate) events: usize,
    pub(crate) receipts: Vec<Receipt>,
}

impl OpenRecord {
    fn has_room_for(&self, contribution: &Contribution) -> bool {
        self.events + contribution.events <= MAX_RECORD_EVENTS
            && self.lines.len() + contribution.lines.len() <= MAX_RECORD_BYTES
    }
}

#[derive(Debug)]
pub(crate) struct Lane {
    open: OpenRecord,
    opened_at: Instant,
    in_flight: usize,
    /// Of all in flight. Nothing older is sent behind it.
    youngest: u64,
    /// The last delivery; of a lane that had nothing in flight, when it got something.
    progress_at: Instant,
    /// The last progress before it stalled.
    stalled_since: Option<Instant>,
    /// Kafka refuses the partition until somebody changes something.
    paused_until: Option<Instant>,
}

impl Lane {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            open: OpenRecord::default(),
            opened_at: now,
            in_flight: 0,
            youngest: 0,
            progress_at: now,
            stalled_since: None,
            paused_until: None,
        }
    }

    /// Gives the record that is full when this does not fit into it.
    pub(crate) fn pack(&mut self, contribution: Contribution, now: Instant) -> Option<OpenRecord> {
        let full = (!self.open.has_room_for(&contribution)).then(|| self.close()).flatten();
        let Contribution { lines, events, receipt, .. } = contribution;
        let open = &mut self.open;
        if open.receipts.is_empty() {
            self.opened_at = now;
            // The first batch's lines are the record's buffer: alone, they are not copied.
            open.lines = lines;
        } else {
            open.lines.extend_from_slice(&lines);
        }
        open.events += events;
        open.receipts.push(receipt);
        full
    }

    /// The record that is being packed, if it has waited for so long.
    pub(crate) fn due(&mut self, linger: Duration, now: Instant) -> Option<OpenRecord> {
        if now.saturating_duration_since(self.opened_at) >= linger { self.close() } else { None }
    }

    fn close(&mut self) -> Option<OpenRecord> {
        (!self.open.receipts.is_empty()).then(|| std::mem::take(&mut self.open))
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.open.receipts.is_empty()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(crate) fn sent(&mut self, number: u64, now: Instant) {
        if self.in_flight == 0 {
            self.progress_at = now;
        }
        self.in_flight += 1;
        self.youngest = self.youngest.max(number);
    }

    pub(crate) fn delivered(&mut self, now: Instant) {
        self.progress_at = now;
        self.stalled_since = None;
        self.landed();
    }

    pub(crate) fn failed(&mut self) {
        self.landed();
    }

    fn landed(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.in_flight == 0 {
            self.youngest = 0;
        }
    }

    /// Whether records are on their way and none has arrived for `after`.
    pub(crate) fn is_stalled(&mut self, after: Duration, now: Instant) -> bool {
        let stalled = self.in_flight > 0 && now.saturating_duration_since(self.progress_at) >= after;
        if stalled {
            self.stalled_since.get_or_insert(self.progress_at);
        }
        stalled
    }

    /// For how long nothing has arrived.
    pub(crate) fn stalled_for(&self, now: Instant) -> Duration {
        self.stalled_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Whether this record of the spool may go now: not behind a younger one, or it would come after it.
    pub(crate) fn may_send(&self, number: u64, now: Instant) -> bool {
        number > self.youngest && self.paused_until.is_none_or(|until| now >= until)
    }

    pub(crate) fn pause(&mut self, until: Instant) {
        self.paused_until = Some(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_record_waits_until_every_younger_one_has_landed() {
        let now = Instant::now();
        let mut lane = Lane::new(now);
        lane.sent(10, now);
        lane.sent(12, now);
        assert!(!lane.may_send(11, now) && lane.may_send(13, now));
        lane.failed();
        assert!(!lane.may_send(11, now));
        lane.delivered(now);
        assert!(lane.may_send(11, now));
    }

    #[test]
    fn a_lane_stalls_when_nothing_arrives_and_not_when_nothing_was_sent() {
        let (start, after) = (Instant::now(), Duration::from_secs(2));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut lane = Lane::new(start);
        assert!(!lane.is_stalled(after, at(60)));
        lane.sent(1, at(60));
        lane.sent(2, at(61));
        assert!(!lane.is_stalled(after, at(61)));
        assert!(lane.is_stalled(after, at(62)));
        assert_eq!(lane.stalled_for(at(70)), Duration::from_secs(10));
        lane.delivered(at(70));
        assert!(!lane.is_stalled(after, at(71)));
        assert_eq!(lane.stalled_for(at(71)), Duration::ZERO);
    }
}
