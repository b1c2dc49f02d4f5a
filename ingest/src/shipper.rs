//! A thread of its own, on which everything happens that lies between a batch and the log: packing into records,
//! sending, delivery reports, the spool, and the answers.
//!
//! One thread, so that a partition's order is the order of what it does, and nothing is locked. It wakes once a
//! millisecond while there is something to do and takes what has come meanwhile; nobody has to wake it then.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;
use tracing::warn;

use crate::{
    answers::{self, Answers},
    batcher::{Contribution, Inbox},
    clock::now_us,
    config::{Config, SpoolAck},
    lane::{Lane, OpenRecord},
    log::{Fault, Log, Report, Undelivered},
    metrics::Metrics,
    receipt::Receipt,
    spool::{Record, Spool},
    trace,
};

/// While there is something to do.
const TURN: Duration = Duration::from_millis(1);
/// Else; callbacks that nobody waits for come so late at most.
const IDLE: Duration = Duration::from_millis(100);
/// What goes to the disk may become larger records: acks are later than this anyway.
const SPOOL_LINGER: Duration = Duration::from_millis(50);
/// Most bytes of the spool on their way to Kafka at once, in all and of a partition, so that live records of other
/// partitions find it free.
const DRAIN_BYTES: usize = 16 * 1024 * 1024;
const DRAIN_LANE_BYTES: usize = 1024 * 1024;
/// Before a record of the spool is tried again that Kafka refused for a standing reason, or that was not read.
const PAUSE: Duration = Duration::from_secs(5);
const MEASURE: Duration = Duration::from_secs(1);

pub(crate) struct Shipper {
    inbox: Arc<Inbox>,
    log: Arc<Log>,
    metrics: Arc<Metrics>,
    /// By partition.
    lanes: Vec<Lane>,
    answers: Answers,
    spool: Option<Spool>,
    /// To be spooled by the end of this turn, with one write.
    set_down: Vec<SetDown>,
    /// Of the spool and on their way, by partition.
    draining: Vec<usize>,
    last_number: u64,
    reports: Vec<Report>,
    measured_at: Instant,
    terms: Terms,
}

struct SetDown {
    number: u64,
    partition: i32,
    payload: Vec<u8>,
    receipts: Vec<Receipt>,
    /// When there is no room either.
    fault: Fault,
}

struct Terms {
    linger: Duration,
    patience: Duration,
    stalled_after: Duration,
    acks_from_spool: bool,
    grace: Duration,
}

impl Shipper {
    pub(crate) fn new(
        config: &Config,
        inbox: Arc<Inbox>,
        log: Arc<Log>,
        spool: Option<Spool>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let now = Instant::now();
        let terms = Terms {
            linger: Duration::from_millis(config.batcher.linger_ms),
            patience: Duration::from_millis(config.batcher.answer_ms.into()),
            stalled_after: Duration::from_millis(config.spool.after_ms),
            acks_from_spool: spool.is_some() && config.spool.ack == SpoolAck::Spool,
            grace: Duration::from_millis(config.grace_period_ms),
        };
        Self {
            inbox,
            metrics,
            lanes: (0..log.partitions()).map(|_| Lane::new(now)).collect(),
            answers: Answers::default(),
            last_number: spool.as_ref().map_or(0, Spool::highest),
            spool,
            set_down: Vec::new(),
            draining: vec![0; log.partitions() as usize],
            log,
            reports: Vec::new(),
            measured_at: now,
            terms,
        }
    }

