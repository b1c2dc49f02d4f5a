//! The whole path with the built binary: synthetic visitors, the log, the tables, and the oracle between them. With
//! `FOOTFALL_TEST_KAFKA=host:port` the log is that broker.

mod common;

use std::time::Duration;

use common::{Node, audit_log, eventually, report};

/// Closed minutes are written when the log has been quiet for a while; a minute may still be open when a load ends.
const AUDIT_WAIT: &str = "120s";

#[test]
fn twenty_thousand_events_over_five_hundred_sockets_are_rows_and_rolling_counts_once_each() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), "");
    let load = node.load("ledger", &["--connections", "500", "--events", "20000", "--seed", "20000"]);
    let summary = report(load.wait_with_output().unwrap());
    assert_eq!((&summary["issued"], &summary["acked"]), (&20_000.into(), &20_000.into()), "{summary}");

    let (audit, clean) = node.audit("ledger", AUDIT_WAIT);
    assert!(clean, "{audit}");
    for (field, expected) in
        [("issued", 20_000), ("acked", 20_000), ("stored", 20_000), ("lost", 0), ("duplicated", 0)]
    {
        assert_eq!(audit[field], expected, "{field}: {audit}");
    }
    assert_eq!(node.count("SELECT count() FROM events"), 20_000);
    let rolling = "SELECT sum(events) FROM rolling_counts WHERE dimension = 'total'";
    assert_eq!(node.count(rolling), 20_000, "the reader needs no FINAL of its own");
    sessions_are_those_of_the_rows(&node, 20_000);
    assert_eq!(node.stop(), Some(0));
}

/// Within minutes no session ends and none are joined: each has the rows that name it.
fn sessions_are_those_of_the_rows(node: &Node, events: u64) {
    eventually("sessions of all events", Duration::from_secs(60), || {
        (node.count("SELECT sum(events) FROM sessions") == events).then_some(())
    });
    let different = "SELECT count() FROM \
        (SELECT session, count() AS events, countIf(kind = 'view') AS views, min(event_time) AS start, \
            max(event_time) AS end, sum(engaged_ms) AS engaged_ms FROM events GROUP BY session) AS raw \
        FULL JOIN sessions USING session \
        WHERE (raw.events, raw.views, raw.start, raw.end, raw.engaged_ms) != \
            (sessions.events, sessions.views, sessions.start, sessions.end, sessions.engaged_ms)";
    assert_eq!(node.count(different), 0);
    let without_entry =
        "SELECT count() FROM sessions WHERE entry_path = '' OR exit_path = '' OR browser = ''";
    assert_eq!(node.count(without_entry), 0);
}

#[test]
fn what_was_acked_survives_kill_9_of_everything_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), "");
    let arguments =
        ["--connections", "40", "--events", "30000", "--rate", "3000", "--transport", "mixed", "--seed", "9"];
    let settle = ["--settle", "120s"];
    let load = node.load("ledger", &[&arguments[..], &settle[..]].concat());
    for kills in 0..3u64 {
        let stored = (kills + 1) * 4_000;
        eventually("rows before the kill", Duration::from_secs(60), || {
            (node.count("SELECT count() FROM events") >= stored).then_some(())
        });
        node.kill();
        node = node.restart();
    }
    let summary = report(load.wait_with_output().unwrap());
    assert_eq!((&summary["issued"], &summary["unacked"]), (&30_000.into(), &0.into()), "{summary}");
    // Half of the connections are sockets, and the first kill comes long before the load is over.
    assert!(summary["reconnects"].as_u64().unwrap() >= 20, "the kills were not felt: {summary}");

    let (audit, clean) = node.audit("ledger", AUDIT_WAIT);
    assert!(clean, "{audit}");
    assert_eq!(audit["stored"], 30_000, "{audit}");
    assert_eq!(node.count("SELECT count() FROM events"), 30_000);
    sessions_are_those_of_the_rows(&node, 30_000);
    let (outcome, code) = audit_log(&["--data-dir", dir.path().to_str().unwrap()]);
    assert_eq!(code, 0, "the log says otherwise: {outcome}");
}
