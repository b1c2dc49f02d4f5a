//! `PROTOCOL.md`: its examples are the golden files, its tables are written from the code.

use std::fmt::Write as _;

use footfall_schemas::{
    RejectReason,
    refusal::{Code, RetryReason, STATUSES, close},
    server, time, tracker,
};
use serde_json::Value;

use crate::{golden, path, wires, written::is_current};

const PAGE: &str = "PROTOCOL.md";

fn page() -> String {
    std::fs::read_to_string(path(PAGE)).unwrap()
}

/// The fenced blocks: info string and text.
fn fences(page: &str) -> Vec<(&str, &str)> {
    page.split("\n```").skip(1).step_by(2).filter_map(|block| block.split_once('\n')).collect()
}

#[test]
fn every_example_of_the_page_is_a_golden_file() {
    let page = page();
    let mut shown = Vec::new();
    for (info, text) in fences(&page) {
        let Some(name) = info.strip_prefix("json ") else {
            assert_ne!(info, "json", "an example without the name of its golden file:\n{text}");
            continue;
        };
        let [example, golden] = [text.to_owned(), golden(name)].map(|json| {
            serde_json::from_str::<Value>(&json).unwrap_or_else(|error| panic!("{name}: {error}"))
        });
        assert_eq!(example, golden, "the example {name}");
        shown.push(name.to_owned());
    }
    let of_trackers = ["server_frame", "batch", "here", "server_request", "server_answer"];
    for wire in wires().iter().filter(|wire| of_trackers.contains(&wire.name)) {
        for name in wire.golden {
            assert!(shown.iter().any(|shown| shown == name), "the page does not show golden/{name}.json");
        }
    }
}

#[test]
fn the_tables_of_the_page_are_those_of_the_code() {
    let mut page = page();
    for (name, table) in [
        ("limits", limits()),
        ("reasons", reasons()),
        ("retries", retries()),
        ("close codes", codes(close::ALL, "Close code")),
        ("statuses", codes(STATUSES, "Status")),
    ] {
        let begin = format!("<!-- written from the code: {name} -->\n");
        let start =
            page.find(&begin).unwrap_or_else(|| panic!("no place for the table of {name}")) + begin.len();
        let end = start + page[start..].find("<!-- end -->").unwrap();
        page.replace_range(start..end, &format!("\n{table}\n"));
    }
    is_current(&path(PAGE), &page);
}

fn reasons() -> String {
    let mut table = "| Reason | HTTP | Close | Do | Meaning |\n|---|---|---|---|---|\n".to_owned();
    for reason in RejectReason::ALL {
        let close = reason.close().map(|code| code.to_string()).unwrap_or_default();
        let (name, status, duty) = (reason.as_str(), reason.status(), reason.duty().as_str());
        let _ = writeln!(table, "| `{name}` | {status} | {close} | {duty} | {} |", reason.meaning());
    }
    table
}

fn retries() -> String {
    let mut table = "| Reason | HTTP | Do | Meaning |\n|---|---|---|---|\n".to_owned();
    for reason in RetryReason::ALL {
        let (name, status) = (reason.as_str(), reason.status());
        let _ = writeln!(table, "| `{name}` | {status} | retry | {} |", reason.meaning());
    }
    table
}

fn codes(codes: &[Code], title: &str) -> String {
    let mut table = format!("| {title} | Do | Meaning |\n|---|---|---|\n");
    for Code { code, meaning, duty } in codes {
        let _ = writeln!(table, "| {code} | {} | {meaning} |", duty.as_str());
    }
    table
}

fn limits() -> String {
    let days = time::RESEND_WINDOW_MS / (24 * 60 * time::MINUTE_MS);
    let rows = [
        ("Frame, body or batch", format!("{} bytes, inflated, too", tracker::MAX_BATCH_BYTES)),
        ("Events of a batch", tracker::MAX_BATCH_EVENTS.to_string()),
        ("Event", format!("{} bytes of JSON", tracker::MAX_EVENT_BYTES)),
        ("Events of a pixel", tracker::MAX_PIXEL_EVENTS.to_string()),
        ("Signed request", format!("{} bytes, inflated, too", server::MAX_REQUEST_BYTES)),
        ("Events of a signed request", server::MAX_REQUEST_EVENTS.to_string()),
        ("`idempotency`, `visitor`", format!("{} bytes", server::MAX_KEY_BYTES)),
        ("Clock of a signed request", format!("{} s away", server::MAX_SKEW_MS / 1_000)),
        ("Resend window", format!("{days} days")),
    ];
    let mut table = "| What | At most |\n|---|---|\n".to_owned();
    for (what, most) in rows {
        let _ = writeln!(table, "| {what} | {most} |");
    }
    table
}
