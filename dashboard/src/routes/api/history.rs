//! `/api/history`

use footfall_schemas::viewer::Filter;
use http::StatusCode;
use tracing::warn;

use super::{Answered, Asked, json};
use crate::{
    auth::Access,
    clock::wall_ms,
    history::MAX_HOURS,
    metrics::Metrics,
    routes::{Node, Refusal},
};

impl Node {
    /// Of the whole site: a link that shows a part of it does not open this.
    pub(super) async fn history(&self, access: &Access, asked: &Asked) -> Answered {
        let site = asked.site()?;
        if !access.may_watch(&site, &Filter::default()) {
            return Err(Refusal::not_for(access));
        }
        if !self.shared.feeds.contains_key(&site) {
            return Err(Refusal::unknown_site());
        }
        let hours = asked.query.get("hours").map_or(Ok(MAX_HOURS), |hours| hours.parse()).unwrap_or_default();
        if !(1..=MAX_HOURS).contains(&hours) {
            return Err(Refusal::field("hours", "hours: from 1 to 24"));
        }
        let counted = |outcome| Metrics::count(&self.shared.metrics.history, "footfall.outcome", outcome);
        match self.history.read(&site, hours, wall_ms()).await {
            Ok(body) => {
                counted("ok");
                Ok(json(StatusCode::OK, body))
            }
            Err(failed) => {
                counted(failed.as_str());
                warn!(%site, error = %failed, "the history cannot be read");
                // What ClickHouse says may name hosts and users: that is for the log.
                let detail = "ClickHouse cannot be asked at the moment";
                Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, failed.as_str(), detail))
            }
        }
    }
}
