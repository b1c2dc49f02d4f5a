//! ClickHouse as the dashboard asks it for the past: a few questions at a time, each within a timeout, and the same
//! answer again for a while. The live page goes on without it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use clickhouse::{Client, error::Error};
use footfall_schemas::{Dimension, SiteId, connect::ClickHouseSettings};
use tokio::sync::Semaphore;

use crate::{
    config::{Config, ms},
    day, doctor, export, firings, history,
};

/// The curve of a day moves every five minutes, and reads three days.
const DAY_KEPT: Duration = Duration::from_secs(30);

/// What can be asked, of a site.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    /// The last hours.
    History(u32),
    Day,
    /// So many at most.
    Firings(u32),
    Doctor,
    /// Values of a dimension in the last hours.
    Export(Dimension, u32),
}

/// Why there is no answer now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("ClickHouse did not answer within {0} ms")]
    Timeout(u128),
    #[error("ClickHouse: {0}")]
    Store(#[from] Error),
}

impl ArchiveError {
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Store(_) => "store_unavailable",
        }
    }
}

type Answers = HashMap<(SiteId, Question), (Instant, Bytes)>;

pub(crate) struct Archive {
    client: Client,
    timeout: Duration,
    cache_for: Duration,
    /// Who waits here waits within the timeout.
    permits: Semaphore,
    /// What is older than it may be is dropped with the next that comes in.
    cache: Mutex<Answers>,
}

impl Archive {
    pub(crate) fn new(settings: &ClickHouseSettings, config: &Config) -> Self {
        Self {
            client: settings.client(),
            timeout: ms(config.history_timeout_ms),
            cache_for: ms(config.history_cache_ms),
            permits: Semaphore::new(config.history_concurrency),
            cache: Mutex::default(),
        }
    }

    /// The answer's body; `now`: ms since 1970.
    pub(crate) async fn ask(
        &self,
        site: &SiteId,
        question: Question,
        now: i64,
    ) -> Result<Bytes, ArchiveError> {
        let answer = async {
            let _permit = self.permits.acquire().await.expect("never closed");
            let key = (site.clone(), question);
            // Asked for here so that those who waited for a permit take what the one before them read.
            if let Some(body) = self.cached(&key) {
                return Ok(body);
            }
            let body = self.read(&key, now).await?;
            self.lock().insert(key, (Instant::now(), body.clone()));
            Ok(body)
        };
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(ArchiveError::Timeout(self.timeout.as_millis())),
        }
    }

    async fn read(&self, (site, question): &(SiteId, Question), now: i64) -> Result<Bytes, Error> {
        let client = &self.client;
        match question {
            Question::History(hours) => history::read(client, site, *hours, now).await,
            Question::Day => day::read(client, site, now).await,
            Question::Firings(limit) => firings::read(client, site, *limit).await,
            Question::Doctor => doctor::read(client, site, now).await,
            Question::Export(dimension, hours) => export::read(client, site, *dimension, *hours, now).await,
        }
    }

    fn cached(&self, key: &(SiteId, Question)) -> Option<Bytes> {
        let mut cache = self.lock();
        cache.retain(|(_, question), (read_at, _)| read_at.elapsed() < self.kept_for(question));
        cache.get(key).map(|(_, body)| body.clone())
    }

    fn kept_for(&self, question: &Question) -> Duration {
        match question {
            Question::Day => self.cache_for.max(DAY_KEPT),
            _ => self.cache_for,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn json(body: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(body).expect("plain fields with text keys always serialise").into()
}
