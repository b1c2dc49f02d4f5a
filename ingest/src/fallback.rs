//! `POST /e`: a batch over HTTP, for when no WebSocket works and for the last beacon of a page. Same intake, same acks.

use std::{net::IpAddr, pin::pin};

use bytes::{Buf, Bytes, BytesMut};
use footfall_schemas::{
    RejectReason,
    refusal::RetryReason,
    tracker::{ClientFrame, MAX_BATCH_BYTES, ServerFrame},
};
use futures_util::{Stream, StreamExt as _};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::timeout;
use warp::reply::Response;

use crate::{
    clock::now_ms,
    intake::{self, Sender},
    node::{Fault, Node},
    routes::{agent_of, answer_json, origin_of, user_agent},
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

/// What a body turned out to be.
enum Body {
    Text(String),
    Bad(Fault, Bytes),
    /// The sender left or was too slow: there is nobody to answer, and nothing to keep.
    Lost,
}

pub(crate) async fn post<B: Buf>(
    node: &Node,
    query: Query,
    headers: &HeaderMap,
    address: IpAddr,
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Response {
    let mut response = answer(node, query, headers, address, body).await;
    // On refusals, too: a tracker that may not read why would try for ever. Nothing here is secret.
    allow_origin(&mut response, origin_of(headers));
    response
}

async fn answer<B: Buf>(
    node: &Node,
    query: Query,
    headers: &HeaderMap,
    address: IpAddr,
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Response {
    let body = match timeout(node.config.timeouts.body(), read(headers, body)).await {
        Ok(body) => body,
        Err(_) => Body::Lost,
    };
    let payload: &[u8] = match &body {
        Body::Text(text) => text.as_bytes(),
        Body::Bad(_, bytes) => bytes,
        Body::Lost => {
            node.metrics.denied("body_timeout");
            let fault = Fault::new(RejectReason::Malformed, "body: incomplete in time; send it again");
            return answer_json(StatusCode::REQUEST_TIMEOUT, &fault.frame());
        }
    };
    let Some(site) = node.sites.get(&query.k) else {
        node.metrics.denied(RejectReason::UnknownSite.as_str());
        let fault = unknown_site(&query.k);
        node.refuse_stranger(&query.k, &fault, payload);
        return answer_json(StatusCode::NOT_FOUND, &fault.frame());
    };
    if let Some(origin) = origin_of(headers).filter(|origin| !site.site.allows(origin)) {
        let fault = origin_denied(origin);
        node.metrics.denied(fault.reason.as_str());
        node.refuse_whole(site, &fault, 1, payload);
        return answer_json(StatusCode::FORBIDDEN, &fault.frame());
    }
    match body {
        Body::Text(text) => take(node, site, query.t, headers, address, &text).await,
        Body::Bad(fault, payload) => refuse(node, site, &fault, 1, &payload),
        Body::Lost => unreachable!("answered above"),
    }
}

async fn take(
    node: &Node,
    site: &std::sync::Arc<SiteState>,
    token: Option<String>,
    headers: &HeaderMap,
    address: IpAddr,
    text: &str,
) -> Response {
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
    let now = now_ms();
    // A batch without a token is a page's first (it has no events and asks for one) or its last beacon.
    let presented =
        batch.token.as_deref().and_then(|token| node.visitors.verify(site.key(), token, now).ok());
    let user_agent = user_agent(headers);
    let visitor = presented.unwrap_or_else(|| node.visitors.visitor(site.key(), address, user_agent, now));
    let sender = Sender {
        site: std::sync::Arc::clone(site),
        visitor,
        agent: agent_of(headers),
        location: node.geography.locate(address),
        limits: node.limits.sender(address),
    };
    let mut taken = node.take(&sender, batch);
    let outcome = (&mut taken.outcome).await;
    match taken.answer(outcome) {
        ServerFrame::Ack(mut ack) => {
            ack.token = Some(node.visitors.sign(site.key(), visitor, now));
            answer_json(StatusCode::OK, &ServerFrame::Ack(ack))
        }
        ServerFrame::Nack(nack) => {
            let status = match nack.reason {
                RetryReason::RateLimited => StatusCode::TOO_MANY_REQUESTS,
                RetryReason::Overloaded | RetryReason::LogUnavailable | RetryReason::Draining => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
            };
            let seconds = nack.retry_ms.div_ceil(1_000);
            let mut response = answer_json(status, &ServerFrame::Nack(nack));
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            response
        }
        other => answer_json(StatusCode::OK, &other),
    }
}

fn refuse(node: &Node, site: &SiteState, fault: &Fault, events: u64, payload: &[u8]) -> Response {
    node.refuse_whole(site, fault, events, payload);
    let status = match fault.reason {
        RejectReason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    answer_json(status, &fault.frame())
}

/// Reads no more than the cap, whatever the headers say.
async fn read<B: Buf>(headers: &HeaderMap, body: impl Stream<Item = Result<B, warp::Error>>) -> Body {
    let too_large = |read: BytesMut| {
        let detail = format!("body: over {MAX_BATCH_BYTES} bytes; send smaller batches");
        Body::Bad(Fault::new(RejectReason::TooLarge, detail), read.freeze())
    };
    let told = headers.get(header::CONTENT_LENGTH).and_then(|told| told.to_str().ok()?.parse::<usize>().ok());
    if told.is_some_and(|told| told > MAX_BATCH_BYTES) {
        return too_large(BytesMut::new());
    }
    let mut read = BytesMut::new();
    let mut body = pin!(body);
    while let Some(chunk) = body.next().await {
        let Ok(mut chunk) = chunk else { return Body::Lost };
        if read.len() + chunk.remaining() > MAX_BATCH_BYTES {
            return too_large(read);
        }
        while chunk.has_remaining() {
            let piece = chunk.chunk();
            read.extend_from_slice(piece);
            let length = piece.len();
            chunk.advance(length);
        }
    }
    match String::from_utf8(read.to_vec()) {
        Ok(text) => Body::Text(text),
        Err(_) => {
            let fault = Fault::new(RejectReason::BadUtf8, "body: text is not UTF-8");
            Body::Bad(fault, read.freeze())
        }
    }
}

/// The answer to a preflight, which only a sender of another content type than text/plain makes.
pub(crate) fn preflight(node: &Node, query: &Query, headers: &HeaderMap) -> Response {
    let origin = origin_of(headers);
    let allowed =
        node.sites.get(&query.k).is_some_and(|site| origin.is_some_and(|origin| site.site.allows(origin)));
    let mut response = Response::default();
    *response.status_mut() = if allowed { StatusCode::NO_CONTENT } else { StatusCode::FORBIDDEN };
    if allowed {
        allow_origin(&mut response, origin);
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    }
    response
}

/// Lets the page read the answer.
fn allow_origin(response: &mut Response, origin: Option<&str>) {
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(Ok(origin)) = origin.map(HeaderValue::try_from) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
    }
}

pub(crate) fn unknown_site(key: &str) -> Fault {
    let shown: String = key.escape_default().take(64).collect();
    Fault::new(
        RejectReason::UnknownSite,
        format!("k: no site \"{shown}\" is configured here; check data-site, or add it under [[sites]]"),
    )
}

pub(crate) fn origin_denied(origin: &str) -> Fault {
    let shown: String = origin.escape_default().take(128).collect();
    Fault::new(
        RejectReason::OriginDenied,
        format!("origin: {shown} is not among the site's; add it to `origins` under [[sites]]"),
    )
}
