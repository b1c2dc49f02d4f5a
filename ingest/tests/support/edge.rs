//! A node with several listeners, clients that speak TLS, PROXY headers and raw HTTP, and certificates for them.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
};

use footfall_ingest::{Config, Listener, Listeners, Parts, Speaks, config::TlsFiles};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};
use tokio_util::sync::CancellationToken;

use super::{Ingest, Kafka, PATIENCE, directory};

/// A node that can be given new settings.
pub struct Edge {
    pub ingest: Ingest,
    pub config: watch::Sender<Config>,
    /// In the order of what was asked for.
    pub addresses: Vec<SocketAddr>,
}

impl Edge {
    pub async fn start(kafka: &Kafka, speaks: &[Speaks], change: impl FnOnce(&mut Config)) -> Self {
        let mut listeners = Vec::new();
        for speaks in speaks.iter().copied() {
            listeners.push(Listener { socket: TcpListener::bind("127.0.0.1:0").await.unwrap(), speaks });
        }
        Self::start_on(kafka, "node-1", listeners, change)
    }

    pub fn start_on(
        kafka: &Kafka,
        name: &str,
        listeners: Vec<Listener>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = Config::default();
        change(&mut config);
        let addresses: Vec<_> =
            listeners.iter().map(|listener| listener.socket.local_addr().unwrap()).collect();
        let (settings, reload) = watch::channel(config.clone());
        let parts = Parts {
            config,
            directory: directory(),
            kafka: kafka.settings(),
            secret: [7; 32],
            node: name.to_owned(),
            metrics_text: Arc::new(|| "metrics\n".to_owned()),
            trace_ratio: 0.0,
            reload: Some(reload),
        };
        let shutdown = CancellationToken::new();
        let listeners = Listeners::from(listeners);
        let ended = tokio::spawn(footfall_ingest::run(listeners, parts, shutdown.clone()));
        Self { ingest: Ingest { address: addresses[0], shutdown, ended }, config: settings, addresses }
    }

    pub fn reload(&self, change: impl FnOnce(&mut Config)) {
        self.config.send_modify(change);
    }
}

/// A certificate for `localhost`, and its key, in two files.
pub struct Certificate {
    pub files: TlsFiles,
}

impl Certificate {
    pub fn in_dir(dir: &Path) -> Self {
        let files = TlsFiles { certificate: Some(dir.join("chain.pem")), key: Some(dir.join("key.pem")) };
        let certificate = Self { files };
        certificate.renew();
        certificate
    }

    /// Another certificate in the same files.
    pub fn renew(&self) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        let chain = params.self_signed(&key).unwrap().pem();
        fs::write(self.files.certificate.as_ref().unwrap(), chain).unwrap();
        fs::write(self.files.key.as_ref().unwrap(), key.serialize_pem()).unwrap();
    }

    /// A client that trusts the one that is in the files now.
    pub fn client(&self, alpn: &[&str]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        let file = self.files.certificate.as_ref().unwrap();
        roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        // Each connection shows the certificate of its time.
        config.resumption = rustls::client::Resumption::disabled();
        Arc::new(config).into()
    }
}

pub async fn tls<S: AsyncRead + AsyncWrite + Unpin>(
    client: &TlsConnector,
    stream: S,
) -> std::io::Result<TlsStream<S>> {
    let name = ServerName::try_from("localhost").unwrap();
    timeout(PATIENCE, client.connect(name, stream)).await.expect("a handshake in time")
}

pub async fn tcp(address: SocketAddr) -> TcpStream {
    timeout(PATIENCE, TcpStream::connect(address)).await.expect("a connection in time").unwrap()
}

/// Version 2, TCP over IPv4, from `client`.
pub fn proxy_header(client: &str) -> Vec<u8> {
    let IpAddr::V4(client) = client.parse().unwrap() else { panic!("IPv4 only") };
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(client.octets());
    header.extend([10, 0, 0, 1, 0x12, 0x34, 0, 80]);
    header
}

/// For the proxy itself, such as a health check.
pub fn local_header() -> Vec<u8> {
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec()
}

/// One request on a connection that stays open; the head of the answer.
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    path: &str,
    headers: &[(&str, &str)],
) -> std::io::Result<String> {
    let mut request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{request}\r\n").as_bytes()).await?;
    head(stream).await
}

pub async fn head<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = timeout(PATIENCE, stream.read_u8()).await.expect("an answer in time")?;
        head.push(byte);
    }
    Ok(String::from_utf8(head).unwrap())
}

pub const UPGRADE: [(&str, &str); 4] = [
    ("upgrade", "websocket"),
    ("connection", "upgrade"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// Status of an upgrade; the socket stays in the stream.
pub async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, more: &[(&str, &str)]) -> u16 {
    let headers: Vec<_> = UPGRADE.iter().chain(more).copied().collect();
    status(&ask(stream, "/ws?k=shop", &headers).await.unwrap())
}

pub fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Whether the peer closes, in whatever way, within the patience of a test. What it says before is read.
pub async fn is_closed<S: AsyncRead + Unpin>(stream: &mut S) -> bool {
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.is_ok()
}
