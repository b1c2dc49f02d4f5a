//! The paths of the dashboard's listener and who may use them.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{COOKIE, HOST, IF_NONE_MATCH, LOCATION, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_VERSION, SET_COOKIE},
};
use hyper::upgrade::OnUpgrade;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use warp::{Filter, Rejection, Reply, filters::BoxedFilter};

use crate::{
    answers,
    archive::Archive,
    assets::Assets,
    auth::{Links, Session},
    clock::wall_ms,
    config::Config,
    metrics::Metrics,
    pages,
    run::MetricsText,
    subscriber::Subscriber,
    subscription::Shared,
    upgrade::{self, NoUpgrade},
};

const MAX_FORM_BYTES: u64 = 4 * 1024;
/// Addresses remembered by the login limiter before those that are calm again are forgotten.
const MAX_ADDRESSES: usize = 10_000;

pub(crate) type Answer = Response<Bytes>;

/// Address of whoever connected; put into every request's extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Ends the connection that a request came on; put into every request's extensions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cut(pub(crate) CancellationToken);

/// What the routes need.
pub(crate) struct Node {
    pub(crate) shared: Arc<Shared>,
    pub(crate) links: Links,
    pub(crate) logins: LoginLimiter,
    pub(crate) archive: Archive,
    pub(crate) assets: Assets,
    /// Body of `/api/sites`, as it is now.
    pub(crate) sites: Box<dyn Fn() -> Bytes + Send + Sync>,
    pub(crate) metrics_text: MetricsText,
    pub(crate) caught_up: Arc<AtomicBool>,
    /// One permit a viewer's socket.
    pub(crate) viewers: Arc<Semaphore>,
    pub(crate) tasks: TaskTracker,
}

#[derive(Deserialize)]
struct LoginForm {
    #[serde(default)]
    token: String,
}

/// Everything this listener answers.
pub(crate) fn routes(node: &Arc<Node>) -> BoxedFilter<(warp::reply::Response,)> {
    let with = {
        let node = node.clone();
        warp::any().map(move || node.clone())
    };
    let get = |path: &'static str| exactly(path).and(warp::get()).and(with.clone());
    let post = |path: &'static str| exactly(path).and(warp::post()).and(with.clone());
    let headers = warp::header::headers_cloned;
    let peer = || warp::ext::optional::<Peer>();

    let probes = get("/healthz")
        .map(|_: Arc<Node>| text(StatusCode::OK, "ok\n"))
        .or(get("/readyz").map(|node: Arc<Node>| node.readiness()))
        .unify()
        .or(get("/metrics")
            .and(peer())
            .and(headers())
            .map(|node: Arc<Node>, peer, headers: HeaderMap| node.metrics(peer, &headers)))
        .unify();
    let login = get("/login")
        .and(peer())
        .and(warp::query::<LoginForm>())
        .map(|node: Arc<Node>, peer, query: LoginForm| node.show_login(peer, &query.token))
        .or(post("/login")
            .and(peer())
            .and(headers())
            .and(warp::body::content_length_limit(MAX_FORM_BYTES))
            .and(warp::body::form::<LoginForm>())
            .map(|node: Arc<Node>, peer, headers, form: LoginForm| node.log_in(peer, &headers, &form.token)))
        .unify()
        .or(post("/logout").and(headers()).map(|node: Arc<Node>, headers| node.log_out(&headers)))
        .unify();
    let api = get("/api/session")
        .and(headers())
        .map(|node: Arc<Node>, headers| node.session_answer(&headers))
        .or(get("/api/sites").and(headers()).map(|node: Arc<Node>, headers| match node.session(&headers) {
            Some(_) => json(StatusCode::OK, (node.sites)()),
            None => not_logged_in(),
        }))
        .unify();
    let live = get("/live")
        .and(headers())
        .and(warp::ext::optional::<OnUpgrade>())
        .map(|node: Arc<Node>, headers, upgrade| node.watch(&headers, upgrade));
    let page = get("/").and(headers()).map(|node: Arc<Node>, headers| node.index(&headers));
    let plain_css = get("/plain.css").map(|_: Arc<Node>| pages::plain_css());
    let assets = warp::get().and(with.clone()).and(warp::path::full()).and(headers()).and_then(
        |node: Arc<Node>, path: warp::path::FullPath, headers: HeaderMap| async move {
            let path = path.as_str().trim_start_matches('/');
            node.assets.serve(path, headers.get(IF_NONE_MATCH)).ok_or_else(warp::reject::not_found)
        },
    );

    let all = probes.or(login).unify().or(api).unify().or(live).unify().or(page).unify();
    let all = all.or(plain_css).unify().or(assets).unify().map(Reply::into_response);
    let all = answers::routes(node).or(all).unify();
    all.recover(|rejection| async move { Ok::<_, Rejection>(refusal(&rejection)) })
        .map(Reply::into_response)
        .boxed()
}

