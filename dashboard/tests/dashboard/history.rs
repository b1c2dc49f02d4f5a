//! The past when ClickHouse is in trouble. What it answers when it is well is tested end to end, on the real engine.

use footfall_dashboard::Config;
use http::StatusCode;
use rstest::rstest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::stage::{NOWHERE, Stage, full, quick, within_deadline};

/// What stands in for ClickHouse.
enum Stub {
    Nowhere,
    /// Answers every request with this.
    Answers(&'static str),
    /// Takes connections and is silent.
    Silent,
}

async fn stand_in(stub: Stub) -> String {
    if let Stub::Nowhere = stub {
        return format!("http://{NOWHERE}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            if let Stub::Answers(answer) = stub {
                let _ = stream.read(&mut [0; 4_096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            } else {
                held.push(stream);
            }
        }
    });
    url
}

const MEMORY_LIMIT: &str = "HTTP/1.1 500 Internal Server Error\r\nx-clickhouse-exception-code: 241\r\n\
     content-length: 43\r\nconnection: close\r\n\r\nCode: 241. DB::Exception: on host secret-10";

#[rstest]
#[case::gone(Stub::Nowhere, "store_unavailable")]
#[case::in_trouble(Stub::Answers(MEMORY_LIMIT), "store_unavailable")]
#[case::garbage(
    Stub::Answers("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n\x01\x02\x03"),
    "store_unavailable"
)]
#[case::silent(Stub::Silent, "timeout")]
#[tokio::test]
async fn without_clickhouse_the_history_says_so_and_the_live_page_goes_on(
    #[case] stub: Stub,
    #[case] reason: &str,
) {
    within_deadline(async {
        let url = stand_in(stub).await;
        let stage = Stage::with_clickhouse(Config { history_timeout_ms: 300, ..quick() }, &url).await;
        let cookie = stage.log_in().await;
        for question in ["history", "day", "firings", "doctor", "export?dimension=page"] {
            let (path, more) = question.split_once('?').unwrap_or((question, ""));
            let answer = stage.get(&format!("/api/{path}?site=demo&{more}"), Some(&cookie)).await;
            assert_eq!(
                (answer.status, answer.json()["error"].as_str()),
                (StatusCode::SERVICE_UNAVAILABLE, Some(reason)),
                "{question}"
            );
            assert!(!answer.body.contains("secret-10"), "{}", answer.body);
        }

        let mut viewer = stage.viewer(&cookie).await;
        viewer.subscribe("demo", None).await;
        stage.tell(&full(0, 1, &[("/", 1)])).await;
        viewer.watch("a view", |page| page.views_of("/") == 1).await;
    })
    .await;
}

#[rstest]
#[case("/api/history?site=nobody", 404)]
#[case("/api/history?site=NO%20KEY", 404)]
#[case("/api/history?site=demo&hours=0", 400)]
#[case("/api/history?site=demo&hours=25", 400)]
#[case("/api/history?site=demo&hours=x", 400)]
#[case("/api/history", 400)]
#[case("/api/day?site=nobody", 404)]
#[case("/api/doctor?site=nobody", 404)]
#[case("/api/firings?site=nobody", 404)]
#[case("/api/firings?site=demo&limit=0", 400)]
#[case("/api/firings?site=demo&limit=501", 400)]
#[case("/api/export?site=nobody&dimension=page", 404)]
#[case("/api/export?site=demo", 400)]
#[case("/api/export?site=demo&dimension=total", 400)]
#[case("/api/export?site=demo&dimension=visitor", 400)]
#[case("/api/export?site=demo&dimension=page&hours=745", 400)]
#[tokio::test]
async fn a_question_that_makes_no_sense_is_refused(#[case] path: &str, #[case] status: u16) {
    let stage = Stage::new(quick()).await;
    assert_eq!(stage.get(path, Some(&stage.log_in().await)).await.status, status);
}
