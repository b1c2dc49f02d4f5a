//! Accepts connections and serves the routes on them.
//!
//! warp's own server has no header timeout, no cap on connections, and does not wait for upgraded sockets; so its
//! filters are served by hyper from here. Before HTTP comes what the listener speaks: a PROXY header, TLS, or both.

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use hyper::{Request, Uri, body::Incoming, server::conn::http1, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};
use warp::Filter as _;

use crate::{
    hand_over,
    node::Node,
    peer::Peer,
    place::ConnectionPlace,
    proxy_protocol,
    routes::{Operator, routes},
    seldom::Seldom,
    transport::Transport,
};

/// Largest request header. hyper reads into a buffer that may not grow beyond it.
const MAX_HEADER_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// Out of descriptors: accepting again at once would spin.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// After the shutdown, for a connection without a request so far.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
/// What an operator's listener serves.
const FOR_OPERATORS: [&str; 3] = ["/metrics", "/healthz", "/readyz"];

/// A bound socket, and what is spoken on it before HTTP.
#[derive(Debug)]
pub struct Listener {
    pub socket: TcpListener,
    pub speaks: Speaks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Http,
    /// With the certificate of `[ingest.tls]`.
    Tls,
    /// A PROXY protocol header (version 2) from a trusted proxy.
    Proxy,
    ProxyTls,
    /// Plain HTTP, but only metrics and health, and no cap on connections keeps them out.
    Operator,
}

/// At least one, for a node to be reached.
#[derive(Debug)]
pub struct Listeners(pub(crate) Vec<Listener>);

impl From<TcpListener> for Listeners {
    fn from(socket: TcpListener) -> Self {
        Self(vec![Listener { socket, speaks: Speaks::Http }])
    }
}

impl From<Vec<Listener>> for Listeners {
    fn from(listeners: Vec<Listener>) -> Self {
        Self(listeners)
    }
}

impl Listeners {
    pub(crate) fn need_tls(&self) -> bool {
        self.0.iter().any(|listener| listener.speaks.has_tls())
    }

    /// Address and kind of each, for the log.
    pub(crate) fn addresses(&self) -> io::Result<Vec<(SocketAddr, Speaks)>> {
        self.0.iter().map(|listener| Ok((listener.socket.local_addr()?, listener.speaks))).collect()
    }

