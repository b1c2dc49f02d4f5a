//! A site and the origins its pages may come from.

use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    SiteId, alert_rule::AlertRule, goal::Goal, page_rules::PathRule, secret::SiteSecret, time::MINUTE_MS,
    tracker_settings::TrackerSettings, webhook::Webhook,
};

/// A visitor's silence that ends a session, in minutes, where the site says nothing else.
pub const SESSION_GAP_MINUTES: u16 = 30;
/// What a site may say.
pub const SESSION_GAPS: RangeInclusive<u16> = 1..=720;

/// `[[sites]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    pub key: SiteId,
    /// Shown on the dashboard; the key when empty.
    #[serde(default)]
    pub name: String,
    /// Pages with another `Origin` are refused. That is pollution control, no security: a script can claim any origin.
    pub origins: Vec<OriginPattern>,
    /// False: nothing is taken, and trackers are told to stop.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// Signs what servers send to `/api/v1/events`. Absent: nothing is taken there.
    #[serde(default, skip_serializing)]
    pub secret: Option<SiteSecret>,
    /// What the site asks of its trackers; goes to them in the welcome.
    #[serde(default, deserialize_with = "TrackerSettings::deserialize_closed")]
    pub tracker: TrackerSettings,
    /// Query parameters that belong to a page: kept, in order of their names, with its path (`/search?q=lamp`). All
    /// others are dropped.
    #[serde(default)]
    pub query_allowlist: Vec<String>,
    #[serde(default)]
    pub path_rules: Vec<PathRule>,
    /// A visitor's silence, by event time, that ends a session: one of [`SESSION_GAPS`].
    #[serde(default = "session_gap_minutes")]
    pub session_gap_minutes: u16,
    /// What visitors are wanted to do; shown live and counted.
    #[serde(default, deserialize_with = "crate::goal::goals_of_a_site")]
    pub goals: Vec<Goal>,
    /// Anybody may watch.
    #[serde(default)]
    pub public: bool,
    /// Pages with these origins may show the live page in a frame.
    #[serde(default)]
    pub embed_origins: Vec<OriginPattern>,
    /// Who is told is nobody else's business.
    #[serde(default, skip_serializing, deserialize_with = "crate::alert_rule::rules_of_a_site")]
    pub alerts: Vec<AlertRule>,
    #[serde(default, skip_serializing, deserialize_with = "crate::webhook::webhooks_of_a_site")]
    pub alert_webhooks: Vec<Webhook>,
}

fn session_gap_minutes() -> u16 {
    SESSION_GAP_MINUTES
}

fn enabled() -> bool {
    true
}

/// `https://example.com`, `https://*.example.com` (subdomains only), `http://localhost:*` (any port) or `*` (any).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginPattern {
    text: String,
    scheme: String,
    /// Without the leading `*.`.
    host: String,
    subdomains: bool,
    port: Port,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    Default,
    Any,
    Is(u16),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no origin: write https://example.com, https://*.example.com, http://localhost:* or *")]
pub struct InvalidOrigin(String);

/// What the fields alone do not say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSite {
    #[error("origins: site {site:?} allows no origin, so no page could send; name its origins")]
    NoOrigin { site: String },
    #[error("session_gap_minutes: site {site:?} has {minutes}, which is not {} to {}", SESSION_GAPS.start(), SESSION_GAPS.end())]
    SessionGap { site: String, minutes: u16 },
}

impl InvalidSite {
    pub fn field(&self) -> &'static str {
        match self {
            Self::NoOrigin { .. } => "origins",
            Self::SessionGap { .. } => "session_gap_minutes",
        }
    }
}

impl Site {
    /// Checks what the types do not say.
    pub fn check(&self) -> Result<(), InvalidSite> {
        let site = || self.key.to_string();
        if self.origins.is_empty() {
            return Err(InvalidSite::NoOrigin { site: site() });
        }
        if !SESSION_GAPS.contains(&self.session_gap_minutes) {
            return Err(InvalidSite::SessionGap { site: site(), minutes: self.session_gap_minutes });
        }
        Ok(())
    }

    /// A site with every optional field at its default.
    pub fn new(key: SiteId, origins: Vec<OriginPattern>) -> Self {
        Self {
            key,
            name: String::new(),
            origins,
            enabled: enabled(),
            secret: None,
            tracker: TrackerSettings::default(),
            query_allowlist: Vec::new(),
            path_rules: Vec::new(),
            session_gap_minutes: session_gap_minutes(),
            goals: Vec::new(),
            public: false,
            embed_origins: Vec::new(),
            alerts: Vec::new(),
            alert_webhooks: Vec::new(),
        }
    }

    pub fn session_gap_ms(&self) -> i64 {
        i64::from(self.session_gap_minutes) * MINUTE_MS
    }

    pub fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|pattern| pattern.matches(origin))
    }
}

impl TryFrom<&str> for OriginPattern {
    type Error = InvalidOrigin;

