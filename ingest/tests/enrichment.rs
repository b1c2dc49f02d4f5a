//! What is added to an event on its way, and what is left out, as seen from outside.
#![allow(clippy::unwrap_used)] // a test may panic

#[path = "support/mmdb.rs"]
mod mmdb;
mod support;

use footfall_ingest::Error;
use footfall_schemas::{RejectReason, tracker::ServerFrame};
use serde_json::json;
use support::*;

const CITIES: &[mmdb::Entry<'static>] = &[("203.0.113.0", 24, ["AT", "Tyrol", "Innsbruck"])];
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_told_where_its_address_lies_and_the_address_goes_no_further() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cities.mmdb");
    std::fs::write(&path, mmdb::database("GeoLite2-City", CITIES)).unwrap();
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| {
        config.geography.database = Some(path);
        config.trusted_proxies = vec!["127.0.0.1".try_into().unwrap()];
    })
    .await;

    let headers = [("x-forwarded-for", "203.0.113.9"), ("user-agent", FIREFOX)];
    let body = batch(stream(1), 1, &[view("/"), json!({"bad": 1})]).to_string();
    assert_eq!(http(ingest.address, "POST", "/e?k=shop", &headers, body.as_bytes()).await.status, 200);
    let mut tracker = Tracker::connect(ingest.address, "/ws?k=shop", &headers).await;
    tracker.send(&batch(stream(2), 1, &[view("/")])).await;
    tracker.ack().await;
    let mut elsewhere =
        Tracker::connect(ingest.address, "/ws?k=shop", &[("x-forwarded-for", "198.51.100.1")]).await;
    elsewhere.send(&batch(stream(3), 1, &[view("/elsewhere")])).await;
    elsewhere.ack().await;

    for (_, event) in kafka.events(3).await {
        let place = (event.country.as_str(), event.region.as_str(), event.city.as_str());
        if event.path == "/elsewhere" {
            assert_eq!(place, ("DE", "", ""), "the time zone tells the country");
        } else {
            assert_eq!(place, ("AT", "Tyrol", "Innsbruck"));
            assert_eq!((event.browser.as_str(), event.device.as_str()), ("Firefox", "desktop"));
        }
        assert!(!serde_json::to_string(&event).unwrap().contains("203.0.113."));
    }
    let letter = kafka.dead_letters(1).await.remove(0);
    assert!(!serde_json::to_string(&letter).unwrap().contains("203.0.113."));
    drop((tracker, elsewhere));
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_geography_database_stops_the_boot() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cities.mmdb");
    std::fs::write(&path, b"nothing of the kind").unwrap();
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| config.geography.database = Some(path)).await;
    let ended = tokio::time::timeout(PATIENCE, ingest.ended).await.unwrap().unwrap();
    let error = ended.unwrap_err();
    assert!(matches!(error, Error::Geography(_)), "{error}");
    assert!(error.to_string().contains("cities.mmdb"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_decides_which_pages_and_parameters_are_kept() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let mut tracker = ingest.tracker().await;
    tracker.send(&json!({"t": "here", "path": "/private/secret-plan", "visible": true})).await;
    let events = [
        view("/private/secret-plan"),
        view("/order/17?token=secret"),
        view("/search?x=secret&q=lamp"),
        json!({"k": "nonsense"}),
    ];
    tracker.send(&batch(stream(1), 1, &events)).await;
    let ack = tracker.ack().await;
    let refused: Vec<_> = ack.refused.iter().map(|refusal| (refusal.seq, refusal.reason)).collect();
    assert_eq!(refused, [(1, RejectReason::IgnoredPath), (4, RejectReason::MissingField)]);
    let paths: Vec<_> = kafka.events(2).await.into_iter().map(|(_, event)| event.path).collect();
    assert_eq!(paths, ["/order/:id", "/search?q=lamp"]);
    // Letters are written in order: the first is the other event's.
    assert_eq!(kafka.dead_letters(1).await[0].reason, RejectReason::MissingField);
    let report =
        kafka.report("node-1", |report| report.ledger.refused.contains_key(&RejectReason::IgnoredPath)).await;
    assert_eq!((report.online, report.pages.len()), (1, 0), "nor is the page shown as open");
    drop(tracker);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_hints_of_a_request_are_heard() {
    let kafka = Kafka::start();
    let ingest = Ingest::start(&kafka).await;
    let headers = [
        (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
        ),
        ("sec-ch-ua", "\"Chromium\";v=\"140\", \"Brave\";v=\"140\""),
        ("sec-ch-ua-platform", "\"Android\""),
        ("sec-ch-ua-mobile", "?1"),
    ];
    let body = batch(stream(1), 1, &[view("/")]).to_string();
    let answer = http(ingest.address, "POST", "/e?k=shop", &headers, body.as_bytes()).await;
    assert!(matches!(answer.frame(), ServerFrame::Ack(_)));
    let (_, event) = kafka.events(1).await.remove(0);
    assert_eq!(
        (event.browser, event.system, event.device),
        ("Brave".into(), "Android".into(), "mobile".into())
    );
    ingest.stop().await;
}
