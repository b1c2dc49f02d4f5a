//! What is served besides events: the tracker script and the demo site, embedded by build.rs.

use footfall_schemas::SiteId;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use warp::reply::Response;

static SCRIPT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/f.js"));
static DEMO: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/demo.rs"));

/// Stands in the demo's pages for the key of the first site.
const SITE_PLACEHOLDER: &str = "{{site}}";

pub(crate) fn script_tag() -> String {
    format!("\"{:016x}\"", xxhash_rust::xxh3::xxh3_64(SCRIPT))
}

/// `GET /f.js`. `tag` is [`script_tag`], made once.
pub(crate) fn script(tag: &str, request: &HeaderMap) -> Response {
    let known = request.get(header::IF_NONE_MATCH).is_some_and(|known| {
        known
            .to_str()
            .is_ok_and(|known| known.split(',').any(|known| known.trim().trim_start_matches("W/") == tag))
    });
    let mut response = if known { Response::default() } else { Response::new(SCRIPT.into()) };
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/javascript; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("cross-origin"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// `GET /demo/…`: the file, `….html`, or the directory's index.
pub(crate) fn demo(path: &str, site: Option<&SiteId>) -> Response {
    let path = path.trim_matches('/');
    let candidates =
        [path.to_owned(), format!("{path}.html"), format!("{path}/index.html").trim_matches('/').to_owned()];
    let found = candidates.iter().find_map(|name| DEMO.iter().find(|(file, _)| file == name));
    let Some((name, bytes)) = found else {
        let mut response = Response::new("no such page in the demo site\n".into());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    let extension = name.rsplit('.').next().unwrap_or_default();
    let mut response = match (extension, site) {
        ("html", Some(site)) => {
            Response::new(String::from_utf8_lossy(bytes).replace(SITE_PLACEHOLDER, site.as_str()).into())
        }
        _ => Response::new((*bytes).into()),
    };
    let content_type = match extension {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "webmanifest" => "application/manifest+json",
        _ => "application/octet-stream",
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'self'"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_names_the_first_site_and_keeps_to_itself() {
        let site = SiteId::try_from("shop").unwrap();
        let response = demo("", Some(&site));
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
        assert_eq!(demo("../Cargo.toml", Some(&site)).status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn an_unchanged_script_is_not_sent_again() {
        let tag = script_tag();
        let mut request = HeaderMap::new();
        assert_eq!(script(&tag, &request).status(), StatusCode::OK);
        request.insert(header::IF_NONE_MATCH, HeaderValue::try_from(format!("W/{tag}")).unwrap());
        assert_eq!(script(&tag, &request).status(), StatusCode::NOT_MODIFIED);
    }
}
