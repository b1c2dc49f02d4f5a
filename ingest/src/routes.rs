//! The addresses of the ingest listener, as warp filters.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use tracing::debug;
use warp::{Filter, Rejection, reply::Response};

use crate::{
    clock::now_ms,
    connection::Connection,
    demo,
    echo::Echo,
    enrich::agent::{Agent, Hints},
    fallback::{self, Query},
    intake::Sender,
    log::Readiness,
    network::client_address,
    node::Node,
    peer::Peer,
    pixel,
    place::Denied,
    reply::Reply,
    scripts::{self, Asked},
    server_api::ServerApi,
    upgrade::{self, BadHandshake},
};

/// Longest user agent looked at.
const MAX_USER_AGENT_BYTES: usize = 512;

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
    let echo = warp::path!("ws-echo")
        .and(warp::get())
        .and(with_node.clone())
        .and(headers)
        .and(warp::ext::optional::<OnUpgrade>())
        .and_then(echo_socket);
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
    let pixel = warp::path!("e.gif")
        .and(warp::get())
        .and(with_node.clone())
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(headers)
        .and(peer)
        .then(|node: Arc<Node>, query: String, headers: HeaderMap, peer: Peer| async move {
            let address = client_of(&node, &peer, &headers);
            pixel::get(&node, &query, &headers, address).await
        });
    let api = Arc::new(ServerApi::new());
    let from_servers = warp::path!("api" / "v1" / "events")
        .and(warp::post())
        .and(with_node.clone())
        .and(headers)
        .and(peer)
        .and(warp::body::stream())
        .then(move |node: Arc<Node>, headers: HeaderMap, peer: Peer, body| {
            let api = Arc::clone(&api);
            async move {
                let address = client_of(&node, &peer, &headers);
                api.post(&node, &headers, address, body).await
            }
        });
    let script = warp::path!(Asked)
        .and(warp::get().or(warp::head()).unify())
        .and(headers)
        .map(|asked: Asked, headers: HeaderMap| scripts::serve(asked, &headers));
    let health = warp::path!("healthz").and(warp::get()).map(|| plain(StatusCode::OK, "ok\n".to_owned()));
    let ready =
        warp::path!("readyz").and(warp::get()).and(with_node.clone()).map(|node: Arc<Node>| readiness(&node));
    let metrics = warp::path!("metrics")
        .and(warp::get())
        .and(with_node.clone())
        .and(headers)
        .and(peer)
        .and(warp::ext::optional::<Operator>())
        .map(metrics);
    let demo = warp::path("demo")
        .and(warp::path::full())
        .and(warp::path::tail())
        .and(warp::get())
        .and(with_node)
        .and_then(demo_page);

    socket
        .or(echo)
        .unify()
        .or(post)
        .unify()
        .or(preflight)
        .unify()
        .or(pixel)
        .unify()
        .or(from_servers)
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
    let lines = headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes);
    client_address(peer.address.0, lines, &node.trusted_proxies.load())
}

/// `GET /ws`: every refusal is an HTTP answer before the upgrade.
fn open_socket(
    node: Arc<Node>,
    query: Query,
    headers: HeaderMap,
    peer: Peer,
    upgrade: Option<OnUpgrade>,
) -> Response {
    let refuse = |fault: &crate::node::Fault| {
        node.metrics.denied(fault.reason.as_str());
        Reply::from(fault).json()
    };
    let Some(site) = node.sites.get(&query.k) else {
        let fault = fallback::unknown_site(&query.k);
        node.refuse_stranger(&query.k, &fault, b"");
        return refuse(&fault);
    };
    if let Some(origin) = origin_of(&headers).filter(|origin| !site.settings().allows(origin)) {
        let fault = fallback::origin_denied(origin);
        node.refuse_whole(&site, &fault, 1, b"");
        return refuse(&fault);
    }
    let (answer, upgrade) = match shake_hands(&headers, upgrade) {
        Ok(both) => both,
        Err(refusal) => {
            node.metrics.denied("bad_handshake");
            return *refusal;
        }
    };
    let address = client_of(&node, &peer, &headers);
    if node.shutdown.is_cancelled() {
        return busy(StatusCode::SERVICE_UNAVAILABLE, "this node is restarting\n");
    }
    let place = match peer.open_socket(address, &site) {
        Ok(place) => place,
        Err(denied) => {
            node.metrics.denied(denied.as_str());
            return match denied {
                Denied::ConnectRate | Denied::Address => {
                    busy(StatusCode::TOO_MANY_REQUESTS, "too many connections from this address\n")
                }
                Denied::Site => busy(StatusCode::SERVICE_UNAVAILABLE, "too many sockets of this site\n"),
                Denied::Node => busy(StatusCode::SERVICE_UNAVAILABLE, "too many sockets on this node\n"),
            };
        }
    };

    let now = now_ms();
    let user_agent = user_agent(&headers);
    let presented = query.t.and_then(|token| node.visitors.verify(site.key(), &token, now).ok());
    let visitor = presented.unwrap_or_else(|| node.visitors.visitor(site.key(), address, user_agent, now));
    let limits = node.limits.sender(address);
    let location = node.geography.locate(address);
    let sender = Sender { site, visitor, agent: agent_of(&headers), location, limits };
    let tasks = node.tasks.clone();
    tasks.spawn(async move {
        match upgrade::socket(upgrade).await {
            Ok(socket) => {
                let tasks = node.tasks.clone();
                // A task of its own: this one was as large as waiting for hyper is.
                tasks.spawn(Connection::new(node, sender, socket, place));
            }
            Err(error) => debug!(%error, "a peer left during the upgrade"),
        }
    });
    answer
}

