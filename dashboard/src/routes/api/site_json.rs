//! A site as JSON on its way to and from who owns it: a secret that is set reads as `(set)`, and `(set)` keeps it.

use footfall_schemas::SiteId;
use serde_json::{Map, Value};

use crate::routes::Refusal;

const SET: &str = "(set)";

/// With the key of its path, which may be left out.
pub(super) fn of_key(key: &SiteId, written: Value) -> Result<Value, Refusal> {
    let Value::Object(mut fields) = written else {
        return Err(Refusal::field("site", "a site is an object with its settings"));
    };
    match fields.get("key") {
        None => drop(fields.insert("key".into(), key.as_str().into())),
        Some(written) if written == key.as_str() => {}
        Some(_) => return Err(Refusal::field("key", "key: it is the path's: make a new site instead")),
    }
    Ok(Value::Object(fields))
}

pub(super) fn without_secrets(written: &Value) -> Value {
    let mut shown = written.clone();
    hide(&mut shown);
    for webhook in webhooks(&mut shown) {
        hide(webhook);
    }
    shown
}

/// `written` with what `(set)` stands for. A webhook's secret is that of the webhook with its address.
pub(super) fn with_secrets(mut written: Value, before: Option<&Value>) -> Result<Value, Refusal> {
    let nothing = Value::Null;
    let before = before.unwrap_or(&nothing);
    fill(&mut written, before).ok_or_else(|| {
        Refusal::field("secret", "secret: none is set yet: write 64 hexadecimal digits, or leave it out")
    })?;
    let known: Vec<&Value> = before["alert_webhooks"].as_array().into_iter().flatten().collect();
    for webhook in webhooks(&mut written) {
        let same = known.iter().find(|known| known["url"] == webhook["url"]);
        fill(webhook, same.copied().unwrap_or(&nothing)).ok_or_else(|| {
            let detail = "alert_webhooks: secret: none is set for this address: write 64 hexadecimal digits";
            Refusal::field("alert_webhooks", detail)
        })?;
    }
    Ok(written)
}

fn webhooks(site: &mut Value) -> impl Iterator<Item = &mut Value> {
    site.get_mut("alert_webhooks").and_then(Value::as_array_mut).into_iter().flatten()
}

fn secret(of: &mut Value) -> Option<&mut Value> {
    of.as_object_mut().and_then(|fields: &mut Map<String, Value>| fields.get_mut("secret"))
}

fn hide(of: &mut Value) {
    if let Some(secret) = secret(of).filter(|secret| !secret.is_null()) {
        *secret = SET.into();
    }
}

/// `None`: there is nothing to keep.
fn fill(of: &mut Value, before: &Value) -> Option<()> {
    if let Some(secret) = secret(of).filter(|secret| *secret == SET) {
        *secret = before.get("secret").filter(|known| known.is_string())?.clone();
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn written() -> Value {
        json!({
            "key": "shop", "secret": "aa",
            "alert_webhooks": [{"url": "https://a", "secret": "bb"}, {"url": "https://b", "secret": "cc"}],
        })
    }

    #[test]
    fn secrets_are_not_shown_and_come_back_as_they_were() {
        let shown = without_secrets(&written());
        let text = shown.to_string();
        assert!(
            text.matches(SET).count() == 3 && !["aa", "bb", "cc"].iter().any(|s| text.contains(s)),
            "{text}"
        );
        assert_eq!(with_secrets(shown, Some(&written())).unwrap(), written());
    }

    #[test]
    fn a_webhook_keeps_the_secret_of_its_address_wherever_it_stands() {
        let changed = json!({"alert_webhooks": [
            {"url": "https://b", "secret": SET}, {"url": "https://c", "secret": "dd"},
        ]});
        let filled = with_secrets(changed, Some(&written())).unwrap();
        assert_eq!(filled["alert_webhooks"][0]["secret"], "cc");
        assert_eq!(filled["alert_webhooks"][1]["secret"], "dd");
        assert_eq!(filled.get("secret"), None, "what is left out is taken away");
    }

    #[rstest]
    #[case::of_a_new_site(json!({"secret": SET}), None, "secret")]
    #[case::of_a_site_without(json!({"secret": SET}), Some(json!({"key": "shop"})), "secret")]
    #[case::of_another_address(json!({"alert_webhooks": [{"url": "https://c", "secret": SET}]}), Some(written()), "alert_webhooks")]
    fn what_is_not_set_cannot_be_kept(
        #[case] changed: Value,
        #[case] before: Option<Value>,
        #[case] field: &str,
    ) {
        let refusal = with_secrets(changed, before.as_ref()).unwrap_err();
        assert_eq!(refusal.field.as_deref(), Some(field));
    }

    #[test]
    fn a_site_is_not_renamed() {
        let key = SiteId::try_from("shop").unwrap();
        assert_eq!(of_key(&key, json!({})).unwrap(), json!({"key": "shop"}));
        of_key(&key, json!({"key": "shop"})).unwrap();
        assert_eq!(of_key(&key, json!({"key": "blog"})).unwrap_err().field.as_deref(), Some("key"));
        of_key(&key, json!([])).unwrap_err();
    }
}
