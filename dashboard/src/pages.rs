//! The few pages without a script: logging in, and what went wrong.

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};

use crate::auth::RefusedLink;

const CSS: &str = include_str!("pages/plain.css");

const ANOTHER_LINK: &str = "<p>Get a new link where Footfall runs: type <code>footfall login</code> there and open what it prints. \
     <code>make run</code> prints one at every start, too.</p>";

/// Asks for one click: opening the link alone, as previews do, must not use it up.
pub(crate) fn open_dashboard(token: &str) -> Response<Bytes> {
    // A token that was checked is base64url: nothing in it means anything to HTML.
    let body = format!(
        "<p>This link logs this browser in, once.</p>\
         <form method=\"post\" action=\"/login\"><input type=\"hidden\" name=\"token\" value=\"{token}\">\
         <button type=\"submit\">Open the dashboard</button></form>"
    );
    page(StatusCode::OK, "Footfall", &body)
}

pub(crate) fn refused_link(refused: RefusedLink) -> Response<Bytes> {
    let (title, why) = match refused {
        RefusedLink::Invalid => {
            ("This link is not valid", "It was cut, changed, or made by another installation.")
        }
        RefusedLink::Expired => ("This link has expired", "A login link is good for a few minutes."),
        RefusedLink::Used => ("This link was used already", "A login link works once."),
    };
    page(StatusCode::FORBIDDEN, title, &format!("<p>{why}</p>{ANOTHER_LINK}"))
}

pub(crate) fn logged_out() -> Response<Bytes> {
    page(StatusCode::OK, "Logged out", "<p><a href=\"/\">Log in again</a></p>")
}

pub(crate) fn too_many_logins(retry_after_s: u64) -> Response<Bytes> {
    let mut response = page(
        StatusCode::TOO_MANY_REQUESTS,
        "Too many attempts",
        "<p>Wait a minute, then open the link again.</p>",
    );
    response.headers_mut().insert(RETRY_AFTER, retry_after_s.into());
    response
}

/// A link that cannot be marked as used is not used: another node would take it again.
pub(crate) fn log_is_away() -> Response<Bytes> {
    let why = "<p>Footfall cannot write to its log at the moment, so this link cannot be used up. Open it again in a \
               moment, or log in with a password.</p>";
    page(StatusCode::SERVICE_UNAVAILABLE, "Not now", why)
}

pub(crate) fn not_shared() -> Response<Bytes> {
    let why = "<p>This address shows nothing, or nothing any more: a link may have been revoked or have expired.</p>";
    page(StatusCode::NOT_FOUND, "Nothing to see here", why)
}

pub(crate) fn wrong_origin() -> Response<Bytes> {
    let why = "<p>This request came from another site. If the dashboard is behind a proxy, set <code>public_url</code> in \
               <code>[dashboard]</code> to the address people type.</p>";
    page(StatusCode::FORBIDDEN, "Not from here", why)
}

pub(crate) fn not_found() -> Response<Bytes> {
    page(StatusCode::NOT_FOUND, "Nothing here", "<p><a href=\"/\">To the dashboard</a></p>")
}

pub(crate) fn not_built() -> Response<Bytes> {
    let why = "<p>This binary was built without the dashboard's page. Run <code>make web</code>, then build again.</p>";
    page(StatusCode::NOT_FOUND, "The page is not built", why)
}

pub(crate) fn plain_css() -> Response<Bytes> {
    typed(StatusCode::OK, "text/css; charset=utf-8", CSS)
}

fn page(status: StatusCode, title: &str, body: &str) -> Response<Bytes> {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"robots\" content=\"noindex\">\
         <title>{title}</title><link rel=\"icon\" type=\"image/svg+xml\" href=\"/favicon.svg\">\
         <link rel=\"stylesheet\" href=\"/plain.css\"></head>\
         <body><main><h1>{title}</h1>{body}</main></body></html>"
    );
    typed(status, "text/html; charset=utf-8", html)
}

/// A response that no cache keeps.
pub(crate) fn typed(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
