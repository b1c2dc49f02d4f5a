//! `/live`: a viewer's socket.

use std::sync::Arc;

use http::{HeaderMap, StatusCode, header::ORIGIN};
use hyper::upgrade::OnUpgrade;
use tokio::sync::OwnedSemaphorePermit;

use super::{Answer, Node, Query, Refusal};
use crate::{
    auth::{Access, Asker, is_own_origin},
    subscriber::Subscriber,
    upgrade::{self, NoUpgrade},
};

impl Node {
    /// To a socket, for who comes from the dashboard's own page. What they may watch is asked with each subscription.
    pub(super) fn watch(
        self: &Arc<Self>,
        headers: &HeaderMap,
        query: &Query,
        upgrade: Option<OnUpgrade>,
    ) -> Answer {
        self.try_watch(headers, query, upgrade).unwrap_or_else(Answer::from)
    }

    fn try_watch(
        self: &Arc<Self>,
        headers: &HeaderMap,
        query: &Query,
        upgrade: Option<OnUpgrade>,
    ) -> Result<Answer, Refusal> {
        let access = self.access(headers, query);
        // No browser sends a key along by itself, and programs have no origin.
        let is_program = matches!(&access, Ok(access) if matches!(access.asker(), Asker::Key(_)))
            && !headers.contains_key(ORIGIN);
        // Told apart from a missing login: with a foreign page the cookie comes along, and must not help.
        if !is_program && !is_own_origin(headers, &self.shared.config) {
            return Err(Refusal::wrong_origin());
        }
        let access = access?;
        if access.is_nobody() && !self.has_public_site() {
            return Err(Refusal::not_logged_in());
        }
        let (accepted, upgrade) = match (upgrade::accept(headers), upgrade) {
            (Ok(accepted), Some(upgrade)) => (accepted, upgrade),
            (Err(NoUpgrade::Version), _) => {
                let detail = "Sec-WebSocket-Version: 13 is spoken";
                return Err(Refusal::new(StatusCode::UPGRADE_REQUIRED, "bad_version", detail));
            }
            (Err(NoUpgrade::Subprotocol), _) => {
                let detail = "Sec-WebSocket-Protocol: footfall-live.v1 is spoken";
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "bad_subprotocol", detail));
            }
            (Err(NoUpgrade::NotWebSocket) | Ok(_), _) => {
                let detail = "this path is for WebSocket";
                return Err(Refusal::new(StatusCode::UPGRADE_REQUIRED, "no_websocket", detail));
            }
        };
        let place =
            self.place(&access).ok_or_else(|| Refusal::busy(5, "too many viewers here: try later"))?;
        let shared = self.shared.clone();
        self.tasks.spawn(async move {
            if let Some(socket) = upgrade::take_over(upgrade).await {
                Subscriber::new(socket, access, shared).run().await;
            }
            drop(place);
        });
        Ok(accepted)
    }

    /// Viewers without a name have fewer places, so that they do not shut out the others.
    pub(super) fn place(&self, access: &Access) -> Option<Vec<OwnedSemaphorePermit>> {
        if self.shared.shutdown.is_cancelled() {
            return None;
        }
        let mut places = vec![self.viewers.clone().try_acquire_owned().ok()?];
        if !access.is_known() {
            places.push(self.public_viewers.clone().try_acquire_owned().ok()?);
        }
        Some(places)
    }

    fn has_public_site(&self) -> bool {
        self.accounts.directory().sites.values().any(|listed| listed.site.public)
    }
}
