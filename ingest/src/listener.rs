//! Accepts connections and serves the routes on them.
//!
//! warp's own server has no header timeout, no cap on connections, and does not wait for upgraded sockets; so its
//! filters are served by hyper from here.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{Request, body::Incoming, server::conn::http1, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tracing::{debug, warn};
use warp::Filter as _;

use crate::{
    node::Node,
    routes::{Address, Peer, PeerPlace, routes},
    transport::Transport,
};

/// Largest request header. hyper reads into a buffer that may not grow beyond it.
const MAX_HEADER_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// Out of descriptors: accepting again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Until the shutdown; the connections live on in the node's task tracker.
pub(crate) async fn serve(listener: TcpListener, node: Arc<Node>) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(node.limits.settings().connections as usize));
    let metrics = Arc::clone(&node.metrics);
    let counted = warp::log::custom(move |request| metrics.answered(&request));
    let service = TowerToHyperService::new(warp::service(routes(Arc::clone(&node)).with(counted)));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(node.config.timeouts.header())
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS);
    loop {
        let accepted = tokio::select! {
            () = node.shutdown.cancelled() => return Ok(()),
            accepted = async {
                let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
                listener.accept().await.map(|(stream, address)| (stream, address, permit))
            } => accepted,
        };
        let (stream, address, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                warn!(%error, "cannot accept; out of file descriptors? raise the limit or lower limits.connections");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(peer) = place(&node, address, permit) else { continue };
        let service = service.clone();
        let connection = http.serve_connection(
            TokioIo::new(Transport::Plain(without_delay(stream))),
            hyper::service::service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(peer.clone());
                service.call(request)
            }),
        );
        let shutdown = node.shutdown.clone();
        let metrics = Arc::clone(&node.metrics);
        node.tasks.spawn(async move {
            metrics.connections.add(1, &[]);
            let mut connection = std::pin::pin!(connection.with_upgrades());
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = shutdown.cancelled() => {
                    // The request under way is answered; then the connection ends.
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                debug!(%error, "a connection broke");
            }
            metrics.connections.add(-1, &[]);
        });
    }
}

/// A place among the connections of its address, unless the peer is a proxy that stands for many.
fn place(node: &Node, address: SocketAddr, permit: tokio::sync::OwnedSemaphorePermit) -> Option<Peer> {
    let ip = address.ip();
    let is_proxy = node.config.trusted_proxies.iter().any(|network| network.contains(ip));
    let by_address = if is_proxy {
        None
    } else {
        let place = node.limits.connect(ip);
        if place.is_none() {
            node.metrics.denied("address_limit");
        }
        Some(place?)
    };
    Some(Peer { address: Address(ip), place: Arc::new(PeerPlace { _connection: permit, by_address }) })
}

/// Acks are small and wanted now.
fn without_delay(stream: TcpStream) -> TcpStream {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "a peer left at once");
    }
    stream
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused)
}
