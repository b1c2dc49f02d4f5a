//! What who runs the node asks.

use std::sync::atomic::Ordering;

use http::{HeaderMap, StatusCode};

use super::{Answer, Node, Peer, text};
use crate::pages;

impl Node {
    pub(super) fn readiness(&self) -> Answer {
        if self.shared.shutdown.is_cancelled() {
            text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
        } else if self.caught_up.load(Ordering::Acquire) {
            text(StatusCode::OK, "ready\n")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "kafka: the live topics are not read to their end yet\n")
        }
    }

    pub(super) fn metrics(&self, peer: Option<Peer>, headers: &HeaderMap) -> Answer {
        if self.shared.config.public_metrics || is_this_machine(peer, headers) {
            pages::typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", (self.metrics_text)())
        } else {
            text(StatusCode::FORBIDDEN, "metrics are shown to this machine; see dashboard.public_metrics\n")
        }
    }
}

/// A program on this machine asks for itself, not a proxy on behalf of somebody.
fn is_this_machine(peer: Option<Peer>, headers: &HeaderMap) -> bool {
    let is_forwarded = ["x-forwarded-for", "forwarded", "via"].iter().any(|name| headers.contains_key(*name));
    peer.is_some_and(|Peer(address)| address.to_canonical().is_loopback()) && !is_forwarded
}
