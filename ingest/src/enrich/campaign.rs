//! What the page's query tells of a campaign. The query is dropped but for this and what the site allows: it may hold
//! anything, a password reset link's token included.

use std::borrow::Cow;

use url::form_urlencoded;

use super::steps::{Did, StepTally};

const MAX_CHARACTERS: usize = 128;

/// Names of the campaign of a page's URL; empty where not given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Campaign<'q> {
    pub(crate) source: Cow<'q, str>,
    pub(crate) medium: Cow<'q, str>,
    pub(crate) name: Cow<'q, str>,
    pub(crate) term: Cow<'q, str>,
    pub(crate) content: Cow<'q, str>,
    pub(crate) click: Click,
}

/// What a platform added to the link when it was clicked. The id itself names a person's click and is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Click {
    #[default]
    None,
    /// On an advertisement.
    Paid,
    /// Facebook marks every link that leaves it, paid for or not.
    Social,
}

impl<'q> Campaign<'q> {
    pub(crate) fn read(query: &'q str, tally: &mut StepTally) -> Self {
        let mut campaign = Self::default();
        for pair in query.split('&') {
            let key = pair.split_once('=').map_or(pair, |(key, _)| key);
            // Most parameters are something else; they are not worth decoding.
            if !(key.starts_with("utm_") || key.ends_with("id") || key.contains('%')) {
                continue;
            }
            let Some((key, value)) = form_urlencoded::parse(pair.as_bytes()).next() else { continue };
            let field = match &*key {
                "utm_source" => &mut campaign.source,
                "utm_medium" => &mut campaign.medium,
                "utm_campaign" => &mut campaign.name,
                "utm_term" => &mut campaign.term,
                "utm_content" => &mut campaign.content,
                "gclid" | "gbraid" | "wbraid" | "dclid" | "msclkid" | "yclid" | "ttclid" | "twclid"
                | "li_fat_id" => {
                    campaign.click = Click::Paid;
                    continue;
                }
                "fbclid" => {
                    if campaign.click == Click::None {
                        campaign.click = Click::Social;
                    }
                    continue;
                }
                _ => continue,
            };
            *field = bounded(value);
        }
        tally.count(match campaign {
            _ if campaign.is_named() => Did::CampaignNamed,
            Self { click: Click::None, .. } => Did::CampaignNone,
            _ => Did::CampaignClick,
        });
        campaign
    }

    /// Whether the site named it; a click id is the platform's doing.
    pub(crate) fn is_named(&self) -> bool {
        [&self.source, &self.medium, &self.name, &self.term, &self.content]
            .iter()
            .any(|name| !name.is_empty())
    }
}

fn bounded(value: Cow<'_, str>) -> Cow<'_, str> {
    if value.len() <= MAX_CHARACTERS && !value.bytes().any(|byte| byte.is_ascii_control() || byte >= 0x80) {
        return value;
    }
    value.chars().filter(|c| !c.is_control()).take(MAX_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn read(query: &str) -> Campaign<'_> {
        Campaign::read(query, &mut StepTally::default())
    }

    #[test]
    fn the_names_of_a_campaign_are_decoded() {
        let campaign = read("x=1&utm_source=a+b&utm%5Fmedium=%C3%A9&utm_campaign=c&utm_term=d&utm_content=e");
        let names = [&campaign.source, &campaign.medium, &campaign.name, &campaign.term, &campaign.content];
        assert_eq!(names, ["a b", "é", "c", "d", "e"]);
    }

    #[rstest]
    #[case("utm_source=a%00%0Ab", "ab".to_owned())]
    #[case(&format!("utm_source={}", "x".repeat(200)), "x".repeat(128))]
    #[case(&format!("utm_source={}", "%C3%A9".repeat(200)), "é".repeat(128))]
    fn a_name_is_bounded_and_holds_no_control_character(#[case] query: &str, #[case] source: String) {
        assert_eq!(read(query).source, source);
    }

    #[rstest]
    #[case("", Click::None, Did::CampaignNone)]
    #[case("q=gclid", Click::None, Did::CampaignNone)]
    #[case("gclid=Cj0KCQ", Click::Paid, Did::CampaignClick)]
    #[case("fbclid=IwAR0", Click::Social, Did::CampaignClick)]
    #[case("gclid=1&fbclid=2", Click::Paid, Did::CampaignClick)]
    #[case("msclkid=1&utm_source=bing", Click::Paid, Did::CampaignNamed)]
    fn a_click_id_is_seen_and_not_kept(#[case] query: &str, #[case] click: Click, #[case] did: Did) {
        let mut tally = StepTally::default();
        let campaign = Campaign::read(query, &mut tally);
        assert_eq!((campaign.click, tally.of(did)), (click, 1));
        assert!(!format!("{campaign:?}").contains("Cj0KCQ"));
    }
}
