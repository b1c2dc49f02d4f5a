//! `POST /api/v1/events`: what a site's own servers send, signed with its secret. Each event is answered for itself,
//! once Kafka has it.

use std::net::IpAddr;

use bytes::Buf;
use footfall_schemas::{
    RejectReason,
    secret::SiteSecret,
    server::{
        EventsAnswer, EventsRequest, MAX_REQUEST_BYTES, MAX_REQUEST_EVENTS, SIGNATURE_HEADER, SITE_HEADER,
        TIMESTAMP_HEADER,
    },
    tracker::ServerFrame,
};
use futures_util::Stream;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use warp::reply::Response;

use crate::{
    body::{self, NoBody},
    clock::now_ms,
    fallback::{lost, unknown_site},
    node::{Fault, Node},
    reply::Reply,
    routes::origin_of,
    signature,
    sites::SiteState,
    validate,
};

/// Requests whose bodies are held at once. Full: 503; a sender without the secret must not fill the memory.
const BODIES: usize = 32;
const BUSY_SECONDS: u16 = 1;

/// The way in.
#[derive(Debug)]
pub(crate) struct ServerApi {
    bodies: Semaphore,
}

impl ServerApi {
    pub(crate) fn new() -> Self {
        Self { bodies: Semaphore::new(BODIES) }
    }

    pub(crate) async fn post<B: Buf>(
        &self,
        node: &Node,
        headers: &HeaderMap,
        address: IpAddr,
        body: impl Stream<Item = Result<B, warp::Error>>,
    ) -> Response {
        let Ok(_permit) = self.bodies.try_acquire() else {
            node.metrics.denied("body_limit");
            let mut response = Response::default();
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response.headers_mut().insert(header::RETRY_AFTER, BUSY_SECONDS.into());
            return response;
        };
        match take(node, headers, address, body).await {
            Ok(answer) => results(&answer),
            Err(reply) => reply.json(),
        }
    }
}

async fn take<B: Buf>(
    node: &Node,
    headers: &HeaderMap,
    address: IpAddr,
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Result<EventsAnswer, Reply> {
    let key = text_of(headers, SITE_HEADER);
    let Some(site) = node.sites.get(key) else {
        let fault = unknown_site(key);
        node.metrics.denied(fault.reason.as_str());
        node.refuse_stranger(key, &fault, b"");
        return Err((&fault).into());
    };
    // Before any work: who cannot sign, or signed long ago.
    let timestamp = text_of(headers, TIMESTAMP_HEADER);
    let secret = may_send(&site, headers)
        .and_then(|secret| signature::check_time(timestamp, now_ms()).map(|()| secret))
        .map_err(|fault| deny(node, &site, &fault))?;
    let body = body::read(headers, body, MAX_REQUEST_BYTES, node.config.timeouts.body()).await;
    let body = body.map_err(|none| no_body(node, &site, none))?;
    let signature = text_of(headers, SIGNATURE_HEADER);
    signature::check(&secret, site.key().as_str(), timestamp, &body, signature)
        .map_err(|fault| deny(node, &site, &fault))?;
    if !site.is_served() {
        let fault = Fault::new(RejectReason::SiteDisabled, "site: switched off; send nothing more");
        deny(node, &site, &fault);
        return Err(ServerFrame::site_disabled().into());
    }
    let text = body::text(headers, body, MAX_REQUEST_BYTES).map_err(|none| no_body(node, &site, none))?;
    let events = events(&text).map_err(|(fault, events)| refuse(node, &site, &fault, events))?;
    Ok(node.take_from_server(&site, address, &events).await)
}

/// The secret that the request must be signed with.
fn may_send(site: &SiteState, headers: &HeaderMap) -> Result<SiteSecret, Fault> {
    if origin_of(headers).is_some() {
        let detail = "origin: this is for servers; a page that signs would give the secret away";
        return Err(Fault::new(RejectReason::OriginDenied, detail));
    }
    site.settings().secret.ok_or_else(|| {
        Fault::new(RejectReason::BadSignature, "footfall-site: the site has no secret; give it one")
    })
}

fn events(text: &str) -> Result<Vec<Box<RawValue>>, (Fault, u64)> {
    let EventsRequest { events } = serde_json::from_str(text).map_err(|error| {
        let reason = validate::unreadable(text);
        (Fault::new(reason, format!("body: {error}; send {{\"events\": […]}}")), 1)
    })?;
    let count = events.len();
    if count > MAX_REQUEST_EVENTS {
        let detail = format!("events: {count}; send at most {MAX_REQUEST_EVENTS}");
        return Err((Fault::new(RejectReason::TooLarge, detail), count as u64));
    }
    Ok(events)
}

/// Refused before it is known to come from the site: counted apart from the site's events.
fn deny(node: &Node, site: &SiteState, fault: &Fault) -> Reply {
    node.metrics.denied(fault.reason.as_str());
    refuse(node, site, fault, 1)
}

/// Without its payload: it may name visitors and their addresses.
fn refuse(node: &Node, site: &SiteState, fault: &Fault, events: u64) -> Reply {
    node.refuse_whole(site, fault, events, b"");
    fault.into()
}

fn no_body(node: &Node, site: &SiteState, none: NoBody) -> Reply {
    match none {
        NoBody::Lost => lost(node),
        NoBody::Refused(fault, _) => refuse(node, site, &fault, 1),
    }
}

/// 200 when every event is settled; else the status of the first that is not, with the time to wait.
fn results(answer: &EventsAnswer) -> Response {
    let body = serde_json::to_string(answer).expect("plain fields with text keys always serialise");
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some((reason, wait_ms)) = answer.first_retry() {
        headers.insert(header::RETRY_AFTER, wait_ms.div_ceil(1_000).into());
        *response.status_mut() =
            StatusCode::from_u16(reason.status()).expect("the table holds statuses only");
    }
    response
}

fn text_of<'a>(headers: &'a HeaderMap, name: &'static str) -> &'a str {
    headers.get(HeaderName::from_static(name)).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