    /// The next connection, in turn when several listeners have one. `full`: only an operator's.
    pub(crate) async fn accept(
        &self,
        turn: &mut usize,
        full: bool,
    ) -> (Speaks, io::Result<(TcpStream, SocketAddr)>) {
        poll_fn(|cx| {
            for _ in 0..self.0.len() {
                *turn = (*turn + 1) % self.0.len();
                let listener = &self.0[*turn];
                if full && listener.speaks != Speaks::Operator {
                    continue;
                }
                if let Poll::Ready(accepted) = listener.socket.poll_accept(cx) {
                    return Poll::Ready((listener.speaks, accepted));
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl Speaks {
    fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::ProxyTls)
    }

    fn has_proxy(self) -> bool {
        matches!(self, Self::Proxy | Self::ProxyTls)
    }
}

/// Until the shutdown; the connections live on in the node's task tracker.
pub(crate) async fn serve(
    listeners: Listeners,
    acceptor: Option<TlsAcceptor>,
    node: Arc<Node>,
) -> io::Result<()> {
    let metrics = Arc::clone(&node.metrics);
    let counted = warp::log::custom(move |request| metrics.answered(&request));
    let service = TowerToHyperService::new(warp::service(routes(Arc::clone(&node)).with(counted)));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(node.config.timeouts.header())
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS);
    let admit = |speaks: Speaks, stream: TcpStream, address: SocketAddr| {
        let Some(arrival) = Arrival::new(&node, speaks, stream, address) else { return };
        let (node, service, http) = (Arc::clone(&node), service.clone(), http.clone());
        let (tasks, acceptor) = (node.tasks.clone(), acceptor.clone());
        tasks.spawn(async move {
            let Some((transport, peer)) = arrival.enter(&node, acceptor.as_ref()).await else { return };
            let asking = peer.clone();
            let connection = http
                .serve_connection(
                    TokioIo::new(transport),
                    hyper::service::service_fn(move |mut request: Request<Incoming>| {
                        if speaks == Speaks::Operator {
                            request.extensions_mut().insert(Operator);
                            if !FOR_OPERATORS.contains(&request.uri().path()) {
                                *request.uri_mut() = Uri::from_static("/not-here");
                            }
                        }
                        peer.asks();
                        request.extensions_mut().insert(peer.clone());
                        service.call(request)
                    }),
                )
                .with_upgrades();
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = node.shutdown.cancelled() => {
                    // Whoever has just connected is heard: hyper would end a connection that has said nothing yet.
                    let asked = timeout(FIRST_REQUEST, asking.asked());
                    tokio::select! {
                        ended = connection.as_mut() => ended,
                        _ = asked => {
                            // The request under way is answered; then the connection ends.
                            connection.as_mut().graceful_shutdown();
                            connection.await
                        }
                    }
                }
            };
            if let Err(error) = ended {
                if error.is_timeout() {
                    node.metrics.denied("header_timeout");
                }
                debug!(%error, "a connection broke");
            }
        });
    };
    accept_until_shutdown(&listeners, &node, &admit).await;
    hand_over::close(listeners, &admit).await
}

async fn accept_until_shutdown(
    listeners: &Listeners,
    node: &Node,
    admit: &impl Fn(Speaks, TcpStream, SocketAddr),
) {
    let (mut turn, complaints) = (0, Seldom::default());
    loop {
        let full = node.limits.open.connections() >= node.limits.settings().connections;
        let (speaks, accepted) = tokio::select! {
            () = node.shutdown.cancelled() => return,
            () = node.limits.open.room(), if full => continue,
            accepted = listeners.accept(&mut turn, full) => accepted,
        };
        match accepted {
            Ok((stream, address)) => admit(speaks, stream, address),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                node.metrics.denied("out_of_descriptors");
                if complaints.now() {
                    warn!(%error, "cannot accept; out of file descriptors? raise the limit or lower limits.connections");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection that was accepted, has its place, and has not said anything yet.
struct Arrival {
    speaks: Speaks,
    stream: TcpStream,
    peer: IpAddr,
    place: ConnectionPlace,
}

impl Arrival {
    /// None: there is no place for it.
    fn new(node: &Arc<Node>, speaks: Speaks, stream: TcpStream, address: SocketAddr) -> Option<Self> {
        let peer = address.ip();
        let mut place = node.limits.accept();
        // A proxy stands for many: its clients have places of their own.
        let is_proxy = node.is_trusted(peer);
        if speaks.has_proxy() && !is_proxy {
            node.metrics.denied("proxy_untrusted");
            if node.complaints.now() {
                warn!(
                    "closed a connection to the PROXY listener from an address that is not in trusted_proxies"
                );
            }
            return None;
        }
        if !is_proxy && let Err(denied) = place.claim(peer) {
            node.metrics.denied(denied.as_str());
            return None;
        }
        // Acks are small and wanted now. And a peer that takes nothing for long is gone, whatever phase it is in.
        let socket = socket2::SockRef::from(&stream);
        let options =
            socket.set_tcp_nodelay(true).and(socket.set_tcp_user_timeout(Some(node.config.timeouts.idle())));
        if let Err(error) = options {
            debug!(%error, "a peer left at once");
        }
        Some(Self { speaks, stream, peer, place })
    }

    /// Through PROXY header and TLS, each within its time. None: counted and closed.
    async fn enter(mut self, node: &Node, acceptor: Option<&TlsAcceptor>) -> Option<(Transport, Peer)> {
        let timeouts = &node.config.timeouts;
        if self.speaks.has_proxy() {
            let header = timeout(timeouts.proxy_header(), proxy_protocol::read(&mut self.stream)).await;
            let proxied = match header {
                Ok(Ok(Ok(proxied))) => proxied,
                Ok(Ok(Err(error))) => {
                    let version_1 = error == proxy_protocol::NoHeader::Version1;
                    node.metrics.denied(if version_1 { "proxy_version" } else { "proxy_header" });
                    if node.complaints.now() {
                        warn!(%error, "a trusted proxy does not speak as expected");
                    }
                    return None;
                }
                Ok(Err(_)) => return None,
                Err(_) => {
                    node.metrics.denied("proxy_timeout");
                    return None;
                }
            };
            if let Some(client) = proxied.client {
                self.peer = client;
                if !node.is_trusted(self.peer)
                    && let Err(denied) = self.place.claim(self.peer)
                {
                    node.metrics.denied(denied.as_str());
                    return None;
                }
            }
        }
        let transport = match acceptor {
            Some(acceptor) if self.speaks.has_tls() => {
                match timeout(timeouts.tls_handshake(), acceptor.accept(self.stream)).await {
                    Ok(Ok(stream)) => Transport::Tls(Box::new(stream)),
                    Ok(Err(error)) => {
                        node.metrics.denied("tls_handshake");
                        debug!(%error, "a TLS handshake failed");
                        return None;
                    }
                    Err(_) => {
                        node.metrics.denied("tls_timeout");
                        return None;
                    }
                }
            }
            _ => Transport::Plain(self.stream),
        };
        Some((transport, Peer::new(self.peer, self.place)))
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused)
}
