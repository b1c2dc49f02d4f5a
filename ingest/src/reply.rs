//! The answer to a request: a frame and its status, as JSON or, in answer to an image, in a header.

use std::fmt::Write as _;

use footfall_schemas::{
    RejectReason,
    tracker::{ANSWER_HEADER, ServerFrame},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use warp::reply::Response;

use crate::node::Fault;

/// One transparent point (GIF89a).
const GIF: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\x00\x00\x00\
    \x21\xf9\x04\x01\x00\x00\x00\x00\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) frame: ServerFrame,
}

impl From<ServerFrame> for Reply {
    /// The status is the one of the frame's reason.
    fn from(frame: ServerFrame) -> Self {
        let status = match &frame {
            ServerFrame::Error { reason, .. } | ServerFrame::Stop { reason, .. } => reason.status(),
            ServerFrame::Nack(nack) => nack.reason.status(),
            _ => 200,
        };
        Self { status: StatusCode::from_u16(status).expect("the tables hold statuses only"), frame }
    }
}

impl From<&Fault> for Reply {
    fn from(fault: &Fault) -> Self {
        fault.frame().into()
    }
}

impl Reply {
    pub(crate) fn json(&self) -> Response {
        let body = serde_json::to_string(&self.frame).expect("plain fields with text keys always serialise");
        self.response(body.into(), "application/json")
    }

    /// An image when something is settled; else none, so that an `Image` of the page has its `onerror`: browsers show
    /// an image whatever its status is.
    pub(crate) fn pixel(&self) -> Response {
        let is_settled = matches!(self.frame, ServerFrame::Ack(_));
        let mut response = if is_settled { self.response(GIF.into(), "image/gif") } else { self.json() };
        let headers = response.headers_mut();
        let answer = ascii_json(&self.frame);
        headers.insert(ANSWER_HEADER, answer.parse().expect("ASCII without control characters"));
        // Pages with `Cross-Origin-Embedder-Policy` load it, too.
        headers.insert("cross-origin-resource-policy", HeaderValue::from_static("cross-origin"));
        response
    }

    fn response(&self, body: warp::hyper::body::Bytes, content_type: &'static str) -> Response {
        let mut response = Response::new(body.into());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(ms) = self.wait_ms() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000)));
        }
        if matches!(self.frame, ServerFrame::Error { reason: RejectReason::BadEncoding, .. }) {
            // RFC 9110 §12.5.3: what to send in place of it.
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, identity"));
        }
        response
    }

    fn wait_ms(&self) -> Option<u32> {
        match &self.frame {
            ServerFrame::Nack(nack) => Some(nack.retry_ms),
            ServerFrame::Stop { for_ms, .. } => Some(*for_ms),
            _ => None,
        }
    }
}

/// A header holds no other characters; JSON can write them all in ASCII.
fn ascii_json(frame: &ServerFrame) -> String {
    let json = serde_json::to_string(frame).expect("plain fields with text keys always serialise");
    let mut ascii = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii_graphic() || c == ' ' {
            ascii.push(c);
        } else {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                let _ = write!(ascii, "\\u{unit:04x}");
            });
        }
    }
    ascii
}

/// Lets the page read the answer, refusals included: a tracker that may not read why would try for ever. Nothing in
/// it is secret.
pub(crate) fn allow_origin(response: &mut Response, origin: Option<&str>) {
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(Ok(origin)) = origin.map(HeaderValue::try_from) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let readable = HeaderValue::from_static("Retry-After, Footfall-Answer");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, readable);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use footfall_schemas::{
        StreamId,
        refusal::RetryReason,
        tracker::{Ack, Nack},
    };
    use rstest::rstest;

    fn nack(reason: RetryReason) -> ServerFrame {
        let stream = StreamId::from_parts(1, 2);
        ServerFrame::Nack(Nack { stream, first: 1, upto: 2, reason, retry_ms: 1_001 })
    }

    #[rstest]
    #[case(nack(RetryReason::RateLimited), 429, Some("2"))]
    #[case(nack(RetryReason::Overloaded), 503, Some("2"))]
    #[case(ServerFrame::site_disabled(), 403, Some("3600"))]
    #[case(Fault::new(RejectReason::TooLarge, "body").frame(), 413, None)]
    fn an_answer_has_the_status_of_its_reason_and_the_time_to_wait(
        #[case] frame: ServerFrame,
        #[case] status: u16,
        #[case] wait: Option<&str>,
    ) {
        let reply = Reply::from(frame);
        for response in [reply.json(), reply.pixel()] {
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json", "nothing is settled");
            let told = response.headers().get(header::RETRY_AFTER).map(|told| told.to_str().unwrap());
            assert_eq!(told, wait);
        }
    }

    #[test]
    fn an_answer_is_kept_by_no_cache_and_is_what_it_says() {
        let stream = StreamId::from_parts(1, 2);
        let ack = Ack { stream, first: 1, upto: 2, refused: Vec::new(), token: None, settings: None };
        let reply = Reply::from(ServerFrame::Ack(ack));
        for (response, content_type) in [(reply.json(), "application/json"), (reply.pixel(), "image/gif")] {
            let headers = response.headers();
            assert_eq!(headers[header::CONTENT_TYPE], content_type);
            assert_eq!(headers[header::CACHE_CONTROL], "no-store");
            assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        }
        assert_eq!(reply.pixel().headers()["cross-origin-resource-policy"], "cross-origin");
    }

    #[test]
    fn a_page_may_read_how_long_to_wait() {
        let mut response = Response::default();
        allow_origin(&mut response, Some("https://shop.example"));
        let headers = response.headers();
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://shop.example");
        assert_eq!(headers[header::ACCESS_CONTROL_EXPOSE_HEADERS], "Retry-After, Footfall-Answer");
    }

    #[test]
    fn an_answer_in_a_header_is_ascii_and_says_the_same() {
        let frame = Fault::new(RejectReason::Malformed, "k: \u{e9} \u{1f600} \u{7f}\n\"").frame();
        let response = Reply::from(frame.clone()).pixel();
        let header = response.headers()[ANSWER_HEADER].to_str().unwrap();
        assert!(header.contains(r"\u00e9") && header.contains(r"\ud83d\ude00"), "{header}");
        assert_eq!(serde_json::from_str::<ServerFrame>(header).unwrap(), frame);
    }
}
