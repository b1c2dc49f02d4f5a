//! The parts of a page's or a referrer's URL that ingest looks at.
//!
//! What browsers send is nearly always `https://host/path?query` in plain ASCII that the URL standard leaves as it is.
//! That shape is cut out by hand, without an allocation; anything else goes through [`url::Url`]. A property test holds
//! the two ways together.

use url::Url;

use crate::raw::Text;

#[derive(Debug, Clone, PartialEq, Default)]
pub struct WebUrl<'a> {
    /// Scheme, host and a port that is not the scheme's own, without credentials: `https://example.com:8443`.
    pub origin: Text<'a>,
    /// In lower case, a name beyond ASCII as punycode.
    pub host: Text<'a>,
    /// At least `/` for http and https.
    pub path: Text<'a>,
    /// Without the `?`; empty for none.
    pub query: Text<'a>,
}

const HOST: u8 = 1;
const DIGIT: u8 = 2;
const PATH: u8 = 4;
const QUERY: u8 = 8;

/// Which characters may stand where without being changed by the URL standard's parser (a query's may be escaped; it is
/// decoded later).
const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_lowercase() || b.is_ascii_digit() {
            class[byte] |= HOST | PATH;
        }
        if b.is_ascii_digit() {
            class[byte] |= DIGIT;
        }
        if b.is_ascii_uppercase() {
            class[byte] |= PATH;
        }
        if b.is_ascii_graphic() && b != b'#' {
            class[byte] |= QUERY;
        }
        byte += 1;
    }
    class[b'-' as usize] |= HOST;
    class[b'.' as usize] |= HOST;
    let more = *b"/-._~!$&'()*+,;=:@%";
    let mut at = 0;
    while at < more.len() {
        class[more[at] as usize] |= PATH;
        at += 1;
    }
    class
};

impl<'a> WebUrl<'a> {
    /// None for what is no URL, and for a URL without a host.
    pub fn parse(text: &Text<'a>) -> Option<Self> {
        match text {
            Text::Plain(text) => Self::cut(text).or_else(|| Self::standard(text)),
            Text::Decoded(text) => Self::standard(text),
        }
    }

    /// http or https.
    pub fn is_web(&self) -> bool {
        let origin = self.origin.as_str();
        origin.starts_with("https://") || origin.starts_with("http://")
    }

    fn cut(text: &'a str) -> Option<Self> {
        let (host_at, default_port) = match text {
            _ if text.starts_with("https://") => (8, "443"),
            _ if text.starts_with("http://") => (7, "80"),
            _ => return None,
        };
        let host_end = host_at + span(&text[host_at..], HOST);
        let host = &text[host_at..host_end];
        if !is_plain_host(host) {
            return None;
        }
        let mut origin_end = host_end;
        if let Some(port) = text[host_end..].strip_prefix(':') {
            let port = &port[..span(port, DIGIT)];
            if port.starts_with('0') || port == default_port || port.parse::<u16>().is_err() {
                return None;
            }
            origin_end += 1 + port.len();
        }
        let rest = &text[origin_end..];
        let (path, rest) = rest.split_at(span(rest, PATH));
        let path = match path.as_bytes() {
            [] => "/",
            [b'/', ..] if !may_hold_dots(path) => path,
            _ => return None,
        };
        let (query, rest) = match rest.strip_prefix('?') {
            Some(rest) => rest.split_at(span(rest, QUERY)),
            None => ("", rest),
        };
        if !(rest.is_empty() || rest.starts_with('#')) {
            return None;
        }
        Some(Self {
            origin: Text::Plain(&text[..origin_end]),
            host: Text::Plain(host),
            path: Text::Plain(path),
            query: Text::Plain(query),
        })
    }

    fn standard(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let host = url.host_str()?;
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        Some(Self {
            origin: format!("{}://{host}{port}", url.scheme()).into(),
            host: host.to_owned().into(),
            path: url.path().to_owned().into(),
            query: url.query().unwrap_or_default().to_owned().into(),
        })
    }
}

/// How many characters of a class `text` begins with.
fn span(text: &str, class: u8) -> usize {
    text.bytes().position(|byte| CLASS[usize::from(byte)] & class == 0).unwrap_or(text.len())
}

/// Of dotted labels, none of them in need of a look at punycode, the last no number (or it is an IPv4 address).
fn is_plain_host(host: &str) -> bool {
    let mut before = b'.';
    let mut label_starts_with = 0;
    for byte in host.bytes() {
        if before == b'.' {
            label_starts_with = byte;
        }
        if byte == before && !byte.is_ascii_alphanumeric() {
            return false;
        }
        before = byte;
    }
    label_starts_with.is_ascii_lowercase() && before != b'.' && host.len() <= 253
}

