//! `/live/events`: a viewer's stream of server-sent events, for who has no socket.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use footfall_schemas::{
    SiteId,
    viewer::{Filter, ViewerError},
};
use futures_util::{StreamExt, stream::poll_fn};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, ORIGIN},
};
use tokio::sync::mpsc;
use warp::{Reply, reply::Response};

use super::{Answer, Cut, Node, Query, Refusal};
use crate::{
    auth::is_own_origin,
    sse::{Stream, position_of},
    subscription,
};

impl Node {
    pub(super) fn stream(self: &Arc<Self>, headers: &HeaderMap, query: &Query, cut: Cut) -> Response {
        self.try_stream(headers, query, cut).unwrap_or_else(|refusal| Answer::from(refusal).into_response())
    }

    fn try_stream(
        self: &Arc<Self>,
        headers: &HeaderMap,
        query: &Query,
        cut: Cut,
    ) -> Result<Response, Refusal> {
        // A browser tells where another site's page asks from; one's own page does not say.
        if headers.contains_key(ORIGIN) && !is_own_origin(headers, &self.shared.config) {
            return Err(Refusal::wrong_origin());
        }
        let access = self.access(headers, query)?;
        let site = query.get("site").ok_or_else(|| Refusal::field("site", "site: say which"))?;
        let site = SiteId::try_from(site.as_str()).map_err(|_| Refusal::unknown_site())?;
        let filter = query.get("filter").map_or(Ok(Filter::default()), |text| serde_json::from_str(text));
        let filter = filter.map_err(|wrong| Refusal::field("filter", format!("filter: {wrong}")))?;
        // Told apart from what the site may refuse: who is nobody yet may log in.
        if !access.may_watch(&site, &filter) {
            return Err(Refusal::not_for(&access));
        }
        let last_id = headers.get("last-event-id").and_then(|id| id.to_str().ok());
        let resume = last_id.and_then(position_of);
        let place =
            self.place(&access).ok_or_else(|| Refusal::busy(5, "too many viewers here: try later"))?;
        let mut subscription = self.shared.subscribe(&access, site, filter, resume).map_err(refused)?;
        subscription.show_events(&self.shared, query.get("feed").is_some_and(|feed| feed == "true"));
        let (chunks, mut taken) = mpsc::channel::<Bytes>(1);
        let stream = Stream::new(self.shared.clone(), access, subscription, chunks, cut.0);
        self.tasks.spawn(async move {
            stream.run().await;
            drop(place);
        });
        let chunks = poll_fn(move |context| taken.poll_recv(context)).map(Ok::<_, Infallible>);
        let mut response = warp::reply::stream(chunks).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // A proxy that gathers would hold the frames back.
        headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        Ok(response)
    }
}

fn refused(subscription::Refusal { reason, detail }: subscription::Refusal) -> Refusal {
    match reason {
        ViewerError::UnknownSite => Refusal::unknown("unknown_site", detail),
        ViewerError::NotAllowed => Refusal::new(StatusCode::FORBIDDEN, "not_allowed", detail),
        ViewerError::Malformed => Refusal::field("filter", detail),
        ViewerError::TooManyFilters => {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_filters", detail)
        }
    }
}
