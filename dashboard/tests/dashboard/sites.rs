//! What a site sets up, seen by its viewers: goals, alerts, and that it comes and goes.

use std::collections::BTreeMap;

use footfall_dashboard::Config;
use footfall_schemas::{
    Dimension,
    alert::{Alert, AlertRecord},
    viewer::ViewerFrame,
};
use serde_json::json;

use crate::stage::{NOWHERE, Stage, full, now_ms, quick, with_goals, within_deadline};

fn goals(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test]
async fn goals_are_counted_live_and_follow_the_site() {
    within_deadline(async {
        let stage = Stage::new(quick()).await;
        let mut viewer = stage.viewer(&stage.log_in().await).await;
        viewer.subscribe("demo", None).await;
        let ViewerFrame::Snapshot(first) = viewer.next().await else { panic!("first a snapshot") };
        assert_eq!(first.goals, goals(&[("Signed up", 0), ("Thanks", 0)]), "those nobody reached included");
        let mut record = full(0, 1, &[("/", 9), ("/thanks/a", 1), ("/thanks/b?x=1", 2)]);
        record
            .state
            .tops
            .insert(Dimension::Event, [("signup".to_owned(), 4), ("other".to_owned(), 5)].into());
        stage.tell(&record).await;
        let reached = goals(&[("Signed up", 4), ("Thanks", 3)]);
        viewer.watch("completions", |page| page.goals == reached).await;
        assert_eq!(viewer.page.snapshots, 1, "told as a change");

        // The owner drops one and adds another: what is gone cannot be told as a change.
        let mut site = with_goals();
        site["goals"] = json!([{"name": "Thanks", "page": "/thanks/*"}, {"name": "Home", "page": "/"}]);
        stage.set_site("demo", Some(site));
        let reached = goals(&[("Home", 9), ("Thanks", 3)]);
        viewer.watch("the other goals", |page| page.goals == reached).await;
        assert_eq!(viewer.page.snapshots, 2);
    })
    .await;
}

#[tokio::test]
async fn alerts_are_shown_while_they_are_open_and_for_a_while_after() {
    within_deadline(async {
        let stage = Stage::new(quick()).await;
        let golden: Alert = serde_json::from_str(include_str!("../../../schemas/golden/alert.json")).unwrap();
        let alert = |rule: &str, opened_at: i64, resolved_at: Option<i64>| {
            let site = "demo".parse().unwrap();
            Alert { site, rule: rule.into(), opened_at, resolved_at, ..golden.clone() }
        };
        let told = |alert: &Alert| AlertRecord { alert: alert.clone(), settled: true };
        let open = alert("open", now_ms() - 120_000, None);
        let long_over = alert("over", now_ms() - 9_000_000, Some(now_ms() - 7_200_000));
        stage.fire(&told(&open)).await;
        stage.fire(&told(&long_over)).await;
        let mut viewer = stage.viewer(&stage.log_in().await).await;
        viewer.subscribe("demo", None).await;
        viewer.watch("the open one", |page| page.alerts == Some(vec![open.clone()])).await;

        let newer = alert("newer", now_ms() - 60_000, None);
        stage.fire(&told(&newer)).await;
        viewer.watch("both", |page| page.alerts == Some(vec![newer.clone(), open.clone()])).await;
        let over = Alert { resolved_at: Some(now_ms()), ..open };
        stage.fire(&told(&over)).await;
        viewer.watch("its end", |page| page.alerts == Some(vec![newer.clone(), over.clone()])).await;
        assert_eq!(viewer.page.snapshots, 1, "told as changes");

        // A node that starts later knows them as well: their states lie on the log.
        let later = Stage::start(quick(), &format!("http://{NOWHERE}"), Some(&stage.brokers())).await;
        let mut of_later = later.viewer(&later.log_in().await).await;
        of_later.subscribe("demo", None).await;
        of_later.watch("the same", |page| page.alerts == Some(vec![newer.clone(), over.clone()])).await;

        // Another site shows none of them.
        viewer.subscribe("shop", None).await;
        viewer.watch("none", |page| page.alerts == Some(Vec::new())).await;
    })
    .await;
}

