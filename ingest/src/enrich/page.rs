//! Which page an event is about: the site's path rules, then the query parameters that belong to a page.

use std::borrow::Cow;

use footfall_schemas::{
    page_rules::{PathAction, PathRule},
    site::Site,
};
use url::form_urlencoded;

use crate::{raw::Text, web_url::WebUrl};

use super::steps::{Did, StepTally};

/// A page as it is counted.
#[derive(Debug, PartialEq)]
pub(crate) struct Page<'u> {
    pub(crate) path: Cow<'u, Text<'u>>,
    /// Encoded, in order of its names, without the `?`; empty for none.
    pub(crate) query: String,
}

impl<'u> Page<'u> {
    /// None for a page that the site does not want counted.
    pub(crate) fn clean(site: &'u Site, url: &'u WebUrl<'u>, tally: &mut StepTally) -> Option<Self> {
        let query = kept_query(&site.query_allowlist, url.query.as_str());
        let path = match rule_for(&site.path_rules, url.path.as_str()) {
            None => {
                tally.count(if query.is_empty() { Did::PageClean } else { Did::PageQueryKept });
                Cow::Borrowed(&url.path)
            }
            Some(PathAction::Replace(path)) => {
                tally.count(Did::PageRule);
                // A rule's path is checked to need no escape.
                Cow::Owned(Text::Plain(path))
            }
            Some(PathAction::Drop) => {
                tally.count(Did::PageIgnored);
                return None;
            }
        };
        Some(Self { path, query })
    }
}

/// The path of the page that a visitor looks at, as presence tells it; empty for one that the site does not want counted.
pub(crate) fn shown<'p>(site: &'p Site, path: &'p str) -> &'p str {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    match rule_for(&site.path_rules, path) {
        None => path,
        Some(PathAction::Replace(path)) => path,
        Some(PathAction::Drop) => "",
    }
}

fn rule_for<'r>(rules: &'r [PathRule], path: &str) -> Option<&'r PathAction> {
    rules.iter().find_map(|rule| rule.apply(path))
}

fn kept_query(allowlist: &[String], query: &str) -> String {
    if allowlist.is_empty() || query.is_empty() {
        return String::new();
    }
    let mut kept: Vec<_> = form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| allowlist.iter().any(|allowed| allowed == name))
        .collect();
    kept.sort_by(|(a, _), (b, _)| a.cmp(b));
    form_urlencoded::Serializer::new(String::new()).extend_pairs(kept).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn site() -> Site {
        serde_json::from_value(serde_json::json!({
            "key": "demo",
            "origins": [],
            "query_allowlist": ["q", "page"],
            "path_rules": [
                {"match": "/user/me", "replace": "/me"},
                {"match": "/user/*", "replace": "/user/:id"},
                {"match": "/private/**", "drop": true},
            ],
        }))
        .unwrap()
    }

    #[rstest]
    #[case("https://a/b", "/b", "", Did::PageClean)]
    #[case("https://a/b?token=secret#q=1", "/b", "", Did::PageClean)]
    #[case("https://a/b?q=lamp&token=secret&page=2", "/b", "page=2&q=lamp", Did::PageQueryKept)]
    #[case("https://a/b?q=b&q=a", "/b", "q=b&q=a", Did::PageQueryKept)]
    #[case("https://a/b?%71=%22%20%C3%A9", "/b", "q=%22+%C3%A9", Did::PageQueryKept)]
    #[case("https://a/user/me", "/me", "", Did::PageRule)]
    #[case("https://a/user/7?q=x", "/user/:id", "q=x", Did::PageRule)]
    #[case("https://a/x/../user/7", "/user/:id", "", Did::PageRule)]
    fn a_page_is_counted_as(
        #[case] url: &'static str,
        #[case] path: &str,
        #[case] query: &str,
        #[case] did: Did,
    ) {
        let (site, mut tally) = (site(), StepTally::default());
        let url = WebUrl::parse(&Text::Plain(url)).unwrap();
        let page = Page::clean(&site, &url, &mut tally).unwrap();
        assert_eq!((page.path.as_str(), page.query.as_str(), tally.of(did)), (path, query, 1));
    }

    #[rstest]
    #[case("/b?token=secret", "/b")]
    #[case("/user/7#x", "/user/:id")]
    #[case("/private/a", "")]
    fn presence_follows_the_rules(#[case] path: &str, #[case] expected: &str) {
        assert_eq!(shown(&site(), path), expected);
    }

    #[rstest]
    #[case("https://a/private")]
    #[case("https://a/private/a?q=1")]
    #[case("https://a/b/%2e%2e/private/a")]
    fn a_private_page_is_not_counted(#[case] url: &'static str) {
        let mut tally = StepTally::default();
        let url = WebUrl::parse(&Text::Plain(url)).unwrap();
        assert_eq!(Page::clean(&site(), &url, &mut tally), None);
        assert_eq!(tally.of(Did::PageIgnored), 1);
    }
}
