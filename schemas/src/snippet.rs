//! The tag that a site's owner pastes into its pages.

use std::net::IpAddr;

/// Files that the tracker loads unless it is told otherwise.
pub const DEFAULT_MODULES: &str = "links";

/// `<script defer src="https://stats.example/f.js" data-site="shop" …></script>` for a node at `url`. Both need no escaping.
pub fn script_tag(url: &str, site: &str) -> String {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let include = if is_loopback(authority) { INCLUDE_LOCALHOST } else { "" };
    format!(
        "<script defer src=\"{url}/f.js\" data-site=\"{site}\"{include} data-modules=\"{DEFAULT_MODULES}\"></script>"
    )
}

/// Only pages of this machine reach a node by a loopback address, and trackers do not count those unasked.
pub const INCLUDE_LOCALHOST: &str = " data-include=\"localhost\"";

/// Whether `authority` (`127.0.0.1:8080`) is an address of this machine only.
pub fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("127.0.0.1:8080", true)]
    #[case("127.0.0.1", true)]
    #[case("localhost:8080", true)]
    #[case("localhost", true)]
    #[case("[::1]:8080", true)]
    #[case("[::1]", true)]
    #[case("10.0.0.1:8080", false)]
    #[case("[2001:db8::1]:80", false)]
    #[case("localhost.example", false)]
    fn an_address_of_this_machine_only(#[case] authority: &str, #[case] expected: bool) {
        assert_eq!(is_loopback(authority), expected);
    }

    #[test]
    fn the_tag_of_a_node_of_this_machine_counts_pages_of_this_machine() {
        let local = r#"<script defer src="http://127.0.0.1:8080/f.js" data-site="shop" data-include="localhost" data-modules="links"></script>"#;
        assert_eq!(script_tag("http://127.0.0.1:8080", "shop"), local);
        let public = r#"<script defer src="https://stats.example/f.js" data-site="shop" data-modules="links"></script>"#;
        assert_eq!(script_tag("https://stats.example", "shop"), public);
    }
}
