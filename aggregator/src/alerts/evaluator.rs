//! Reads the live windows, holds the rules against them every second, and sees to it that what changes is told.

use std::{collections::HashMap, sync::Arc, time::Duration};

use footfall_schemas::{
    SiteId,
    alert::{Alert, AlertRecord},
    alert_rule::AlertRule,
    directory::Directory,
    live::LiveRecord,
    webhook::Webhook,
};
use rdkafka::{Message, error::KafkaError};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{
    book::{Book, Key},
    config,
    courier::{AlertTable, Courier, Progress},
    follower::{Duty, Follower},
    journal::Journal,
    metrics::Metrics,
    verdict::{Verdict, judge},
    watch::Watch,
};
use crate::{
    driver::WallClock,
    error::LogError,
    status::{Phase, Status},
};

/// How often rules are held against the windows.
const TICK: Duration = Duration::from_secs(1);

pub(crate) struct Evaluator<T> {
    pub(crate) follower: Follower,
    pub(crate) journal: Journal,
    pub(crate) courier: Courier<T>,
    pub(crate) directory: watch::Receiver<Arc<Directory>>,
    /// As the directory was looked at last. Sites without rules may still have firings of former rules to be told of.
    pub(crate) listed: Arc<Directory>,
    pub(crate) config: config::Alerts,
    /// This member's own partitions: while they are rebuilt, nothing is judged.
    pub(crate) status: Arc<Status>,
    pub(crate) wall: WallClock,
    pub(crate) metrics: Metrics,
}

/// While this member evaluates.
struct Turn {
    began: Instant,
    /// Of the sites that have rules.
    watches: HashMap<SiteId, Watching>,
    /// Offset after the last record read.
    next: i64,
    /// Read when the warm-up is over: by then nobody else writes any more.
    book: Option<Book>,
}

struct Watching {
    /// In the turn, ms. Until the warm-up is over not every partition may have told.
    from: i64,
    watch: Watch,
}

