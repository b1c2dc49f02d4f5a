//! The addresses of the ingest listener, as warp filters.

use std::{net::IpAddr, sync::Arc};

use footfall_schemas::tracker::ServerFrame;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use tracing::debug;
use warp::{Filter, Rejection, reply::Response};

use crate::{
    agent::Agent,
    assets,
    clock::now_ms,
    connection::Connection,
    fallback::{self, Query},
    intake::Sender,
    limits::Place,
    log::Readiness,
    network::client_address,
    node::Node,
    upgrade::{self, BadHandshake},
};

/// Longest user agent looked at.
const MAX_USER_AGENT_BYTES: usize = 512;

/// What the listener knows of a connection; in every request's extensions.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: Address,
    /// Kept for as long as the connection or the socket made of it lives. None when the peer is a trusted proxy: its
    /// clients have places of their own.
    pub(crate) place: Arc<PeerPlace>,
}

/// Never shown: no address reaches a log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) IpAddr);

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Address")
    }
}

/// Held by the connection and by what becomes of it.
#[derive(Debug)]
pub(crate) struct PeerPlace {
    pub(crate) _connection: tokio::sync::OwnedSemaphorePermit,
    pub(crate) by_address: Option<Place>,
}

pub(crate) fn routes(
    node: Arc<Node>,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone + 'static {
    let with_node = {
        let node = Arc::clone(&node);
        warp::any().map(move || Arc::clone(&node))
    };
    // Without a query, or with one that does not parse, the site is unknown.
    let query = warp::query::<Query>().or(warp::any().map(Query::default)).unify();
    let peer = warp::ext::get::<Peer>();
    let headers = warp::header::headers_cloned();

    let socket = warp::path!("ws")
        .and(warp::get())
        .and(with_node.clone())
        .and(query)
        .and(headers)
        .and(peer)
        .and(warp::ext::optional::<OnUpgrade>())
        .map(open_socket);
    let post = warp::path!("e")
        .and(warp::post())
        .and(with_node.clone())
        .and(query)
        .and(headers)
        .and(peer)
        .and(warp::body::stream())
        .then(|node: Arc<Node>, query, headers: HeaderMap, peer: Peer, body| async move {
            let address = client_of(&node, &peer, &headers);
            fallback::post(&node, query, &headers, address, body).await
        });
    let preflight = warp::path!("e").and(warp::options()).and(with_node.clone()).and(query).and(headers).map(
        |node: Arc<Node>, query: Query, headers: HeaderMap| fallback::preflight(&node, &query, &headers),
    );
    let tag: Arc<str> = assets::script_tag().into();
    let script = warp::path!("f.js")
        .and(warp::get().or(warp::head()).unify())
        .and(headers)
        .map(move |headers: HeaderMap| assets::script(&tag, &headers));
    let health = warp::path!("healthz").and(warp::get()).map(|| plain(StatusCode::OK, "ok\n".to_owned()));
    let ready =
        warp::path!("readyz").and(warp::get()).and(with_node.clone()).map(|node: Arc<Node>| readiness(&node));
    let metrics = warp::path!("metrics")
        .and(warp::get())
        .and(with_node.clone())
        .map(|node: Arc<Node>| plain(StatusCode::OK, (node.metrics_text)()));
    let demo = warp::path("demo")
        .and(warp::path::full())
        .and(warp::path::tail())
        .and(warp::get())
        .and(with_node)
        .and_then(demo_page);

    socket
        .or(post)
        .unify()
        .or(preflight)
        .unify()
        .or(script)
        .unify()
        .or(health)
        .unify()
        .or(ready)
        .unify()
        .or(metrics)
        .unify()
        .or(demo)
        .unify()
}

fn client_of(node: &Node, peer: &Peer, headers: &HeaderMap) -> IpAddr {
    let forwarded = headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
    client_address(peer.address.0, forwarded, &node.config.trusted_proxies)
}

