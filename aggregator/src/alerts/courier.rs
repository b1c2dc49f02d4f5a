//! Tells of firings: a row for the table, a POST for every webhook of the site.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use footfall_schemas::{alert::Alert, rows::AlertRow, webhook::Webhook};
use futures_util::future::{join, join_all};
use rand::Rng as _;
use tokio::{sync::Semaphore, time::sleep};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::{
    book::Key,
    config::Webhooks,
    metrics::{Metrics, Outcome},
    post::{Letter, PostError, Poster},
    signature::sign,
};
use crate::{driver::WallClock, error::StoreError};

/// Where the rows go.
pub(crate) trait AlertTable: Send + Sync + 'static {
    /// Written twice it is still one row.
    fn insert_alert(&self, row: &AlertRow) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// At most `webhooks.pending` firings are on their way. Full: a firing waits in the rules' state, where the newest of
/// each rule wins, and is taken when there is room.
pub(crate) struct Courier<T> {
    rounds: Arc<Rounds<T>>,
    /// The newest of each rule. Gone: they end.
    under_way: HashMap<Key, (Alert, AbortOnDropHandle<()>)>,
}

/// How far a firing has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nobody was told, or of an earlier change only.
    Waiting,
    UnderWay,
    /// The table has it, and every webhook took it or was given up.
    Done,
}

/// What the tasks share.
struct Rounds<T> {
    table: Arc<T>,
    poster: Poster,
    webhooks: Webhooks,
    /// POSTs at once.
    permits: Semaphore,
    wall: WallClock,
    metrics: Metrics,
}

impl<T: AlertTable> Courier<T> {
    pub(crate) fn new(
        table: Arc<T>,
        poster: Poster,
        webhooks: Webhooks,
        wall: WallClock,
        metrics: Metrics,
    ) -> Self {
        let permits = Semaphore::new(webhooks.in_flight);
        let rounds = Arc::new(Rounds { table, poster, webhooks, permits, wall, metrics });
        Self { rounds, under_way: HashMap::new() }
    }

    pub(crate) fn progress(&self, alert: &Alert) -> Progress {
        match self.under_way.get(&key(alert)) {
            Some((told, task)) if told == alert => match task.is_finished() {
                true => Progress::Done,
                false => Progress::UnderWay,
            },
            _ => Progress::Waiting,
        }
    }

    /// Sends it on its way if there is room; what is still told of the rule's earlier state is let go.
    pub(crate) fn dispatch(&mut self, alert: &Alert, webhooks: Vec<Webhook>) {
        let key = key(alert);
        if self.under_way.len() >= self.rounds.webhooks.pending && !self.under_way.contains_key(&key) {
            return;
        }
        let (rounds, told) = (self.rounds.clone(), alert.clone());
        let task = tokio::spawn(async move { rounds.go(&told, &webhooks).await });
        self.under_way.insert(key, (alert.clone(), AbortOnDropHandle::new(task)));
    }

    /// Another member tells from here on.
    pub(crate) fn forget_all(&mut self) {
        self.under_way.clear();
    }

    /// The log knows that it is done.
    pub(crate) fn forget(&mut self, alert: &Alert) {
        self.under_way.remove(&key(alert));
    }
}

fn key(alert: &Alert) -> Key {
    (alert.site.clone(), alert.rule.clone())
}

impl<T: AlertTable> Rounds<T> {
    async fn go(&self, alert: &Alert, webhooks: &[Webhook]) {
        let body = Bytes::from(serde_json::to_vec(alert).expect("plain fields always serialise"));
        let posts = webhooks.iter().map(|webhook| self.tell(alert, webhook, &body));
        join(self.write(alert), join_all(posts)).await;
    }

    /// Until it is written.
    async fn write(&self, alert: &Alert) {
        let row = AlertRow::from(alert);
        let mut pauses = Pauses::new(&self.webhooks);
        while let Err(error) = self.table.insert_alert(&row).await {
            warn!(site = %alert.site, rule = alert.rule, %error, "an alert cannot be written; trying again");
            sleep(pauses.longer()).await;
        }
    }

    /// Until it is taken or given up.
    async fn tell(&self, alert: &Alert, webhook: &Webhook, body: &Bytes) {
        let (site, rule, to) = (&alert.site, &alert.rule, webhook.url.origin());
        let mut pauses = Pauses::new(&self.webhooks);
        loop {
            let Err(error) = self.post(alert, webhook, body).await else {
                self.metrics.tried(Outcome::Delivered);
                return;
            };
            if matches!(error, PostError::Refused(_)) {
                self.metrics.tried(Outcome::Refused);
                warn!(%site, rule, to, %error, "a webhook is refused");
                return;
            }
            let Some(pause) = pauses.next() else {
                self.metrics.tried(Outcome::GivenUp);
                warn!(%site, rule, to, %error, tries = self.webhooks.tries, "a webhook is given up");
                return;
            };
            self.metrics.tried(Outcome::Retried);
            debug!(%site, rule, to, %error, ?pause, "a webhook is tried again");
            sleep(pause).await;
        }
    }

    async fn post(&self, alert: &Alert, webhook: &Webhook, body: &Bytes) -> Result<(), PostError> {
        let _permit = self.permits.acquire().await.expect("never closed");
        // Signed for each try: the receiver refuses what is old.
        let signature = sign(&webhook.secret, (self.wall)().div_euclid(1_000), body);
        let state = if alert.is_open() { "opened" } else { "resolved" };
        let letter = Letter { id: format!("{}-{state}", alert.id), signature, body: body.clone() };
        self.poster.post(&webhook.url, letter).await
    }
}

/// Pauses between tries: each twice as long as the one before, up to a quarter more or less, so that receivers that
/// were away are not met by everybody at once.
struct Pauses {
    next_ms: u64,
    left: u32,
}

impl Pauses {
    fn new(webhooks: &Webhooks) -> Self {
        Self { next_ms: webhooks.backoff_ms, left: webhooks.tries.saturating_sub(1) }
    }

    /// As [`Iterator::next`], without end and up to a minute.
    fn longer(&mut self) -> Duration {
        self.left = u32::MAX;
        self.next_ms = self.next_ms.min(60_000);
        self.next().unwrap_or_default()
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let pause = self.next_ms as f64 * rand::rng().random_range(0.75..=1.25);
        self.next_ms = self.next_ms.saturating_mul(2);
        Some(Duration::from_millis(pause as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_tries_take_a_quarter_of_an_hour() {
        let pauses: Vec<Duration> = Pauses::new(&Webhooks::default()).collect();
        assert_eq!(pauses.len(), 9);
        for (index, pause) in pauses.iter().enumerate() {
            let middle = 2_000.0 * 2f64.powi(index as i32);
            let share = pause.as_millis() as f64 / middle;
            assert!((0.749..=1.25).contains(&share), "{pauses:?}");
        }
        let sum: Duration = pauses.iter().sum();
        assert!((720..1_320).contains(&sum.as_secs()), "{sum:?}");
    }

    #[test]
    fn a_row_is_tried_for_ever_and_at_least_every_minute_or_so() {
        let mut pauses = Pauses::new(&Webhooks { tries: 1, ..Webhooks::default() });
        let longest = (0..100).map(|_| pauses.longer()).max().unwrap();
        assert!((45..=75).contains(&longest.as_secs()), "{longest:?}");
    }
}
