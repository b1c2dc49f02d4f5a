//! From an HTTP request to a viewer's socket, by hand: RFC 6455 §4.2.

use std::time::Duration;

use bytes::Bytes;
use footfall_schemas::viewer::SUBPROTOCOL;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{
        CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        UPGRADE,
    },
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

/// A viewer says little.
const MAX_REQUEST_BYTES: usize = 4 * 1024;
/// From the answer to the socket.
const TAKEOVER: Duration = Duration::from_secs(10);

/// Why a request is no upgrade to `footfall-live.v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoUpgrade {
    NotWebSocket,
    Version,
    Subprotocol,
}

/// The answer that accepts, or why it cannot be given.
pub(crate) fn accept(headers: &HeaderMap) -> Result<Response<Bytes>, NoUpgrade> {
    if !has_token(headers, CONNECTION.as_str(), "upgrade")
        || !has_token(headers, UPGRADE.as_str(), "websocket")
    {
        return Err(NoUpgrade::NotWebSocket);
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(NoUpgrade::Version);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(NoUpgrade::NotWebSocket)?;
    if !has_token(headers, SEC_WEBSOCKET_PROTOCOL.as_str(), SUBPROTOCOL) {
        return Err(NoUpgrade::Subprotocol);
    }
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    let accept = derive_accept_key(key.as_bytes());
    answer.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&accept).expect("base64"));
    Ok(response)
}

fn has_token(headers: &HeaderMap, name: &str, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
}

/// The socket, once hyper has sent the answer; `None` when the peer was gone by then.
pub(crate) async fn take_over(upgrade: OnUpgrade) -> Option<WebSocketStream<TcpStream>> {
    let upgraded = timeout(TAKEOVER, upgrade).await.ok()?.ok()?;
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    // Small buffers: most of the time a socket waits. The write buffer holds one frame at most, because each is
    // flushed before the next.
    let config = WebSocketConfig::default()
        .read_buffer_size(1_024)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_REQUEST_BYTES))
        .max_frame_size(Some(MAX_REQUEST_BYTES));
    let socket = WebSocketStream::from_partially_read(
        parts.io.into_inner(),
        parts.read_buf.to_vec(),
        Role::Server,
        Some(config),
    );
    Some(socket.await)
}