/// `GET /ws`: every refusal is an HTTP answer before the upgrade.
fn open_socket(
    node: Arc<Node>,
    query: Query,
    headers: HeaderMap,
    peer: Peer,
    upgrade: Option<OnUpgrade>,
) -> Response {
    let refuse = |status, fault: &crate::node::Fault| {
        node.metrics.denied(fault.reason.as_str());
        answer_json(status, &fault.frame())
    };
    let Some(site) = node.sites.get(&query.k).cloned() else {
        let fault = fallback::unknown_site(&query.k);
        node.refuse_stranger(&query.k, &fault, b"");
        return refuse(StatusCode::NOT_FOUND, &fault);
    };
    if let Some(origin) = origin_of(&headers).filter(|origin| !site.site.allows(origin)) {
        let fault = fallback::origin_denied(origin);
        node.refuse_whole(&site, &fault, 1, b"");
        return refuse(StatusCode::FORBIDDEN, &fault);
    }
    let answer =
        upgrade::accept(&headers).and_then(|answer| Ok((answer, upgrade.ok_or(BadHandshake::NoUpgrade)?)));
    let (answer, upgrade) = match answer {
        Ok(both) => both,
        Err(bad) => {
            node.metrics.denied("bad_handshake");
            let mut response = plain(bad.status(), format!("{bad}\n"));
            response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            return response;
        }
    };
    let address = client_of(&node, &peer, &headers);
    // Behind a proxy every client has a place of its own; otherwise the peer's place is the client's.
    let place = match &peer.place.by_address {
        Some(_) => Some(None),
        None => node.limits.connect(address).map(Some),
    };
    let Some(place) = place else {
        node.metrics.denied("address_limit");
        return busy(StatusCode::TOO_MANY_REQUESTS, "too many connections from this address\n");
    };
    if node.shutdown.is_cancelled() {
        return busy(StatusCode::SERVICE_UNAVAILABLE, "this node is restarting\n");
    }
    let Some(permit) = node.limits.socket() else {
        node.metrics.denied("socket_limit");
        return busy(StatusCode::SERVICE_UNAVAILABLE, "too many sockets on this node\n");
    };

    let now = now_ms();
    let user_agent = user_agent(&headers);
    let presented = query.t.and_then(|token| node.visitors.verify(site.key(), &token, now).ok());
    let visitor = presented.unwrap_or_else(|| node.visitors.visitor(site.key(), address, user_agent, now));
    let limits = node.limits.sender(address, true);
    let sender = Sender { site, visitor, agent: Agent::parse(user_agent), limits };
    let tasks = node.tasks.clone();
    tasks.spawn(async move {
        let _held = (permit, place, peer);
        match upgrade::socket(upgrade).await {
            Ok(socket) => {
                node.metrics.sockets.add(1, &[]);
                let metrics = Arc::clone(&node.metrics);
                Box::pin(Connection::new(node, sender, socket).run()).await;
                metrics.sockets.add(-1, &[]);
            }
            Err(error) => debug!(%error, "a peer left during the upgrade"),
        }
    });
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer;
    response
}

fn readiness(node: &Node) -> Response {
    if node.shutdown.is_cancelled() {
        plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned())
    } else {
        match node.health.readiness(now_ms()) {
            Readiness::Ready => plain(StatusCode::OK, "ready\n".to_owned()),
            Readiness::Spooling => plain(StatusCode::OK, "spooling\n".to_owned()),
            Readiness::Unwritable => {
                plain(StatusCode::SERVICE_UNAVAILABLE, "kafka does not take records\n".to_owned())
            }
        }
    }
}

async fn demo_page(
    full: warp::path::FullPath,
    tail: warp::path::Tail,
    node: Arc<Node>,
) -> Result<Response, Rejection> {
    if !node.config.demo {
        return Err(warp::reject::not_found());
    }
    if full.as_str() == "/demo" {
        let mut response = plain(StatusCode::PERMANENT_REDIRECT, String::new());
        response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/demo/"));
        return Ok(response);
    }
    Ok(assets::demo(tail.as_str(), node.sites.first(), &node.config.dashboard_url))
}

/// A page's origin; a program sends none.
pub(crate) fn origin_of(headers: &HeaderMap) -> Option<&str> {
    // An origin that is no text matches no pattern.
    headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or("invalid"))
}

pub(crate) fn user_agent(headers: &HeaderMap) -> &str {
    let text = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    &text[..text.floor_char_boundary(MAX_USER_AGENT_BYTES)]
}

pub(crate) fn answer_json(status: StatusCode, frame: &ServerFrame) -> Response {
    let body = serde_json::to_string(frame).expect("plain fields with text keys always serialise");
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn plain(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn busy(status: StatusCode, text: &str) -> Response {
    let mut response = plain(status, text.to_owned());
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    response
}
