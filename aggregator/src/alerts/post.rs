//! One POST to a webhook. The name is resolved once, its addresses are checked, and one of those is connected to, so that
//! a name that changes its mind in between leads nowhere else. No redirect is followed, no proxy used, and of the answer
//! only the status is read.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use footfall_schemas::webhook::WebhookUrl;
use http::{HeaderValue, Method, Request, StatusCode, header, uri::InvalidUri};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{InvalidDnsNameError, ServerName},
    },
};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;
use url::Host;

use super::address::Reach;

/// Longest head of an answer.
const MAX_HEAD_BYTES: usize = 16 << 10;

pub(crate) struct Poster {
    reach: Reach,
    tls: TlsConnector,
    within: Duration,
}

/// Headers and body of one try.
pub(crate) struct Letter {
    pub(crate) id: String,
    pub(crate) signature: String,
    pub(crate) body: Bytes,
}

/// Why it was not taken. Without anything of the URL but its host.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostError {
    #[error(
        "the address {0} is not public: allow its network in [aggregator.webhooks] allow, or choose another URL"
    )]
    Refused(IpAddr),
    #[error("the host is not found: {0}")]
    Unresolved(io::Error),
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("the host cannot be in a certificate: {0}")]
    Name(#[from] InvalidDnsNameError),
    #[error("no TLS: {0}")]
    Tls(io::Error),
    #[error("the URL's path cannot be requested: {0}")]
    Target(#[from] InvalidUri),
    #[error("no HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("no answer within {0:?}")]
    TooSlow(Duration),
}

/// The system's certificate authorities. None: no https webhook can be reached, and every try says so.
pub(crate) fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        warn!(errors = ?found.errors, "no certificate authorities are installed; webhooks over https will fail");
    }
    roots
}

impl Poster {
    pub(crate) fn new(reach: Reach, roots: RootCertStore, within: Duration) -> Self {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions of TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { reach, tls: TlsConnector::from(Arc::new(config)), within }
    }

    /// Returns once it was answered with 2xx.
    pub(crate) async fn post(&self, url: &WebhookUrl, letter: Letter) -> Result<(), PostError> {
        timeout(self.within, self.try_post(url, letter)).await.unwrap_or(Err(PostError::TooSlow(self.within)))
    }

    async fn try_post(&self, url: &WebhookUrl, letter: Letter) -> Result<(), PostError> {
        let stream = self.connect(url).await?;
        let status = if url.is_https() {
            let name = match url.host() {
                Host::Domain(name) => ServerName::try_from(name.to_owned())?,
                Host::Ipv4(address) => ServerName::from(IpAddr::V4(address)),
                Host::Ipv6(address) => ServerName::from(IpAddr::V6(address)),
            };
            exchange(self.tls.connect(name, stream).await.map_err(PostError::Tls)?, url, letter).await?
        } else {
            exchange(stream, url, letter).await?
        };
        if status.is_success() { Ok(()) } else { Err(PostError::Status(status)) }
    }

    async fn connect(&self, url: &WebhookUrl) -> Result<TcpStream, PostError> {
        let port = url.port();
        let addresses: Vec<SocketAddr> = match url.host() {
            Host::Domain(name) => lookup_host((name, port)).await.map_err(PostError::Unresolved)?.collect(),
            Host::Ipv4(address) => vec![(address, port).into()],
            Host::Ipv6(address) => vec![(address, port).into()],
        };
        let refused = addresses.iter().find(|address| !self.reach.includes(address.ip()));
        let mut failed = refused.map(|address| PostError::Refused(address.ip()));
        for address in addresses.iter().filter(|address| self.reach.includes(address.ip())) {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = Some(PostError::Connect(error)),
            }
        }
        Err(failed.unwrap_or_else(|| PostError::Unresolved(io::ErrorKind::NotFound.into())))
    }
}

/// The request, and the status of its answer. The rest of it is not read: the connection is dropped.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    url: &WebhookUrl,
    letter: Letter,
) -> Result<StatusCode, PostError> {
    let mut connection = http1::Builder::new();
    let (mut sender, connection) =
        connection.max_buf_size(MAX_HEAD_BYTES).handshake(TokioIo::new(stream)).await?;
    let _driven = AbortOnDropHandle::new(tokio::spawn(connection));
    let text = |value: String| HeaderValue::try_from(value).expect("made of printable ASCII");
    let mut request = Request::new(Full::new(letter.body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.target().parse()?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, text(url.authority()));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("footfall"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert("footfall-id", text(letter.id));
    headers.insert("footfall-signature", text(letter.signature));
    Ok(sender.send_request(request).await?.status())
}
