use super::{agent::Hints, *};
use crate::{
    raw::RawBatch,
    sift::{Sent, Sifted, sift},
};
use footfall_schemas::{EventRecord, TrackerEvent};
use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

const USER_AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

fn site() -> Site {
    Site::new("demo".parse().unwrap(), vec![])
}

fn batch(events: &[String]) -> String {
    format!(
        r#"{{"t":"batch","stream":"01a315e46800a1b2c3d4e5f6","first":3,"sent":5000,"ctx":{{"w":100000,"l":"en-GB","z":"Europe/Berlin"}},"events":[{}]}}"#,
        events.join(",")
    )
}

fn sifted<'a>(text: &'a str, site: &Site, location: Option<&Location>) -> Sifted<'a> {
    let batch = RawBatch::parse(text).unwrap();
    let sent = Sent {
        site,
        visitor: Ok(VisitorId(1)),
        told_by: Did::VisitorDerived,
        agent: Agent::parse(USER_AGENT, Hints::default()),
        location,
        received_at: 1_000_000,
    };
    sift(&batch, &sent)
}

/// The line as the aggregator reads it. It holds exactly what a record written by serde would.
fn read(line: &[u8]) -> EventRecord {
    let record: EventRecord = serde_json::from_slice(line).unwrap();
    let line: Value = serde_json::from_slice(line).unwrap();
    assert_eq!(line, serde_json::to_value(&record).unwrap());
    record
}

fn record(json: &str) -> EventRecord {
    let text = batch(&[json.to_owned()]);
    let sifted = sifted(&text, &site(), None);
    assert!(sifted.refused.is_empty(), "{:?}", sifted.refused);
    read(&sifted.lines)
}

#[test]
fn of_the_query_only_the_campaign_is_kept() {
    let record = record(
        r#"{"k":"view","at":4000,"u":"https://Shop.example:8443/a%20b?token=secret&utm_source=news&utm_medium=email&utm_campaign=May&utm_term=t&utm_content=c#frag","t":"T"}"#,
    );
    assert_eq!((record.host.as_str(), record.path.as_str()), ("shop.example", "/a%20b"));
    let names =
        [&record.utm_source, &record.utm_medium, &record.utm_campaign, &record.utm_term, &record.utm_content];
    assert_eq!(names, ["news", "email", "May", "t", "c"]);
    assert_eq!((record.event_time, record.clock), (999_000, Clock::Told));
    assert!(!serde_json::to_string(&record).unwrap().contains("secret"));
}

#[test]
fn what_holds_for_a_batch_stands_in_each_line() {
    let event = |at: i64| json!({"k": "view", "at": at, "u": "https://a/"}).to_string();
    let text = batch(&[event(4_000), event(9_000), "7".to_owned(), event(-1_000_000_000)]);
    let sifted = sifted(&text, &site(), None);
    let lines: Vec<EventRecord> = sifted.lines.split_inclusive(|byte| *byte == b'\n').map(read).collect();
    let ids: Vec<String> = lines.iter().map(|line| line.event_id.to_string()).collect();
    assert_eq!(
        ids,
        [3, 4, 6].map(|seq| format!("01a315e4-6800-a1b2-c3d4-e5f60000000{seq}")),
        "each event keeps its sequence"
    );
    assert_eq!((sifted.accepted, sifted.refused[0].seq), (3, 5));
    for line in &lines {
        assert_eq!((line.site.as_str(), line.visitor, line.received_at), ("demo", VisitorId(1), 1_000_000));
        assert_eq!((line.language.as_str(), line.time_zone.as_str()), ("en-GB", "Europe/Berlin"));
        assert_eq!((line.country.as_str(), line.screen_width), ("DE", u16::MAX));
        let agent = (line.browser.as_str(), line.system.as_str(), line.device.as_str());
        assert_eq!(agent, ("Firefox", "Linux", "desktop"));
    }
    assert_eq!(
        lines.iter().map(|line| line.clock).collect::<Vec<_>>(),
        [Clock::Told, Clock::ClampedFuture, Clock::ClampedPast]
    );
}

#[test]
fn each_step_counts_each_event_once() {
    let text = batch(&[
        json!({"k": "view", "at": 0, "u": "https://a.example/", "r": "https://b.example/"}).to_string(),
        json!({"k": "view", "at": 0, "u": "https://a.example/?gclid=1"}).to_string(),
        json!({"k": "custom", "at": 0, "u": "https://a.example/", "n": "n"}).to_string(),
    ]);
    let sifted = sifted(&text, &site(), None);
    let counted: Vec<_> = Did::ALL
        .iter()
        .filter_map(|did| Some((did.labels(), sifted.steps.of(*did))).filter(|(_, events)| *events > 0))
        .collect();
    assert_eq!(
        counted,
        [
            (("visitor", "derived"), 3),
            (("bot", "human"), 3),
            (("agent", "named"), 3),
            (("geography", "time_zone"), 3),
            (("page", "clean"), 3),
            (("campaign", "click_id"), 1),
            (("campaign", "none"), 2),
            (("referrer", "external"), 1),
            (("referrer", "none"), 1),
        ]
    );
}