/// Whether a segment may be `.` or `..`, in whatever spelling: the standard takes those out.
fn may_hold_dots(path: &str) -> bool {
    path.as_bytes().windows(2).any(|pair| pair == b"/.")
        || (path.contains('%') && path.as_bytes().windows(3).any(|triple| triple == b"/%2"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use url::form_urlencoded;

    fn parts(url: &WebUrl<'_>) -> (String, String, String, Vec<(String, String)>) {
        let pairs = form_urlencoded::parse(url.query.as_str().as_bytes()).into_owned().collect();
        (url.origin.as_str().into(), url.host.as_str().into(), url.path.as_str().into(), pairs)
    }

    /// What is cut out by hand is what the standard's parser finds.
    fn agrees(text: &str) {
        if let Some(cut) = WebUrl::cut(text) {
            let standard = WebUrl::standard(text).unwrap_or_else(|| panic!("{text:?} is cut but no URL"));
            assert_eq!(parts(&cut), parts(&standard), "{text:?}");
        }
    }

    #[rstest]
    #[case("https://example.com", "https://example.com", "example.com", "/", "")]
    #[case("https://example.com/", "https://example.com", "example.com", "/", "")]
    #[case("http://a.example:8080/b/c?d=e&f#g", "http://a.example:8080", "a.example", "/b/c", "d=e&f")]
    #[case("https://example.com?q", "https://example.com", "example.com", "/", "q")]
    #[case("https://example.com/%D7%A9?x=%20#", "https://example.com", "example.com", "/%D7%A9", "x=%20")]
    #[case("https://example.com/a//b/~c.html", "https://example.com", "example.com", "/a//b/~c.html", "")]
    #[case("http://localhost/", "http://localhost", "localhost", "/", "")]
    fn the_common_shape_is_cut_by_hand(
        #[case] text: &str,
        #[case] origin: &str,
        #[case] host: &str,
        #[case] path: &str,
        #[case] query: &str,
    ) {
        let url = WebUrl::cut(text).unwrap();
        let found = (url.origin.as_str(), url.host.as_str(), url.path.as_str(), url.query.as_str());
        assert_eq!(found, (origin, host, path, query));
        agrees(text);
    }

    #[rstest]
    #[case("HTTPS://EXAMPLE.com/A", "https://example.com", "example.com", "/A")]
    #[case("https://example.com:443/", "https://example.com", "example.com", "/")]
    #[case("https://user:pw@b.example:81/x?y#z", "https://b.example:81", "b.example", "/x")]
    #[case("https://example.com/a/../b", "https://example.com", "example.com", "/b")]
    #[case("https://example.com/a/%2e%2E/b", "https://example.com", "example.com", "/b")]
    #[case("https://example.com/ü", "https://example.com", "example.com", "/%C3%BC")]
    #[case("https://bücher.example/", "https://xn--bcher-kva.example", "xn--bcher-kva.example", "/")]
    #[case("http://2130706433/", "http://127.0.0.1", "127.0.0.1", "/")]
    #[case("http://1.2.3/", "http://1.2.0.3", "1.2.0.3", "/")]
    #[case("http://[::1]:3000/", "http://[::1]:3000", "[::1]", "/")]
    #[case("android-app://com.example.app/", "android-app://com.example.app", "com.example.app", "/")]
    fn the_unusual_goes_through_the_standard(
        #[case] text: &str,
        #[case] origin: &str,
        #[case] host: &str,
        #[case] path: &str,
    ) {
        assert_eq!(WebUrl::cut(text), None);
        let url = WebUrl::parse(&Text::Plain(text)).unwrap();
        assert_eq!((url.origin.as_str(), url.host.as_str(), url.path.as_str()), (origin, host, path));
    }

    #[rstest]
    #[case("about:blank")]
    #[case("nonsense")]
    #[case("https://")]
    #[case("https:///")]
    #[case("https://exa mple.com/")]
    fn what_has_no_host_is_none(#[case] text: &str) {
        assert_eq!(WebUrl::parse(&Text::Plain(text)), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_096))]

        #[test]
        fn both_ways_agree_on_urls(
            text in "(https?|HTTP)://[a-c0-9x.-]{0,9}(\\.(com|0|0x1|xn--a|de))?(:[0-9]{0,6})?(/[a-zA-Z.%2eE]{0,4}){0,4}[!-~ ü]{0,6}(\\?[!-~ ü\t]{0,8})?(#[ -~ü]{0,3})?"
        ) {
            agrees(&text);
        }

        #[test]
        fn both_ways_agree_on_any_text_behind_a_scheme(text in "https://\\PC{0,24}") {
            agrees(&text);
        }

        #[test]
        fn both_ways_agree_on_each_character_of_a_path(before in "[a-z%/.]{0,3}", any in any::<char>(), after in "[a-z2e/.]{0,3}") {
            agrees(&format!("https://a.example/{before}{any}{after}"));
            agrees(&format!("https://a.example/?{before}{any}={after}"));
            agrees(&format!("https://a{any}{after}/"));
        }
    }
}
