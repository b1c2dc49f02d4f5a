//! Each wire type reads its example and writes it back unchanged. The TypeScript tests read the same files.
#![allow(clippy::unwrap_used)] // a test may panic

use footfall_schemas::{
    EventRecord, live, presence, record, tracker,
    viewer::{ViewerFrame, ViewerRequest},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

fn reads_and_writes<T: DeserializeOwned + Serialize>(name: &str) {
    let path = format!("{}/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let typed: T = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let written: Value = serde_json::from_str(&serde_json::to_string(&typed).unwrap()).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(written, golden, "{name} is not written as it was read");
}

#[test]
fn every_golden_file_is_read_and_written_back_unchanged() {
    let tracker_frames = ["welcome", "ack", "nack", "slow", "error", "bye"];
    tracker_frames.iter().for_each(|name| reads_and_writes::<tracker::ServerFrame>(name));
    reads_and_writes::<tracker::Batch>("batch");
    reads_and_writes::<tracker::Here>("here");
    reads_and_writes::<EventRecord>("event_record");
    reads_and_writes::<record::DeadLetter>("dead_letter");
    reads_and_writes::<presence::PresenceReport>("presence");
    reads_and_writes::<live::LiveRecord>("live_record");
    reads_and_writes::<ViewerRequest>("viewer_subscribe");
    let viewer_frames = ["viewer_snapshot", "viewer_delta", "viewer_heartbeat", "viewer_error"];
    viewer_frames.iter().for_each(|name| reads_and_writes::<ViewerFrame>(name));
}

#[test]
fn no_golden_file_is_left_unread() {
    let source = include_str!("golden.rs");
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/golden")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(source.contains(&format!("\"{name}\"")), "golden/{name}.json is read by no test");
    }
}

#[test]
fn each_event_of_the_golden_batch_is_an_event() {
    let batch: tracker::Batch =
        serde_json::from_str(include_str!("../golden/batch.json")).expect("the golden batch is a batch");
    for event in &batch.events {
        serde_json::from_str::<footfall_schemas::TrackerEvent>(event.get()).unwrap();
    }
}
