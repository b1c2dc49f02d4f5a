//! How a visitor came: from the referrer and the campaign parameters.

/// Names of the campaign of a page's URL; empty where not given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Campaign {
    pub(crate) source: String,
    pub(crate) medium: String,
    pub(crate) name: String,
}

/// Hosts, without `www.`, that are the entry's name or end in `.` and the name; a name that ends in `.` stands for any
/// top-level domain (`google.` is `google.de`).
const MAIL: &[&str] = &[
    "mail.google.com",
    "mail.yahoo.com",
    "outlook.live.com",
    "outlook.office.com",
    "mail.proton.me",
    "gmx.net",
];
const SEARCH: &[&str] = &[
    "google.",
    "bing.com",
    "duckduckgo.com",
    "yahoo.com",
    "yandex.",
    "baidu.com",
    "ecosia.org",
    "qwant.com",
    "startpage.com",
    "search.brave.com",
    "kagi.com",
    "naver.com",
    "seznam.cz",
];
const SOCIAL: &[&str] = &[
    "facebook.com",
    "instagram.com",
    "x.com",
    "twitter.com",
    "t.co",
    "linkedin.com",
    "lnkd.in",
    "reddit.com",
    "youtube.com",
    "youtu.be",
    "pinterest.",
    "tiktok.com",
    "threads.net",
    "bsky.app",
    "mastodon.social",
    "news.ycombinator.com",
    "vk.com",
    "whatsapp.com",
    "t.me",
    "discord.com",
];

/// `host` is the referrer's without `www.`; empty for none.
pub(crate) fn channel_of(campaign: &Campaign, host: &str, internal: bool) -> &'static str {
    let mail =
        |text: &str| matches!(text.to_ascii_lowercase().as_str(), "email" | "e-mail" | "mail" | "newsletter");
    if mail(&campaign.medium) || mail(&campaign.source) {
        "email"
    } else if *campaign != Campaign::default() {
        "campaign"
    } else if internal {
        "internal"
    } else if host.is_empty() {
        "direct"
    } else if MAIL.iter().any(|name| belongs(host, name)) {
        "email"
    } else if SEARCH.iter().any(|name| belongs(host, name)) {
        "search"
    } else if SOCIAL.iter().any(|name| belongs(host, name)) {
        "social"
    } else {
        "referral"
    }
}

fn belongs(host: &str, name: &str) -> bool {
    if let Some(word) = name.strip_suffix('.') {
        // `google.co.uk`, `images.google.de`; not `google.evil.example`: at most two labels follow.
        let mut labels = host.split('.');
        labels.any(|label| label == word) && (1..=2).contains(&labels.count())
    } else {
        host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("", "", "", false, "direct")]
    #[case("", "", "shop.example", true, "internal")]
    #[case("", "", "google.de", false, "search")]
    #[case("", "", "google.co.uk", false, "search")]
    #[case("", "", "notgoogle.com", false, "referral")]
    #[case("", "", "google", false, "referral")]
    #[case("", "", "mail.google.com", false, "email")]
    #[case("", "", "l.facebook.com", false, "social")]
    #[case("", "", "netflix.com", false, "referral")]
    #[case("", "", "x.com", false, "social")]
    #[case("news", "", "", false, "campaign")]
    #[case("news", "email", "", false, "email")]
    #[case("newsletter", "", "google.de", false, "email")]
    #[case("ads", "cpc", "google.de", false, "campaign")]
    fn a_view_came_by_a_channel(
        #[case] source: &str,
        #[case] medium: &str,
        #[case] host: &str,
        #[case] internal: bool,
        #[case] channel: &str,
    ) {
        let campaign = Campaign { source: source.into(), medium: medium.into(), name: String::new() };
        assert_eq!(channel_of(&campaign, host, internal), channel);
    }
}
