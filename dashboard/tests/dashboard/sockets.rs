//! What a viewer's socket takes and how it ends.

use std::time::Duration;

use footfall_dashboard::Config;
use footfall_schemas::viewer::{ViewerError, ViewerFrame};
use futures_util::SinkExt;
use http::StatusCode;
use rstest::rstest;
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::stage::{Stage, now_ms, presence, quick, within_deadline};

#[rstest]
#[case::another_site("http://evil.example")]
#[case::another_port_of_this_host("http://127.0.0.1:1")]
#[case::another_name_of_this_host("http://localhost")]
#[case::opaque("null")]
#[tokio::test]
async fn a_socket_from_another_page_is_refused_cookie_or_not(#[case] origin: &str) {
    let stage = Stage::new(quick()).await;
    let cookie = stage.log_in().await;
    let headers = [("origin", origin), ("cookie", cookie.as_str())];
    assert_eq!(stage.refused_upgrade(&headers).await, StatusCode::FORBIDDEN);
    assert_eq!(stage.refused_upgrade(&[("cookie", &cookie)]).await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn an_upgrade_must_speak_the_subprotocol_and_version() {
    let stage = Stage::new(quick()).await;
    let (origin, cookie) = (stage.origin(), stage.log_in().await);
    let with = |name, value| [("origin", origin.as_str()), ("cookie", cookie.as_str()), (name, value)];
    let refused = stage.refused_upgrade(&with("sec-websocket-protocol", "footfall.v1")).await;
    assert_eq!(refused, StatusCode::BAD_REQUEST);
    assert_eq!(
        stage.refused_upgrade(&with("sec-websocket-version", "8")).await,
        StatusCode::UPGRADE_REQUIRED
    );
}

#[tokio::test]
async fn viewers_are_capped() {
    let stage = Stage::new(Config { max_viewers: 1, ..quick() }).await;
    let (origin, cookie) = (stage.origin(), stage.log_in().await);
    let headers = [("origin", origin.as_str()), ("cookie", cookie.as_str())];
    let mut first = stage.viewer(&cookie).await;
    assert_eq!(stage.refused_upgrade(&headers).await, StatusCode::SERVICE_UNAVAILABLE);
    first.subscribe("demo", None).await;
    first.next().await;
}

#[rstest]
#[case::binary(Message::Binary(Bytes::from_static(b"{}")), 1003)]
#[case::too_long(Message::text("x".repeat(5_000)), 1009)]
#[tokio::test]
async fn what_is_no_request_closes_the_socket(#[case] message: Message, #[case] code: u16) {
    let stage = Stage::new(quick()).await;
    let mut viewer = stage.viewer(&stage.log_in().await).await;
    viewer.socket.send(message).await.unwrap();
    assert_eq!(u16::from(viewer.closed().await.unwrap().code), code);
}

#[tokio::test]
async fn a_flood_of_requests_closes_the_socket() {
    let stage = Stage::new(quick()).await;
    let mut viewer = stage.viewer(&stage.log_in().await).await;
    for _ in 0..20 {
        // The node may have closed already.
        if viewer.socket.send(Message::text("{}")).await.is_err() {
            break;
        }
    }
    assert_eq!(u16::from(viewer.closed().await.unwrap().code), 1008);
}

#[tokio::test]
async fn a_refused_request_says_why_and_the_socket_goes_on() {
    let stage = Stage::new(quick()).await;
    let mut viewer = stage.viewer(&stage.log_in().await).await;
    viewer.say("not json").await;
    assert!(matches!(
        viewer.next_raw().await,
        ViewerFrame::Error { reason: ViewerError::Malformed, detail } if detail.contains("line 1")
    ));
    viewer.subscribe("nobody", None).await;
    assert!(matches!(
        viewer.next_raw().await,
        ViewerFrame::Error { reason: ViewerError::UnknownSite, detail } if detail.contains("\"nobody\"")
    ));
    viewer.subscribe("demo", None).await;
    assert!(matches!(viewer.next().await, ViewerFrame::Snapshot(_)));
}

#[tokio::test]
async fn who_subscribes_to_nothing_is_closed() {
    let stage = Stage::new(Config { first_message_ms: 50, ..quick() }).await;
    let mut viewer = stage.viewer(&stage.log_in().await).await;
    assert_eq!(u16::from(viewer.closed().await.unwrap().code), 1001);
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_closed_and_one_that_does_is_not() {
    within_deadline(async {
        let stage = Stage::new(Config { idle_ms: 400, heartbeat_ms: 100, ..quick() }).await;
        let cookie = stage.log_in().await;
        let (mut dead, mut alive) = (stage.viewer(&cookie).await, stage.viewer(&cookie).await);
        dead.subscribe("demo", None).await;
        alive.subscribe("demo", None).await;
        // Reading is what answers pings; ten heartbeats take longer than the idle time.
        alive.watch("heartbeats", |page| page.heartbeats >= 10).await;
        assert_eq!(u16::from(dead.closed().await.unwrap().code), 1001);
        let had = alive.page.heartbeats;
        alive.watch("more heartbeats", |page| page.heartbeats > had).await;
    })
    .await;
}

#[tokio::test]
async fn a_node_that_stops_says_so_and_ends() {
    let stage = Stage::new(quick()).await;
    let mut viewer = stage.viewer(&stage.log_in().await).await;
    viewer.subscribe("demo", None).await;
    viewer.next().await;
    stage.shutdown.cancel();
    assert_eq!(u16::from(viewer.closed().await.unwrap().code), 1012);
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn a_node_silent_for_too_long_counts_zero() {
    within_deadline(async {
        let stage = Stage::new(Config { presence_silence_ms: 1_000, ..quick() }).await;
        let mut viewer = stage.viewer(&stage.log_in().await).await;
        viewer.subscribe("demo", None).await;
        stage.report(&presence("a", now_ms(), 3)).await;
        stage.report(&presence("b", now_ms(), 2)).await;
        viewer.watch("both nodes", |page| page.online.visitors == 5).await;
        assert_eq!((viewer.page.freshness.nodes, viewer.page.online.pages["/"]), (2, 5));
        // One goes on, the other has fallen silent.
        let started = Instant::now();
        let going_on = async {
            for at in now_ms() + 1.. {
                stage.report(&presence("b", at, 2)).await;
                sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            () = viewer.watch("one node", |page| page.online.visitors == 2) => {}
            () = going_on => {}
        }
        assert!(started.elapsed().as_millis() >= 500, "counted zero too early");
        viewer.watch("one node", |page| page.freshness.nodes == 1).await;
        viewer.watch("nobody", |page| page.online.visitors == 0).await;
    })
    .await;
}
