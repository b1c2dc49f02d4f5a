//! From a valid event to the record on the log: what is added, and what is left out. Pure.

use footfall_schemas::{
    EventId, EventKind, EventRecord, SiteId, VisitorId, time::event_time, tracker::PageContext,
};
use url::Url;

use crate::{
    agent::Agent,
    channel::{Campaign, channel_of},
    validate::ValidEvent,
    zones::country_of,
};

const MAX_LANGUAGE_BYTES: usize = 35;
const MAX_ZONE_BYTES: usize = 64;

/// What holds for all events of a batch.
#[derive(Debug)]
pub(crate) struct BatchContext<'a> {
    pub(crate) site: &'a SiteId,
    pub(crate) visitor: VisitorId,
    pub(crate) agent: Agent,
    pub(crate) page: &'a PageContext,
    pub(crate) received_at: i64,
    pub(crate) sent: i64,
}

impl BatchContext<'_> {
    pub(crate) fn record(&self, event_id: EventId, valid: ValidEvent) -> EventRecord {
        let payload_hash = valid.event.payload_hash();
        let ValidEvent { event, url } = valid;
        let (event_time, clock) = event_time(self.received_at, self.sent, event.at);
        let is_view = event.k == EventKind::PageView;
        let campaign = campaign(&url);
        let referrer =
            if is_view { event.r.as_deref().map(|text| Referrer::parse(text, &url)) } else { None };
        let referrer = referrer.unwrap_or_default();
        let channel = if is_view { channel_of(&campaign, &referrer.host, referrer.internal) } else { "" };
        let time_zone = tidy(self.page.z.as_deref(), MAX_ZONE_BYTES, b"/_+-");
        EventRecord {
            event_id,
            site: self.site.clone(),
            visitor: self.visitor,
            kind: event.k,
            event_time,
            received_at: self.received_at,
            clock,
            name: if event.k == EventKind::Custom { event.n.unwrap_or_default() } else { String::new() },
            host: url.host_str().unwrap_or_default().to_owned(),
            path: url.path().to_owned(),
            title: if is_view { event.t.unwrap_or_default() } else { String::new() },
            channel: channel.to_owned(),
            referrer: referrer.text,
            referrer_host: referrer.host,
            utm_source: campaign.source,
            utm_medium: campaign.medium,
            utm_campaign: campaign.name,
            country: country_of(&time_zone).to_owned(),
            language: tidy(self.page.l.as_deref(), MAX_LANGUAGE_BYTES, b"-"),
            time_zone,
            browser: self.agent.browser.to_owned(),
            system: self.agent.system.to_owned(),
            device: self.agent.device.to_owned(),
            screen_width: self.page.w.unwrap_or_default().try_into().unwrap_or(u16::MAX),
            engaged_ms: event.d.unwrap_or_default(),
            scroll_depth: event.s.unwrap_or_default(),
            page_view: event.pv.unwrap_or_default(),
            props: event.p.into_iter().map(|(key, value)| (key, value.to_text())).collect(),
            payload_hash,
        }
    }
}

/// The query is dropped but for these: it may hold anything, a password reset link's token included.
fn campaign(url: &Url) -> Campaign {
    let mut campaign = Campaign::default();
    if url.query().is_none() {
        return campaign;
    }
    for (key, value) in url.query_pairs() {
        let field = match &*key {
            "utm_source" => &mut campaign.source,
            "utm_medium" => &mut campaign.medium,
            "utm_campaign" => &mut campaign.name,
            _ => continue,
        };
        *field = value.chars().filter(|c| !c.is_control()).take(128).collect();
    }
    campaign
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Referrer {
    /// Without credentials, query and fragment.
    text: String,
    host: String,
    internal: bool,
}

impl Referrer {
    /// What is no URL with a host counts as none: it is the browser's or another site's doing, no fault of the event.
    fn parse(text: &str, page: &Url) -> Self {
        let Ok(url) = Url::parse(text) else { return Self::default() };
        let Some(host) = url.host_str() else { return Self::default() };
        let host = without_www(host);
        if page.host_str().is_some_and(|page| without_www(page) == host) {
            return Self { internal: true, ..Self::default() };
        }
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let text = format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path());
        Self { text, host: host.to_owned(), internal: false }
    }
}

