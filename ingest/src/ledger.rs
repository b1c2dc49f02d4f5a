//! What became of a site's events since the node started: plain atomics, so that counting a batch costs a few additions
//! and no lock.

use std::sync::atomic::{AtomicU64, Ordering};

use footfall_schemas::{RejectReason, presence::IngestLedger, refusal::RetryReason};

const RETRIES: [RetryReason; 4] =
    [RetryReason::RateLimited, RetryReason::Overloaded, RetryReason::LogUnavailable, RetryReason::Draining];

fn place_of(reason: RetryReason) -> usize {
    match reason {
        RetryReason::RateLimited => 0,
        RetryReason::Overloaded => 1,
        RetryReason::LogUnavailable => 2,
        RetryReason::Draining => 3,
    }
}

/// Whoever settles an event has counted it as received before. Settling releases what it adds, and a reader acquires it
/// before it looks at `received`: so no reading shows more settled than received, although nothing is locked.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    received: AtomicU64,
    accepted: AtomicU64,
    refused: [AtomicU64; RejectReason::ALL.len()],
    retried: [AtomicU64; RETRIES.len()],
    evicted: AtomicU64,
}

impl Ledger {
    /// Events that arrived. Each of them is accepted, refused or retried later.
    pub(crate) fn received(&self, events: u64) {
        self.received.fetch_add(events, Ordering::Relaxed);
    }

    pub(crate) fn accepted(&self, events: u64) {
        self.accepted.fetch_add(events, Ordering::Release);
    }

    pub(crate) fn refused(&self, reason: RejectReason, events: u64) {
        self.refused[reason as usize].fetch_add(events, Ordering::Release);
    }

    pub(crate) fn retried(&self, reason: RetryReason, events: u64) {
        self.retried[place_of(reason)].fetch_add(events, Ordering::Release);
    }

    /// Lost in a tracker's outbox; never received here.
    pub(crate) fn evicted(&self, events: u64) {
        self.evicted.fetch_add(events, Ordering::Relaxed);
    }

    pub(crate) fn accepted_so_far(&self) -> u64 {
        self.accepted.load(Ordering::Acquire)
    }

    pub(crate) fn received_so_far(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(crate) fn evicted_so_far(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Reasons that occurred.
    pub(crate) fn refused_so_far(&self) -> impl Iterator<Item = (RejectReason, u64)> {
        let counted =
            |(reason, events): (&RejectReason, &AtomicU64)| (*reason, events.load(Ordering::Acquire));
        RejectReason::ALL.iter().zip(&self.refused).map(counted).filter(|(_, events)| *events > 0)
    }

    /// Reasons that occurred.
    pub(crate) fn retried_so_far(&self) -> impl Iterator<Item = (RetryReason, u64)> {
        let counted =
            |(reason, events): (&RetryReason, &AtomicU64)| (*reason, events.load(Ordering::Acquire));
        RETRIES.iter().zip(&self.retried).map(counted).filter(|(_, events)| *events > 0)
    }

    /// Received and not yet settled.
    pub(crate) fn in_flight(&self) -> u64 {
        let ledger = self.read();
        let refused: u64 = ledger.refused.values().sum();
        ledger.received - ledger.accepted - refused - ledger.retried
    }

    /// What is settled first, `received` last: what came in between counts as in flight.
    pub(crate) fn read(&self) -> IngestLedger {
        let accepted = self.accepted_so_far();
        let refused = self.refused_so_far().collect();
        let retried = self.retried_so_far().map(|(_, events)| events).sum();
        let evicted = self.evicted_so_far();
        IngestLedger { received: self.received_so_far(), accepted, refused, retried, evicted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        let ledger = Ledger::default();
        for (events, reason) in (1..).zip(RejectReason::ALL) {
            ledger.refused(*reason, events);
        }
        for (events, reason) in (1..).zip(RETRIES) {
            ledger.retried(reason, events);
        }
        let refused: Vec<_> = ledger.refused_so_far().collect();
        let expected: Vec<_> = RejectReason::ALL.iter().copied().zip(1..).collect();
        assert_eq!(refused, expected);
        assert_eq!(
            ledger.retried_so_far().collect::<Vec<_>>(),
            RETRIES.into_iter().zip(1..).collect::<Vec<_>>()
        );
    }

    #[test]
    fn what_is_in_flight_is_never_negative_while_others_count() {
        let ledger = Ledger::default();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        ledger.received(3);
                        ledger.accepted(1);
                        ledger.refused(RejectReason::BadUrl, 1);
                        ledger.retried(RetryReason::Overloaded, 1);
                    }
                });
            }
            let (mut last, mut grown) = (0, 0);
            while grown < 300 {
                let read = ledger.read();
                let settled = read.accepted + read.refused.values().sum::<u64>() + read.retried;
                if read.received < settled {
                    done.store(true, Ordering::Relaxed);
                    panic!("more settled than received: {read:?}");
                }
                grown += u32::from(read.received > last);
                last = read.received;
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(ledger.in_flight(), 0);
    }
}
