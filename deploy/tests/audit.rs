//! The audit against the built binary: somebody changes the tables, the owner of the partition notices, `footfall
//! audit` names it and `--repair` mends it.
#![allow(clippy::unwrap_used)] // a test may panic

mod common;

use std::{path::Path, process::Command, time::Duration};

use common::{Node, audit_log as audit, eventually, report};
use footfall::{
    embedded::clickhouse::{ADMIN, DATABASE},
    identity::Identity,
};
use footfall_schemas::topics;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    producer::{FutureProducer, FutureRecord},
};
use serde_json::Value;

const WITHIN: Duration = Duration::from_secs(60);

/// One statement as the admin.
fn as_admin(node: &Node, sql: &str) {
    let identity = Identity::load_or_create(&node.data_dir).unwrap();
    let url = node.ready["clickhouse"]["url"].as_str().unwrap();
    let output = Command::new("curl")
        .args(["-sS", "--fail-with-body", "--user", &format!("{ADMIN}:{}", identity.admin_password)])
        .args(["--data-binary", sql])
        .arg(format!("{url}/?database={DATABASE}&insert_deduplicate=0&final=1"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stdout));
}

/// A field of the report, added up over the partitions.
fn sum(report: &Value, field: &str) -> u64 {
    let partitions = report["partitions"].as_array().unwrap();
    partitions.iter().map(|partition| partition[field].as_u64().unwrap()).sum()
}

/// Everything in the tables that a repair must bring back; versions say only when something was written.
fn tables(node: &Node) -> [Vec<Value>; 3] {
    [
        "SELECT * FROM events ORDER BY _partition, _offset, _index",
        "SELECT * EXCEPT version FROM rolling_counts ORDER BY ALL",
        "SELECT * FROM dead_letters ORDER BY ALL",
    ]
    .map(|sql| node.query(sql))
}

/// A record that nobody can read.
fn send_poison(node: &Node) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut config = ClientConfig::new();
        let producer: FutureProducer = config.set("bootstrap.servers", node.url("kafka")).create().unwrap();
        let record = FutureRecord::<(), str>::to(topics::EVENTS).partition(0).payload("not an event");
        producer.send(record, WITHIN).await.unwrap();
    });
}

/// The first record of each partition that has one comes again, as from a tracker that missed the ack. Returns how many
/// lines.
fn send_again(node: &Node) -> u64 {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", node.url("kafka"))
        .set("group.id", "footfall-test-audit")
        .set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let producer: FutureProducer = config.create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut lines = 0;
    for row in node.query("SELECT DISTINCT _partition FROM events") {
        let partition = i32::try_from(row["_partition"].as_i64().unwrap()).unwrap();
        let mut first = TopicPartitionList::new();
        first.add_partition_offset(topics::EVENTS, partition, Offset::Beginning).unwrap();
        consumer.assign(&first).unwrap();
        let record = consumer.poll(WITHIN).unwrap().unwrap();
        let value = record.payload().unwrap();
        lines += value.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() as u64;
        let again = FutureRecord::<(), [u8]>::to(topics::EVENTS).partition(partition).payload(value);
        runtime.block_on(producer.send(again, WITHIN)).unwrap();
    }
    lines
}

fn until_clean(arguments: &[&str]) -> Value {
    eventually("a clean audit", WITHIN, || {
        let (outcome, code) = audit(arguments);
        assert_eq!(outcome["clean"] == true, code == 0, "{outcome}");
        (code == 0).then_some(outcome)
    })
}

/// Settings of a node apart, for the Kafka and ClickHouse of this one.
fn settings_apart(node: &Node) -> String {
    let identity = Identity::load_or_create(&node.data_dir).unwrap();
    let settings = identity.clickhouse(node.ready["clickhouse"]["url"].as_str().unwrap());
    let mut text =
        format!("[kafka]\nbrokers = {:?}\n[clickhouse]\nurl = {:?}\n", node.url("kafka"), settings.url);
    for (role, login) in [("writer", &settings.writer), ("admin", &settings.admin)] {
        text += &format!("[clickhouse.{role}]\nuser = {:?}\npassword = {:?}\n", login.user, login.password);
    }
    let path = node.data_dir.join("apart.toml");
    std::fs::write(&path, text).unwrap();
    path_text(&path)
}

