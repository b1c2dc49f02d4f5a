//! How a visitor came: from the campaign and the referrer.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::LazyLock,
};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::campaign::{Campaign, Click};

/// The kinds of way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    Direct,
    Internal,
    Search,
    Social,
    Email,
    /// A chat assistant.
    Assistant,
    /// An advertisement.
    Paid,
    Campaign,
    Referral,
}

impl Channel {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Internal => "internal",
            Self::Search => "search",
            Self::Social => "social",
            Self::Email => "email",
            Self::Assistant => "assistant",
            Self::Paid => "paid",
            Self::Campaign => "campaign",
            Self::Referral => "referral",
        }
    }

    /// `host` is the referrer's without `www.`; empty for none.
    pub(crate) fn of(campaign: &Campaign<'_>, host: &str, internal: bool) -> Self {
        let mail = |name: &str| is_one_of(name, &["email", "e-mail", "mail", "newsletter"]);
        if mail(&campaign.medium) || mail(&campaign.source) {
            Self::Email
        } else if campaign.click == Click::Paid || is_one_of(&campaign.medium, PAID_MEDIA) {
            Self::Paid
        } else if channel_of_host(&campaign.source) == Some(Self::Assistant) {
            // Assistants name themselves in the links that they show.
            Self::Assistant
        } else if campaign.is_named() {
            Self::Campaign
        } else if internal {
            Self::Internal
        } else if host.is_empty() {
            if campaign.click == Click::Social { Self::Social } else { Self::Direct }
        } else {
            channel_of_host(host).unwrap_or(Self::Referral)
        }
    }
}

/// `utm_medium` of advertisements.
const PAID_MEDIA: &[&str] = &[
    "cpc",
    "ppc",
    "cpm",
    "cpv",
    "cpa",
    "paid",
    "paidsearch",
    "paid-search",
    "paid_search",
    "paidsocial",
    "paid-social",
    "paid_social",
    "display",
    "banner",
    "retargeting",
    "remarketing",
];

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|one| name.eq_ignore_ascii_case(one))
}

/// Hosts without `www.`: a referrer is one of them or ends in `.` and one of them; the longest that fits holds. Of an
/// app the host is its package.
const HOSTS: &[(Channel, &[&str])] = &[
    (
        Channel::Email,
        &[
            "mail.google.com",
            "mail.yahoo.com",
            "outlook.live.com",
            "outlook.office.com",
            "outlook.office365.com",
            "mail.proton.me",
            "mail.aol.com",
            "e.mail.ru",
            "mail.yandex.ru",
            "mail.yandex.com",
            "gmx.net",
            "gmx.com",
            "web.de",
            "app.fastmail.com",
            "mail.zoho.com",
            "com.google.android.gm",
        ],
    ),
    (
        Channel::Assistant,
        &[
            "chatgpt.com",
            "chat.openai.com",
            "perplexity.ai",
            "claude.ai",
            "gemini.google.com",
            "copilot.microsoft.com",
            "copilot.cloud.microsoft",
            "chat.deepseek.com",
            "chat.mistral.ai",
            "grok.com",
            "meta.ai",
            "poe.com",
            "you.com",
            "phind.com",
            "duck.ai",
            "kimi.com",
            "doubao.com",
            "chat.qwen.ai",
            "notebooklm.google.com",
            "com.openai.chatgpt",
            "ai.perplexity.app.android",
            "com.anthropic.claude",
        ],
    ),
    (
        Channel::Search,
        &[
            "bing.com",
            "duckduckgo.com",
            "yahoo.com",
            "search.yahoo.co.jp",
            "baidu.com",
            "ecosia.org",
            "qwant.com",
            "startpage.com",
            "search.brave.com",
            "kagi.com",
            "naver.com",
            "daum.net",
            "seznam.cz",
            "sogou.com",
            "so.com",
            "mojeek.com",
            "swisscows.com",
            "metager.de",
            "metager.org",
            "search.aol.com",
            "ask.com",
            "dogpile.com",
            "coccoc.com",
            "ya.ru",
            "presearch.com",
            "com.google.android.googlequicksearchbox",
        ],
    ),
    (
        Channel::Social,
        &[
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
            "tiktok.com",
            "threads.net",
            "threads.com",
            "bsky.app",
            "go.bsky.app",
            "mastodon.social",
            "mastodon.online",
            "news.ycombinator.com",
            "lobste.rs",
            "vk.com",
            "ok.ru",
            "whatsapp.com",
            "wa.me",
            "t.me",
            "telegram.org",
            "web.telegram.org",
            "discord.com",
            "slack.com",
            "messenger.com",
            "snapchat.com",
            "tumblr.com",
            "quora.com",
            "weibo.com",
            "zhihu.com",
            "xing.com",
            "com.reddit.frontpage",
            "com.linkedin.android",
            "com.twitter.android",
            "org.telegram.messenger",
            "com.slack",
            "com.discord",
        ],
    ),
];

