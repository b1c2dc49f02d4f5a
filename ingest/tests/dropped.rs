//! A node that is dropped instead of drained: its runtime ends all the same.
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::{sync::mpsc, time::Duration};

use support::*;

/// The grace period is a second here; what was taken may use it.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_runtime_ends_with_a_node_that_nobody_stopped() {
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || {
        let kafka = Kafka::start();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let ingest = Ingest::start_with(&kafka, |config| config.grace_period_ms = 1_000).await;
            let mut tracker = ingest.tracker().await;
            tracker.send(&batch(stream(1), 1, &[view("/")])).await;
            tracker.ack().await;
        });
        drop(runtime);
        ended.send(()).unwrap();
    });
    end.recv_timeout(SOON).expect("nothing of the node keeps the runtime");
}
