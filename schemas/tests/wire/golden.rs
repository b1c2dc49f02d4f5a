//! Each wire type reads its examples and writes them back unchanged. The TypeScript tests read the same files.

use footfall_schemas::{TrackerEvent, server, tracker};
use serde_json::Value;

use crate::{golden, path, wires};

#[test]
fn every_golden_file_is_read_and_written_back_unchanged() {
    for wire in wires() {
        for name in wire.golden {
            let text = golden(name);
            let written = (wire.round_trip)(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            let [written, text] = [written, text].map(|json| serde_json::from_str::<Value>(&json).unwrap());
            assert_eq!(written, text, "{name} is not written as it was read");
        }
    }
}

#[test]
fn no_golden_file_is_left_unread() {
    let wires = wires();
    for entry in std::fs::read_dir(path("golden")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(
            wires.iter().any(|wire| wire.golden.contains(&name.as_str())),
            "golden/{name}.json is read by no test"
        );
    }
}

#[test]
fn each_event_of_a_golden_batch_is_an_event() {
    for name in ["batch", "batch_token"] {
        let batch: tracker::Batch = serde_json::from_str(&golden(name)).unwrap();
        assert!(!batch.events.is_empty());
        for event in &batch.events {
            serde_json::from_str::<TrackerEvent>(event.get()).unwrap();
        }
    }
}

#[test]
fn each_event_of_the_golden_request_is_a_servers_event() {
    let request: server::EventsRequest = serde_json::from_str(&golden("server_request")).unwrap();
    for event in &request.events {
        let typed: server::ServerEvent = serde_json::from_str(event.get()).unwrap();
        let [written, read] =
            [serde_json::to_value(&typed).unwrap(), serde_json::from_str(event.get()).unwrap()];
        assert_eq!(written, read);
    }
}