fn path_text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

const A_ROW: &str = "(_partition, _offset, _index) IN \
    (SELECT _partition, _offset, _index FROM events ORDER BY cityHash64(event_id) LIMIT 1 OFFSET";

#[test]
fn what_somebody_did_to_the_tables_is_found_and_mended() {
    let dir = tempfile::tempdir().unwrap();
    // The owner's audit would heal the counts by itself. With short blocks and one stream remembered a partition, resends
    // are looked up, by the owner and by the command.
    let node = Node::start(dir.path(), "[aggregator]\naudit_ms = 0\nstreams = 1\nblock_rows = 100\n");
    let (data_dir, settings) = (path_text(dir.path()), path_text(&dir.path().join("settings.toml")));
    let arguments = ["--data-dir", data_dir.as_str(), "--config", settings.as_str()];
    let repair = [&arguments[..], &["--repair"]].concat();

    let load =
        node.load("ledger", &["--connections", "20", "--events", "3000", "--rate", "400", "--seed", "4"]);
    eventually("rows", WITHIN, || (node.count("SELECT count() FROM events") > 300).then_some(()));
    let (outcome, code) = audit(&arguments);
    assert_eq!(code, 0, "while events come in nothing is wrong: {outcome}");
    assert_eq!(report(load.wait_with_output().unwrap())["acked"], 3_000);
    send_poison(&node);
    eventually("all rows", WITHIN, || (node.count("SELECT count() FROM events") == 3_000).then_some(()));
    eventually("the dead letter", WITHIN, || {
        (node.count("SELECT count() FROM dead_letters") == 1).then_some(())
    });

    let again = send_again(&node);
    eventually("the resends", WITHIN, || {
        (metric(&node, "footfall_aggregator_duplicates_total", "") == Some(again as f64)).then_some(())
    });
    assert!(metric(&node, "footfall_aggregator_events_looked_up_total", "") > Some(0.0));

    let outcome = eventually("all minutes counted", WITHIN, || {
        let outcome = until_clean(&arguments);
        let found = &outcome["found"];
        (sum(found, "minutes_open") == 0 && sum(found, "lines") == 3_001 + again).then_some(outcome)
    });
    let found = &outcome["found"];
    let account = ["rows", "duplicates", "dead", "lines"].map(|field| sum(found, field));
    assert_eq!(account, [3_000, again, 1, 3_001 + again], "{outcome}");
    let before = tables(&node);

    // Rows first: one deleted that was sent again, one there twice, one where the log has none; and the letter.
    let longest = "SELECT topK(1)(_partition)[1] FROM events";
    let first =
        format!("SELECT min((_partition, _offset, _index)) FROM events WHERE _partition = ({longest})");
    as_admin(&node, &format!("DELETE FROM events WHERE (_partition, _offset, _index) = ({first})"));
    as_admin(&node, &format!("INSERT INTO events SELECT * FROM events WHERE {A_ROW} 1)"));
    as_admin(
        &node,
        &format!(
            "INSERT INTO events SELECT * REPLACE (_index + 1000 AS _index) FROM (SELECT * FROM events WHERE {A_ROW} 5))"
        ),
    );
    as_admin(&node, "DELETE FROM dead_letters WHERE 1");
    let (outcome, code) = audit(&arguments);
    assert_eq!(code, 1, "{outcome}");
    let found = &outcome["found"];
    for (field, count) in [("missing", 1), ("doubled", 1), ("foreign", 1), ("dead_missing", 1)] {
        assert_eq!(sum(found, field), count, "{field}: {outcome}");
    }
    assert!(sum(found, "minutes_differ") > 0, "{outcome}");
    assert!(outcome["repairs"].is_null() && outcome["after"].is_null(), "{outcome}");

    let (outcome, code) = audit(&repair);
    assert_eq!(code, 0, "{outcome}");
    let repairs = &outcome["repairs"];
    for (field, count) in [("inserted", 2), ("deleted", 2), ("letters_inserted", 1)] {
        assert_eq!(repairs[field], count, "{field}: {outcome}");
    }
    assert_eq!(sum(&outcome["found"], "missing"), 1, "{outcome}");
    assert_eq!(sum(&outcome["after"], "missing"), 0, "{outcome}");
    assert_eq!(tables(&node), before, "a repair brings back what was there");

    // Counts: altered under their own version and under one that no log has, one cell without any row.
    for change in [
        "SELECT * REPLACE (events + 5 AS events) FROM rolling_counts WHERE dimension = 'total' LIMIT 1",
        "SELECT * REPLACE (views + 7 AS views, 1000000000000 AS version) FROM rolling_counts WHERE dimension = 'page' LIMIT 1",
        "SELECT * REPLACE ('/nowhere' AS value) FROM rolling_counts WHERE dimension = 'page' LIMIT 1",
    ] {
        as_admin(&node, &format!("INSERT INTO rolling_counts {change}"));
        let (outcome, code) = audit(&arguments);
        assert_eq!((code, sum(&outcome["found"], "minutes_differ")), (1, 1), "{change}: {outcome}");
        let (outcome, code) = audit(&repair);
        assert_eq!((code, &outcome["repairs"]["minutes_recounted"]), (0, &1.into()), "{change}: {outcome}");
        assert_eq!(tables(&node), before, "{change}");
    }

    // With settings that name Kafka and ClickHouse; there is nothing to repair any more.
    let apart = settings_apart(&node);
    let (outcome, code) = audit(&["--config", &apart, "--repair"]);
    assert_eq!(code, 0, "{outcome}");
    assert!(outcome["repairs"].is_null(), "{outcome}");
    assert_eq!(tables(&node), before);
}

