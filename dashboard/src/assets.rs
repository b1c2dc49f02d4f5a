//! The page, embedded in the binary.

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, ETAG},
};
use sha2::{Digest, Sha256};

/// Path below `web/dist` and content; see `build.rs`.
const EMBEDDED: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));

#[derive(Debug)]
pub(crate) struct Assets {
    files: Vec<Asset>,
}

#[derive(Debug)]
struct Asset {
    path: &'static str,
    content: &'static [u8],
    etag: HeaderValue,
}

impl Assets {
    pub(crate) fn embedded() -> Self {
        let files = EMBEDDED.iter().map(|(path, content)| Asset { path, content, etag: etag(content) });
        Self { files: files.collect() }
    }

    /// The file at `path` (without the leading slash), or that it is unchanged.
    pub(crate) fn serve(&self, path: &str, if_none_match: Option<&HeaderValue>) -> Option<Response<Bytes>> {
        let asset = self.files.iter().find(|asset| asset.path == path)?;
        let known = if_none_match.and_then(|value| value.to_str().ok()).is_some_and(|known| {
            known
                .split(',')
                .any(|tag| tag.trim().trim_start_matches("W/").as_bytes() == asset.etag.as_bytes())
        });
        let (status, content) = match known {
            true => (StatusCode::NOT_MODIFIED, &[][..]),
            false => (StatusCode::OK, asset.content),
        };
        let mut response = Response::new(Bytes::from_static(content));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type(path)));
        headers.insert(ETAG, asset.etag.clone());
        // The bundler puts a hash of the content into the names below assets/.
        let cache =
            if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
        Some(response)
    }
}

fn etag(content: &[u8]) -> HeaderValue {
    let digest: String = Sha256::digest(content)[..12].iter().map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::from_str(&format!("\"{digest}\"")).expect("hex digits in quotes")
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "webmanifest" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn assets() -> Assets {
        let file = |path, content: &'static [u8]| Asset { path, content, etag: etag(content) };
        Assets { files: vec![file("index.html", b"<!doctype html>"), file("assets/app-4f.js", b"1")] }
    }

    #[rstest]
    #[case("index.html", "text/html; charset=utf-8", "no-cache")]
    #[case("assets/app-4f.js", "text/javascript; charset=utf-8", "public, max-age=31536000, immutable")]
    fn only_names_with_a_hash_are_cached_for_good(
        #[case] path: &str,
        #[case] kind: &str,
        #[case] cache: &str,
    ) {
        let response = assets().serve(path, None).unwrap();
        assert_eq!(response.headers()[CONTENT_TYPE], kind);
        assert_eq!(response.headers()[CACHE_CONTROL], cache);
    }

    #[test]
    fn what_the_browser_has_is_not_sent_again() {
        let first = assets().serve("index.html", None).unwrap();
        let again = assets().serve("index.html", first.headers().get(ETAG)).unwrap();
        assert_eq!((again.status(), again.body().len()), (StatusCode::NOT_MODIFIED, 0));
        let other = HeaderValue::from_static("\"other\"");
        assert_eq!(assets().serve("index.html", Some(&other)).unwrap().status(), StatusCode::OK);
    }

    #[test]
    fn nothing_else_is_there() {
        assert!(assets().serve("../Cargo.toml", None).is_none());
        assert!(assets().serve("", None).is_none());
    }
}
