//! A viewer that does not read costs itself its changes, nobody else theirs.

use footfall_dashboard::Config;
use footfall_schemas::live::LiveRecord;

use crate::stage::{DEADLINE, Stage, full, quick, within_deadline};

/// Changes told while the slow viewer sleeps: together far more than two kernels buffer.
const CHANGES: u64 = 60;

/// About 400 KB that changes as a whole.
fn large(seq: u64) -> LiveRecord {
    let paths: Vec<String> = (0..400).map(|path| format!("/{path:0>1000}")).collect();
    let mut pages: Vec<(&str, u64)> = paths.iter().map(|path| (path.as_str(), seq)).collect();
    pages.push(("/", seq));
    full(0, seq, &pages)
}

fn config() -> Config {
    Config { max_behind: 2, top_values: 1_000, kept_bytes: 64 * 1024 * 1024, ..quick() }
}

#[tokio::test]
async fn a_slow_viewer_gets_the_newest_whole_and_the_others_every_change() {
    within_deadline(async {
        let stage = Stage::new(Config { write_timeout_ms: 60_000, ..config() }).await;
        let cookie = stage.log_in().await;
        let mut slow = stage.viewer_with_small_buffers(&cookie).await;
        slow.subscribe("demo", None).await;
        slow.next().await;
        let mut fast = stage.viewer(&cookie).await;
        fast.subscribe("demo", None).await;
        fast.next().await;
        for seq in 1..=CHANGES {
            stage.tell(&large(seq)).await;
            fast.watch("every change", |page| page.views_of("/") == seq).await;
        }
        assert_eq!(fast.page.snapshots, 1, "the fast one never fell behind");

        slow.watch("the newest", |page| page.views_of("/") == CHANGES).await;
        assert!(slow.page.snapshots >= 2, "told by a snapshot: {} of them", slow.page.snapshots);
        assert!(u64::from(slow.page.deltas) < CHANGES, "{} deltas", slow.page.deltas);
        assert_eq!(slow.page.live, fast.page.live);
    })
    .await;
}

#[tokio::test]
async fn a_viewer_that_does_not_take_a_frame_in_time_is_closed() {
    within_deadline(async {
        let stage = Stage::new(Config { write_timeout_ms: 200, max_viewers: 2, ..config() }).await;
        let cookie = stage.log_in().await;
        let mut slow = stage.viewer_with_small_buffers(&cookie).await;
        slow.subscribe("demo", None).await;
        slow.next().await;
        let mut fast = stage.viewer(&cookie).await;
        fast.subscribe("demo", None).await;
        let origin = stage.origin();
        let headers = [("origin", origin.as_str()), ("cookie", cookie.as_str())];
        let mut seq = 0;
        // Its place is free again once it was closed: then an upgrade is no longer refused for want of one.
        let started = tokio::time::Instant::now();
        let place = loop {
            assert!(started.elapsed() < DEADLINE, "never closed");
            seq += 1;
            stage.tell(&large(seq)).await;
            fast.watch("every change", |page| page.views_of("/") == seq).await;
            if let Some(viewer) = stage.try_viewer(&headers).await {
                break viewer;
            }
        };
        drop(place);
        let end = slow.closed().await;
        assert!(end.is_none_or(|frame| u16::from(frame.code) == 1013));
        assert_eq!(fast.page.snapshots, 1);
    })
    .await;
}