/// The 101 and what will become the socket, or the refusal.
fn shake_hands(
    headers: &HeaderMap,
    upgrade: Option<OnUpgrade>,
) -> Result<(Response, OnUpgrade), Box<Response>> {
    let answer =
        upgrade::accept(headers).and_then(|answer| Ok((answer, upgrade.ok_or(BadHandshake::NoUpgrade)?)));
    match answer {
        Ok((answer, upgrade)) => {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            *response.headers_mut() = answer;
            Ok((response, upgrade))
        }
        Err(bad) => {
            let mut response = plain(bad.status(), format!("{bad}\n"));
            response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            Err(Box::new(response))
        }
    }
}

async fn echo_socket(
    node: Arc<Node>,
    headers: HeaderMap,
    upgrade: Option<OnUpgrade>,
) -> Result<Response, Rejection> {
    if !node.config.echo {
        return Err(warp::reject::not_found());
    }
    let (answer, upgrade) = match shake_hands(&headers, upgrade) {
        Ok(both) => both,
        Err(refusal) => return Ok(*refusal),
    };
    let tasks = node.tasks.clone();
    tasks.spawn(async move {
        if let Ok(socket) = upgrade::socket(upgrade).await {
            // Echoes know no drain: they end with the node.
            node.shutdown.run_until_cancelled(Echo::new(socket)).await;
        }
    });
    Ok(answer)
}

/// In the extensions of a request that came by the operator's own listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operator;

/// Site keys and numbers are for the operator's eyes.
fn metrics(node: Arc<Node>, headers: HeaderMap, peer: Peer, operator: Option<Operator>) -> Response {
    if operator.is_some() || node.config.public_metrics || is_this_machine(peer.address.0, &headers) {
        plain(StatusCode::OK, (node.metrics_text)())
    } else {
        plain(
            StatusCode::FORBIDDEN,
            "metrics are shown to this machine; see ingest.public_metrics\n".to_owned(),
        )
    }
}

/// A program on this machine asks for itself, not a proxy on behalf of somebody.
fn is_this_machine(peer: IpAddr, headers: &HeaderMap) -> bool {
    let is_forwarded = ["x-forwarded-for", "forwarded", "via"].iter().any(|name| headers.contains_key(*name));
    peer.to_canonical().is_loopback() && !is_forwarded
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
    Ok(demo::page(tail.as_str(), node.sites.demo().as_ref(), &node.config.dashboard_url))
}

/// A page's origin; a program sends none.
pub(crate) fn origin_of(headers: &HeaderMap) -> Option<&str> {
    // An origin that is no text matches no pattern.
    headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or("invalid"))
}

pub(crate) fn user_agent(headers: &HeaderMap) -> &str {
    text_of(headers, header::USER_AGENT.as_str())
}

pub(crate) fn agent_of(headers: &HeaderMap) -> Agent {
    let hints = Hints {
        brands: text_of(headers, "sec-ch-ua"),
        platform: text_of(headers, "sec-ch-ua-platform"),
        mobile: text_of(headers, "sec-ch-ua-mobile"),
    };
    Agent::parse(user_agent(headers), hints)
}

/// A header's text, cut; empty when it is none.
fn text_of<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    let text = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    &text[..text.floor_char_boundary(MAX_USER_AGENT_BYTES)]
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

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("127.0.0.1", None, true)]
    #[case("::1", None, true)]
    #[case("::ffff:127.0.0.1", None, true)]
    #[case("10.0.0.7", None, false)]
    #[case("2001:db8::1", None, false)]
    #[case("127.0.0.1", Some("x-forwarded-for"), false)]
    #[case("127.0.0.1", Some("forwarded"), false)]
    #[case("127.0.0.1", Some("via"), false)]
    fn a_proxy_on_this_machine_is_not_this_machine(
        #[case] peer: &str,
        #[case] header: Option<&'static str>,
        #[case] expected: bool,
    ) {
        let headers = header.map(|name| (http::HeaderName::from_static(name), HeaderValue::from_static("a")));
        assert_eq!(is_this_machine(peer.parse().unwrap(), &headers.into_iter().collect()), expected);
    }
}