#[tokio::test]
async fn a_site_comes_and_goes_while_the_node_runs() {
    within_deadline(async {
        let stage = Stage::new(quick()).await;
        let cookie = stage.log_in().await;
        let mut viewer = stage.viewer(&cookie).await;
        viewer.subscribe("blog", None).await;
        assert!(matches!(viewer.next_raw().await, ViewerFrame::Error { .. }));
        stage.set_site("blog", Some(json!({"key": "blog", "origins": ["*"]})));
        viewer.subscribe("blog", None).await;
        assert!(matches!(viewer.next().await, ViewerFrame::Snapshot(_)));
        let mut record = full(0, 1, &[("/", 3)]);
        record.site = "blog".parse().unwrap();
        stage.tell(&record).await;
        viewer.watch("its views", |page| page.views_of("/") == 3).await;
        assert!(stage.get("/api/sites", Some(&cookie)).await.body.contains("\"blog\""));

        let old = viewer.page.position;
        stage.set_site("blog", None);
        assert_eq!(u16::from(viewer.closed().await.unwrap().code), 1008);
        let mut viewer = stage.viewer(&cookie).await;
        viewer.subscribe("blog", None).await;
        assert!(matches!(viewer.next_raw().await, ViewerFrame::Error { .. }));
        assert!(!stage.get("/api/sites", Some(&cookie)).await.body.contains("\"blog\""));

        // It comes again, as another: nothing of the old one is continued.
        stage.set_site("blog", Some(json!({"key": "blog", "origins": ["*"]})));
        viewer.subscribe("blog", old).await;
        assert!(matches!(viewer.next().await, ViewerFrame::Snapshot(_)));
        assert_eq!(viewer.page.views_of("/"), 0);
    })
    .await;
}

/// What nobody watches is not merged, and is right nevertheless as soon as somebody comes.
#[tokio::test]
async fn who_comes_to_a_site_that_nobody_watched_sees_what_is_true_now() {
    within_deadline(async {
        // No heartbeat but those that answer.
        let stage = Stage::new(Config { heartbeat_ms: 600_000, ..quick() }).await;
        let cookie = stage.log_in().await;
        let (mut first, mut witness) = (stage.viewer(&cookie).await, stage.viewer(&cookie).await);
        first.subscribe("demo", None).await;
        stage.tell(&full(0, 1, &[("/", 1)])).await;
        first.watch("a view", |page| page.views_of("/") == 1).await;
        first.subscribe("shop", None).await;
        first.watch("the other site", |page| page.views_of("/") == 0).await;
        witness.subscribe("shop", None).await;
        let mut of_shop = full(0, 1, &[("/", 7)]);
        of_shop.site = "shop".parse().unwrap();
        stage.tell(&full(0, 2, &[("/", 2)])).await;
        stage.tell(&of_shop).await;
        witness.watch("a record behind it", |page| page.views_of("/") == 7).await;

        let mut late = stage.viewer(&cookie).await;
        late.subscribe("demo", None).await;
        assert!(matches!(late.next().await, ViewerFrame::Snapshot(_)), "no heartbeat before it");
        assert_eq!(late.page.views_of("/"), 2, "not what was true when somebody last watched");

        // Who comes back alone and has missed nothing hears that it stands, and at once.
        let (page, position) = (late.page.clone(), late.page.position);
        drop(late);
        let mut back = stage.viewer(&cookie).await;
        back.page = page;
        back.subscribe("demo", position).await;
        let snapshots = back.page.snapshots;
        back.watch("that it stands", |page| page.heartbeats > 0 || page.deltas > 0).await;
        assert_eq!(back.page.snapshots, snapshots);
    })
    .await;
}