impl<T: AlertTable> Evaluator<T> {
    /// From the first rule until `stop`. What is not told by then, the next one tells.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let has_rules = |directory: &Arc<Directory>| {
            directory.sites.values().any(|listed| !listed.site.alerts.is_empty())
        };
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(directory) = self.directory.wait_for(has_rules) => self.listed = directory.clone(),
        }
        if let Err(error) = self.follower.join() {
            error!(%error, "the live windows cannot be read; no alert is evaluated");
            return;
        }
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turn = None;
        loop {
            let consumer = self.follower.consumer.clone();
            let received = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                duty = self.follower.duties.recv() => {
                    turn = match duty {
                        Some(Duty::Taken) => Some(self.begin()),
                        Some(Duty::Lost) | None => None,
                    };
                    self.courier.forget_all();
                    continue;
                }
                Ok(()) = self.directory.changed() => {
                    self.listed = self.directory.borrow_and_update().clone();
                    if let Some(turn) = &mut turn {
                        self.follow(turn);
                    }
                    continue;
                }
                _ = ticks.tick() => {
                    if let Some(turn) = &mut turn {
                        self.tick(turn).await;
                    }
                    continue;
                }
                received = consumer.recv() => received,
            };
            match (received, &mut turn) {
                (Ok(message), Some(turn)) => self.take(turn, &message),
                (Ok(_), None) => {}
                // librdkafka reconnects by itself; rules wait as long as clocks stand still.
                (Err(error), _) => unread(&error).await,
            }
        }
    }

    fn begin(&self) -> Turn {
        info!("this member evaluates the alerts");
        let mut turn = Turn { began: Instant::now(), watches: HashMap::new(), next: 0, book: None };
        self.follow(&mut turn);
        turn
    }

    /// Watches what the rules are about now.
    fn follow(&self, turn: &mut Turn) {
        let (now, from) = ((self.wall)(), since(turn.began));
        turn.watches.retain(|site, _| !self.rules(site).is_empty());
        for (site, listed) in &self.listed.sites {
            let subjects: Vec<_> = listed.site.alerts.iter().map(|rule| rule.subject.clone()).collect();
            match turn.watches.get_mut(site) {
                Some(watching) => watching.watch.turn_to(subjects, now),
                None if subjects.is_empty() => {}
                None => {
                    let watching = Watching { from, watch: Watch::new(now, subjects) };
                    turn.watches.insert(site.clone(), watching);
                }
            }
        }
    }

    fn rules(&self, site: &SiteId) -> &[AlertRule] {
        self.listed.sites.get(site).map_or(&[], |listed| &listed.site.alerts)
    }

    fn webhooks(&self, site: &SiteId) -> &[Webhook] {
        self.listed.sites.get(site).map_or(&[], |listed| &listed.site.alert_webhooks)
    }

    fn take(&self, turn: &mut Turn, message: &impl Message) {
        turn.next = message.offset() + 1;
        // Most sites of a cluster may have no rule; the key tells without reading the record.
        let key = message.key().and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default();
        let site = key.split_once('/').and_then(|(site, _)| SiteId::try_from(site).ok());
        let Some(watching) = site.and_then(|site| turn.watches.get_mut(&site)) else { return };
        match serde_json::from_slice::<LiveRecord>(message.payload().unwrap_or_default()) {
            Ok(record) => watching.watch.take(record, since(turn.began)),
            Err(error) => warn!(key, %error, "a live record cannot be read; is another version writing?"),
        }
    }

    async fn tick(&mut self, turn: &mut Turn) {
        if turn.book.is_none() {
            if !self.is_warm(0, since(turn.began))
                || self.status.partitions().values().any(|own| own.phase != Phase::Running)
            {
                return;
            }
            match self.journal.read().await {
                Ok(records) => turn.book = Some(Book::new(records)),
                Err(error) => debug!(%error, "the state of the alerts cannot be read yet"),
            }
        }
        let Turn { watches, book: Some(book), .. } = turn else { return };
        let changes = self.judge(watches, book, since(turn.began));
        if let Err(error) = self.write(turn.next, changes, book).await {
            warn!(%error, "alerts cannot be put on the log; they are judged again");
        }
        self.settle(turn.next, book).await;
        self.metrics.open.record(book.open() as u64, &[]);
    }

    /// Whether every partition that has something has told it to who has listened from then on (ms).
    fn is_warm(&self, from: i64, now_ms: i64) -> bool {
        now_ms - from >= self.config.warm_up_ms as i64
    }

    /// What changes now.
    fn judge(&self, watches: &HashMap<SiteId, Watching>, book: &mut Book, now_ms: i64) -> Vec<Alert> {
        let mut suspended = 0;
        let mut changes = Vec::new();
        for (site, Watching { from, watch }) in watches {
            let clock = watch.clock(now_ms, self.config.partition_silence_ms as i64);
            let clock = clock.filter(|_| self.is_warm(*from, now_ms));
            suspended += u64::from(clock.is_none());
            for (index, rule) in self.rules(site).iter().enumerate() {
                let (verdict, clock) = match clock {
                    Some(clock) => (judge(rule, &watch.series(index), clock), clock),
                    None => (Verdict::Unknown, 0),
                };
                changes.extend(book.weigh(site, rule, verdict, clock));
            }
        }
        self.metrics.suspended.record(suspended, &[]);
        changes.extend(book.orphans(|key| self.is_rule(key), (self.wall)()));
        changes
    }

    fn is_rule(&self, (site, name): &Key) -> bool {
        self.rules(site).iter().any(|rule| rule.name == *name)
    }

    /// Puts changes on the log, if this member still may, and then into the book.
    async fn write(&self, next: i64, changes: Vec<Alert>, book: &mut Book) -> Result<(), LogError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.follower.confirm(next).await?;
        for alert in changes {
            let record = AlertRecord { alert, settled: false };
            self.journal.write(&record).await?;
            self.metrics.changed(&record.alert);
            let Alert { site, rule, text, .. } = &record.alert;
            info!(%site, rule, text, "alert");
            book.put(record);
        }
        Ok(())
    }

    /// Sends on their way those that nobody was told of, and notes on the log those that everybody was told of.
    async fn settle(&mut self, next: i64, book: &mut Book) {
        let unsettled: Vec<Alert> = book.unsettled().cloned().collect();
        for alert in unsettled {
            match self.courier.progress(&alert) {
                Progress::UnderWay => {}
                Progress::Waiting => {
                    let webhooks = self.webhooks(&alert.site).to_vec();
                    self.courier.dispatch(&alert, webhooks);
                }
                Progress::Done => {
                    let Some(record) = book.settled(&alert) else { continue };
                    let mut written = self.follower.confirm(next).await;
                    if written.is_ok() {
                        written = self.journal.write(&record).await;
                    }
                    match written {
                        Ok(()) => {
                            book.put(record);
                            self.courier.forget(&alert);
                        }
                        Err(error) => debug!(%error, "not yet on the log that an alert was told"),
                    }
                }
            }
        }
    }
}

/// Monotonic ms.
fn since(began: Instant) -> i64 {
    began.elapsed().as_millis() as i64
}

async fn unread(error: &KafkaError) {
    debug!(%error, "the live windows cannot be read");
    tokio::time::sleep(Duration::from_millis(100)).await;
}