/// The path as it stands, without variants.
pub(crate) fn exactly(path: &'static str) -> impl Filter<Extract = (), Error = Rejection> + Clone {
    warp::path::full()
        .and_then(move |full: warp::path::FullPath| async move {
            if full.as_str() == path { Ok(()) } else { Err(warp::reject()) }
        })
        .untuple_one()
}

fn refusal(rejection: &Rejection) -> Answer {
    use warp::reject::{
        InvalidQuery, LengthRequired, MethodNotAllowed, PayloadTooLarge, UnsupportedMediaType,
    };
    let status = if rejection.find::<PayloadTooLarge>().is_some() {
        StatusCode::PAYLOAD_TOO_LARGE
    } else if rejection.find::<LengthRequired>().is_some() {
        StatusCode::LENGTH_REQUIRED
    } else if rejection.find::<UnsupportedMediaType>().is_some() {
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    } else if rejection.find::<warp::body::BodyDeserializeError>().is_some()
        || rejection.find::<InvalidQuery>().is_some()
    {
        StatusCode::BAD_REQUEST
    } else if rejection.find::<MethodNotAllowed>().is_some() {
        StatusCode::METHOD_NOT_ALLOWED
    } else {
        return pages::not_found();
    };
    text(status, format!("{status}\n"))
}

