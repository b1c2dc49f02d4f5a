//! What can be asked of a site over plain HTTP: its past, its alerts, what became of its events, and its live view as a
//! stream of server-sent events.
#![allow(clippy::result_large_err)] // an answer is made once a request, whether it is one or a refusal

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use footfall_schemas::{Dimension, SiteId, site::Site, viewer::Filter as ViewFilter, viewer::ViewerError};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, ORIGIN},
};
use serde::Deserialize;
use tokio::{sync::mpsc, time::timeout};
use tracing::warn;
use warp::{Filter, Rejection, Reply, reply::Response};

use crate::{
    archive::Question,
    auth::Session,
    clock::wall_ms,
    doctor, export,
    firings::{FIRINGS, MAX_FIRINGS},
    history,
    metrics::Metrics,
    pages,
    routes::{Answer, Cut, Node, error, exactly, is_own_origin, json, no_place, not_logged_in},
    sse::{Stream, position_of},
    subscription::Refusal,
    view::View,
};

/// For a site's view to wake, when nobody watches it.
const VIEW_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct Asked {
    site: String,
    #[serde(default)]
    hours: Option<u32>,
    #[serde(default)]
    limit: Option<u32>,
    #[serde(default)]
    dimension: Option<String>,
}

#[derive(Deserialize)]
struct StreamAsked {
    site: String,
    /// JSON, see [`ViewFilter`].
    #[serde(default)]
    filter: Option<String>,
    /// Whether events themselves are told, too.
    #[serde(default)]
    feed: bool,
}

/// The routes of this file.
pub(crate) fn routes(
    node: &Arc<Node>,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone + use<> {
    let node = node.clone();
    let with = warp::any().map(move || node.clone());
    let get = |path: &'static str| {
        exactly(path).and(warp::get()).and(with.clone()).and(warp::header::headers_cloned())
    };
    let asked = || warp::query::<Asked>();
    let history =
        get("/api/history").and(asked()).then(|node: Arc<Node>, headers, asked: Asked| async move {
            let hours = asked.hours.unwrap_or(history::MAX_HOURS);
            if !(1..=history::MAX_HOURS).contains(&hours) {
                return error(StatusCode::BAD_REQUEST, "bad_hours", "hours: from 1 to 24");
            }
            node.answer(&headers, &asked.site, Question::History(hours)).await
        });
    let day = get("/api/day").and(asked()).then(|node: Arc<Node>, headers, asked: Asked| async move {
        node.answer(&headers, &asked.site, Question::Day).await
    });
    let firings =
        get("/api/firings").and(asked()).then(|node: Arc<Node>, headers, asked: Asked| async move {
            let limit = asked.limit.unwrap_or(FIRINGS);
            if !(1..=MAX_FIRINGS).contains(&limit) {
                return error(StatusCode::BAD_REQUEST, "bad_limit", "limit: from 1 to 500");
            }
            node.answer(&headers, &asked.site, Question::Firings(limit)).await
        });
    let doctor = get("/api/doctor").and(asked()).then(|node: Arc<Node>, headers, asked: Asked| async move {
        node.doctor(&headers, &asked.site).await
    });
    let export = get("/api/export")
        .and(asked())
        .then(|node: Arc<Node>, headers, asked: Asked| async move { node.export(&headers, &asked).await });
    let stream = get("/live/events").and(warp::query::<StreamAsked>()).and(warp::ext::optional::<Cut>()).map(
        |node: Arc<Node>, headers: HeaderMap, asked: StreamAsked, cut: Option<Cut>| {
            node.stream(&headers, asked, cut.unwrap_or_default()).unwrap_or_else(Reply::into_response)
        },
    );
    let answers = history.or(day).unify().or(firings).unify().or(doctor).unify().or(export).unify();
    answers.map(Reply::into_response).or(stream).unify()
}

impl Node {
    /// Who asks, and the site that is asked for, if it may be watched.
    fn asker(&self, headers: &HeaderMap, site: &str) -> Result<(Session, Arc<Site>), Answer> {
        let session = self.session(headers).ok_or_else(not_logged_in)?;
        let site = SiteId::try_from(site).ok().and_then(|site| self.shared.feeds.site(&site));
        let unknown =
            || error(StatusCode::NOT_FOUND, "unknown_site", "site: no such site is configured here");
        Ok((session, site.ok_or_else(unknown)?))
    }

    async fn answer(&self, headers: &HeaderMap, site: &str, question: Question) -> Answer {
        match self.asker(headers, site) {
            Ok((_, site)) => match self.ask(&site.key, question).await {
                Ok(body) => json(StatusCode::OK, body),
                Err(answer) => answer,
            },
            Err(answer) => answer,
        }
    }

