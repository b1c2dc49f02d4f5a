//! How a visit reaches an ingest node: a WebSocket, or HTTP batches.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use footfall_schemas::{
    SiteId,
    tracker::{MAX_BATCH_BYTES, SUBPROTOCOL, ServerFrame},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{client::IntoClientRequest, protocol::WebSocketConfig},
};

/// `http://host:port` of an ingest node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `host:port`
    pub(super) authority: String,
}

pub(super) type HttpClient = Client<HttpConnector, Full<Bytes>>;

impl Endpoint {
    pub(super) fn parse(url: &str) -> anyhow::Result<Self> {
        let uri: http::Uri = url.parse().context("no URL; write http://host:port")?;
        match (uri.scheme_str(), uri.authority()) {
            (Some("http"), Some(authority)) => {
                let port = uri.port_u16().unwrap_or(80);
                Ok(Self { authority: format!("{}:{port}", authority.host()) })
            }
            (Some("https"), _) => {
                bail!("the load client speaks plain http: aim it at the node behind the TLS proxy")
            }
            _ => bail!("no URL; write http://host:port"),
        }
    }

    /// Connects and upgrades.
    pub(super) async fn connect(
        &self,
        site: &SiteId,
        token: Option<&str>,
        user_agent: &str,
        origin: &str,
    ) -> anyhow::Result<WebSocketStream<TcpStream>> {
        let token = token.map_or(String::new(), |token| format!("&t={token}"));
        let mut request = format!("ws://{}/ws?k={site}{token}", self.authority).into_client_request()?;
        let headers = request.headers_mut();
        headers.insert("user-agent", user_agent.parse()?);
        headers.insert("origin", origin.parse()?);
        headers.insert("sec-websocket-protocol", SUBPROTOCOL.parse()?);
        let stream = TcpStream::connect(&self.authority).await?;
        stream.set_nodelay(true)?;
        // Small buffers: thousands of these share one process.
        let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0);
        let (socket, _) = client_async_with_config(request, stream, Some(config)).await?;
        Ok(socket)
    }

    /// Posts one batch; the answer is a frame whatever the status.
    pub(super) async fn post(
        &self,
        client: &HttpClient,
        site: &SiteId,
        token: Option<&str>,
        (user_agent, origin): (&str, &str),
        batch: Vec<u8>,
    ) -> anyhow::Result<ServerFrame> {
        let token = token.map_or(String::new(), |token| format!("&t={token}"));
        let request = http::Request::post(format!("http://{}/e?k={site}{token}", self.authority))
            .header("user-agent", user_agent)
            .header("origin", origin)
            .header("content-type", "text/plain")
            .body(Full::from(batch))?;
        let exchange = async {
            let response = client.request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BATCH_BYTES).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
            serde_json::from_slice(&body)
                .with_context(|| format!("{status}: {}", String::from_utf8_lossy(&body)))
        };
        tokio::time::timeout(Duration::from_secs(30), exchange).await.context("no answer in 30 s")?
    }
}

pub(super) fn http_client() -> HttpClient {
    Client::builder(TokioExecutor::new()).build_http()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("http://127.0.0.1:8080", Some("127.0.0.1:8080"))]
    #[case("http://[::1]:8080/", Some("[::1]:8080"))]
    #[case("http://host", Some("host:80"))]
    #[case("https://host", None)]
    #[case("host:80", None)]
    #[case("", None)]
    fn an_ingest_url_is_plain_http(#[case] url: &str, #[case] authority: Option<&str>) {
        assert_eq!(Endpoint::parse(url).ok().map(|endpoint| endpoint.authority).as_deref(), authority);
    }
}
