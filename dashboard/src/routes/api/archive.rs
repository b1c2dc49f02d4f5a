//! What can be asked of a site's past, and what becomes of its events now.

use std::{str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;
use footfall_schemas::{Dimension, SiteId, site::Site, viewer::Filter};
use http::{HeaderValue, StatusCode, header::CONTENT_DISPOSITION};
use tokio::time::timeout;
use tracing::warn;

use super::{Answered, Asked, json};
use crate::{
    archive::Question,
    auth::Access,
    clock::wall_ms,
    doctor, export,
    firings::{FIRINGS, MAX_FIRINGS},
    history,
    metrics::Metrics,
    pages,
    routes::{Node, Refusal},
    view::View,
};

/// For a site's view to wake, when nobody watches it.
const VIEW_TIMEOUT: Duration = Duration::from_secs(1);

impl Node {
    pub(super) async fn history(&self, access: &Access, asked: &Asked) -> Answered {
        let site = self.watched(access, asked)?;
        let hours = asked.number("hours", history::MAX_HOURS, history::MAX_HOURS)?;
        Ok(json(StatusCode::OK, self.ask(&site.key, Question::History(hours)).await?))
    }

    pub(super) async fn day(&self, access: &Access, asked: &Asked) -> Answered {
        let site = self.watched(access, asked)?;
        Ok(json(StatusCode::OK, self.ask(&site.key, Question::Day).await?))
    }

    pub(super) async fn firings(&self, access: &Access, asked: &Asked) -> Answered {
        let site = self.watched(access, asked)?;
        let limit = asked.number("limit", FIRINGS, MAX_FIRINGS)?;
        Ok(json(StatusCode::OK, self.ask(&site.key, Question::Firings(limit)).await?))
    }

    /// Not for everybody who may watch: it shows what was refused.
    pub(super) async fn doctor(&self, access: &Access, asked: &Asked) -> Answered {
        let site = self.known(access, asked)?;
        let stored = self.ask(&site.key, Question::Doctor).await?;
        let view = self.view_now(&site.key).await;
        Ok(json(StatusCode::OK, doctor::answer(&stored, view.as_deref(), &site)))
    }

    /// Not for everybody who may watch: a month is much to read.
    pub(super) async fn export(&self, access: &Access, asked: &Asked) -> Answered {
        let site = self.known(access, asked)?;
        let name = asked.query.get("dimension").cloned().unwrap_or_default();
        let dimension = serde_json::from_value::<Dimension>(name.into());
        let Some(dimension) = dimension.ok().filter(|dimension| export::is_exportable(*dimension)) else {
            let known = Dimension::ALL.iter().filter(|dimension| export::is_exportable(**dimension));
            let known = known.map(|dimension| dimension.as_str()).collect::<Vec<_>>().join(", ");
            return Err(Refusal::field("dimension", format!("dimension: one of {known}")));
        };
        let hours = asked.number("hours", history::MAX_HOURS, export::MAX_HOURS)?;
        let csv = self.ask(&site.key, Question::Export(dimension, hours)).await?;
        let mut answer = pages::typed(StatusCode::OK, "text/csv; charset=utf-8", csv);
        // A site's key and a dimension's name are plain.
        let file = format!("attachment; filename=\"{}-{}.csv\"", site.key, dimension.as_str());
        let file = HeaderValue::from_str(&file).expect("plain ASCII");
        answer.headers_mut().insert(CONTENT_DISPOSITION, file);
        Ok(answer)
    }

    /// The site that is asked for, if all of it may be watched: a link that shows a part of it does not open its past.
    fn watched(&self, access: &Access, asked: &Asked) -> Result<Arc<Site>, Refusal> {
        let site = asked.site()?;
        if !access.may_watch(&site, &Filter::default()) {
            return Err(Refusal::not_for(access));
        }
        self.shared.feeds.site(&site).ok_or_else(Refusal::unknown_site)
    }

    /// As [`Self::watched`], for who has a name or a key.
    fn known(&self, access: &Access, asked: &Asked) -> Result<Arc<Site>, Refusal> {
        if access.is_known() { self.watched(access, asked) } else { Err(Refusal::not_for(access)) }
    }

    async fn ask(&self, site: &SiteId, question: Question) -> Result<Bytes, Refusal> {
        let counted = |outcome| Metrics::count(&self.shared.metrics.history, "footfall.outcome", outcome);
        let answer = self.archive.ask(site, question, wall_ms()).await;
        answer.inspect(|_| counted("ok")).map_err(|failed| {
            counted(failed.as_str());
            warn!(%site, error = %failed, "the past cannot be read");
            // What ClickHouse says may name hosts and users: that is for the log.
            let detail = "ClickHouse cannot be asked at the moment";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, failed.as_str(), detail)
        })
    }

    /// A site's whole view. `None` while the live topics cannot be read.
    async fn view_now(&self, site: &SiteId) -> Option<Arc<View>> {
        let feed = self.shared.feeds.get(site)?;
        let mut moved = feed.watch();
        let awake = async {
            loop {
                if let Some(view) = feed.view() {
                    return Some(view);
                }
                moved.changed().await.ok()?;
            }
        };
        timeout(VIEW_TIMEOUT, awake).await.ok().flatten()
    }
}

impl Asked {
    /// Of the query, from 1 to `most`.
    fn number(&self, field: &str, default: u32, most: u32) -> Result<u32, Refusal> {
        let number =
            self.query.get(field).map_or(Ok(default), |text| u32::from_str(text)).unwrap_or_default();
        let fits = (1..=most).contains(&number);
        if fits { Ok(number) } else { Err(Refusal::field(field, format!("{field}: from 1 to {most}"))) }
    }
}
