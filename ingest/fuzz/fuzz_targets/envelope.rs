//! A batch and its events: no text panics, what is taken is within its bounds, and stays taken when it is written
//! again.
#![no_main]

use footfall_ingest::validate::{self, MAX_NAME_BYTES, MAX_PROPS, MAX_TITLE_BYTES, MAX_URL_BYTES};
use footfall_schemas::tracker::{Batch, ClientTag, Here, MAX_EVENT_BYTES};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = serde_json::from_str::<ClientTag>(text);
    let _ = serde_json::from_str::<Here>(text);
    match serde_json::from_str::<Batch>(text) {
        Ok(batch) => batch.events.iter().for_each(|raw| check(raw.get())),
        Err(_) => check(text),
    }
});

fn check(json: &str) {
    let event = match validate::event(json) {
        Ok(valid) => valid.event,
        Err(refused) => return assert!(!refused.detail.is_empty(), "a refusal says what to do"),
    };
    assert!(json.len() <= MAX_EVENT_BYTES);
    assert!(event.u.len() <= MAX_URL_BYTES && event.p.len() <= MAX_PROPS);
    assert!(event.t.as_ref().is_none_or(|title| title.len() <= MAX_TITLE_BYTES));
    assert!(event.n.as_ref().is_none_or(|name| name.len() <= MAX_NAME_BYTES));
    // Oracle and resends rely on it.
    let _ = event.payload_hash();
    let again = serde_json::to_string(&event).expect("plain fields with text keys always serialise");
    // Escapes may make it longer than what came.
    if again.len() <= MAX_EVENT_BYTES {
        assert!(validate::event(&again).is_ok(), "{json} is taken, {again} is not");
    }
}
