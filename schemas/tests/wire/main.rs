//! What crosses a process, held against its examples, its schemas and its page.
#![allow(clippy::unwrap_used)] // a test may panic

mod golden;
mod protocol;
mod schema;
mod written;

use std::path::PathBuf;

use footfall_schemas::{
    EventRecord, TrackerEvent, alert, live, presence, record, server, tracker,
    viewer::{ViewerFrame, ViewerRequest},
};
use schemars::{JsonSchema, Schema, schema_for};
use serde::{Serialize, de::DeserializeOwned};

/// A wire type.
struct Wire {
    /// Of `json/{name}.schema.json`.
    name: &'static str,
    /// Its examples, `golden/{name}.json`.
    golden: &'static [&'static str],
    schema: Schema,
    /// Reads and writes it.
    round_trip: fn(&str) -> Result<String, serde_json::Error>,
}

fn wire<T: DeserializeOwned + Serialize + JsonSchema>(
    name: &'static str,
    golden: &'static [&'static str],
) -> Wire {
    let round_trip =
        |text: &str| serde_json::from_str::<T>(text).and_then(|typed| serde_json::to_string(&typed));
    Wire { name, golden, schema: schema_for!(T), round_trip }
}

fn wires() -> Vec<Wire> {
    vec![
        wire::<tracker::ServerFrame>(
            "server_frame",
            &[
                "welcome",
                "welcome_settings",
                "ack",
                "ack_token",
                "nack",
                "slow",
                "sample",
                "stop",
                "error",
                "bye",
            ],
        ),
        wire::<tracker::Batch>("batch", &["batch", "batch_empty", "batch_token"]),
        wire::<tracker::Here>("here", &["here"]),
        wire::<TrackerEvent>("tracker_event", &[]),
        wire::<server::EventsRequest>("server_request", &["server_request"]),
        wire::<server::EventsAnswer>("server_answer", &["server_answer"]),
        wire::<EventRecord>("event_record", &["event_record"]),
        wire::<record::DeadLetter>("dead_letter", &["dead_letter"]),
        wire::<presence::PresenceReport>("presence_report", &["presence"]),
        wire::<live::LiveRecord>("live_record", &["live_record"]),
        wire::<alert::Alert>("alert", &["alert"]),
        wire::<alert::AlertRecord>("alert_record", &["alert_record"]),
        wire::<ViewerRequest>("viewer_request", &["viewer_subscribe", "viewer_filtered", "viewer_feed"]),
        wire::<ViewerFrame>(
            "viewer_frame",
            &[
                "viewer_snapshot",
                "viewer_delta",
                "viewer_delta_goals",
                "viewer_events",
                "viewer_heartbeat",
                "viewer_error",
            ],
        ),
    ]
}

fn path(relative: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(relative)
}

fn golden(name: &str) -> String {
    std::fs::read_to_string(path(&format!("golden/{name}.json"))).unwrap()
}
