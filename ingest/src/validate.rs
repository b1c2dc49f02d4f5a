//! One event, from the tracker's text to a typed value, or the reason why not. Pure: no clock, no I/O.

use std::collections::BTreeMap;

use footfall_schemas::{EventKind, RejectReason, TrackerEvent, event::PropValue, tracker::MAX_EVENT_BYTES};
use serde_json::value::RawValue;
use url::Url;

pub const MAX_URL_BYTES: usize = 2_048;
pub const MAX_TITLE_BYTES: usize = 512;
pub const MAX_NAME_BYTES: usize = 64;
pub const MAX_PROPS: usize = 30;
pub const MAX_PROP_KEY_BYTES: usize = 64;
pub const MAX_PROP_VALUE_BYTES: usize = 512;
/// Deepest nesting of what has to be read. What is ignored may be deeper.
pub const MAX_DEPTH: usize = 16;

/// A refusal; `detail` names the field and the fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub reason: RejectReason,
    pub detail: String,
}

/// An event whose every field is within its bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidEvent {
    pub event: TrackerEvent,
    /// `event.u`, parsed: http or https, with a host.
    pub url: Url,
}

fn reject<T>(reason: RejectReason, detail: impl Into<String>) -> Result<T, Rejected> {
    Err(Rejected { reason, detail: detail.into() })
}

/// Unknown fields are ignored, however deep; a known field that is wrong refuses the event.
pub fn event(json: &str) -> Result<ValidEvent, Rejected> {
    if json.len() > MAX_EVENT_BYTES {
        return reject(
            RejectReason::TooLarge,
            format!("event: {} bytes; send at most {MAX_EVENT_BYTES}", json.len()),
        );
    }
    // The straight way first; only what fails is looked at field by field, to name the field.
    let event = serde_json::from_str(json).map_err(|error| diagnose(json, &error))?;
    let url = bounds(&event)?;
    Ok(ValidEvent { event, url })
}

fn bounds(event: &TrackerEvent) -> Result<Url, Rejected> {
    let url = page_url(&event.u)?;
    text("r", event.r.as_deref(), MAX_URL_BYTES)?;
    text("t", event.t.as_deref(), MAX_TITLE_BYTES)?;
    match (event.k, event.n.as_deref()) {
        (EventKind::Custom, None) => {
            return reject(RejectReason::MissingField, "n: missing; name the custom event");
        }
        (EventKind::Custom, Some(name)) if name.is_empty() || name.len() > MAX_NAME_BYTES => {
            return reject(RejectReason::BadName, format!("n: send 1 to {MAX_NAME_BYTES} bytes"));
        }
        (_, name) => text("n", name, MAX_NAME_BYTES)?,
    }
    if event.k == EventKind::Engagement && event.d.is_none() {
        return reject(RejectReason::MissingField, "d: missing; send the engaged time in ms");
    }
    if event.s.is_some_and(|percent| percent > 100) {
        return reject(RejectReason::BadNumber, "s: over 100; send a percentage");
    }
    props(&event.p)?;
    Ok(url)
}

fn page_url(text: &str) -> Result<Url, Rejected> {
    if text.len() > MAX_URL_BYTES {
        return reject(
            RejectReason::BadUrl,
            format!("u: longer than {MAX_URL_BYTES} bytes; send the URL without its query"),
        );
    }
    if text.contains('\0') {
        return reject(RejectReason::BadUrl, "u: holds a NUL character; remove it");
    }
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => reject(RejectReason::BadUrl, "u: no http(s) URL; send location.href"),
    }
}

fn text(field: &str, value: Option<&str>, most: usize) -> Result<(), Rejected> {
    match value {
        Some(value) if value.len() > most => {
            reject(RejectReason::BadField, format!("{field}: longer than {most} bytes; shorten it"))
        }
        // ClickHouse would keep it; terminals, C programs and exports cut the text there.
        Some(value) if value.contains('\0') => {
            reject(RejectReason::BadField, format!("{field}: holds a NUL character; remove it"))
        }
        _ => Ok(()),
    }
}

