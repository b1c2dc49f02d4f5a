//! The tracker's scripts, embedded by build.rs with their compressed forms: `/f.js`, the modules `/f-NAME.js`, and
//! beside each the path of its content, `/f.0123456789abcdef.js`, which never changes.

use std::{str::FromStr, sync::LazyLock};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest as _, Sha384};
use warp::reply::Response;

static SCRIPTS: LazyLock<Vec<Script>> =
    LazyLock::new(|| Vec::from(include!(concat!(env!("OUT_DIR"), "/scripts.rs"))));

/// Hexadecimal digits of a content hash in a path.
const HASH_DIGITS: usize = 16;

/// A file that pages load.
#[derive(Debug)]
pub struct Script {
    /// `f` is the core, `f-NAME` a module.
    pub name: &'static str,
    /// `/f.js`
    pub path: String,
    /// `/f.0123456789abcdef.js`: the same content for ever, or 404 on a node of another version.
    pub pinned_path: String,
    /// For the attribute `integrity`: `sha384-` and base64.
    pub integrity: String,
    /// By [`Encoding`].
    bodies: [Body; 3],
}

#[derive(Debug)]
struct Body {
    bytes: &'static [u8],
    etag: HeaderValue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Brotli,
    Gzip,
}

/// Every script of this build, the core first.
pub fn scripts() -> &'static [Script] {
    &SCRIPTS
}

/// A request's path that is a script's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) script: &'static Script,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Newest,
    /// By its hash, and it is this one.
    This,
    Another,
}

impl Script {
    /// The bodies are the script and its compressed forms.
    pub fn new(name: &'static str, plain: &'static [u8], brotli: &'static [u8], gzip: &'static [u8]) -> Self {
        let digest = Sha384::digest(plain);
        let mut hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        hash.truncate(HASH_DIGITS);
        let body = |bytes, suffix| {
            let etag = format!("\"{hash}{suffix}\"");
            Body { bytes, etag: etag.try_into().expect("hexadecimal digits in quotes") }
        };
        Self {
            name,
            path: format!("/{name}.js"),
            pinned_path: format!("/{name}.{hash}.js"),
            integrity: format!("sha384-{}", STANDARD.encode(digest)),
            bodies: [body(plain, ""), body(brotli, "-br"), body(gzip, "-gzip")],
        }
    }
}

/// From the one segment of a path.
impl FromStr for Asked {
    type Err = ();