    async fn ask(&self, site: &SiteId, question: Question) -> Result<Bytes, Answer> {
        let counted = |outcome| Metrics::count(&self.shared.metrics.history, "footfall.outcome", outcome);
        let answer = self.archive.ask(site, question, wall_ms()).await;
        answer.inspect(|_| counted("ok")).map_err(|failed| {
            counted(failed.as_str());
            warn!(%site, error = %failed, "the past cannot be read");
            // What ClickHouse says may name hosts and users: that is for the log.
            error(
                StatusCode::SERVICE_UNAVAILABLE,
                failed.as_str(),
                "ClickHouse cannot be asked at the moment",
            )
        })
    }

    async fn doctor(&self, headers: &HeaderMap, site: &str) -> Answer {
        let site = match self.asker(headers, site) {
            Ok((_, site)) => site,
            Err(answer) => return answer,
        };
        match self.ask(&site.key, Question::Doctor).await {
            Ok(stored) => {
                let view = self.view_now(&site.key).await;
                json(StatusCode::OK, doctor::answer(&stored, view.as_deref(), &site))
            }
            Err(answer) => answer,
        }
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

    async fn export(&self, headers: &HeaderMap, asked: &Asked) -> Answer {
        let (site, name) = match self.asker(headers, &asked.site) {
            Ok((_, site)) => (site, asked.dimension.clone().unwrap_or_default()),
            Err(answer) => return answer,
        };
        let dimension = serde_json::from_value::<Dimension>(name.into());
        let Some(dimension) = dimension.ok().filter(|dimension| export::is_exportable(*dimension)) else {
            let known = Dimension::ALL.iter().filter(|dimension| export::is_exportable(**dimension));
            let known = known.map(|dimension| dimension.as_str()).collect::<Vec<_>>().join(", ");
            return error(StatusCode::BAD_REQUEST, "bad_dimension", &format!("dimension: one of {known}"));
        };
        let hours = asked.hours.unwrap_or(history::MAX_HOURS);
        if !(1..=export::MAX_HOURS).contains(&hours) {
            return error(StatusCode::BAD_REQUEST, "bad_hours", "hours: from 1 to 744");
        }
        match self.ask(&site.key, Question::Export(dimension, hours)).await {
            Ok(csv) => {
                let mut answer = pages::typed(StatusCode::OK, "text/csv; charset=utf-8", csv);
                // A site's key and a dimension's name are plain.
                let file = format!("attachment; filename=\"{}-{}.csv\"", site.key, dimension.as_str());
                let file = HeaderValue::from_str(&file).expect("plain ASCII");
                answer.headers_mut().insert(CONTENT_DISPOSITION, file);
                answer
            }
            Err(answer) => answer,
        }
    }

    /// `/live/events`
    fn stream(
        self: &Arc<Self>,
        headers: &HeaderMap,
        asked: StreamAsked,
        cut: Cut,
    ) -> Result<Response, Answer> {
        // A browser tells where another site's page asks from; one's own page does not say.
        if headers.contains_key(ORIGIN) && !is_own_origin(headers, &self.shared.config) {
            return Err(error(
                StatusCode::FORBIDDEN,
                "wrong_origin",
                "Origin: only this dashboard's own page may watch",
            ));
        }
        let (session, site) = self.asker(headers, &asked.site)?;
        let filter = match asked.filter.as_deref().map(serde_json::from_str::<ViewFilter>) {
            None => ViewFilter::default(),
            Some(Ok(filter)) => filter,
            Some(Err(wrong)) => {
                return Err(error(StatusCode::BAD_REQUEST, "malformed", &format!("filter: {wrong}")));
            }
        };
        let last_id = headers.get("last-event-id").and_then(|id| id.to_str().ok());
        let resume = last_id.and_then(position_of);
        let place = self.place().ok_or_else(no_place)?;
        let subscribed = self.shared.subscribe(session, site.key.clone(), filter, resume);
        let mut subscription = subscribed.map_err(|Refusal { reason, detail }| refused(reason, &detail))?;
        subscription.show_events(&self.shared, asked.feed);
        let (chunks, mut taken) = mpsc::channel::<Bytes>(1);
        let stream = Stream::new(self.shared.clone(), session, subscription, chunks, cut.0);
        self.tasks.spawn(async move {
            stream.run().await;
            drop(place);
        });
        let chunks = futures_util::stream::poll_fn(move |context| taken.poll_recv(context));
        let chunks = futures_util::StreamExt::map(chunks, Ok::<_, std::convert::Infallible>);
        let mut response = warp::reply::stream(chunks).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // A proxy that gathers would hold the frames back.
        headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        Ok(response)
    }
}

fn refused(reason: ViewerError, detail: &str) -> Answer {
    match reason {
        ViewerError::UnknownSite => error(StatusCode::NOT_FOUND, "unknown_site", detail),
        ViewerError::NotAllowed => error(StatusCode::FORBIDDEN, "not_allowed", detail),
        ViewerError::Malformed => error(StatusCode::BAD_REQUEST, "malformed", detail),
        ViewerError::TooManyFilters => error(StatusCode::SERVICE_UNAVAILABLE, "too_many_filters", detail),
    }
}