    fn try_from(text: &str) -> Result<Self, InvalidOrigin> {
        let invalid = || InvalidOrigin(text.to_owned());
        if text == "*" {
            return Ok(Self {
                text: text.into(),
                scheme: String::new(),
                host: String::new(),
                subdomains: true,
                port: Port::Any,
            });
        }
        let (scheme, authority) = split_origin(text).ok_or_else(invalid)?;
        let (host, port) = match authority.strip_suffix(":*") {
            Some(host) => (host, Port::Any),
            None => split_port(authority).ok_or_else(invalid)?,
        };
        let (host, subdomains) = match host.strip_prefix("*.") {
            Some(host) => (host, true),
            None => (host, false),
        };
        if !is_host(host) {
            return Err(invalid());
        }
        Ok(Self {
            text: text.into(),
            scheme: scheme.into(),
            host: host.to_ascii_lowercase(),
            subdomains,
            port,
        })
    }
}

impl OriginPattern {
    pub fn matches(&self, origin: &str) -> bool {
        if self.text == "*" {
            return true;
        }
        let Some((scheme, authority)) = split_origin(origin) else { return false };
        let Some((host, port)) = split_port(authority) else { return false };
        let host = host.to_ascii_lowercase();
        let same_host = if self.subdomains {
            host.strip_suffix(&self.host).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        } else {
            host == self.host
        };
        scheme == self.scheme && same_host && (self.port == Port::Any || self.port == port)
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// As a browser writes a host into an origin: a name in ASCII, or an address. A pattern goes into a header, too, where
/// anything else could mean something.
fn is_host(text: &str) -> bool {
    let name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !text.is_empty() && text.bytes().all(name),
    }
}

fn split_origin(text: &str) -> Option<(&str, &str)> {
    let (scheme, authority) = text.split_once("://")?;
    (matches!(scheme, "http" | "https") && !authority.is_empty() && !authority.contains('/'))
        .then_some((scheme, authority))
}

/// Splits off the port; an IPv6 address stands in brackets.
fn split_port(authority: &str) -> Option<(&str, Port)> {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => Some((host, Port::Is(port.parse().ok()?))),
        _ => Some((authority, Port::Default)),
    }
}

impl Serialize for OriginPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for OriginPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::try_from(text.as_str()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("https://example.com", "https://example.com", true)]
    #[case("https://example.com", "https://EXAMPLE.com", true)]
    #[case("https://example.com", "http://example.com", false)]
    #[case("https://example.com", "https://example.com:8443", false)]
    #[case("https://example.com:8443", "https://example.com:8443", true)]
    #[case("https://example.com", "https://evil-example.com", false)]
    #[case("https://*.example.com", "https://a.b.example.com", true)]
    #[case("https://*.example.com", "https://example.com", false)]
    #[case("https://*.example.com", "https://evilexample.com", false)]
    #[case("http://localhost:*", "http://localhost:3000", true)]
    #[case("http://localhost:*", "http://localhost", true)]
    #[case("http://localhost:*", "http://localhost.evil.com:3000", false)]
    #[case("http://[::1]:*", "http://[::1]:3000", true)]
    #[case("*", "null", true)]
    #[case("https://example.com", "null", false)]
    fn an_origin_matches_its_pattern(#[case] pattern: &str, #[case] origin: &str, #[case] expected: bool) {
        assert_eq!(OriginPattern::try_from(pattern).unwrap().matches(origin), expected);
    }

    #[test]
    fn a_site_of_two_lines_has_the_defaults_and_its_secret_is_never_written() {
        let site: Site = serde_json::from_str(r#"{"key":"demo","origins":["*"]}"#).unwrap();
        assert_eq!(site, Site::new("demo".parse().unwrap(), vec!["*".try_into().unwrap()]));
        assert!(site.enabled);
        let secret = "0f".repeat(32);
        let json = format!(r#"{{"key":"demo","origins":["*"],"enabled":false,"secret":"{secret}"}}"#);
        let site: Site = serde_json::from_str(&json).unwrap();
        assert!(!site.enabled && site.secret.is_some());
        assert!(!serde_json::to_string(&site).unwrap().contains(&secret));
        assert!(!format!("{site:?}").contains(&secret));
    }

    #[test]
    fn a_site_needs_an_origin_and_a_session_gap_within_bounds() {
        let site: Site = serde_json::from_str(r#"{"key":"a","origins":["*"]}"#).unwrap();
        site.check().unwrap();
        let silent = Site { origins: Vec::new(), ..site.clone() };
        assert_eq!(silent.check().unwrap_err().field(), "origins");
        for minutes in [0, 721] {
            let wrong = Site { session_gap_minutes: minutes, ..site.clone() };
            let error = wrong.check().unwrap_err();
            assert_eq!(error.field(), "session_gap_minutes");
            assert!(error.to_string().contains(&format!("has {minutes}, which is not 1 to 720")), "{error}");
        }
    }

    #[rstest]
    #[case("example.com")]
    #[case("https://")]
    #[case("https://example.com/path")]
    #[case("https://ex*mple.com")]
    #[case("https://example.com:port")]
    #[case("ftp://example.com")]
    #[case("https://example.com; script-src 'unsafe-inline'")]
    #[case("https://example.com, https://other.example")]
    #[case("https://b\u{fc}cher.example")]
    #[case("https://user@example.com")]
    #[case("https://[::1;]:8080")]
    #[case("https://::1")]
    fn what_is_no_origin_is_refused_at_boot(#[case] pattern: &str) {
        assert!(OriginPattern::try_from(pattern).is_err());
    }
}