fn props(props: &BTreeMap<String, PropValue>) -> Result<(), Rejected> {
    let bad = |detail: String| reject(RejectReason::BadProps, detail);
    if props.len() > MAX_PROPS {
        return reject(
            RejectReason::TooManyProps,
            format!("p: {} properties; send at most {MAX_PROPS}", props.len()),
        );
    }
    for (key, value) in props {
        if key.is_empty() || key.len() > MAX_PROP_KEY_BYTES {
            return bad(format!("p: a key of {} bytes; use 1 to {MAX_PROP_KEY_BYTES}", key.len()));
        }
        let PropValue::Text(value) = value else { continue };
        if value.len() > MAX_PROP_VALUE_BYTES {
            return bad(format!("p.{key}: longer than {MAX_PROP_VALUE_BYTES} bytes; shorten it"));
        }
        if value.contains('\0') || key.contains('\0') {
            return bad(format!("p.{}: holds a NUL character; remove it", key.escape_default()));
        }
    }
    Ok(())
}

/// Why JSON that is not read is not: nested too deep, or no JSON of its type.
pub(crate) fn unreadable(json: &str) -> RejectReason {
    if nesting(json) > MAX_DEPTH { RejectReason::TooDeep } else { RejectReason::Malformed }
}

/// How deep arrays and objects stand in each other, as far as it is JSON.
fn nesting(json: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                // To the end of the text; an escaped quote is none.
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}

/// Names the field that does not parse. Looks in the order of the type's fields.
fn diagnose(json: &str, error: &serde_json::Error) -> Rejected {
    if nesting(json) > MAX_DEPTH {
        let detail = format!("event: nested deeper than {MAX_DEPTH} levels; send flat properties");
        return Rejected { reason: RejectReason::TooDeep, detail };
    }
    let Ok(fields) = serde_json::from_str::<BTreeMap<String, &RawValue>>(json) else {
        let detail = if json.trim_start().starts_with('{') {
            format!("event: a key is no valid text ({error})")
        } else {
            "event: no JSON object".to_owned()
        };
        return Rejected { reason: RejectReason::Malformed, detail };
    };
    let field = |name: &str| fields.get(name).map(|raw| raw.get());
    diagnose_fields(field)
        .unwrap_or_else(|| Rejected { reason: RejectReason::Malformed, detail: format!("event: {error}") })
}

fn diagnose_fields<'a>(field: impl Fn(&str) -> Option<&'a str>) -> Option<Rejected> {
    let rejected = |reason, detail: String| Some(Rejected { reason, detail });
    for name in ["k", "at", "u"] {
        if field(name).is_none() {
            return rejected(RejectReason::MissingField, format!("{name}: missing; every event needs it"));
        }
    }
    let kind = field("k").unwrap_or_default();
    if serde_json::from_str::<EventKind>(kind).is_err() {
        let detail = "k: send view, engagement or custom".to_owned();
        return rejected(RejectReason::UnknownKind, detail);
    }
    for (name, fits) in [
        ("at", is::<i64> as fn(&str) -> bool),
        ("d", is::<Option<u32>>),
        ("s", is::<Option<u8>>),
        ("pv", is::<Option<u32>>),
    ] {
        let Some(value) = field(name) else { continue };
        if fits(value) {
            continue;
        }
        return if is_number(value) {
            rejected(RejectReason::BadNumber, format!("{name}: does not fit; send a whole number in range"))
        } else {
            rejected(RejectReason::BadField, format!("{name}: no number; send a whole number"))
        };
    }
    for (name, fits) in [
        ("u", is::<String> as fn(&str) -> bool),
        ("r", is::<Option<String>>),
        ("t", is::<Option<String>>),
        ("n", is::<Option<String>>),
    ] {
        if field(name).is_some_and(|value| !fits(value)) {
            return rejected(RejectReason::BadField, format!("{name}: no text; send valid Unicode text"));
        }
    }
    diagnose_props(field("p")?)
}

