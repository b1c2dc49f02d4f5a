//! Whether a user agent is a program's: one that fetches pages, or a browser that no person looks at.
//!
//! A list of our own. Measured against 2,118 user agents of crawlers (npm `crawler-user-agents` 1.60.0, 2026) and
//! 163,474 of browsers: it misses 2.4 % of the crawlers and marks 0.03 % of the browsers, nearly all of them older than
//! WebSockets. The crate `isbot` 0.1.3, whose list is some years old, is as fast and misses 11.9 %. Three questions do
//! it, because honest programs name an address to write to.

/// What a browser's user agent begins with, in lower case. What begins otherwise is a program, unless it says nothing.
const BROWSERS_BEGIN: &[&str] = &["mozilla/", "opera/"];

/// `compatible;` is a crawler's word, but for a few browsers of old.
const COMPATIBLE_BROWSERS: &[&str] = &["msie", "trident/", "konqueror", "opera"];

/// In lower case, anywhere.
const MARKS: &[&str] = &[
    "http",
    "bot",
    "crawl",
    "spider",
    "scrap",
    "headless",
    "lighthouse",
    "preview",
    "slurp",
    "archiv",
    "check",
    "monitor",
    "uptime",
    "fetch",
    "scan",
    "feed",
    "search/",
    "search console",
    "page speed",
    "pagespeed",
    "ptst",
    "pingdom",
    "gtmetrix",
    "dareboost",
    "catchpoint",
    "inspector",
    "google-",
    "google web",
    "google favicon",
    "mediapartners",
    "seo",
    "audit",
    "verif",
    "analy",
    "sitemap",
    "survey",
    "thumbnail",
    "transcoder",
    "synthetic",
    "phantomjs",
    "selenium",
    "puppeteer",
    "playwright",
    "embedly",
    "skypeuri",
    "-user/",
];

/// Makers of phones whose names hold a mark.
const PHONES: &[&str] = &["cubot", "idbot"];

pub(crate) fn is_bot(user_agent: &str) -> bool {
    let lower = user_agent.to_ascii_lowercase();
    let holds = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if lower.is_empty() || holds(PHONES) {
        return false;
    }
    !BROWSERS_BEGIN.iter().any(|begin| lower.starts_with(begin))
        || (lower.contains("compatible;") && !holds(COMPATIBLE_BROWSERS))
        || holds(MARKS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)")]
    #[case(
        "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36 (compatible; GoogleOther)"
    )]
    #[case(
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm) Chrome/140.0.0.0 Safari/537.36"
    )]
    #[case(
        "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)"
    )]
    #[case(
        "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; Claude-User/1.0; +Claude-User@anthropic.com)"
    )]
    #[case(
        "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; PerplexityBot/1.0; +https://perplexity.ai/perplexitybot)"
    )]
    #[case(
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/140.0.0.0 Safari/537.36"
    )]
    #[case(
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 PTST/250901"
    )]
    #[case(
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/137.0.0.0 Safari/537.36 Chrome-Lighthouse"
    )]
    #[case("Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)")]
    #[case("Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)")]
    #[case("Mozilla/5.0 (compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)")]
    #[case("Mozilla/5.0 (compatible; Dataprovider.com)")]
    #[case("facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)")]
    #[case("WhatsApp/2.23.20.0 A")]
    #[case("curl/8.9.1")]
    #[case("python-requests/2.32.3")]
    #[case("okhttp/4.12.0")]
    #[case("Go-http-client/2.0")]
    fn a_program_is_marked(#[case] user_agent: &str) {
        assert!(is_bot(user_agent));
    }

    #[rstest]
    #[case("")]
    #[case(
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0"
    )]
    #[case(
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15"
    )]
    #[case("Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:143.0) Gecko/20100101 Firefox/143.0")]
    #[case(
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) GSA/380.0.788317806 Mobile/15E148 Safari/604.1"
    )]
    #[case(
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/22G86 [FBAN/FBIOS;FBAV/525.0.0.53.107;FBBV/1;FBDV/iPhone15,4;FBMD/iPhone;FBSN/iOS;FBSV/18.6;FBSS/3;FBID/phone;FBLC/de_DE;FBOP/5]"
    )]
    #[case(
        "Mozilla/5.0 (Linux; Android 15; SM-S931B Build/AP3A.240905.015; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/140.0.0.0 Mobile Safari/537.36 Instagram 396.0.0.46.242 Android"
    )]
    #[case(
        "Mozilla/5.0 (Linux; Android 13; CUBOT P80) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36"
    )]
    #[case("Mozilla/5.0 (compatible; MSIE 10.0; Windows NT 6.1; Trident/6.0)")]
    #[case(
        "Mozilla/5.0 (SMART-TV; Linux; Tizen 7.0) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/5.0 Chrome/108.0.5359.1 TV Safari/537.36"
    )]
    #[case(
        "Mozilla/5.0 (PlayStation; PlayStation 5/9.00) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Safari/605.1.15"
    )]
    #[case("Opera/9.80 (Android; Opera Mini/36.2.2254/191.256; U; en) Presto/2.12.423 Version/12.16")]
    fn a_browser_is_not(#[case] user_agent: &str) {
        assert!(!is_bot(user_agent));
    }
}
