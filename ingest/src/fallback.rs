//! `POST /e`: a batch over HTTP, for when no WebSocket works and for the last beacon of a page. Same intake, same acks.

use std::{net::IpAddr, sync::Arc};

use bytes::Buf;
use footfall_schemas::{
    RejectReason,
    tracker::{ClientFrame, MAX_BATCH_BYTES, ServerFrame},
};
use futures_util::Stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use warp::reply::Response;

use crate::{
    body::{self, NoBody},
    clock::now_ms,
    intake::{self, Sender},
    node::{Fault, Node},
    raw::RawBatch,
    reply::{Reply, allow_origin},
    routes::{agent_of, origin_of, user_agent},
    sites::SiteState,
};

/// `k` and `t` of the query.
#[derive(Debug, Default, serde::Deserialize)]
pub(crate) struct Query {
    #[serde(default)]
    pub(crate) k: String,
    #[serde(default)]
    pub(crate) t: Option<String>,
}

pub(crate) async fn post<B: Buf>(
    node: &Node,
    query: Query,
    headers: &HeaderMap,
    address: IpAddr,
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Response {
    let reply = answer(node, query, headers, address, body).await;
    let mut response = reply.json();
    allow_origin(&mut response, origin_of(headers));
    response
}

async fn answer<B: Buf>(
    node: &Node,
    query: Query,
    headers: &HeaderMap,
    address: IpAddr,
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Reply {
    let body = body::read(headers, body, MAX_BATCH_BYTES, node.config.timeouts.body()).await;
    let text = body.and_then(|body| body::text(headers, body, MAX_BATCH_BYTES));
    let payload: &[u8] = match &text {
        Ok(text) => text.as_bytes(),
        Err(NoBody::Refused(_, read)) => read,
        Err(NoBody::Lost) => return lost(node),
    };
    let site = match admit(node, &query.k, origin_of(headers), payload) {
        Ok(site) => site,
        Err(reply) => return *reply,
    };
    match text {
        Ok(text) => take(node, &site, query.t.and_then(token), headers, address, &text).await,
        Err(NoBody::Refused(fault, payload)) => refuse(node, &site, &fault, 1, &payload),
        Err(NoBody::Lost) => unreachable!("answered above"),
    }
}

pub(crate) fn lost(node: &Node) -> Reply {
    node.metrics.denied("body_timeout");
    let fault = Fault::new(RejectReason::Malformed, "body: incomplete in time; send it again");
    Reply { status: StatusCode::REQUEST_TIMEOUT, frame: fault.frame() }
}

/// The site, if it takes events from that origin. What came is kept as a dead letter otherwise.
pub(crate) fn admit(
    node: &Node,
    key: &str,
    origin: Option<&str>,
    payload: &[u8],
) -> Result<Arc<SiteState>, Box<Reply>> {
    let Some(site) = node.sites.get(key) else {
        let fault = unknown_site(key);
        node.metrics.denied(fault.reason.as_str());
        node.refuse_stranger(key, &fault, payload);
        return Err(Box::new((&fault).into()));
    };
    if let Some(origin) = origin.filter(|origin| !site.settings().allows(origin)) {
        let fault = origin_denied(origin);
        node.metrics.denied(fault.reason.as_str());
        return Err(Box::new(refuse(node, &site, &fault, 1, payload)));
    }
    if !site.is_served() {
        let fault = Fault::new(RejectReason::SiteDisabled, "site: switched off; send nothing more");
        node.metrics.denied(fault.reason.as_str());
        node.refuse_whole(&site, &fault, 1, payload);
        return Err(Box::new(ServerFrame::site_disabled().into()));
    }
    Ok(site)
}

/// A page that has no token yet may send an empty one.
pub(crate) fn token(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// One batch from the text of a request.
pub(crate) async fn take(
    node: &Node,
    site: &Arc<SiteState>,
    token: Option<String>,
    headers: &HeaderMap,
    address: IpAddr,
    text: &str,
) -> Reply {
    let batch = match intake::tag(text) {
        Ok(ClientFrame::Batch) => intake::batch(text),
        Ok(_) => {
            Err((Fault::new(RejectReason::Malformed, "frame: only a batch is taken here; send t = batch"), 1))
        }
        Err(fault) => Err((fault, 1)),
    };
    let mut batch = match batch {
        Ok(batch) => batch,
        Err((fault, events)) => return refuse(node, site, &fault, events, text.as_bytes()),
    };
    batch.token = batch.token.or(token);
    settle(node, site, headers, address, batch).await
}

/// Waits for the batch's outcome; the answer brings the token to use from now on.
pub(crate) async fn settle(
    node: &Node,
    site: &Arc<SiteState>,
    headers: &HeaderMap,
    address: IpAddr,
    batch: RawBatch<'_>,
) -> Reply {
    let now = now_ms();
    // A batch without a token is a page's first (it has no events and asks for one) or its last beacon.
    let presented =
        batch.token.as_deref().and_then(|token| node.visitors.verify(site.key(), token, now).ok());
    let user_agent = user_agent(headers);
    let visitor = presented.unwrap_or_else(|| node.visitors.visitor(site.key(), address, user_agent, now));
    let sender = Sender {
        site: Arc::clone(site),
        visitor,
        agent: agent_of(headers),
        location: node.geography.locate(address),
        limits: node.limits.sender(address),
    };
    let asks = batch.events.is_empty();
    let mut taken = node.take(&sender, batch);
    let outcome = (&mut taken.outcome).await;
    let mut answer = taken.answer(outcome);
    if let ServerFrame::Ack(ack) = &mut answer {
        ack.token = Some(node.visitors.sign(site.key(), visitor, now));
        // Over WebSocket the welcome brings them.
        let settings = &site.settings().tracker;
        ack.settings = (asks && !settings.is_default()).then(|| Box::new(settings.clone()));
    }
    answer.into()
}

pub(crate) fn refuse(node: &Node, site: &SiteState, fault: &Fault, events: u64, payload: &[u8]) -> Reply {
    node.refuse_whole(site, fault, events, payload);
    fault.into()
}

/// The answer to a preflight, which only a sender of another content type than text/plain, or of gzip, makes.
pub(crate) fn preflight(node: &Node, query: &Query, headers: &HeaderMap) -> Response {
    let origin = origin_of(headers);
    let allowed = node
        .sites
        .get(&query.k)
        .is_some_and(|site| origin.is_some_and(|origin| site.settings().allows(origin)));
    let mut response = Response::default();
    *response.status_mut() = if allowed { StatusCode::NO_CONTENT } else { StatusCode::FORBIDDEN };
    if allowed {
        allow_origin(&mut response, origin);
        let headers = response.headers_mut();
        let sent = HeaderValue::from_static("content-type, content-encoding");
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, sent);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    }
    response
}

pub(crate) fn unknown_site(key: &str) -> Fault {
    let shown: String = key.escape_default().take(64).collect();
    Fault::new(
        RejectReason::UnknownSite,
        format!("k: no site \"{shown}\" is configured here; check data-site, or add the site"),
    )
}

pub(crate) fn origin_denied(origin: &str) -> Fault {
    let shown: String = origin.escape_default().take(128).collect();
    Fault::new(
        RejectReason::OriginDenied,
        format!("origin: {shown} is not among the site's; add it to its `origins`"),
    )
}
