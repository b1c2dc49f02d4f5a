//! Removes what is over by itself: sessions that were logged out and login links that were used need no entry once they
//! would have ended anyhow. Every dashboard node does it; the same removal twice changes nothing.

use std::{sync::Arc, time::Duration};

use footfall_dashboard::directory::Edit;
use footfall_schemas::directory::{Directory, Entry};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::debug;

use crate::load::unix_ms;

const EVERY: Duration = Duration::from_secs(600);
/// A node whose clock is behind by less must not let anybody in again.
const SKEW_MS: i64 = 60 * 60 * 1_000;

/// For ever.
pub async fn sweep(directory: watch::Receiver<Arc<Directory>>, edit: Arc<dyn Edit>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let over = over(&directory.borrow(), unix_ms());
        for key in over {
            if let Err(error) = edit.write(key, None).await {
                debug!(%error, "what is over is removed later");
                break;
            }
        }
    }
}

/// Keys of entries that nobody needs any more.
fn over(directory: &Directory, now_ms: i64) -> Vec<String> {
    let revoked = directory.revoked.iter().filter(|(_, revoked)| revoked.until + SKEW_MS < now_ms);
    revoked.map(|(id, revoked)| Entry::Revoked(id.clone(), *revoked).key()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use footfall_dashboard::directory::{EditError, Writing};
    use footfall_schemas::directory::Revoked;
    use serde_json::Value;

    use super::*;

    /// What was written.
    #[derive(Default)]
    struct Written(Mutex<Vec<(String, Option<Value>)>>);

    impl Edit for Written {
        fn write(&self, key: String, value: Option<Value>) -> Writing<'_> {
            self.0.lock().unwrap().push((key, value));
            Box::pin(async { Ok::<_, EditError>(()) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_over_is_removed_and_the_rest_stays() {
        let now = unix_ms();
        let entries = [("over", now - SKEW_MS - 1), ("just", now - 1), ("later", now + 1)];
        let mut directory = Directory::default();
        for (id, until) in entries {
            directory.revoked.insert(id.to_owned(), Revoked { until });
        }
        let written = Arc::new(Written::default());
        let sweeping = sweep(watch::channel(Arc::new(directory)).1, written.clone());
        let _ = tokio::time::timeout(EVERY / 2, sweeping).await;
        assert_eq!(*written.0.lock().unwrap(), [("revoked/over".to_owned(), None)]);
    }
}
