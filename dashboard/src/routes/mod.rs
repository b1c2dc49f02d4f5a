//! The paths of the dashboard's listener.
//!
//! [`probes`] for who runs it, [`login`] the forms without a script, [`api`] the JSON that the page and programs use,
//! [`live`] the viewers' socket, [`stream`] what stands in for it, [`page`] the page itself. Every path asks [`Node::access`] who is there.

mod api;
mod live;
mod login;
mod page;
mod probes;
mod refusal;
mod stream;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, atomic::AtomicBool},
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use warp::{Filter, Rejection, Reply, filters::BoxedFilter, path::FullPath};

pub(crate) use self::page::FrameAncestors;
use self::{api::Asked, login::LoginForm, refusal::Refusal};
use crate::{
    accounts::Accounts, archive::Archive, assets::Assets, auth::Access, metrics::Metrics, pages,
    run::MetricsText, subscription::Shared,
};

const MAX_FORM_BYTES: u64 = 4 * 1024;
/// Of a body to `/api/`: a site with all the rules it may have.
const MAX_JSON_BYTES: u64 = 64 * 1024;

type Answer = Response<Bytes>;
/// A request's query, decoded.
type Query = HashMap<String, String>;

/// Address of whoever asks, as trusted proxies tell it; put into every request's extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Ends the connection that a request came on; put into every request's extensions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cut(pub(crate) CancellationToken);

/// What the routes need.
pub(crate) struct Node {
    pub(crate) shared: Arc<Shared>,
    pub(crate) accounts: Accounts,
    pub(crate) archive: Archive,
    pub(crate) assets: Assets,
    /// Where browsers reach ingest, without a slash at the end.
    pub(crate) ingest_url: String,
    /// The demo site's address, where there is one.
    pub(crate) demo_url: Option<String>,
    pub(crate) metrics_text: MetricsText,
    pub(crate) caught_up: Arc<AtomicBool>,
    /// One permit a viewer's socket.
    pub(crate) viewers: Arc<Semaphore>,
    /// One more for a viewer without a login or a key.
    pub(crate) public_viewers: Arc<Semaphore>,
    pub(crate) tasks: TaskTracker,
}

impl Node {
    /// Who asks.
    fn access(&self, headers: &HeaderMap, query: &Query) -> Result<Access, Refusal> {
        let share = query.get("share").map(String::as_str);
        Ok(self.accounts.identify(headers, share, &self.shared.config)?)
    }

    fn count_login(&self, outcome: &'static str) {
        Metrics::count(&self.shared.metrics.logins, "footfall.outcome", outcome);
    }
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
            .then(|node: Arc<Node>, peer, headers, form: LoginForm| async move {
                node.log_in_by_link(peer, &headers, &form.token).await
            }))
        .unify()
        .or(post("/logout")
            .and(headers())
            .then(|node: Arc<Node>, headers| async move { node.log_out(&headers).await }))
        .unify();
    let asked = || {
        below("/api/")
            .and(warp::method())
            .and(warp::query::<Query>())
            .and(headers())
            .and(peer())
            .and(with.clone())
    };
    let with_body = warp::post().or(warp::put()).unify();
    let without_body = warp::get().or(warp::delete()).unify();
    let api = asked()
        .and(with_body)
        .and(warp::body::content_length_limit(MAX_JSON_BYTES))
        .and(warp::body::bytes())
        .then(|path: FullPath, method, query, headers, peer, node: Arc<Node>, body| async move {
            node.api(Asked { path: path.as_str().to_owned(), method, query, headers, peer, body }).await
        })
        .or(asked().and(without_body).then(
            |path: FullPath, method, query, headers, peer, node: Arc<Node>| async move {
                let body = Bytes::new();
                node.api(Asked { path: path.as_str().to_owned(), method, query, headers, peer, body }).await
            },
        ))
        .unify();
    let live = get("/live")
        .and(headers())
        .and(warp::query::<Query>())
        .and(warp::ext::optional::<OnUpgrade>())
        .map(|node: Arc<Node>, headers, query, upgrade| node.watch(&headers, &query, upgrade));
    let stream =
        get("/live/events").and(headers()).and(warp::query::<Query>()).and(warp::ext::optional::<Cut>()).map(
            |node: Arc<Node>, headers, query, cut: Option<Cut>| {
                node.stream(&headers, &query, cut.unwrap_or_default())
            },
        );
    let page = get("/").and(headers()).map(|node: Arc<Node>, headers| node.index(&headers));
    let shown = |prefix: &'static str| {
        below(prefix).and(warp::get()).and(with.clone()).and(headers()).and(warp::query::<Query>())
    };
    let page = page
        .or(shown("/s/")
            .map(|path: FullPath, node: Arc<Node>, headers, query| node.shared_page(&path, &headers, &query)))
        .unify()
        .or(shown("/embed/").map(|path: FullPath, node: Arc<Node>, headers, query| {
            node.embedded_page(&path, &headers, &query)
        }))
        .unify();
    let plain_css = get("/plain.css").map(|_: Arc<Node>| pages::plain_css());
    let assets = warp::get().and(with.clone()).and(warp::path::full()).and(headers()).and_then(
        |node: Arc<Node>, path: FullPath, headers: HeaderMap| async move { node.asset(&path, &headers) },
    );

    let all = probes.or(login).unify().or(api).unify().or(live).unify().or(page).unify();
    let all = all.or(plain_css).unify().or(assets).unify().map(Reply::into_response);
    let all = all.or(stream).unify();
    all.recover(|rejection| async move { Ok::<_, Rejection>(refused(&rejection)) })
        .map(Reply::into_response)
        .boxed()
}

/// The path as it stands, without variants.
fn exactly(path: &'static str) -> impl Filter<Extract = (), Error = Rejection> + Clone {
    warp::path::full()
        .and_then(move |full: FullPath| async move {
            if full.as_str() == path { Ok(()) } else { Err(warp::reject()) }
        })
        .untuple_one()
}

/// Any path that begins with `prefix`.
fn below(prefix: &'static str) -> impl Filter<Extract = (FullPath,), Error = Rejection> + Clone {
    warp::path::full().and_then(move |full: FullPath| async move {
        if full.as_str().starts_with(prefix) { Ok(full) } else { Err(warp::reject()) }
    })
}

fn refused(rejection: &Rejection) -> Answer {
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

fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    pages::typed(status, "application/json", body)
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    pages::typed(status, "text/plain; charset=utf-8", body)
}
