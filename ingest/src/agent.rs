//! Browser, system and kind of device from the user agent.
//!
//! A table of our own: the crates for this either stopped before today's browsers or carry a megabyte of expressions,
//! and a live page needs ten names, not versions. The first entry that matches holds, so the order matters: almost
//! every browser also claims to be Chrome, Safari or both.

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Agent {
    pub(crate) browser: &'static str,
    pub(crate) system: &'static str,
    /// `desktop`, `mobile`, `tablet`, `bot`, `other`.
    pub(crate) device: &'static str,
}

const BROWSERS: &[(&str, &str)] = &[
    ("Edg/", "Edge"),
    ("EdgA/", "Edge"),
    ("EdgiOS/", "Edge"),
    ("OPR/", "Opera"),
    ("Opera", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("YaBrowser/", "Yandex"),
    ("Vivaldi/", "Vivaldi"),
    ("UCBrowser/", "UC Browser"),
    ("DuckDuckGo/", "DuckDuckGo"),
    ("Ddg/", "DuckDuckGo"),
    ("FxiOS/", "Firefox"),
    ("Firefox/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("HeadlessChrome/", "Chrome"),
    ("Chromium/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("MSIE ", "Internet Explorer"),
    ("Trident/", "Internet Explorer"),
    ("Safari/", "Safari"),
    ("AppleWebKit/", "Safari"),
];

const SYSTEMS: &[(&str, &str)] = &[
    ("Windows", "Windows"),
    ("iPhone", "iOS"),
    ("iPad", "iPadOS"),
    ("iPod", "iOS"),
    ("Mac OS X", "macOS"),
    ("Macintosh", "macOS"),
    ("Android", "Android"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
    ("FreeBSD", "FreeBSD"),
    ("OpenBSD", "OpenBSD"),
];

/// In lower case. Programs that fetch pages, and browsers that no person looks at.
const BOTS: &[&str] = &[
    "bot",
    "crawl",
    "spider",
    "slurp",
    "headless",
    "lighthouse",
    "preview",
    "facebookexternalhit",
    "curl/",
    "wget/",
    "python",
    "java/",
    "okhttp",
    "go-http-client",
    "axios",
    "node-fetch",
    "libwww",
    "scrapy",
    "http_",
    "monitor",
    "uptime",
    "phantomjs",
    "selenium",
];

/// Cubot makes phones.
const NO_BOTS: &[&str] = &["cubot"];

impl Agent {
    pub(crate) fn parse(user_agent: &str) -> Self {
        let first = |table: &[(&str, &'static str)]| {
            table.iter().find(|(token, _)| user_agent.contains(token)).map_or("", |(_, name)| name)
        };
        Self { browser: first(BROWSERS), system: first(SYSTEMS), device: device(user_agent) }
    }
}

fn device(user_agent: &str) -> &'static str {
    let lower = user_agent.to_ascii_lowercase();
    let is = |token: &str| user_agent.contains(token);
    if BOTS.iter().any(|token| lower.contains(token)) && !NO_BOTS.iter().any(|token| lower.contains(token)) {
        "bot"
    } else if is("iPad") || is("Tablet") || (is("Android") && !is("Mobile")) {
        "tablet"
    } else if is("Mobile") || is("iPhone") || is("iPod") {
        "mobile"
    } else if is("Windows") || is("Macintosh") || is("X11") || is("Linux") || is("CrOS") {
        "desktop"
    } else {
        "other"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
        "Edge",
        "Windows",
        "desktop"
    )]
    #[case(
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15",
        "Safari",
        "macOS",
        "desktop"
    )]
    #[case(
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/140.0 Mobile/15E148 Safari/604.1",
        "Chrome",
        "iOS",
        "mobile"
    )]
    #[case(
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "Firefox",
        "Linux",
        "desktop"
    )]
    #[case(
        "Mozilla/5.0 (Linux; Android 14; SM-S918B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/25.0 Chrome/121.0.0.0 Mobile Safari/537.36",
        "Samsung Internet",
        "Android",
        "mobile"
    )]
    #[case(
        "Mozilla/5.0 (Linux; Android 14; SM-X710) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
        "Chrome",
        "Android",
        "tablet"
    )]
    #[case(
        "Mozilla/5.0 (Linux; Android 13; CUBOT P80) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36",
        "Chrome",
        "Android",
        "mobile"
    )]
    #[case("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "", "", "bot")]
    #[case(
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/140.0.0.0 Safari/537.36",
        "Chrome",
        "Linux",
        "bot"
    )]
    #[case("curl/8.9.1", "", "", "bot")]
    #[case("", "", "", "other")]
    fn a_user_agent_is_named(
        #[case] user_agent: &str,
        #[case] browser: &str,
        #[case] system: &str,
        #[case] device: &str,
    ) {
        let agent = Agent::parse(user_agent);
        assert_eq!((agent.browser, agent.system, agent.device), (browser, system, device));
    }
}
