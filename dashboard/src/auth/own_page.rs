//! What a browser brings along by itself: where a request comes from, and the session's cookie.

use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, HOST, ORIGIN},
};

use crate::config::Config;

/// `Origin` is exactly the dashboard's own: the one configured, or the address that was asked.
pub(crate) fn is_own_origin(headers: &HeaderMap, config: &Config) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter();
    let (Some(origin), None) = (origins.next().and_then(|origin| origin.to_str().ok()), origins.next())
    else {
        return false;
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    config.public_url.as_deref() == Some(origin)
        || host.is_some_and(|host| origin.strip_prefix("http://").is_some_and(|of| of == host))
}

/// A form sent from our own page, or by no browser at all: every browser says where a POST comes from.
pub(crate) fn is_own_form(headers: &HeaderMap, config: &Config) -> bool {
    match (headers.get("sec-fetch-site"), headers.get(ORIGIN)) {
        (Some(site), _) => site == "same-origin",
        (None, Some(_)) => is_own_origin(headers, config),
        (None, None) => true,
    }
}

/// The value of the session's cookie.
pub(crate) fn session_cookie<'a>(headers: &'a HeaderMap, config: &Config) -> Option<&'a str> {
    let name = cookie_name(config);
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut values = cookies
        .flat_map(|cookies| cookies.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .filter(|(cookie, _)| *cookie == name);
    Some(values.next()?.1)
}

fn cookie_name(config: &Config) -> &'static str {
    if config.is_https() { "__Host-footfall" } else { "footfall_session" }
}

pub(crate) fn set_cookie(config: &Config, value: &str, max_age_s: i64) -> HeaderValue {
    let secure = if config.is_https() { "; Secure" } else { "" };
    let name = cookie_name(config);
    let cookie = format!("{name}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::from_str(&cookie).expect("base64url and digits")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[rstest]
    #[case::the_address_typed(None, &[("host", "127.0.0.1:8081"), ("origin", "http://127.0.0.1:8081")], true)]
    #[case::another_port(None, &[("host", "127.0.0.1:8081"), ("origin", "http://127.0.0.1:8080")], false)]
    #[case::another_name(None, &[("host", "127.0.0.1:8081"), ("origin", "http://localhost:8081")], false)]
    #[case::another_scheme(None, &[("host", "a.example"), ("origin", "https://a.example")], false)]
    #[case::behind_a_proxy(Some("https://a.example"), &[("host", "10.0.0.1"), ("origin", "https://a.example")], true)]
    #[case::longer(Some("https://a.example"), &[("host", "x"), ("origin", "https://a.example.evil")], false)]
    #[case::none(None, &[("host", "a.example")], false)]
    #[case::opaque(None, &[("host", "a.example"), ("origin", "null")], false)]
    #[case::no_host(None, &[("origin", "http://")], false)]
    fn an_origin_is_compared_exactly(
        #[case] public_url: Option<&str>,
        #[case] pairs: &[(&'static str, &'static str)],
        #[case] own: bool,
    ) {
        let config = Config { public_url: public_url.map(str::to_owned), ..Config::default() };
        assert_eq!(is_own_origin(&headers(pairs), &config), own);
    }

    #[rstest]
    #[case::own_page(&[("sec-fetch-site", "same-origin"), ("origin", "null")], true)]
    #[case::other_site(&[("sec-fetch-site", "cross-site"), ("origin", "http://a")], false)]
    #[case::same_site_is_not_enough(&[("sec-fetch-site", "same-site")], false)]
    #[case::old_browser(&[("host", "a"), ("origin", "http://a")], true)]
    #[case::old_browser_elsewhere(&[("host", "a"), ("origin", "http://b")], false)]
    #[case::no_browser(&[("host", "a")], true)]
    fn a_form_comes_from_the_dashboards_own_page(
        #[case] pairs: &[(&'static str, &'static str)],
        #[case] own: bool,
    ) {
        assert_eq!(is_own_form(&headers(pairs), &Config::default()), own);
    }

    #[rstest]
    #[case(None, "footfall_session=x; Path=/; Max-Age=9; HttpOnly; SameSite=Lax")]
    #[case(Some("https://a.example"), "__Host-footfall=x; Path=/; Max-Age=9; HttpOnly; SameSite=Lax; Secure")]
    fn over_tls_the_cookie_is_bound_to_the_host(#[case] public_url: Option<&str>, #[case] cookie: &str) {
        let config = Config { public_url: public_url.map(str::to_owned), ..Config::default() };
        assert_eq!(set_cookie(&config, "x", 9), cookie);
    }
}
