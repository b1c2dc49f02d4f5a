//! A request's body, read and inflated within bounds.

use std::{
    io::{self, Read as _},
    pin::pin,
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use footfall_schemas::{RejectReason, record::MAX_DEAD_PAYLOAD_BYTES};
use futures_util::{Stream, StreamExt as _};
use http::{HeaderMap, header};
use tokio::time::timeout;

use crate::node::Fault;

/// Why there is no body.
#[derive(Debug)]
pub(crate) enum NoBody {
    /// The sender left or was too slow: nothing to keep.
    Lost,
    /// With as much as was read of it.
    Refused(Fault, Bytes),
}

/// Reads no more than `most`, whatever the headers say.
pub(crate) async fn read<B: Buf>(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, warp::Error>>,
    most: usize,
    within: Duration,
) -> Result<Bytes, NoBody> {
    timeout(within, read_all(headers, body, most)).await.unwrap_or(Err(NoBody::Lost))
}

async fn read_all<B: Buf>(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, warp::Error>>,
    most: usize,
) -> Result<Bytes, NoBody> {
    let told = headers.get(header::CONTENT_LENGTH).and_then(|told| told.to_str().ok()?.parse::<usize>().ok());
    // What says itself that it is too large is read only as far as a dead letter keeps it.
    let stop_at = if told.is_some_and(|told| told > most) { MAX_DEAD_PAYLOAD_BYTES } else { most };
    let mut read = BytesMut::new();
    let mut body = pin!(body);
    while let Some(chunk) = body.next().await {
        let Ok(mut chunk) = chunk else { return Err(NoBody::Lost) };
        while chunk.has_remaining() {
            let piece = chunk.chunk();
            let (length, room) = (piece.len(), stop_at - read.len());
            read.extend_from_slice(&piece[..length.min(room)]);
            if length > room {
                return Err(NoBody::Refused(too_large("", most), read.freeze()));
            }
            chunk.advance(length);
        }
    }
    Ok(read.freeze())
}

/// The body's text, inflated to no more than `most`.
pub(crate) fn text(headers: &HeaderMap, body: Bytes, most: usize) -> Result<String, NoBody> {
    let plain = match Encoding::of(headers) {
        Some(Encoding::Identity) => body.into(),
        Some(Encoding::Gzip) => {
            let mut inflated = Vec::new();
            // A byte more tells that there is more: a bomb is never inflated further.
            match MultiGzDecoder::new(&body[..]).take(most as u64 + 1).read_to_end(&mut inflated) {
                Ok(length) if length > most => {
                    return Err(NoBody::Refused(too_large(" inflated", most), inflated.into()));
                }
                Ok(_) => inflated,
                Err(error) => return Err(NoBody::Refused(no_gzip(&error), inflated.into())),
            }
        }
        None => {
            let detail = "content-encoding: send gzip, or none";
            return Err(NoBody::Refused(Fault::new(RejectReason::BadEncoding, detail), body));
        }
    };
    String::from_utf8(plain).map_err(|error| {
        let fault = Fault::new(RejectReason::BadUtf8, "body: text is not UTF-8");
        NoBody::Refused(fault, error.into_bytes().into())
    })
}

fn too_large(how: &str, most: usize) -> Fault {
    Fault::new(RejectReason::TooLarge, format!("body: over {most} bytes{how}; send smaller batches"))
}

fn no_gzip(error: &io::Error) -> Fault {
    Fault::new(RejectReason::Malformed, format!("body: no whole gzip ({error}); compress it again"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
}

impl Encoding {
    /// None for one, or several, that are not known here.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let mut told = headers.get_all(header::CONTENT_ENCODING).iter();
        let Some(encoding) = told.next() else { return Some(Self::Identity) };
        let encoding = encoding.to_str().ok().filter(|_| told.next().is_none())?.trim();
        if encoding.is_empty() || encoding.eq_ignore_ascii_case("identity") {
            Some(Self::Identity)
        } else if encoding.eq_ignore_ascii_case("gzip") || encoding.eq_ignore_ascii_case("x-gzip") {
            Some(Self::Gzip)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use rstest::rstest;
    use std::io::Write as _;

    fn gzip(plain: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap().into()
    }

    fn encoded(encodings: &[&'static str]) -> HeaderMap {
        encodings.iter().map(|encoding| (header::CONTENT_ENCODING, encoding.parse().unwrap())).collect()
    }

    fn refusal(headers: &HeaderMap, body: Bytes) -> (RejectReason, usize) {
        match text(headers, body, 1_000) {
            Err(NoBody::Refused(fault, kept)) => (fault.reason, kept.len()),
            other => panic!("not refused: {other:?}"),
        }
    }

    async fn reading(length: Option<usize>, chunks: &[usize]) -> Result<usize, usize> {
        let headers = length.map(|length| (header::CONTENT_LENGTH, length.into())).into_iter().collect();
        let chunks: Vec<_> = chunks.iter().map(|&length| Ok(Bytes::from(vec![b'x'; length]))).collect();
        let body = futures_util::stream::iter(chunks);
        match read(&headers, body, 10_000, Duration::from_secs(10)).await {
            Ok(body) => Ok(body.len()),
            Err(NoBody::Refused(fault, kept)) => {
                assert_eq!(fault.reason, RejectReason::TooLarge);
                Err(kept.len())
            }
            Err(NoBody::Lost) => panic!("lost"),
        }
    }

    #[rstest]
    #[case::whole(Some(10_000), &[10_000], Ok(10_000))]
    #[case::in_pieces(None, &[6_000, 0, 4_000], Ok(10_000))]
    #[case::one_byte_over(None, &[6_000, 4_001], Err(10_000))]
    #[case::far_over(None, &[6_000, 60_000], Err(10_000))]
    #[case::says_so_itself(Some(10_001), &[3_000, 3_000, 4_001], Err(MAX_DEAD_PAYLOAD_BYTES))]
    #[case::says_less_than_it_sends(Some(1), &[10_001], Err(10_000))]
    #[tokio::test]
    async fn of_a_body_over_its_cap_no_more_is_read(
        #[case] length: Option<usize>,
        #[case] chunks: &[usize],
        #[case] expected: Result<usize, usize>,
    ) {
        assert_eq!(reading(length, chunks).await, expected);
    }

    #[rstest]
    #[case::none(&[], false)]
    #[case::identity(&["identity"], false)]
    #[case::gzip(&["gzip"], true)]
    #[case::as_some_write_it(&["X-GZip"], true)]
    fn a_known_encoding_is_read(#[case] encodings: &[&'static str], #[case] compressed: bool) {
        let body = if compressed { gzip(b"plain") } else { Bytes::from_static(b"plain") };
        assert_eq!(text(&encoded(encodings), body, 5).unwrap(), "plain");
    }

    #[rstest]
    #[case(&["br"])]
    #[case(&["gzip, gzip"])]
    #[case(&["gzip", "gzip"])]
    #[case(&["deflate"])]
    fn another_encoding_is_told_what_to_send(#[case] encodings: &[&'static str]) {
        assert_eq!(refusal(&encoded(encodings), gzip(b"plain")).0, RejectReason::BadEncoding);
    }

    #[test]
    fn a_bomb_is_inflated_to_its_cap_and_no_further() {
        let bomb = gzip(&vec![b' '; 50_000_000]);
        assert!(bomb.len() < 64 * 1024);
        assert_eq!(refusal(&encoded(&["gzip"]), bomb), (RejectReason::TooLarge, 1_001));
    }

    #[rstest]
    #[case::cut(gzip(b"a body of some length").slice(..20))]
    #[case::plain(Bytes::from_static(b"{}"))]
    #[case::empty(Bytes::new())]
    #[case::more_behind_it([gzip(b"{}"), Bytes::from_static(b"rest")].concat().into())]
    fn what_is_no_whole_gzip_is_malformed(#[case] body: Bytes) {
        assert_eq!(refusal(&encoded(&["gzip"]), body).0, RejectReason::Malformed);
    }

    #[test]
    fn text_that_is_not_utf8_is_kept_as_it_is() {
        assert_eq!(refusal(&encoded(&["gzip"]), gzip(b"\xff\xfe")), (RejectReason::BadUtf8, 2));
    }
}