impl Node {
    fn readiness(&self) -> Answer {
        if self.shared.shutdown.is_cancelled() {
            text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
        } else if self.caught_up.load(Ordering::Acquire) {
            text(StatusCode::OK, "ready\n")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "kafka: the live topics are not read to their end yet\n")
        }
    }

    fn metrics(&self, peer: Option<Peer>, headers: &HeaderMap) -> Answer {
        if self.shared.config.public_metrics || is_this_machine(peer, headers) {
            pages::typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", (self.metrics_text)())
        } else {
            text(StatusCode::FORBIDDEN, "metrics are shown to this machine; see dashboard.public_metrics\n")
        }
    }

    /// Looks at a link without using it up.
    fn show_login(&self, peer: Option<Peer>, token: &str) -> Answer {
        if !self.logins.allow(peer) {
            return self.login_outcome("rate_limited", pages::too_many_logins());
        }
        match self.links.check(token, wall_ms()) {
            Ok(()) => pages::open_dashboard(token),
            Err(refused) => self.login_outcome(refused.as_str(), pages::refused_link(refused)),
        }
    }

    fn log_in(&self, peer: Option<Peer>, headers: &HeaderMap, token: &str) -> Answer {
        if !self.logins.allow(peer) {
            return self.login_outcome("rate_limited", pages::too_many_logins());
        }
        if !is_own_form(headers, &self.shared.config) {
            return self.login_outcome("wrong_origin", pages::wrong_origin());
        }
        let now = wall_ms();
        if let Err(refused) = self.links.redeem(token, now) {
            return self.login_outcome(refused.as_str(), pages::refused_link(refused));
        }
        let sessions = &self.shared.sessions;
        let mut response = text(StatusCode::SEE_OTHER, "");
        response.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
        let cookie = set_cookie(&self.shared.config, &sessions.open(now), sessions.lifetime_s());
        response.headers_mut().insert(SET_COOKIE, cookie);
        self.login_outcome("logged_in", response)
    }

    fn login_outcome(&self, outcome: &'static str, response: Answer) -> Answer {
        Metrics::count(&self.shared.metrics.logins, "footfall.outcome", outcome);
        response
    }

    /// Ends the session everywhere on this node, open sockets included.
    fn log_out(&self, headers: &HeaderMap) -> Answer {
        if !is_own_form(headers, &self.shared.config) {
            return pages::wrong_origin();
        }
        if let Some(session) = self.session(headers) {
            self.shared.sessions.revoke(session, wall_ms());
        }
        let mut response = pages::logged_out();
        response.headers_mut().insert(SET_COOKIE, set_cookie(&self.shared.config, "", 0));
        response
    }

    pub(crate) fn session(&self, headers: &HeaderMap) -> Option<Session> {
        let name = cookie_name(&self.shared.config);
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut values = cookies
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .filter(|(cookie, _)| *cookie == name);
        self.shared.sessions.check(values.next()?.1, wall_ms())
    }

    fn session_answer(&self, headers: &HeaderMap) -> Answer {
        let Some(session) = self.session(headers) else { return not_logged_in() };
        let body = serde_json::json!({ "expires_at": session.expires_at, "now": wall_ms() });
        json(StatusCode::OK, body.to_string())
    }

    /// `/live`: to a socket, for who is logged in and comes from the dashboard's own page.
    fn watch(self: &Arc<Self>, headers: &HeaderMap, upgrade: Option<OnUpgrade>) -> Answer {
        // Told apart from a missing login: with a foreign page the cookie comes along, and must not help.
        if !is_own_origin(headers, &self.shared.config) {
            let detail =
                "Origin: only this dashboard's own page may watch; behind a proxy set [dashboard] public_url";
            return error(StatusCode::FORBIDDEN, "wrong_origin", detail);
        }
        let Some(session) = self.session(headers) else { return not_logged_in() };
        let accepted = match (upgrade::accept(headers), upgrade) {
            (Ok(accepted), Some(upgrade)) => (accepted, upgrade),
            (Err(NoUpgrade::Version), _) => {
                let mut response =
                    error(StatusCode::UPGRADE_REQUIRED, "bad_version", "Sec-WebSocket-Version: 13 is spoken");
                response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
                return response;
            }
            (Err(NoUpgrade::Subprotocol), _) => {
                let detail = "Sec-WebSocket-Protocol: footfall-live.v1 is spoken";
                return error(StatusCode::BAD_REQUEST, "bad_subprotocol", detail);
            }
            (Err(NoUpgrade::NotWebSocket) | Ok(_), _) => {
                return error(StatusCode::UPGRADE_REQUIRED, "no_websocket", "this path is for WebSocket");
            }
        };
        let (accepted, upgrade) = accepted;
        let Some(place) = self.place() else { return no_place() };
        let shared = self.shared.clone();
        self.tasks.spawn(async move {
            if let Some(socket) = upgrade::take_over(upgrade).await {
                Subscriber::new(socket, session, shared).run().await;
            }
            drop(place);
        });
        accepted
    }

    /// For one viewer more.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        let stops = self.shared.shutdown.is_cancelled();
        self.viewers.clone().try_acquire_owned().ok().filter(|_| !stops)
    }

    fn index(&self, headers: &HeaderMap) -> Answer {
        match self.session(headers) {
            None => pages::not_logged_in(),
            Some(_) => {
                let served = self.assets.serve("index.html", headers.get(IF_NONE_MATCH));
                served.unwrap_or_else(pages::not_built)
            }
        }
    }
}

/// Logins are rare; a limiter per address (/64 for IPv6).
pub(crate) struct LoginLimiter(DefaultKeyedRateLimiter<IpAddr>);

impl LoginLimiter {
    pub(crate) fn new(per_minute: u32) -> Self {
        let quota = Quota::per_minute(NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN));
        Self(RateLimiter::keyed(quota))
    }

    fn allow(&self, peer: Option<Peer>) -> bool {
        // Without an address nothing was accepted here.
        let Some(Peer(address)) = peer else { return false };
        if self.0.len() >= MAX_ADDRESSES {
            self.0.retain_recent();
        }
        self.0.check_key(&network(address)).is_ok()
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

/// A program on this machine asks for itself, not a proxy on behalf of somebody.
fn is_this_machine(peer: Option<Peer>, headers: &HeaderMap) -> bool {
    let is_forwarded = ["x-forwarded-for", "forwarded", "via"].iter().any(|name| headers.contains_key(*name));
    peer.is_some_and(|Peer(address)| address.to_canonical().is_loopback()) && !is_forwarded
}

/// `Origin` is exactly the dashboard's own: the one configured, or the address that was asked.
pub(crate) fn is_own_origin(headers: &HeaderMap, config: &Config) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter();
    let (Some(origin), None) = (origins.next().and_then(|origin| origin.to_str().ok()), origins.next())
    else {
        return false;
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    config.public_url.as_deref() == Some(origin)
        || host.is_some_and(|host| origin.strip_prefix("http://").is_some_and(|of| of == host))
}

/// A form sent from our own page, or by no browser at all: every browser says where a POST comes from.
fn is_own_form(headers: &HeaderMap, config: &Config) -> bool {
    match (headers.get("sec-fetch-site"), headers.get(ORIGIN)) {
        (Some(site), _) => site == "same-origin",
        (None, Some(_)) => is_own_origin(headers, config),
        (None, None) => true,
    }
}

fn cookie_name(config: &Config) -> &'static str {
    if config.is_https() { "__Host-footfall" } else { "footfall_session" }
}

