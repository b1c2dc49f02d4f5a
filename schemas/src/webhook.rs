//! `alert_webhooks` of a site: where its firings are posted.

use std::fmt;

use serde::{Deserialize, Deserializer, de::Error as _};
use url::{Host, Url};

use crate::secret::SiteSecret;

/// Most webhooks of a site.
pub const MAX_WEBHOOKS: usize = 5;
const MAX_URL_BYTES: usize = 2_048;

/// `{ url = "https://hooks.example/…", secret = "…" }`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    pub url: WebhookUrl,
    /// Signs what is posted.
    pub secret: SiteSecret,
}

/// `https://` or `http://`, without a login. Who knows such a URL may often post to it, so only its
/// [origin](Self::origin) is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(Url);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("alert_webhooks: url: write https://host/path, at most 2048 bytes, without a login in it")]
pub struct InvalidUrl;

impl TryFrom<&str> for WebhookUrl {
    type Error = InvalidUrl;

    fn try_from(text: &str) -> Result<Self, InvalidUrl> {
        let url = Url::parse(text).map_err(|_| InvalidUrl)?;
        let has_login = !url.username().is_empty() || url.password().is_some();
        let is_web = matches!(url.scheme(), "http" | "https") && url.host().is_some();
        if text.len() > MAX_URL_BYTES || has_login || !is_web { Err(InvalidUrl) } else { Ok(Self(url)) }
    }
}

impl WebhookUrl {
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    pub fn host(&self) -> Host<&str> {
        self.0.host().expect("checked when it was read")
    }

    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().expect("the two schemes have ports")
    }

    /// Value of the header `Host`: with the port when it is not the scheme's.
    pub fn authority(&self) -> String {
        match self.0.port() {
            Some(port) => format!("{}:{port}", self.host()),
            None => self.host().to_string(),
        }
    }

    /// Path and query, as they are requested.
    pub fn target(&self) -> String {
        match self.0.query() {
            Some(query) => format!("{}?{query}", self.0.path()),
            None => self.0.path().to_owned(),
        }
    }

    /// Scheme, host and port: what may be shown.
    pub fn origin(&self) -> String {
        format!("{}://{}", self.0.scheme(), self.authority())
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookUrl({}/…)", self.origin())
    }
}

impl<'de> Deserialize<'de> for WebhookUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::try_from(text.as_str()).map_err(D::Error::custom)
    }
}

/// At most [`MAX_WEBHOOKS`].
pub(crate) fn webhooks_of_a_site<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Webhook>, D::Error> {
    let webhooks = Vec::<Webhook>::deserialize(deserializer)?;
    if webhooks.len() > MAX_WEBHOOKS {
        let reason = format!("alert_webhooks: {} of them; a site may have {MAX_WEBHOOKS}", webhooks.len());
        return Err(D::Error::custom(reason));
    }
    Ok(webhooks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("https://hooks.example/a/b?c=d", "/a/b?c=d", "hooks.example", 443)]
    #[case("https://hooks.example", "/", "hooks.example", 443)]
    #[case("http://hooks.example:8080/a#b", "/a", "hooks.example:8080", 8080)]
    #[case("https://[2001:db8::1]:8443/a", "/a", "[2001:db8::1]:8443", 8443)]
    #[case("http://0x7f.1/", "/", "127.0.0.1", 80)]
    fn a_url_is_taken_apart(
        #[case] text: &str,
        #[case] target: &str,
        #[case] authority: &str,
        #[case] port: u16,
    ) {
        let url = WebhookUrl::try_from(text).unwrap();
        assert_eq!((url.target().as_str(), url.authority().as_str(), url.port()), (target, authority, port));
        assert_eq!(url.is_https(), text.starts_with("https"));
    }

    #[rstest]
    #[case("hooks.example/a")]
    #[case("ftp://hooks.example/a")]
    #[case("file:///etc/passwd")]
    #[case("https://")]
    #[case("https://user:word@hooks.example/")]
    #[case("https://token@hooks.example/")]
    #[case(&format!("https://hooks.example/{}", "x".repeat(2_048)))]
    fn what_is_no_url_is_refused_without_being_shown(#[case] text: &str) {
        let error = serde_json::from_value::<WebhookUrl>(text.into()).unwrap_err().to_string();
        assert_eq!(error, InvalidUrl.to_string());
    }

    #[test]
    fn neither_path_nor_secret_is_printed() {
        let secret = "0f".repeat(32);
        let json = format!(r#"{{"url":"https://hooks.example/T0/token","secret":"{secret}"}}"#);
        let printed = format!("{:?}", serde_json::from_str::<Webhook>(&json).unwrap());
        assert!(printed.contains("https://hooks.example/…"), "{printed}");
        assert!(!printed.contains("token") && !printed.contains("0f0f"), "{printed}");
    }

    #[test]
    fn a_site_has_so_many_webhooks() {
        let webhook = format!(r#"{{"url":"https://hooks.example/","secret":"{}"}}"#, "0f".repeat(32));
        let read = |count: usize| {
            let json = format!("[{}]", vec![webhook.as_str(); count].join(","));
            webhooks_of_a_site(&mut serde_json::Deserializer::from_str(&json))
        };
        assert_eq!(read(5).unwrap().len(), 5);
        assert!(read(6).unwrap_err().to_string().contains("6 of them"));
    }
}
