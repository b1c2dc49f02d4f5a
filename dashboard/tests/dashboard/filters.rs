//! Filtered views without their ClickHouse. What they count is tested end to end, on the real engine.

use footfall_dashboard::Config;
use footfall_schemas::viewer::{ViewerError, ViewerFrame};
use serde_json::json;

use crate::stage::{Stage, full, quick, within_deadline};

#[tokio::test]
async fn distinct_filters_are_bounded_and_a_filter_nobody_watches_makes_room() {
    within_deadline(async {
        let config = Config { max_filters: 1, filter_keep_ms: 100, heartbeat_ms: 50, ..quick() };
        let stage = Stage::new(config).await;
        let cookie = stage.log_in().await;
        let (mut first, mut second) = (stage.viewer(&cookie).await, stage.viewer(&cookie).await);
        first.subscribe_to("demo", json!({"country": "DE"}), None).await;
        first.watch("that it stands", |page| page.heartbeats > 0).await;
        second.subscribe_to("demo", json!({"country": "AT"}), None).await;
        assert!(matches!(
            second.next_raw().await,
            ViewerFrame::Error { reason: ViewerError::TooManyFilters, .. }
        ));
        // The same again is no other.
        second.subscribe_to("demo", json!({"country": "DE"}), None).await;
        let had = second.page.heartbeats;
        second.watch("that it stands", |page| page.heartbeats > had).await;
        first.subscribe("demo", None).await;
        second.subscribe("demo", None).await;
        loop {
            first.subscribe_to("demo", json!({"country": "AT"}), None).await;
            match first.next_raw().await {
                ViewerFrame::Error { reason: ViewerError::TooManyFilters, .. } => {
                    tokio::time::sleep(std::time::Duration::from_millis(250)).await;
                }
                // What it was subscribed to may have been on its way.
                ViewerFrame::Snapshot(_) | ViewerFrame::Delta(_) => {}
                ViewerFrame::Heartbeat { .. } => break,
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_filter_by_a_goal_that_is_not_there_is_refused_by_name() {
    let stage = Stage::new(quick()).await;
    let mut viewer = stage.viewer(&stage.log_in().await).await;
    viewer.subscribe_to("demo", json!({"goal": "none"}), None).await;
    assert!(matches!(
        viewer.next_raw().await,
        ViewerFrame::Error { reason: ViewerError::Malformed, detail } if detail.contains("filter.goal") && detail.contains("\"none\"")
    ));
}

/// ClickHouse is away: a filtered view shows nothing rather than the whole, and the whole goes on.
#[tokio::test]
async fn without_clickhouse_a_filtered_view_waits_and_the_whole_goes_on() {
    within_deadline(async {
        let stage = Stage::new(Config { heartbeat_ms: 50, ..quick() }).await;
        let cookie = stage.log_in().await;
        let (mut whole, mut filtered) = (stage.viewer(&cookie).await, stage.viewer(&cookie).await);
        whole.subscribe("demo", None).await;
        filtered.subscribe_to("demo", json!({"page": "/"}), None).await;
        stage.tell(&full(0, 1, &[("/", 1)])).await;
        whole.watch("a view", |page| page.views_of("/") == 1).await;
        filtered.watch("heartbeats", |page| page.heartbeats >= 3).await;
        assert_eq!(filtered.page.snapshots, 0);
    })
    .await;
}
