//! The demo site, embedded by build.rs.

use footfall_schemas::SiteId;
use http::{HeaderValue, StatusCode, header};
use warp::reply::Response;

static FILES: &[(&str, &[u8])] = &include!(concat!(env!("OUT_DIR"), "/demo.rs"));

/// Stand in the demo's pages for the key of the first site and the dashboard's address.
const SITE_PLACEHOLDER: &str = "{{site}}";
const DASHBOARD_PLACEHOLDER: &str = "{{dashboard}}";

/// Nothing inline. Not every browser counts the WebSocket of the own host as `'self'`.
const DEMO_POLICY: &str =
    "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'";

/// `GET /demo/…`: the file, `….html`, the directory's index; below a page, the page itself (it makes its own routes).
pub(crate) fn page(path: &str, site: Option<&SiteId>, dashboard_url: &str) -> Response {
    let path = path.trim_matches('/');
    let file = |name: String| FILES.iter().find(|(file, _)| *file == name);
    let mut ancestors = path.match_indices('/').rev().map(|(end, _)| &path[..end]);
    let found = file(path.to_owned())
        .or_else(|| file(format!("{path}.html")))
        .or_else(|| file(format!("{path}/index.html").trim_start_matches('/').to_owned()))
        .or_else(|| ancestors.find_map(|above| file(format!("{above}.html"))));
    let Some((name, bytes)) = found else {
        let mut response = Response::new("no such page in the demo site\n".into());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    let extension = name.rsplit('.').next().unwrap_or_default();
    let mut response = match (extension, site) {
        ("html", Some(site)) => {
            let page = String::from_utf8_lossy(bytes)
                .replace(SITE_PLACEHOLDER, site.as_str())
                .replace(DASHBOARD_PLACEHOLDER, &escape(dashboard_url));
            Response::new(page.into())
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
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(DEMO_POLICY));
    response
}

/// For an attribute's value.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &str) -> Response {
        page(path, Some(&SiteId::try_from("shop").unwrap()), "http://localhost/?a&b\"")
    }

    #[test]
    fn the_demo_is_found_by_file_by_name_and_below_a_page_that_routes_itself() {
        for found in ["", "index.html", "app", "app/", "app/plants/fern"] {
            assert_eq!(shown(found).status(), StatusCode::OK, "{found}");
        }
        for missing in ["../Cargo.toml", "nothing", "nothing/below", "app.htm"] {
            assert_eq!(shown(missing).status(), StatusCode::NOT_FOUND, "{missing}");
        }
    }

    #[test]
    fn an_address_is_escaped_in_a_page() {
        assert_eq!(escape("http://a/?b&c\"<>"), "http://a/?b&amp;c&quot;&lt;&gt;");
    }
}
