//! A rule fires with the built binary: a row in ClickHouse and a POST, once, whatever is killed in between.
#![allow(clippy::unwrap_used)] // a test may panic

mod common;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use common::{Node, eventually, report};
use serde_json::Value;

const WITHIN: Duration = Duration::from_secs(90);

/// A receiver of webhooks: its URL, and what is posted to it with the headers in lower case.
fn receiver() -> (String, Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (send, posted) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let request = read(stream.unwrap());
            if send.send(request).is_err() {
                return;
            }
        }
    });
    (url, posted)
}

fn read(mut stream: TcpStream) -> (String, Value) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    (head, serde_json::from_slice(&body).unwrap())
}

/// The rows of a rule.
fn rows(node: &Node, rule: &str) -> Vec<Value> {
    let sql = format!(
        "SELECT toString(id) AS id, kind, value, threshold, text, isNull(resolved_at) AS open, \
         toUnixTimestamp64Milli(opened_at) AS opened_at FROM alerts WHERE site = 'demo' AND rule = '{rule}'"
    );
    node.query(&sql)
}

fn load(node: &Node, ledger: &str, events: &str) {
    let load = node.load(ledger, &["--connections", "20", "--events", events, "--seed", "7"]);
    let summary = report(load.wait_with_output().unwrap());
    assert_eq!(summary["unacked"], 0, "{summary}");
}

#[test]
fn a_rule_that_fires_is_a_row_and_a_post_once_whatever_is_killed() {
    let (url, posted) = receiver();
    let dir = tempfile::tempdir().unwrap();
    let secret = "5a".repeat(32);
    let rule = |name: &str, at_least: u64| {
        format!(
            "[[sites.alerts]]\nname = {name:?}\nkind = \"threshold\"\nmeasure = \"events\"\nat_least = {at_least}\nminutes = 29\n"
        )
    };
    let settings = format!(
        "[aggregator.alerts]\nwarm_up_ms = 3000\n[aggregator.webhooks]\nallow = [\"127.0.0.0/8\"]\n\
         [[sites]]\nkey = \"demo\"\norigins = [\"*\"]\n\
         alert_webhooks = [{{ url = {url:?}, secret = {secret:?} }}]\n{}{}",
        rule("busy", 1_000),
        rule("busier", 2_500)
    );
    let mut node = Node::start(dir.path(), &settings);
    load(&node, "first", "1500");
    let row = eventually("a row", WITHIN, || rows(&node, "busy").pop());
    assert_eq!(
        (&row["kind"], &row["open"], &row["threshold"]),
        (&"threshold".into(), &1.into(), &1_000.into())
    );
    let (head, alert) = posted.recv_timeout(WITHIN).unwrap();
    for field in ["id", "text", "opened_at"] {
        assert_eq!(alert[field], row[field], "{field}");
    }
    assert!(head.starts_with("POST /hook HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("footfall-id: {}-opened\r\n", row["id"].as_str().unwrap())), "{head}");
    assert!(head.contains("footfall-signature: t="), "{head}");
    assert_eq!(rows(&node, "busier").len(), 0, "{row}");

    node.kill();
    node = node.restart();
    load(&node, "second", "1500");
    let busier = eventually("another row", WITHIN, || rows(&node, "busier").pop());
    let ids = |row: &Value| row["id"].as_str().unwrap().to_owned();
    // The kill may have come before it was noted that the first was told: told again, it is the same.
    let last = loop {
        let (_, alert) = posted.recv_timeout(WITHIN).unwrap();
        if alert["rule"] != "busy" {
            break alert;
        }
        assert_eq!(ids(&alert), ids(&row));
    };
    assert_eq!(ids(&last), ids(&busier));
    assert_eq!(rows(&node, "busy"), [row], "it is still the same firing");
    assert_eq!(node.stop(), Some(0));
}