fn without_www(host: &str) -> &str {
    host.strip_prefix("www.").unwrap_or(host)
}

/// ASCII letters, digits and `also`; empty when it holds anything else or is too long.
fn tidy(text: Option<&str>, most: usize, also: &[u8]) -> String {
    text.filter(|text| {
        text.len() <= most && text.bytes().all(|b| b.is_ascii_alphanumeric() || also.contains(&b))
    })
    .unwrap_or_default()
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate;
    use footfall_schemas::{Sequence, StreamId, time::Clock};
    use rstest::rstest;

    fn record(json: &str) -> EventRecord {
        let page = PageContext { w: Some(100_000), l: Some("en-GB".into()), z: Some("Europe/Berlin".into()) };
        let context = BatchContext {
            site: &SiteId::try_from("demo").unwrap(),
            visitor: VisitorId(1),
            agent: Agent { browser: "Firefox", system: "Linux", device: "desktop" },
            page: &page,
            received_at: 1_000_000,
            sent: 5_000,
        };
        let id = EventId::new(StreamId::from_parts(1, 2), Sequence::MIN);
        context.record(id, validate::event(json).unwrap())
    }

    #[test]
    fn of_the_query_only_the_campaign_is_kept() {
        let record = record(
            r#"{"k":"view","at":4000,"u":"https://Shop.example:8443/a%20b?token=secret&utm_source=news&utm_medium=email&utm_campaign=May#frag","t":"T"}"#,
        );
        assert_eq!((record.host.as_str(), record.path.as_str()), ("shop.example", "/a%20b"));
        assert_eq!(
            (record.utm_source.as_str(), record.utm_medium.as_str(), record.utm_campaign.as_str()),
            ("news", "email", "May")
        );
        assert_eq!((record.event_time, record.clock), (999_000, Clock::Told));
        assert_eq!((record.country.as_str(), record.screen_width), ("DE", u16::MAX));
        assert!(!serde_json::to_string(&record).unwrap().contains("secret"));
    }

    #[rstest]
    #[case(None, "", "", "direct")]
    #[case(
        Some("https://www.google.de/search?q=secret"),
        "https://www.google.de/search",
        "google.de",
        "search"
    )]
    #[case(Some("https://user:pw@b.example:81/x?y#z"), "https://b.example:81/x", "b.example", "referral")]
    #[case(Some("https://www.a.example/other?x"), "", "", "internal")]
    #[case(
        Some("android-app://com.example.app/"),
        "android-app://com.example.app/",
        "com.example.app",
        "referral"
    )]
    #[case(Some("about:blank"), "", "", "direct")]
    #[case(Some("nonsense"), "", "", "direct")]
    fn a_referrer_is_kept_without_its_query(
        #[case] sent: Option<&str>,
        #[case] text: &str,
        #[case] host: &str,
        #[case] channel: &str,
    ) {
        let event = serde_json::json!({"k": "view", "at": 0, "u": "https://a.example/", "r": sent});
        let record = record(&event.to_string());
        assert_eq!(
            (record.referrer.as_str(), record.referrer_host.as_str(), record.channel.as_str()),
            (text, host, channel)
        );
    }

    #[test]
    fn only_views_have_a_channel() {
        let record =
            record(r#"{"k":"custom","at":0,"u":"https://a/","n":"buy","p":{"gift":true,"price":12.50}}"#);
        assert_eq!((record.channel.as_str(), record.name.as_str()), ("", "buy"));
        assert_eq!(record.props["gift"], "true");
        assert_eq!(record.props["price"], "12.5");
    }

    #[rstest]
    #[case(Some("en-GB"), "en-GB")]
    #[case(Some("<script>"), "")]
    #[case(None, "")]
    fn a_language_of_other_characters_counts_as_none(#[case] sent: Option<&str>, #[case] kept: &str) {
        assert_eq!(tidy(sent, MAX_LANGUAGE_BYTES, b"-"), kept);
    }
}