#[test]
fn a_place_of_the_database_goes_before_the_time_zone() {
    let text = batch(&[json!({"k": "view", "at": 0, "u": "https://a/"}).to_string()]);
    let location = Location { country: "AT".into(), region: "Tyrol \"x\"".into(), city: "Innsbruck".into() };
    let record = read(&sifted(&text, &site(), Some(&location)).lines);
    let place = (record.country.as_str(), record.region.as_str(), record.city.as_str());
    assert_eq!(place, ("AT", "Tyrol \"x\"", "Innsbruck"));
    let nowhere = Location { country: "".into(), region: "".into(), city: "Nowhere".into() };
    let record = read(&sifted(&text, &site(), Some(&nowhere)).lines);
    assert_eq!((record.country.as_str(), record.city.as_str()), ("DE", ""));
}

#[test]
fn an_event_of_a_dropped_page_is_refused_and_its_siblings_pass() {
    let mut site = site();
    site.path_rules = vec![serde_json::from_value(json!({"match": "/private/**", "drop": true})).unwrap()];
    site.query_allowlist = vec!["q".to_owned()];
    let text = batch(&[
        json!({"k": "view", "at": 0, "u": "https://a/private/x"}).to_string(),
        json!({"k": "view", "at": 0, "u": "https://a/b?q=\"1\"&x=2"}).to_string(),
    ]);
    let sifted = sifted(&text, &site, None);
    assert_eq!(read(&sifted.lines).path, "/b?q=%221%22");
    let refused: Vec<_> = sifted.refused.iter().map(|event| (event.seq, event.rejected.reason)).collect();
    assert_eq!(refused, [(3, RejectReason::IgnoredPath)]);
}

#[rstest]
#[case(None, "", "", "direct")]
#[case(Some("https://www.google.de/search?q=secret"), "https://www.google.de/search", "google.de", "search")]
#[case(Some("https://www.google.de"), "https://www.google.de/", "google.de", "search")]
#[case(Some("https://user:pw@b.example:81/x?y#z"), "https://b.example:81/x", "b.example", "referral")]
#[case(Some("https://www.a.example/other?x"), "", "", "internal")]
#[case(
    Some("android-app://com.example.app/"),
    "android-app://com.example.app/",
    "com.example.app",
    "referral"
)]
#[case(Some("app://com.example/\"q\""), "app://com.example/%22q%22", "com.example", "referral")]
#[case(Some("about:blank"), "", "", "direct")]
#[case(Some("nonsense"), "", "", "direct")]
fn a_referrer_is_kept_without_its_query(
    #[case] sent: Option<&str>,
    #[case] text: &str,
    #[case] host: &str,
    #[case] channel: &str,
) {
    let record = record(&json!({"k": "view", "at": 0, "u": "https://a.example/", "r": sent}).to_string());
    assert_eq!(
        (record.referrer.as_str(), record.referrer_host.as_str(), record.channel.as_str()),
        (text, host, channel)
    );
}

#[test]
fn only_views_have_a_channel() {
    let record = record(
        r#"{"k":"custom","at":0,"u":"https://a/","n":"buy","r":"https://b/","t":"T","p":{"price":12.50,"gift":true,"price":12.5,"n":-3,"big":18446744073709551615}}"#,
    );
    assert_eq!((record.channel.as_str(), record.title.as_str(), record.name.as_str()), ("", "", "buy"));
    let props: Vec<_> = record.props.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(props, [("big", "18446744073709551615"), ("gift", "true"), ("n", "-3"), ("price", "12.5")]);
}

#[rstest]
#[case(Some("en-GB"), "en-GB")]
#[case(Some("<script>"), "")]
#[case(None, "")]
fn a_language_of_other_characters_counts_as_none(#[case] sent: Option<&str>, #[case] kept: &str) {
    assert_eq!(tidy(sent, MAX_LANGUAGE_BYTES, b"-"), kept);
}

proptest! {
    /// Whatever an event says, its line is JSON that holds the same texts, and its hash is that of the wire type.
    #[test]
    fn a_line_tells_what_the_event_told(
        kind in "view|custom",
        text in "\\PC{0,12}|[\"\\\\\u{1}-\u{1f}\u{7f}é\u{2028}]{1,8}",
        key in "[a-c\"\\\\é]{1,2}",
        number in any::<f64>(),
        whole in any::<i64>(),
        escaped in any::<bool>(),
    ) {
        let event = json!({
            "k": kind, "at": 0, "u": "https://a.example/x", "t": text, "n": "name",
            "p": {key.clone(): text, "number": number, "whole": whole},
        });
        let mut json = event.to_string();
        if escaped {
            json = json.replace('/', "\\/").replace("example", "\\u0065xample");
        }
        let record = record(&json);
        prop_assert_eq!(&record.props[&key], &text);
        prop_assert_eq!(&record.props["whole"], &whole.to_string());
        if kind == "view" {
            prop_assert_eq!(&record.title, &text);
        }
        let owned: TrackerEvent = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(record.payload_hash, owned.payload_hash());
        for (key, value) in &owned.p {
            prop_assert_eq!(&record.props[key], &value.to_text());
        }
    }
}
