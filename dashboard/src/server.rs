//! Accepts connections, with a cap and a timeout on everything, and puts the security headers on every answer.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use footfall_schemas::network::client_address;
use http::{
    HeaderMap, HeaderValue, Request, StatusCode,
    header::{
        CONTENT_SECURITY_POLICY, HOST, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
};
use hyper::{body::Incoming, server::conn::http1, service::Service, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};
use warp::{Reply, filters::BoxedFilter};

use crate::{
    config::ms,
    error::Error,
    pages,
    routes::{Cut, FrameAncestors, Node, Peer, routes},
};

const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// A connection that was not upgraded ends after this: a peer that reads its answers at a trickle holds no place for
/// good.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(300);
/// After an accept failed for want of files: they come back when connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until shutdown, then lets connections end within `grace_ms`.
pub(crate) async fn serve(
    listener: TcpListener,
    node: Arc<Node>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let address = listener.local_addr().map_err(Error::Listener)?;
    info!(%address, "the dashboard listens");
    let routes = routes(&node);
    let places = Arc::new(Semaphore::new(node.shared.config.max_connections));
    let connections = TaskTracker::new();
    loop {
        let accepted = async {
            // Full: the kernel's backlog waits with them.
            let place = places.clone().acquire_owned().await.expect("never closed");
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(stream, peer, routes.clone(), node.clone(), shutdown.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) if is_of_the_peer(&error) => {
                debug!(%error, "a connection was gone before it was accepted");
            }
            Err(error) => {
                warn!(%error, "no connection can be accepted at the moment");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    node.tasks.close();
    let drained = async {
        connections.wait().await;
        node.tasks.wait().await;
    };
    if timeout(ms(node.shared.config.grace_ms), drained).await.is_err() {
        warn!(
            connections = connections.len(),
            viewers = node.tasks.len(),
            "did not end within grace_ms and are cut off"
        );
    }
    Ok(())
}

fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    routes: BoxedFilter<(warp::reply::Response,)>,
    node: Arc<Node>,
    shutdown: CancellationToken,
) {
    // Frames are small and must not wait for each other; a socket that refuses the option is gone anyway.
    let _ = stream.set_nodelay(true);
    let config = node.shared.config.clone();
    let (header_timeout, request_timeout) = (ms(config.header_timeout_ms), ms(config.request_timeout_ms));
    let service = TowerToHyperService::new(warp::service(routes));
    let cut = CancellationToken::new();
    let of_requests = Cut(cut.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        let lines = request.headers().get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes);
        let client = client_address(peer.ip(), lines, &config.trusted_proxies);
        request.extensions_mut().insert(Peer(client));
        request.extensions_mut().insert(of_requests.clone());
        let sockets = socket_sources(request.headers());
        let answer = service.call(request);
        async move {
            let mut response = match timeout(request_timeout, answer).await {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(_) => {
                    let late = Bytes::from_static(b"the request was not answered in time\n");
                    pages::typed(StatusCode::SERVICE_UNAVAILABLE, "text/plain", late).into_response()
                }
            };
            let ancestors = response.extensions_mut().remove::<FrameAncestors>();
            secure(response.headers_mut(), &sockets, ancestors.as_ref());
            Ok::<_, Infallible>(response)
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        // A peer that does not read would not take a last word either.
        () = cut.cancelled() => Ok(()),
        () = async { tokio::select! { () = shutdown.cancelled() => (), () = sleep(CONNECTION_LIFETIME) => () } } => {
            serving.as_mut().graceful_shutdown();
            // The answer that is under way may finish.
            timeout(request_timeout, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended badly");
    }
}

/// Some browsers do not take 'self' for sockets.
fn socket_sources(request: &HeaderMap) -> String {
    let host = request.get(HOST).and_then(|host| host.to_str().ok());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    match host.filter(|host| host.bytes().all(plain)) {
        Some(host) => format!(" ws://{host} wss://{host}"),
        None => String::new(),
    }
}

fn secure(headers: &mut HeaderMap, sockets: &str, ancestors: Option<&FrameAncestors>) {
    let framed_by = match ancestors {
        Some(FrameAncestors(origins)) => origins.to_str().expect("origins are ASCII"),
        None => "'none'",
    };
    let policy = format!(
        "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'{sockets}; \
         object-src 'none'; frame-ancestors {framed_by}; base-uri 'none'; form-action 'self'"
    );
    let policy = HeaderValue::from_str(&policy).expect("hosts and origins are plain");
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    // It knows all or nothing.
    if ancestors.is_none() {
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // The login link carries its token in the query; a form still tells its origin to ourselves.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    let features = "camera=(), microphone=(), geolocation=(), payment=(), usb=(), browsing-topics=()";
    headers.insert(HeaderName::from_static("permissions-policy"), HeaderValue::from_static(features));
    let own = HeaderValue::from_static("same-origin");
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), own.clone());
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), own);
}