fn diagnose_props(json: &str) -> Option<Rejected> {
    let Ok(props) = serde_json::from_str::<BTreeMap<String, &RawValue>>(json) else {
        let detail = "p: no object with text keys; send {\"key\": value}".to_owned();
        return Some(Rejected { reason: RejectReason::BadProps, detail });
    };
    props.into_iter().find_map(|(key, value)| {
        let value = value.get();
        let key: String = key.escape_default().take(MAX_PROP_KEY_BYTES).collect();
        if is::<PropValue>(value) {
            None
        } else if is_number(value) {
            let detail = format!("p.{key}: no representable number; send it as text");
            Some(Rejected { reason: RejectReason::BadNumber, detail })
        } else {
            let detail = format!("p.{key}: send valid text, a number, true or false");
            Some(Rejected { reason: RejectReason::BadProps, detail })
        }
    })
}

fn is<T: serde::de::DeserializeOwned>(json: &str) -> bool {
    serde_json::from_str::<T>(json).is_ok()
}

fn is_number(json: &str) -> bool {
    json.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn refusal(json: &str) -> (RejectReason, String) {
        let rejected = event(json).expect_err(json);
        (rejected.reason, rejected.detail)
    }

    #[rstest]
    #[case::view(r#"{"k":"view","at":0,"u":"https://a.example/"}"#)]
    #[case::view_with_all(
        r#"{"k":"view","at":-5,"u":"http://a:8080/b?c#d","r":"https://x/","t":"T","p":{"a":1},"pv":1}"#
    )]
    #[case::nulls(r#"{"k":"view","at":0,"u":"https://a/","r":null,"t":null}"#)]
    #[case::engagement(r#"{"k":"engagement","at":1,"u":"https://a/","d":4294967295,"s":100}"#)]
    #[case::custom(r#"{"k":"custom","at":1,"u":"https://a/","n":"buy","p":{"a":true,"b":1.5,"c":"x"}}"#)]
    #[case::newer_tracker(r#"{"k":"view","at":0,"u":"https://a/","zz":{"deep":[[1e999]]}}"#)]
    #[case::right_to_left(r#"{"k":"view","at":0,"u":"https://a/","t":"\u202eevil\u202c שלום"}"#)]
    #[case::past_2_to_53(r#"{"k":"custom","at":1,"u":"https://a/","n":"n","p":{"a":9007199254740993}}"#)]
    #[case::surrogate_pair(r#"{"k":"view","at":0,"u":"https://a/","t":"\ud83d\ude00"}"#)]
    fn an_honest_event_passes(#[case] json: &str) {
        event(json).expect(json);
    }

    #[rstest]
    #[case::no_object("7", RejectReason::Malformed, "event")]
    #[case::array("[]", RejectReason::Malformed, "event")]
    #[case::no_kind(r#"{"at":0,"u":"https://a/"}"#, RejectReason::MissingField, "k")]
    #[case::no_time(r#"{"k":"view","u":"https://a/"}"#, RejectReason::MissingField, "at")]
    #[case::no_url(r#"{"k":"view","at":0}"#, RejectReason::MissingField, "u")]
    #[case::other_kind(r#"{"k":"click","at":0,"u":"https://a/"}"#, RejectReason::UnknownKind, "k")]
    #[case::kind_no_text(r#"{"k":1,"at":0,"u":"https://a/"}"#, RejectReason::UnknownKind, "k")]
    #[case::time_no_number(r#"{"k":"view","at":"0","u":"https://a/"}"#, RejectReason::BadField, "at")]
    #[case::time_fraction(r#"{"k":"view","at":0.5,"u":"https://a/"}"#, RejectReason::BadNumber, "at")]
    #[case::time_1e400(r#"{"k":"view","at":1e400,"u":"https://a/"}"#, RejectReason::BadNumber, "at")]
    #[case::url_no_text(r#"{"k":"view","at":0,"u":null}"#, RejectReason::BadField, "u")]
    #[case::url_nonsense(r#"{"k":"view","at":0,"u":"nonsense"}"#, RejectReason::BadUrl, "u")]
    #[case::url_other_scheme(r#"{"k":"view","at":0,"u":"javascript:alert(1)"}"#, RejectReason::BadUrl, "u")]
    #[case::url_file(r#"{"k":"view","at":0,"u":"file:///etc/passwd"}"#, RejectReason::BadUrl, "u")]
    #[case::url_nul(r#"{"k":"view","at":0,"u":"https://a/\u0000"}"#, RejectReason::BadUrl, "u")]
    #[case::title_nul(r#"{"k":"view","at":0,"u":"https://a/","t":"a\u0000b"}"#, RejectReason::BadField, "t")]
    #[case::lone_surrogate(
        r#"{"k":"view","at":0,"u":"https://a/","t":"\ud800"}"#,
        RejectReason::BadField,
        "t"
    )]
    #[case::key_lone_surrogate(
        r#"{"k":"view","at":0,"u":"https://a/","\udc00":1}"#,
        RejectReason::Malformed,
        "event"
    )]
    #[case::twice(r#"{"k":"view","at":0,"at":1,"u":"https://a/"}"#, RejectReason::Malformed, "event")]
    #[case::twice_after_a_wrong_one(
        r#"{"k":"view","at":"x","at":1,"u":"https://a/"}"#,
        RejectReason::Malformed,
        "event"
    )]
    #[case::scroll_2_to_53(
        r#"{"k":"engagement","at":0,"u":"https://a/","d":9007199254740993}"#,
        RejectReason::BadNumber,
        "d"
    )]
    #[case::nan(r#"{"k":"view","at":NaN,"u":"https://a/"}"#, RejectReason::Malformed, "event")]
    #[case::prop_infinity(
        r#"{"k":"view","at":0,"u":"https://a/","p":{"a":-Infinity}}"#,
        RejectReason::Malformed,
        "event"
    )]
    #[case::name_nul(r#"{"k":"custom","at":0,"u":"https://a/","n":"a\u0000"}"#, RejectReason::BadField, "n")]
    #[case::no_name(r#"{"k":"custom","at":0,"u":"https://a/"}"#, RejectReason::MissingField, "n")]
    #[case::empty_name(r#"{"k":"custom","at":0,"u":"https://a/","n":""}"#, RejectReason::BadName, "n")]
    #[case::engagement_without_time(
        r#"{"k":"engagement","at":0,"u":"https://a/"}"#,
        RejectReason::MissingField,
        "d"
    )]
    #[case::negative_time(
        r#"{"k":"engagement","at":0,"u":"https://a/","d":-1}"#,
        RejectReason::BadNumber,
        "d"
    )]
    #[case::scroll_over_100(
        r#"{"k":"engagement","at":0,"u":"https://a/","d":1,"s":101}"#,
        RejectReason::BadNumber,
        "s"
    )]
    #[case::scroll_over_255(
        r#"{"k":"engagement","at":0,"u":"https://a/","d":1,"s":300}"#,
        RejectReason::BadNumber,
        "s"
    )]
    #[case::props_no_object(r#"{"k":"view","at":0,"u":"https://a/","p":[]}"#, RejectReason::BadProps, "p")]
    #[case::prop_object(
        r#"{"k":"view","at":0,"u":"https://a/","p":{"a":{}}}"#,
        RejectReason::BadProps,
        "p.a"
    )]
    #[case::prop_null(
        r#"{"k":"view","at":0,"u":"https://a/","p":{"a":null}}"#,
        RejectReason::BadProps,
        "p.a"
    )]
    #[case::prop_1e400(
        r#"{"k":"view","at":0,"u":"https://a/","p":{"a":1e400}}"#,
        RejectReason::BadNumber,
        "p.a"
    )]
    #[case::prop_surrogate(
        r#"{"k":"view","at":0,"u":"https://a/","p":{"a":"\ud800"}}"#,
        RejectReason::BadProps,
        "p.a"
    )]
    #[case::prop_nul(
        r#"{"k":"view","at":0,"u":"https://a/","p":{"a":"\u0000"}}"#,
        RejectReason::BadProps,
        "p.a"
    )]
    #[case::prop_empty_key(r#"{"k":"view","at":0,"u":"https://a/","p":{"":1}}"#, RejectReason::BadProps, "p")]
    fn a_bad_event_is_refused_by_field(
        #[case] json: &str,
        #[case] reason: RejectReason,
        #[case] field: &str,
    ) {
        let (told, detail) = refusal(json);
        assert_eq!(told, reason, "{detail}");
        assert!(detail.starts_with(&format!("{field}:")), "{detail}");
    }

    #[rstest]
    #[case("u", format!("https://a/{}", "x".repeat(2_039)), RejectReason::BadUrl)]
    #[case("r", "x".repeat(2_049), RejectReason::BadField)]
    #[case("t", "x".repeat(513), RejectReason::BadField)]
    #[case("n", "x".repeat(65), RejectReason::BadName)]
    fn a_text_one_byte_too_long_is_refused(
        #[case] field: &str,
        #[case] value: String,
        #[case] reason: RejectReason,
    ) {
        let json = |value: &str| {
            let mut event = serde_json::json!({"k": "custom", "at": 0, "u": "https://a/", "n": "n"});
            event[field] = value.into();
            event.to_string()
        };
        assert_eq!(refusal(&json(&value)).0, reason);
        event(&json(&value[..value.len() - 1])).expect("at the bound it passes");
    }

    #[test]
    fn a_depth_bomb_in_a_property_is_refused_and_elsewhere_ignored() {
        let bomb = format!("{}{}", "[".repeat(3_000), "]".repeat(3_000));
        let (reason, _) = refusal(&format!(r#"{{"k":"view","at":0,"u":"https://a/","p":{{"a":{bomb}}}}}"#));
        assert_eq!(reason, RejectReason::TooDeep);
        event(&format!(r#"{{"k":"view","at":0,"u":"https://a/","zz":{bomb}}}"#)).unwrap();
    }

    #[rstest]
    #[case("7", 0)]
    #[case("{}", 1)]
    #[case("[[],[[]],[]]", 3)]
    #[case(r#"{"a":"[[[[","b":[1]}"#, 2)]
    #[case(r#"{"a":"\"[[[[","b":"\\"}"#, 1)]
    #[case("]]][", 1)]
    #[case(r#"["open"#, 1)]
    fn nesting_is_counted_outside_of_texts(#[case] json: &str, #[case] depth: usize) {
        assert_eq!(nesting(json), depth);
    }

    #[test]
    fn sixteen_levels_are_told_by_field_and_seventeen_are_too_deep() {
        let json = |levels: usize| {
            let (open, shut) = ("[".repeat(levels), "]".repeat(levels));
            format!(r#"{{"k":"view","at":0,"u":"https://a/","p":{{"a":{open}{shut}}}}}"#)
        };
        assert_eq!(refusal(&json(MAX_DEPTH - 2)).0, RejectReason::BadProps);
        assert_eq!(refusal(&json(MAX_DEPTH - 1)).0, RejectReason::TooDeep);
    }

    #[test]
    fn an_event_over_its_cap_is_refused() {
        let json = format!(r#"{{"k":"view","at":0,"u":"https://a/","zz":"{}"}}"#, "x".repeat(8_192));
        assert_eq!(refusal(&json).0, RejectReason::TooLarge);
    }

    #[test]
    fn thirty_properties_pass_and_thirty_one_do_not() {
        let json = |count: usize| {
            let props: BTreeMap<String, usize> = (0..count).map(|i| (format!("k{i}"), i)).collect();
            serde_json::json!({"k": "view", "at": 0, "u": "https://a/", "p": props}).to_string()
        };
        event(&json(30)).unwrap();
        assert_eq!(refusal(&json(31)).0, RejectReason::TooManyProps);
    }

    proptest! {
        #[test]
        fn no_text_makes_validation_panic(json in ".{0,200}") {
            let _ = event(&json);
        }

        #[test]
        fn no_mangled_event_makes_validation_panic(at in 0usize..90, byte in any::<u8>()) {
            let mut json = br#"{"k":"custom","at":1,"u":"https://a.example/","n":"buy","p":{"a":true,"b":1.5,"c":"x"}}"#.to_vec();
            let at = at % json.len();
            json[at] = byte;
            if let Ok(json) = std::str::from_utf8(&json) {
                let _ = event(json);
            }
        }
    }
}