/// Value of the samples of a metric whose line holds this text, added up.
fn metric(node: &Node, name: &str, holds: &str) -> Option<f64> {
    let url = format!("{}/metrics", node.url("dashboard"));
    let output = Command::new("curl").args(["-sS", "--fail-with-body", &url]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let samples: Vec<f64> = text
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(holds))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .collect();
    (!samples.is_empty()).then(|| samples.iter().sum())
}

#[test]
fn the_owner_notices_a_deleted_row_by_itself() {
    const CLEAN: &str = "footfall_aggregator_audit_clean_seconds";
    const DIFFERENCES: &str = "footfall_aggregator_audit_differences_total";
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), "[aggregator]\naudit_ms = 4000\n");
    let load = |seed: &str| {
        let load = node.load("ledger", &["--connections", "2", "--events", "50", "--seed", seed]);
        assert_eq!(report(load.wait_with_output().unwrap())["acked"], 50);
    };
    load("1");
    let clean_at = eventually("a clean audit", WITHIN, || metric(&node, CLEAN, ""));
    assert_eq!(metric(&node, DIFFERENCES, "footfall_audit_kind"), Some(0.0));

    // Right after a round: what is deleted now was not audited yet.
    eventually("the next round", WITHIN, || metric(&node, CLEAN, "").filter(|next| *next > clean_at));
    load("2");
    eventually("all rows", WITHIN, || (node.count("SELECT count() FROM events") == 100).then_some(()));
    as_admin(
        &node,
        "DELETE FROM events WHERE event_id = (SELECT event_id FROM events ORDER BY received_at DESC LIMIT 1)",
    );
    eventually("the difference", WITHIN, || {
        metric(&node, DIFFERENCES, "footfall_audit_kind=\"rows\"").filter(|found| *found > 0.0)
    });
    let (outcome, code) = audit(&["--data-dir", &path_text(dir.path()), "--repair"]);
    assert_eq!(code, 0, "{outcome}");
    assert_eq!(node.count("SELECT count() FROM events"), 100);
    assert_eq!(node.stop(), Some(0));
    let log = common::stderr_of(dir.path());
    assert!(
        log.contains("audit: rows differ from the log") && log.contains("footfall audit --repair"),
        "{log}"
    );
}
