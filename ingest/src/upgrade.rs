//! From an HTTP request to a WebSocket, by hand (RFC 6455 §4.2), so that a connection costs kilobytes and not a
//! hundred of them.

use footfall_schemas::tracker::SUBPROTOCOL;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{socket::Socket, transport::Transport};

/// What is wrong with a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHandshake {
    #[error("upgrade: this address speaks WebSocket; send Upgrade: websocket and Connection: Upgrade")]
    NoUpgrade,
    #[error("sec-websocket-version: this server speaks 13")]
    Version,
    #[error("sec-websocket-key: missing, or no 16 bytes in base64")]
    Key,
    #[error("sec-websocket-protocol: this server speaks footfall.v1")]
    Protocol,
}

impl BadHandshake {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::NoUpgrade | Self::Version => StatusCode::UPGRADE_REQUIRED,
            Self::Key | Self::Protocol => StatusCode::BAD_REQUEST,
        }
    }
}

/// The headers of the 101, or what is wrong. Extensions are not answered, and so declined.
pub(crate) fn accept(request: &HeaderMap) -> Result<HeaderMap, BadHandshake> {
    if !lists(request, header::UPGRADE, "websocket") || !lists(request, header::CONNECTION, "upgrade") {
        return Err(BadHandshake::NoUpgrade);
    }
    if request.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(BadHandshake::Version);
    }
    let key = request
        .get(header::SEC_WEBSOCKET_KEY)
        .map(HeaderValue::as_bytes)
        .filter(|key| key.len() == 24 && key.ends_with(b"=="))
        .ok_or(BadHandshake::Key)?;
    let mut answer = HeaderMap::new();
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let accept = HeaderValue::try_from(derive_accept_key(key)).expect("base64 is a header value");
    answer.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if request.contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
        if !lists(request, header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
            return Err(BadHandshake::Protocol);
        }
        answer.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    Ok(answer)
}

fn lists(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(token))
}

/// Waits until the 101 is written, then takes the transport out of hyper's hands and buffers. A tracker may send its
/// first frames with the handshake: what hyper has read of them comes along.
pub(crate) async fn socket(upgrade: OnUpgrade) -> Result<Socket, hyper::Error> {
    let parts = upgrade
        .await?
        .downcast::<TokioIo<Transport>>()
        .expect("the listener serves nothing else than TokioIo<Transport>");
    Ok(Socket::new(parts.io.into_inner(), parts.read_buf))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn request(change: &[(&'static str, Option<&str>)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("upgrade", "websocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        for (name, value) in change {
            match value {
                Some(value) => drop(headers.insert(*name, value.parse().unwrap())),
                None => drop(headers.remove(*name)),
            }
        }
        headers
    }

    #[test]
    fn the_example_of_the_rfc_is_answered() {
        let answer = accept(&request(&[("sec-websocket-protocol", Some("other, footfall.v1"))])).unwrap();
        assert_eq!(answer["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(answer["sec-websocket-protocol"], "footfall.v1");
        assert!(!answer.contains_key("sec-websocket-extensions"));
    }

    #[rstest]
    #[case("upgrade", None, BadHandshake::NoUpgrade)]
    #[case("connection", Some("keep-alive"), BadHandshake::NoUpgrade)]
    #[case("sec-websocket-version", Some("8"), BadHandshake::Version)]
    #[case("sec-websocket-key", None, BadHandshake::Key)]
    #[case("sec-websocket-key", Some("short"), BadHandshake::Key)]
    #[case("sec-websocket-protocol", Some("footfall.v9"), BadHandshake::Protocol)]
    fn a_wrong_handshake_is_refused(
        #[case] name: &'static str,
        #[case] value: Option<&str>,
        #[case] expected: BadHandshake,
    ) {
        assert_eq!(accept(&request(&[(name, value)])).unwrap_err(), expected);
    }
}
