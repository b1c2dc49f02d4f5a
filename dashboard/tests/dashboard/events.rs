//! Events themselves, as they come, while somebody wants them.

use footfall_schemas::{EventId, EventKind, EventRecord, viewer::ViewerFrame};
use serde_json::json;

use crate::stage::{Stage, quick, within_deadline};

/// A view of `path`, the `number`th event of its stream.
fn view(number: u32, path: &str) -> EventRecord {
    let golden: EventRecord =
        serde_json::from_str(include_str!("../../../schemas/golden/event_record.json")).unwrap();
    let id: EventId = format!("01a315e4-6800-a1b2-c3d4-e5f6{number:08x}").parse().unwrap();
    let (kind, name) = (EventKind::PageView, String::new());
    EventRecord { event_id: id, kind, name, path: path.into(), ..golden }
}

fn numbers(page: &crate::stage::Page) -> Vec<u32> {
    page.events.iter().map(|event| event.id.sequence.get()).collect()
}

#[tokio::test]
async fn events_are_told_while_they_are_wanted_and_a_resend_once() {
    within_deadline(async {
        let stage = Stage::new(quick()).await;
        let mut viewer = stage.viewer(&stage.log_in().await).await;
        viewer.subscribe("demo", None).await;
        viewer.say(r#"{"t":"feed","on":true}"#).await;
        let begun = async |viewer: &mut crate::stage::Viewer| loop {
            if let ViewerFrame::Events { events, skipped, .. } = viewer.next().await {
                break (events.len(), skipped);
            }
        };
        // ClickHouse is away: the list begins empty.
        assert_eq!(begun(&mut viewer).await, (0, 0));
        // The reader begins at the log's end, a moment later: told until it is heard.
        let mut first = 0;
        while viewer.page.events.is_empty() {
            first += 1;
            stage.happen(&[view(first, "/warm-up")]).await;
            viewer.next().await;
        }
        let hostile = "/<script>alert(1)</script>";
        stage.happen(&[view(1_001, hostile), view(1_002, "/b"), view(1_001, hostile)]).await;
        stage.happen(&[view(1_002, "/b"), view(1_003, "/c")]).await;
        viewer.watch("the last", |page| numbers(page).contains(&1_003)).await;
        let told: Vec<_> = numbers(&viewer.page).into_iter().filter(|number| *number > 1_000).collect();
        assert_eq!(told, [1_001, 1_002, 1_003], "each once, oldest first");
        let shown = viewer.page.events.iter().find(|event| event.id.sequence.get() == 1_001).unwrap();
        assert_eq!((shown.page.as_str(), shown.country.as_str()), (hostile, "DE"), "text stays text");

        // Who comes later gets the newest at once.
        let mut late = stage.viewer(&stage.log_in().await).await;
        late.say(r#"{"t":"feed","on":true}"#).await;
        late.subscribe("demo", None).await;
        late.watch("the newest", |page| numbers(page).ends_with(&[1_001, 1_002, 1_003])).await;

        // Switched off, nothing comes; another viewer goes on.
        viewer.say(r#"{"t":"feed","on":false}"#).await;
        viewer.subscribe("demo", viewer.page.position).await;
        let had = viewer.page.heartbeats;
        viewer.watch("that the node has heard", |page| page.heartbeats > had).await;
        let before = viewer.page.events.len();
        stage.happen(&[view(1_004, "/d")]).await;
        late.watch("the next", |page| numbers(page).contains(&1_004)).await;
        viewer.subscribe("demo", viewer.page.position).await;
        let had = viewer.page.heartbeats;
        viewer.watch("an answer", |page| page.heartbeats > had).await;
        assert_eq!(viewer.page.events.len(), before);
    })
    .await;
}

#[tokio::test]
async fn a_flood_is_told_in_part_and_said_to_be() {
    within_deadline(async {
        let stage = Stage::new(quick()).await;
        let mut viewer = stage.viewer(&stage.log_in().await).await;
        viewer.subscribe("demo", None).await;
        viewer.say(r#"{"t":"feed","on":true}"#).await;
        let mut number = 0;
        while viewer.page.events.is_empty() {
            number += 1;
            stage.happen(&[view(number, "/warm-up")]).await;
            viewer.next().await;
        }
        let flood: Vec<_> = (1_000..1_100).map(|number| view(number, "/flood")).collect();
        stage.happen(&flood).await;
        let (mut told, mut left_out) = (0, 0);
        while told + left_out < 100 {
            if let ViewerFrame::Events { events, skipped, .. } = viewer.next().await {
                assert!(events.len() <= 20);
                told += events.iter().filter(|event| event.page == "/flood").count() as u64;
                left_out += skipped;
            }
        }
        assert!((20..100).contains(&told), "{told} told, {left_out} left out");
        assert!(numbers(&viewer.page).contains(&1_099), "the newest is among them");
    })
    .await;
}

#[tokio::test]
async fn with_a_filter_only_what_matches_is_told() {
    within_deadline(async {
        let stage = Stage::new(quick()).await;
        let mut viewer = stage.viewer(&stage.log_in().await).await;
        viewer.say(r#"{"t":"feed","on":true}"#).await;
        viewer.subscribe_to("demo", json!({"page": "/shop", "country": "DE"}), None).await;
        let austrian = EventRecord { country: "AT".into(), ..view(1, "/shop") };
        let of_another = EventRecord { site: "shop".parse().unwrap(), ..view(2, "/shop") };
        let mut number = 10;
        while viewer.page.events.is_empty() {
            number += 1;
            stage.happen(&[austrian.clone(), of_another.clone(), view(3, "/"), view(number, "/shop")]).await;
            viewer.next().await;
        }
        assert!(numbers(&viewer.page).iter().all(|number| *number > 10), "{:?}", viewer.page.events);
    })
    .await;
}