    /// Until the inbox is closed and what was taken has landed somewhere. Blocks.
    pub(crate) fn run(mut self) {
        let mut taken = Vec::new();
        let mut deadline = None;
        loop {
            let open = self.inbox.take(&mut taken);
            let now = Instant::now();
            taken.drain(..).for_each(|contribution| self.pack(contribution, now));
            self.ship_due(!open, now);
            if open {
                self.drain(now);
            }
            self.spool_all(now);
            self.log.poll();
            let now = Instant::now();
            self.hear_reports(now);
            self.spool_all(now);
            let lanes = &self.lanes;
            self.answers
                .overdue(self.terms.patience, now, |partition| lanes[partition as usize].stalled_for(now));
            self.measure(now);
            if open && !self.is_busy() {
                self.inbox.wait(IDLE);
                continue;
            }
            // Nobody wakes it: what comes meanwhile is taken together.
            std::thread::sleep(TURN);
            if open {
                continue;
            }
            if self.lanes.iter().all(Lane::is_idle) {
                break;
            }
            match deadline {
                None => deadline = Some((now + self.terms.grace, false)),
                Some((at, false)) if now >= at => {
                    // What comes back goes to the spool, so that the next start finishes it.
                    self.log.purge();
                    deadline = Some((now + Duration::from_secs(1), true));
                }
                Some((at, true)) if now >= at => break,
                Some(_) => {}
            }
        }
        if let Some(spool) = &mut self.spool {
            spool.sync();
        }
    }

    fn is_busy(&self) -> bool {
        !self.lanes.iter().all(Lane::is_idle) || self.spool.as_ref().is_some_and(|spool| !spool.is_empty())
    }

    fn pack(&mut self, contribution: Contribution, now: Instant) {
        let partition = contribution.partition;
        if let Some(full) = self.lanes[partition as usize].pack(contribution, now) {
            self.ship(partition, full, now);
        }
    }

    fn ship_due(&mut self, all: bool, now: Instant) {
        for partition in 0..self.lanes.len() {
            let linger = match &self.spool {
                _ if all => Duration::ZERO,
                Some(spool) if spool.waits(partition as u32) => SPOOL_LINGER.max(self.terms.linger),
                _ => self.terms.linger,
            };
            if let Some(record) = self.lanes[partition].due(linger, now) {
                self.ship(partition as i32, record, now);
            }
        }
    }

    /// To Kafka; or to the spool, behind what waits there, and when nothing arrives any more.
    fn ship(&mut self, partition: i32, record: OpenRecord, now: Instant) {
        self.metrics.record_events.record(record.events as u64, &[]);
        self.last_number = now_us().max(self.last_number + 1);
        let number = self.last_number;
        let OpenRecord { lines: payload, mut receipts, .. } = record;
        let lane = &mut self.lanes[partition as usize];
        let behind = self.spool.as_ref().is_some_and(|spool| {
            spool.waits(partition as u32)
                || lane.is_stalled(self.terms.stalled_after, now)
                || self.set_down.iter().any(|before| before.partition == partition)
        });
        let fault = if behind {
            Fault::Passing
        } else {
            let traced = trace::record(partition, &mut receipts);
            match self.log.send_events(partition, number, &payload, traced) {
                Ok(()) => {
                    lane.sent(number, now);
                    self.answers.sent(number, partition, receipts, now);
                    return;
                }
                Err(fault) => fault,
            }
        };
        self.not_taken(SetDown { number, partition, payload, receipts, fault }, now);
    }

    /// To the spool if that helps, else back to the trackers. Never a false ack: a record that did land although it
    /// is said not to have is met by its copy later, with the same ids.
    fn not_taken(&mut self, mut record: SetDown, now: Instant) {
        match record.fault {
            Fault::Passing | Fault::Stopped if self.spool.is_some() => self.set_down.push(record),
            fault => answers::settle(&mut record.receipts, Err(fault.retry()), now),
        }
    }

    fn spool_all(&mut self, now: Instant) {
        let Some(spool) = self.spool.as_mut().filter(|_| !self.set_down.is_empty()) else { return };
        // Reports come by partition: the oldest of all gets the room that is left.
        self.set_down.sort_unstable_by_key(|record| record.number);
        let records: Vec<_> = self
            .set_down
            .iter()
            .map(|record| Record {
                number: record.number,
                partition: record.partition as u32,
                payload: &record.payload,
            })
            .collect();
        let taken = spool.put(&records);
        for (index, record) in self.set_down.drain(..).enumerate() {
            let SetDown { number, partition, mut receipts, fault, .. } = record;
            if index >= taken {
                answers::settle(&mut receipts, Err(fault.retry()), now);
            } else if self.terms.acks_from_spool {
                answers::settle(&mut receipts, Ok(()), now);
            } else if fault == Fault::Stopped {
                // It is finished after the next start; the tracker need not wait for that.
                answers::settle(&mut receipts, Err(fault.retry()), now);
            } else {
                self.answers.spooled(number, partition, receipts, now);
            }
        }
    }

