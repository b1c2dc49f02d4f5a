//! The live view as server-sent events, for whoever has no socket.

use footfall_dashboard::Config;
use footfall_schemas::viewer::ViewerFrame;
use http::{Request, StatusCode, header::COOKIE};
use rstest::rstest;
use tokio::time::{Duration, Instant, sleep};

use crate::stage::{DEADLINE, Stage, full, quick, within_deadline};

#[tokio::test]
async fn a_stream_is_a_snapshot_then_changes_and_goes_on_where_it_ended() {
    within_deadline(async {
        let stage = Stage::new(quick()).await;
        let cookie = stage.log_in().await;
        let mut stream = stage.stream("site=demo", &cookie, "").await;
        let head = stream.head().await;
        assert!(head.starts_with("http/1.1 200"), "{head}");
        for header in [
            "content-type: text/event-stream\r\n",
            "cache-control: no-store\r\n",
            "x-accel-buffering: no\r\n",
            "x-content-type-options: nosniff\r\n",
        ] {
            assert!(head.contains(header), "{header:?} is not in {head}");
        }
        assert!(matches!(stream.next().await, Some(ViewerFrame::Snapshot(_))));
        stage.tell(&full(0, 1, &[("/", 1)])).await;
        stream.watch("a view", |page| page.views_of("/") == 1).await;
        let position = stream.page.position.unwrap();
        assert_eq!(stream.last_id, format!("{}-{}", position.epoch, position.seq));

        let mut viewer = stage.viewer(&cookie).await;
        viewer.subscribe("demo", None).await;
        let (page, id) = (stream.page.clone(), stream.last_id.clone());
        drop(stream);
        for seq in 2..=3 {
            stage.tell(&full(0, seq, &[("/", seq)])).await;
            viewer.watch("the next", |page| page.views_of("/") == seq).await;
        }
        let mut back = stage.stream("site=demo", &cookie, &format!("last-event-id: {id}\r\n")).await;
        back.head().await;
        back.page = page;
        // `Page::apply` refuses a delta that does not follow.
        back.watch("what was missed", |page| page.views_of("/") == 3).await;
        assert_eq!(back.page.snapshots, 1, "the one before it left");
        assert_eq!(back.page.live, viewer.page.live);
    })
    .await;
}

#[tokio::test]
async fn a_stream_beats_when_nothing_changes() {
    within_deadline(async {
        let stage = Stage::new(Config { heartbeat_ms: 50, ..quick() }).await;
        let mut stream = stage.stream("site=demo", &stage.log_in().await, "").await;
        stream.head().await;
        stream.watch("heartbeats", |page| page.heartbeats >= 3).await;
    })
    .await;
}

#[rstest]
#[case::nobody("site=demo", false, "", 401)]
#[case::another_page("site=demo", true, "http://evil.example", 403)]
#[case::no_site("site=nobody", true, "", 404)]
#[case::no_json("site=demo&filter=x", true, "", 400)]
#[case::no_such_filter("site=demo&filter=%7B%22colour%22:%22red%22%7D", true, "", 400)]
#[case::no_such_goal("site=demo&filter=%7B%22goal%22:%22none%22%7D", true, "", 400)]
#[case::nothing("", true, "", 400)]
#[tokio::test]
async fn a_stream_is_refused(
    #[case] query: &str,
    #[case] logged_in: bool,
    #[case] origin: &str,
    #[case] status: u16,
) {
    let stage = Stage::new(quick()).await;
    let mut request = Request::get(format!("/live/events?{query}"));
    if logged_in {
        request = request.header(COOKIE, stage.log_in().await);
    }
    if !origin.is_empty() {
        request = request.header("origin", origin);
    }
    assert_eq!(stage.send(request, "").await.status, status);
}

#[tokio::test]
async fn streams_count_as_viewers() {
    let stage = Stage::new(Config { max_viewers: 1, ..quick() }).await;
    let cookie = stage.log_in().await;
    let mut stream = stage.stream("site=demo", &cookie, "").await;
    stream.head().await;
    let second = stage.get("/live/events?site=demo", Some(&cookie)).await;
    assert_eq!(second.status, StatusCode::SERVICE_UNAVAILABLE);
    // Its place is free when the reader is gone.
    drop(stream);
    let deadline = Instant::now() + DEADLINE;
    let origin = stage.origin();
    while stage.try_viewer(&[("origin", &origin), ("cookie", &cookie)]).await.is_none() {
        assert!(Instant::now() < deadline, "the place is never free");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_login_and_with_the_node() {
    within_deadline(async {
        let stage = Stage::new(quick()).await;
        let (leaving, staying) = (stage.log_in().await, stage.log_in().await);
        let mut of_leaving = stage.stream("site=demo", &leaving, "").await;
        let mut of_staying = stage.stream("site=demo", &staying, "").await;
        of_leaving.head().await;
        of_staying.head().await;
        stage.post("/logout", "", &stage.origin(), Some(&leaving)).await;
        while of_leaving.next().await.is_some() {}
        let had = of_staying.page.heartbeats;
        of_staying.watch("a heartbeat", |page| page.heartbeats > had).await;
        stage.shutdown.cancel();
        while of_staying.next().await.is_some() {}
        stage.stop().await.unwrap();
    })
    .await;
}

/// Its connection is gone, too: it was the only one that this node takes.
#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_off_and_the_others_go_on() {
    within_deadline(async {
        let config = Config {
            write_timeout_ms: 200,
            max_connections: 1,
            top_values: 1_000,
            kept_bytes: 1 << 26,
            ..quick()
        };
        let stage = Stage::new(config).await;
        let cookie = stage.log_in().await;
        let mut fast = stage.viewer(&cookie).await;
        fast.subscribe("demo", None).await;
        let _slow = stage.stream_with_small_buffers("site=demo", &cookie).await;
        let paths: Vec<String> = (0..400).map(|path| format!("/{path:0>1000}")).collect();
        let changing = async {
            for seq in 1.. {
                let mut pages: Vec<(&str, u64)> = paths.iter().map(|path| (path.as_str(), seq)).collect();
                pages.push(("/", seq));
                stage.tell(&full(0, seq, &pages)).await;
                fast.watch("every change", |page| page.views_of("/") == seq).await;
            }
        };
        tokio::select! {
            answer = stage.get("/healthz", None) => assert_eq!(answer.status, StatusCode::OK),
            () = changing => {}
        }
        assert_eq!(fast.page.snapshots, 1);
    })
    .await;
}