/// Names that stand under any top-level domain: `google` is `google.de` and `images.google.co.uk`.
const WORDS: &[(Channel, &str)] =
    &[(Channel::Search, "google"), (Channel::Search, "yandex"), (Channel::Social, "pinterest")];

static BY_HOST: LazyLock<HashMap<&str, Channel, BuildHasherDefault<HostHasher>>> = LazyLock::new(|| {
    HOSTS.iter().flat_map(|(channel, hosts)| hosts.iter().map(|host| (*host, *channel))).collect()
});

/// The table is fixed, so nobody can fill it with collisions: a short hash will do.
#[derive(Default)]
struct HostHasher(u64);

impl Hasher for HostHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// Ends a text: nothing follows it here.
    fn write_u8(&mut self, _: u8) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

fn channel_of_host(host: &str) -> Option<Channel> {
    let mut rest = host;
    loop {
        if let Some(channel) = BY_HOST.get(rest) {
            return Some(*channel);
        }
        match rest.split_once('.') {
            // A top-level domain alone is nobody.
            Some((_, parent)) if parent.contains('.') => rest = parent,
            _ => break,
        }
    }
    WORDS.iter().find(|(_, word)| is_word_of(host, word)).map(|(channel, _)| *channel)
}

/// `google.co.uk`, `images.google.de`; not `google.evil.example.com`: at most two labels follow.
fn is_word_of(host: &str, word: &str) -> bool {
    let mut labels = host.split('.');
    labels.any(|label| label == word) && (1..=2).contains(&labels.count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrich::steps::StepTally;
    use rstest::rstest;

    #[rstest]
    #[case("", "", false, Channel::Direct)]
    #[case("", "shop.example", true, Channel::Internal)]
    #[case("", "google.de", false, Channel::Search)]
    #[case("", "google.co.uk", false, Channel::Search)]
    #[case("", "images.google.com", false, Channel::Search)]
    #[case("", "notgoogle.com", false, Channel::Referral)]
    #[case("", "google.evil.example.com", false, Channel::Referral)]
    #[case("", "google", false, Channel::Referral)]
    #[case("", "com", false, Channel::Referral)]
    #[case("", "mail.google.com", false, Channel::Email)]
    #[case("", "l.facebook.com", false, Channel::Social)]
    #[case("", "netflix.com", false, Channel::Referral)]
    #[case("", "x.com", false, Channel::Social)]
    #[case("", "notx.com", false, Channel::Referral)]
    #[case("", "gemini.google.com", false, Channel::Assistant)]
    #[case("", "chatgpt.com", false, Channel::Assistant)]
    #[case("", "com.google.android.gm", false, Channel::Email)]
    #[case("utm_source=chatgpt.com", "", false, Channel::Assistant)]
    #[case("utm_source=news", "", false, Channel::Campaign)]
    #[case("utm_content=footer", "", true, Channel::Campaign)]
    #[case("utm_source=news&utm_medium=Email", "", false, Channel::Email)]
    #[case("utm_source=newsletter", "google.de", false, Channel::Email)]
    #[case("utm_source=ads&utm_medium=CPC", "google.de", false, Channel::Paid)]
    #[case("gclid=x", "google.de", false, Channel::Paid)]
    #[case("fbclid=x", "", false, Channel::Social)]
    #[case("fbclid=x", "shop.example", true, Channel::Internal)]
    #[case("fbclid=x", "b.example", false, Channel::Referral)]
    fn a_view_came_by_a_channel(
        #[case] query: &str,
        #[case] host: &str,
        #[case] internal: bool,
        #[case] channel: Channel,
    ) {
        let campaign = Campaign::read(query, &mut StepTally::default());
        assert_eq!(Channel::of(&campaign, host, internal), channel);
    }

    #[test]
    fn no_host_stands_in_two_channels() {
        assert_eq!(BY_HOST.len(), HOSTS.iter().map(|(_, hosts)| hosts.len()).sum::<usize>());
    }
}
