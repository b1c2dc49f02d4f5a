//! Sites that come, change and go while the node runs.
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::sync::Arc;

use footfall_ingest::Config;
use footfall_schemas::{
    RejectReason, directory::Directory, refusal::close, site::Site, tracker::ServerFrame,
};
use serde_json::Value;
use support::*;
use tokio::sync::watch;

/// A node, and the hand that writes its directory.
struct Edge {
    kafka: Kafka,
    ingest: Ingest,
    directory: watch::Sender<Arc<Directory>>,
}

impl Edge {
    async fn start(config: Config) -> Self {
        let kafka = Kafka::start();
        let (directory, receiver) = watch::channel(Arc::default());
        let ingest = Ingest::start_serving(kafka.settings(), "node-1", config, receiver).await;
        Self { kafka, ingest, directory }
    }

    fn list(&self, sites: impl IntoIterator<Item = Site>) {
        let sites = sites.into_iter().map(|site| (site, Value::Null));
        self.directory.send_replace(Arc::new(Directory::declaring(sites)));
    }

    /// The node takes changes over by itself, soon.
    async fn until(&self, path: &str, status: u16) {
        eventually(&format!("{path} answers {status}"), async || {
            self.ingest.get(path).await.status == status
        })
        .await;
    }

    async fn stop(self) {
        self.ingest.stop().await;
        drop(self.kafka);
    }
}

fn shop(change: impl FnOnce(&mut Site)) -> Site {
    let mut site = Site::new("shop".try_into().unwrap(), vec!["*".try_into().unwrap()]);
    change(&mut site);
    site
}

/// A pixel without an event: who is served is answered all the same.
const ASK: &str = "/e.gif?k=shop";
const NOT_FOUND: u16 = 404;
const FORBIDDEN: u16 = 403;
const OK: u16 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_is_served_as_soon_as_it_is_listed_and_no_longer() {
    let edge = Edge::start(Config::default()).await;
    edge.until(ASK, NOT_FOUND).await;
    edge.list([shop(|_| {})]);
    edge.until(ASK, OK).await;
    let mut tracker = edge.ingest.tracker().await;
    tracker.send(&batch(stream(1), 1, &[view("/a")])).await;
    assert_eq!(tracker.ack().await.upto, 1);
    edge.list([]);
    edge.until(ASK, NOT_FOUND).await;
    edge.stop().await;
}

/// Whoever is connected is told so at once, not when it next says something.
#[rstest::rstest]
#[case::switched_off(Some(shop(|site| site.enabled = false)), FORBIDDEN)]
#[case::removed(None, NOT_FOUND)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_socket_of_a_site_that_is_served_no_more_is_told_to_stop_and_closed(
    #[case] left: Option<Site>,
    #[case] status: u16,
) {
    let edge = Edge::start(Config::default()).await;
    let blog = Site::new("blog".try_into().unwrap(), vec!["*".try_into().unwrap()]);
    edge.list([shop(|_| {}), blog.clone()]);
    edge.until(ASK, OK).await;
    let mut tracker = edge.ingest.tracker().await;
    let mut neighbour = edge.ingest.tracker_at("/ws?k=blog").await;
    // What was taken is answered first.
    tracker.send(&batch(stream(1), 1, &[view("/a")])).await;
    assert_eq!(tracker.ack().await.upto, 1);
    edge.list(left.into_iter().chain([blog]));
    match tracker.next().await {
        ServerFrame::Stop { reason, .. } => assert_eq!(reason, RejectReason::SiteDisabled),
        other => panic!("no stop but {other:?}"),
    }
    assert_eq!(tracker.close_code().await, close::POLICY);
    edge.until(ASK, status).await;
    neighbour.send(&batch(stream(2), 1, &[view("/b")])).await;
    assert_eq!(neighbour.ack().await.upto, 1, "the neighbour stays");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_socket_is_measured_by_the_settings_of_now() {
    let edge = Edge::start(Config::default()).await;
    edge.list([shop(|_| {})]);
    edge.until(ASK, OK).await;
    let mut tracker = edge.ingest.tracker().await;
    tracker.send(&batch(stream(1), 1, &[view("/private/a")])).await;
    assert!(tracker.ack().await.refused.is_empty());
    let rule = serde_json::from_str(r#"{"match": "/private/**", "drop": true}"#).unwrap();
    edge.list([shop(|site| site.path_rules = vec![rule])]);
    let refused = async {
        for seq in 2.. {
            tracker.send(&batch(stream(1), seq, &[view("/private/b")])).await;
            if let Some(refused) = tracker.ack().await.refused.pop() {
                return refused.reason;
            }
        }
        unreachable!("sequences do not end in time");
    };
    let reason = tokio::time::timeout(PATIENCE, refused).await.expect("the rule holds soon");
    assert_eq!(reason, RejectReason::IgnoredPath);
    edge.stop().await;
}