fn set_cookie(config: &Config, value: &str, max_age_s: i64) -> HeaderValue {
    let secure = if config.is_https() { "; Secure" } else { "" };
    let name = cookie_name(config);
    let cookie = format!("{name}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::from_str(&cookie).expect("base64url and digits")
}

pub(crate) fn no_place() -> Answer {
    let mut response = error(StatusCode::SERVICE_UNAVAILABLE, "busy", "too many viewers here: try later");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

pub(crate) fn not_logged_in() -> Answer {
    error(StatusCode::UNAUTHORIZED, "not_logged_in", "open a link that `footfall login` prints")
}

pub(crate) fn error(status: StatusCode, reason: &str, detail: &str) -> Answer {
    json(status, serde_json::json!({ "error": reason, "detail": detail }).to_string())
}

pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    pages::typed(status, "application/json", body)
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    pages::typed(status, "text/plain; charset=utf-8", body)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[rstest]
    #[case::the_address_typed(None, &[("host", "127.0.0.1:8081"), ("origin", "http://127.0.0.1:8081")], true)]
    #[case::another_port(None, &[("host", "127.0.0.1:8081"), ("origin", "http://127.0.0.1:8080")], false)]
    #[case::another_name(None, &[("host", "127.0.0.1:8081"), ("origin", "http://localhost:8081")], false)]
    #[case::another_scheme(None, &[("host", "a.example"), ("origin", "https://a.example")], false)]
    #[case::behind_a_proxy(Some("https://a.example"), &[("host", "10.0.0.1"), ("origin", "https://a.example")], true)]
    #[case::longer(Some("https://a.example"), &[("host", "x"), ("origin", "https://a.example.evil")], false)]
    #[case::none(None, &[("host", "a.example")], false)]
    #[case::opaque(None, &[("host", "a.example"), ("origin", "null")], false)]
    #[case::no_host(None, &[("origin", "http://")], false)]
    fn an_origin_is_compared_exactly(
        #[case] public_url: Option<&str>,
        #[case] pairs: &[(&'static str, &'static str)],
        #[case] own: bool,
    ) {
        let config = Config { public_url: public_url.map(str::to_owned), ..Config::default() };
        assert_eq!(is_own_origin(&headers(pairs), &config), own);
    }

    #[rstest]
    #[case::own_page(&[("sec-fetch-site", "same-origin"), ("origin", "null")], true)]
    #[case::other_site(&[("sec-fetch-site", "cross-site"), ("origin", "http://a")], false)]
    #[case::same_site_is_not_enough(&[("sec-fetch-site", "same-site")], false)]
    #[case::old_browser(&[("host", "a"), ("origin", "http://a")], true)]
    #[case::old_browser_elsewhere(&[("host", "a"), ("origin", "http://b")], false)]
    #[case::no_browser(&[("host", "a")], true)]
    fn a_form_comes_from_the_dashboards_own_page(
        #[case] pairs: &[(&'static str, &'static str)],
        #[case] own: bool,
    ) {
        assert_eq!(is_own_form(&headers(pairs), &Config::default()), own);
    }

    #[rstest]
    #[case("10.1.2.3", "10.1.2.3")]
    #[case("::ffff:10.1.2.3", "10.1.2.3")]
    #[case("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::")]
    fn logins_are_limited_by_network(#[case] address: &str, #[case] counted: &str) {
        assert_eq!(network(address.parse().unwrap()), counted.parse::<IpAddr>().unwrap());
    }

    #[rstest]
    #[case(None, "footfall_session=x; Path=/; Max-Age=9; HttpOnly; SameSite=Lax")]
    #[case(Some("https://a.example"), "__Host-footfall=x; Path=/; Max-Age=9; HttpOnly; SameSite=Lax; Secure")]
    fn over_tls_the_cookie_is_bound_to_the_host(#[case] public_url: Option<&str>, #[case] cookie: &str) {
        let config = Config { public_url: public_url.map(str::to_owned), ..Config::default() };
        assert_eq!(set_cookie(&config, "x", 9), cookie);
    }
}
