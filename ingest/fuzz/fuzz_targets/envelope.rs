//! A batch and its events: no text panics, what is taken is within its bounds, and stays taken when it is written
//! again.
#![no_main]

use footfall_ingest::sift;
use footfall_ingest::validate::{self, MAX_NAME_BYTES, MAX_PROPS, MAX_TITLE_BYTES, MAX_URL_BYTES};
use footfall_schemas::{
    EventRecord, TrackerEvent,
    site::Site,
    tracker::{Batch, ClientTag, Here, MAX_EVENT_BYTES},
};
use libfuzzer_sys::fuzz_target;

const NOW_MS: i64 = 1_800_000_000_000;

fuzz_target!(|text: &str| {
    let _ = serde_json::from_str::<ClientTag>(text);
    let _ = serde_json::from_str::<Here>(text);
    if let Ok(lines) = sift::lines_of(text, &site(), NOW_MS) {
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let record = serde_json::from_slice::<EventRecord>(line);
            assert!(record.is_ok(), "{record:?}: {}", String::from_utf8_lossy(line));
        }
    }
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
    // Resends are told by the hash, however they are written.
    let hash = event.payload_hash(&mut Vec::new());
    let owned: TrackerEvent = serde_json::from_str(json).expect("what is taken is an event");
    let again = serde_json::to_string(&owned).expect("plain fields with text keys always serialise");
    // Escapes may make it longer than what came.
    if again.len() <= MAX_EVENT_BYTES {
        let taken = validate::event(&again);
        assert_eq!(
            taken.map(|taken| taken.event.payload_hash(&mut Vec::new())).ok(),
            Some(hash),
            "{json} {again}"
        );
    }
}

fn site() -> Site {
    serde_json::from_str(r#"{"key":"shop","origins":["*"]}"#).expect("a site")
}