    /// Sends what the spool holds, in the order of the numbers, as far as it may be on its way.
    fn drain(&mut self, now: Instant) {
        let Some(spool) = &mut self.spool else { return };
        let most = DRAIN_LANE_BYTES.min(DRAIN_BYTES / self.lanes.len());
        for partition in spool.partitions() {
            let lane = &mut self.lanes[partition as usize];
            let draining = &mut self.draining[partition as usize];
            while let Some((number, bytes)) = spool.first(partition) {
                if !lane.may_send(number, now) || (*draining > 0 && *draining + bytes > most) {
                    break;
                }
                // While nothing arrives, one record is enough to find out when that changes.
                if lane.in_flight() > 0 && lane.is_stalled(self.terms.stalled_after, now) {
                    break;
                }
                let payload = match spool.send_first(partition) {
                    Ok(Some(payload)) => payload,
                    Ok(None) => continue,
                    Err(error) => {
                        warn!(%error, partition, "the spool cannot be read; it is tried again");
                        lane.pause(now + PAUSE);
                        break;
                    }
                };
                match self.log.send_events(partition as i32, number, &payload, None) {
                    Ok(()) => {
                        *draining += bytes;
                        lane.sent(number, now);
                    }
                    Err(Fault::Record) => {
                        spool.refused(number);
                        answers::settle(&mut self.answers.take(number), Err(Fault::Record.retry()), now);
                    }
                    Err(_) => {
                        spool.back(number);
                        lane.pause(now + PAUSE);
                        break;
                    }
                }
            }
        }
    }

    fn hear_reports(&mut self, now: Instant) {
        let mut reports = std::mem::take(&mut self.reports);
        self.log.take_reports(&mut reports);
        // The youngest first, as in `answers::settle`.
        for Report { number, partition, outcome } in reports.drain(..).rev() {
            let lane = &mut self.lanes[partition as usize];
            let draining = &mut self.draining[partition as usize];
            let spool = self.spool.as_mut().filter(|spool| spool.has_sent(number));
            match (outcome, spool) {
                (Ok(()), spool) => {
                    lane.delivered(now);
                    if let Some(spool) = spool {
                        *draining -= spool.delivered(number);
                    }
                    answers::settle(&mut self.answers.take(number), Ok(()), now);
                }
                (Err(Undelivered { fault, .. }), Some(spool)) => {
                    lane.failed();
                    *draining -= match fault {
                        Fault::Record => spool.refused(number),
                        Fault::Standing | Fault::Passing | Fault::Stopped => spool.back(number),
                    };
                    if fault == Fault::Standing {
                        lane.pause(now + PAUSE);
                    }
                    if fault == Fault::Record {
                        answers::settle(&mut self.answers.take(number), Err(fault.retry()), now);
                    }
                }
                (Err(Undelivered { fault, payload }), None) => {
                    lane.failed();
                    let receipts = self.answers.take(number);
                    self.not_taken(SetDown { number, partition, payload, receipts, fault }, now);
                }
            }
        }
        self.reports = reports;
    }

    fn measure(&mut self, now: Instant) {
        let after = self.terms.stalled_after;
        let stalled = self.lanes.iter_mut().any(|lane| lane.is_stalled(after, now));
        let health = self.log.health();
        health.stalled.store(stalled, Ordering::Relaxed);
        let Some(spool) = &self.spool else { return };
        health.spool_acks.store(self.terms.acks_from_spool && spool.has_room(), Ordering::Relaxed);
        if now.saturating_duration_since(self.measured_at) >= MEASURE {
            self.measured_at = now;
            spool.measure(now_us());
        }
    }
}
