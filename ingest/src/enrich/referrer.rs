//! Which page a view came from.

use crate::{raw::Text, web_url::WebUrl};

use super::steps::{Did, StepTally};

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Referrer<'a> {
    /// Without credentials, query and fragment; none for the site itself.
    pub(crate) url: Option<WebUrl<'a>>,
    /// The site itself.
    pub(crate) internal: bool,
}

impl<'a> Referrer<'a> {
    /// What is no URL with a host counts as none: it is the browser's or another site's doing, no fault of the event.
    pub(crate) fn read(sent: Option<&Text<'a>>, page: &WebUrl<'_>, tally: &mut StepTally) -> Self {
        let Some(url) = sent.filter(|sent| !sent.is_empty()).and_then(WebUrl::parse) else {
            tally.count(Did::ReferrerNone);
            return Self::default();
        };
        if without_www(url.host.as_str()) == without_www(page.host.as_str()) {
            tally.count(Did::ReferrerInternal);
            return Self { url: None, internal: true };
        }
        tally.count(Did::ReferrerExternal);
        Self { url: Some(url), internal: false }
    }

    /// Without `www.`; empty for none.
    pub(crate) fn host(&self) -> &str {
        self.url.as_ref().map_or("", |url| without_www(url.host.as_str()))
    }
}

fn without_www(host: &str) -> &str {
    host.strip_prefix("www.").unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(None, "", false, Did::ReferrerNone)]
    #[case(Some(""), "", false, Did::ReferrerNone)]
    #[case(Some("nonsense"), "", false, Did::ReferrerNone)]
    #[case(Some("https://www.b.example/"), "b.example", false, Did::ReferrerExternal)]
    #[case(Some("https://a.example/other"), "", true, Did::ReferrerInternal)]
    #[case(Some("https://www.a.example/"), "", true, Did::ReferrerInternal)]
    #[case(Some("https://blog.a.example/"), "blog.a.example", false, Did::ReferrerExternal)]
    fn a_view_came_from_a_page(
        #[case] sent: Option<&'static str>,
        #[case] host: &str,
        #[case] internal: bool,
        #[case] did: Did,
    ) {
        let page = WebUrl::parse(&Text::Plain("https://www.a.example/")).unwrap();
        let sent = sent.map(Text::Plain);
        let mut tally = StepTally::default();
        let referrer = Referrer::read(sent.as_ref(), &page, &mut tally);
        assert_eq!((referrer.host(), referrer.internal, tally.of(did)), (host, internal, 1));
    }
}