    fn from_str(segment: &str) -> Result<Self, ()> {
        let stem = segment.strip_suffix(".js").ok_or(())?;
        let (name, hash) = stem.split_once('.').map_or((stem, None), |(name, hash)| (name, Some(hash)));
        let script = scripts().iter().find(|script| script.name == name).ok_or(())?;
        let is_hash = |hash: &str| {
            hash.len() == HASH_DIGITS && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let version = match hash {
            None => Version::Newest,
            Some(_) if script.pinned_path[1..] == *segment => Version::This,
            Some(hash) if is_hash(hash) => Version::Another,
            Some(_) => return Err(()),
        };
        Ok(Self { script, version })
    }
}

/// `GET` and `HEAD` of a script.
pub(crate) fn serve(asked: Asked, request: &HeaderMap) -> Response {
    let cache = match asked.version {
        Version::Newest => "public, max-age=3600",
        Version::This => "public, max-age=31536000, immutable",
        Version::Another => return gone(asked.script),
    };
    let encoding = Encoding::of(request);
    let body = &asked.script.bodies[encoding as usize];
    let mut response = if is_known(&body.etag, request) {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        Response::new(Bytes::from_static(body.bytes).into())
    };
    let headers = response.headers_mut();
    for (name, value) in [
        ("content-type", "text/javascript; charset=utf-8"),
        ("cache-control", cache),
        ("vary", "Accept-Encoding"),
        ("access-control-allow-origin", "*"),
        ("cross-origin-resource-policy", "cross-origin"),
        ("timing-allow-origin", "*"),
        ("x-content-type-options", "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Some(encoding) = encoding.name() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    headers.insert(header::ETAG, body.etag.clone());
    response
}

fn gone(script: &Script) -> Response {
    let text = format!(
        "this node has another version of it: use {}, or the tag of `footfall snippet --pin`\n",
        script.path
    );
    let mut response = Response::new(text.into());
    *response.status_mut() = StatusCode::NOT_FOUND;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    // The next node may have it.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// RFC 9110 §13.1.2, with the weak comparison.
fn is_known(etag: &HeaderValue, request: &HeaderMap) -> bool {
    items(request, header::IF_NONE_MATCH)
        .any(|known| known == "*" || known.trim_start_matches("W/").as_bytes() == etag.as_bytes())
}

/// Of a header that is a list, on however many lines.
fn items(request: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    let lines = request.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

impl Encoding {
    /// The smallest that the client takes (RFC 9110 §12.5.3).
    fn of(request: &HeaderMap) -> Self {
        let accepts = |encoding: Self| {
            let weight = |name: &str| {
                items(request, header::ACCEPT_ENCODING).find_map(|item| {
                    let (coding, weight) = item.split_once(';').unwrap_or((item, "q=1"));
                    coding.trim_end().eq_ignore_ascii_case(name).then(|| weight_of(weight))
                })
            };
            encoding
                .name()
                .and_then(|name| weight(name).or_else(|| weight("*")))
                .is_some_and(|weight| weight > 0.0)
        };
        [Self::Brotli, Self::Gzip].into_iter().find(|encoding| accepts(*encoding)).unwrap_or(Self::Identity)
    }

    /// As in `Content-Encoding`.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Brotli => Some("br"),
            Self::Gzip => Some("gzip"),
        }
    }
}

/// `q=0.5`. What is no weight is none: everybody can read the plain script.
fn weight_of(parameter: &str) -> f32 {
    let (name, weight) = parameter.split_once('=').unwrap_or_default();
    if name.trim().eq_ignore_ascii_case("q") { weight.trim().parse().unwrap_or(0.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use rstest::rstest;

    fn headers(name: header::HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::try_from(*value).unwrap())).collect()
    }

    fn core() -> &'static Script {
        &scripts()[0]
    }

    #[rstest]
    #[case::nothing(&[], Encoding::Identity)]
    #[case::empty(&[""], Encoding::Identity)]
    #[case::a_browser(&["gzip, deflate, br, zstd"], Encoding::Brotli)]
    #[case::gzip_alone(&["gzip"], Encoding::Gzip)]
    #[case::shouted(&["GZIP"], Encoding::Gzip)]
    #[case::two_lines(&["gzip", "br"], Encoding::Brotli)]
    #[case::brotli_though_worth_less(&["gzip;q=1.0, br;q=0.1"], Encoding::Brotli)]
    #[case::no_brotli(&["br;q=0, gzip"], Encoding::Gzip)]
    #[case::no_brotli_in_full(&["br ; q = 0.000 , gzip;q=0.5"], Encoding::Gzip)]
    #[case::neither(&["br;q=0, gzip;q=0"], Encoding::Identity)]
    #[case::unknown(&["zstd, deflate"], Encoding::Identity)]
    #[case::any(&["*"], Encoding::Brotli)]
    #[case::any_but_brotli(&["*, br;q=0"], Encoding::Gzip)]
    #[case::none_but_gzip(&["gzip, *;q=0"], Encoding::Gzip)]
    #[case::identity(&["identity"], Encoding::Identity)]
    #[case::no_weight(&["br;q=much"], Encoding::Identity)]
    #[case::part_of_a_name(&["brotli"], Encoding::Identity)]
    fn the_smallest_encoding_that_is_taken(#[case] accepted: &[&str], #[case] expected: Encoding) {
        assert_eq!(Encoding::of(&headers(header::ACCEPT_ENCODING, accepted)), expected);
    }

    #[test]
    fn every_path_of_this_build_is_found() {
        assert_eq!(core().path, "/f.js");
        for script in scripts() {
            for (path, version) in [(&script.path, Version::Newest), (&script.pinned_path, Version::This)] {
                let asked: Asked = path[1..].parse().unwrap();
                assert_eq!((asked.script.name, asked.version), (script.name, version));
            }
        }
    }

    #[test]
    fn a_hash_of_another_build_is_not_this_script() {
        let asked: Asked = "f.0123456789abcdef.js".parse().unwrap();
        assert_eq!(asked.version, Version::Another);
        assert_eq!(serve(asked, &HeaderMap::new()).status(), StatusCode::NOT_FOUND);
    }

    #[rstest]
    #[case("f")]
    #[case(".js")]
    #[case("f.js.br")]
    #[case("F.js")]
    #[case("f-nothing.js")]
    #[case("f-nothing.0123456789abcdef.js")]
    #[case::digit_missing("f.0123456789abcde.js")]
    #[case::upper_case("f.0123456789ABCDEF.js")]
    #[case::twice("f.0123456789abcdef.0123456789abcdef.js")]
    fn other_paths_are_nobodys(#[case] segment: &str) {
        assert!(segment.parse::<Asked>().is_err());
    }

    #[test]
    fn what_is_sent_is_named_inflates_and_has_a_tag_of_its_own() {
        for script in scripts() {
            let [plain, brotli, gzip] = &script.bodies;
            let mut inflated = Vec::new();
            std::io::copy(&mut GzDecoder::new(gzip.bytes), &mut inflated).unwrap();
            assert!(inflated == plain.bytes, "{}: run `make web`", script.path);
            assert!(brotli.bytes.len() < gzip.bytes.len() && gzip.bytes.len() < plain.bytes.len());
            assert!(plain.etag != brotli.etag && brotli.etag != gzip.etag && plain.etag != gzip.etag);
            for (accepted, body) in [("identity", plain), ("br", brotli), ("gzip", gzip)] {
                let asked: Asked = script.path[1..].parse().unwrap();
                let response = serve(asked, &headers(header::ACCEPT_ENCODING, &[accepted]));
                let told = response
                    .headers()
                    .get(header::CONTENT_ENCODING)
                    .map_or("identity", |told| told.to_str().unwrap());
                assert_eq!((told, &response.headers()[header::ETAG]), (accepted, &body.etag));
            }
        }
    }

    #[test]
    fn integrity_is_the_digest_that_openssl_prints() {
        // printf 'a script' | openssl dgst -sha384 -binary | base64
        let script = Script::new("f", b"a script", b"", b"");
        assert_eq!(
            script.integrity,
            "sha384-W+h0vYiBPNkzhWFYzi/93wyPtu6H1w4bcvpfhWPfeXBASz9uRwRFuwheiaWfZaoL"
        );
        assert_eq!(script.pinned_path, "/f.5be874bd88813cd9.js");
    }

    #[test]
    fn an_unchanged_script_is_not_sent_again() {
        let [plain, brotli, _] = core().bodies.each_ref().map(|body| body.etag.to_str().unwrap());
        for (known, status) in [
            (vec![plain], StatusCode::NOT_MODIFIED),
            (vec![&*format!("W/{plain}")], StatusCode::NOT_MODIFIED),
            (vec!["\"other\", ", plain], StatusCode::NOT_MODIFIED),
            (vec!["*"], StatusCode::NOT_MODIFIED),
            (vec!["\"other\""], StatusCode::OK),
            // Of another encoding: not what this client would be sent.
            (vec![brotli], StatusCode::OK),
        ] {
            let request = headers(header::IF_NONE_MATCH, &known);
            let asked: Asked = core().path[1..].parse().unwrap();
            let response = serve(asked, &request);
            assert_eq!(response.status(), status, "{known:?}");
            assert_eq!(response.headers()[header::VARY], "Accept-Encoding");
            assert_eq!(response.headers()[header::ETAG], plain);
        }
    }
}
