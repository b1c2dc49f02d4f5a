//! The embedded ClickHouse engine, started as `footfall standalone` starts it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    env, fs,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use footfall::embedded::clickhouse::{ADMIN, DATABASE, Engine, EngineConfig, EngineError, READER, WRITER};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode, body::Bytes};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rstest::rstest;

const GRACE: Duration = Duration::from_secs(10);

fn config(data_dir: &Path) -> EngineConfig {
    EngineConfig {
        executable: env!("CARGO_BIN_EXE_footfall").into(),
        reader_password: "reader password".to_owned(),
        writer_password: "writer password".to_owned(),
        admin_password: "admin password".to_owned(),
        ..EngineConfig::new(data_dir.to_owned()).unwrap()
    }
}

fn password(user: &str) -> &'static str {
    match user {
        READER => "reader password",
        WRITER => "writer password",
        ADMIN => "admin password",
        _ => "",
    }
}

/// What a client gets to see: the rows as text, or the error text.
async fn request(url: &str, credentials: &[(&str, &str)], query: &str) -> Result<String, String> {
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    let mut request = Request::post(url);
    for (name, value) in credentials {
        request = request.header(*name, *value);
    }
    let response =
        client.request(request.body(Full::new(Bytes::from(query.to_owned()))).unwrap()).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&body).trim_end().to_owned();
    // An error in the middle of a result keeps the status 200.
    if status == StatusCode::OK && !text.contains("DB::Exception") { Ok(text) } else { Err(text) }
}

async fn as_user(engine: &Engine, user: &str, query: &str) -> Result<String, String> {
    request(engine.url(), &[("X-ClickHouse-User", user), ("X-ClickHouse-Key", password(user))], query).await
}

async fn admin(engine: &Engine, query: &str) -> String {
    as_user(engine, ADMIN, query).await.unwrap()
}

/// A table, a table with two versions of a row, and a materialized view.
async fn with_tables(engine: &Engine) {
    for query in [
        "CREATE TABLE footfall.events (id UInt32) ENGINE = MergeTree ORDER BY id",
        "CREATE TABLE footfall.counts (id UInt32, n UInt32, v UInt32) ENGINE = ReplacingMergeTree(v) ORDER BY id",
        "CREATE TABLE footfall.totals (n UInt64) ENGINE = SummingMergeTree ORDER BY tuple()",
        "CREATE MATERIALIZED VIEW footfall.events_to_totals TO footfall.totals AS SELECT count() AS n FROM footfall.events",
        "INSERT INTO footfall.counts VALUES (1, 10, 1)",
        "INSERT INTO footfall.counts VALUES (1, 20, 2)",
    ] {
        admin(engine, query).await;
    }
}

/// Gone, or dead and waiting for its parent to look.
fn is_running(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X'])))
}

async fn until_gone(pid: u32) {
    let deadline = Instant::now() + GRACE;
    while is_running(pid) {
        assert!(Instant::now() < deadline, "process {pid} still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_row_written_with_the_crate_is_read_with_the_crate() {
    #[derive(Debug, PartialEq, clickhouse::Row, serde::Serialize, serde::Deserialize)]
    struct Event {
        id: u32,
    }

    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(config(dir.path())).await.unwrap();
    with_tables(&engine).await;
    let client = clickhouse::Client::default().with_url(engine.url()).with_database(DATABASE);

    let writer = client.clone().with_user(WRITER).with_password(password(WRITER));
    let mut insert = writer.insert::<Event>("events").await.unwrap();
    for id in 1..=3 {
        insert.write(&Event { id }).await.unwrap();
    }
    insert.end().await.unwrap();

    let reader = client.with_user(READER).with_password(password(READER));
    let rows: Vec<Event> = reader
        .query("SELECT ?fields FROM events WHERE id > ? ORDER BY id")
        .bind(1)
        .fetch_all()
        .await
        .unwrap();
    assert_eq!(rows, [Event { id: 2 }, Event { id: 3 }]);
    // The view ran with its definer's rights: the writer may not touch more than rows.
    assert_eq!(as_user(&engine, READER, "SELECT sum(n) FROM footfall.totals").await.unwrap(), "3");

    engine.shutdown(GRACE).await;
}

/// One engine for the whole table: what each user may do, and the words with which the rest is refused.
#[tokio::test]
async fn each_user_may_do_its_own_work_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret.txt");
    fs::write(&secret, "do not read me").unwrap();
    let secret = secret.display();
    let engine = Engine::start(config(&dir.path().join("engine"))).await.unwrap();
    with_tables(&engine).await;

    let privileges = "Not enough privileges";
    let allowed: &[(&str, &str, &str)] = &[
        (READER, "SELECT n FROM footfall.counts", "20"),
        (READER, "SELECT count() FROM footfall.events SETTINGS max_threads = 1", "0"),
        (READER, "SELECT 1 SETTINGS max_execution_time = 5", "1"),
        (READER, "SELECT currentDatabase() != ''", "1"),
        (READER, "SELECT count() > 0 FROM system.settings", "1"),
        (READER, "SELECT count() FROM system.tables WHERE database = 'footfall' AND name = 'events'", "1"),
        (READER, "SELECT count() FROM system.columns WHERE database = 'footfall' AND table = 'events'", "1"),
        (READER, "SHOW DATABASES LIKE 'footfall'", "footfall"),
        (WRITER, "INSERT INTO footfall.events VALUES (7)", ""),
        (WRITER, "SELECT id FROM footfall.events", "7"),
        (
            WRITER,
            "SELECT count() FROM system.parts WHERE database = 'footfall' AND table = 'events' AND active",
            "1",
        ),
        (WRITER, "SELECT count() > 0 FROM system.processes WHERE user = currentUser()", "1"),
        (WRITER, "KILL QUERY WHERE user = currentUser() AND query_id = 'none' SYNC", ""),
        (ADMIN, "CREATE TABLE footfall.other (a UInt8) ENGINE = MergeTree ORDER BY a", ""),
        (ADMIN, "ALTER TABLE footfall.other ADD COLUMN b UInt8", ""),
        (ADMIN, "ALTER TABLE footfall.other ADD INDEX i b TYPE minmax", ""),
        (ADMIN, "ALTER TABLE footfall.other MODIFY SETTING non_replicated_deduplication_window = 10", ""),
        (ADMIN, "RENAME TABLE footfall.other TO footfall.another", ""),
        (ADMIN, "OPTIMIZE TABLE footfall.another FINAL", ""),
        (ADMIN, "TRUNCATE TABLE footfall.another", ""),
        (ADMIN, "DROP TABLE footfall.another SYNC", ""),
    ];
    for (user, query, expected) in allowed {
        assert_eq!(as_user(&engine, user, query).await.as_deref(), Ok(*expected), "{user}: {query}");
    }

    let own_files = engine_file(dir.path(), "engine/run/users.xml");
    let refused: Vec<(&[&str], String, &str)> = vec![
        (&[READER], "INSERT INTO footfall.events VALUES (8)".into(), privileges),
        (&[READER], "CREATE TABLE footfall.x (a UInt8) ENGINE = Memory".into(), privileges),
        (&[READER], "DROP TABLE footfall.events".into(), privileges),
        (&[READER], "CREATE TEMPORARY TABLE x (a UInt8)".into(), privileges),
        (&[READER], "SELECT 1 SETTINGS max_execution_time = 3600".into(), "shouldn't be greater than"),
        (&[READER], "SELECT 1 SETTINGS max_execution_time = 0".into(), "shouldn't be less than"),
        (&[READER], "SELECT 1 SETTINGS max_memory_usage = 0".into(), "shouldn't be less than"),
        (&[READER], "SELECT 1 SETTINGS readonly = 0".into(), "readonly"),
        (&[READER, WRITER], "SELECT count() FROM system.users".into(), privileges),
        (&[READER], "SELECT count() FROM system.processes".into(), privileges),
        (&[WRITER], "CREATE TABLE footfall.x (a UInt8) ENGINE = Memory".into(), privileges),
        (&[WRITER], "ALTER TABLE footfall.events DELETE WHERE 1".into(), privileges),
        (&[WRITER], "TRUNCATE TABLE footfall.events".into(), privileges),
        (&[ADMIN], "CREATE DATABASE other".into(), privileges),
        (&[ADMIN], "CREATE USER other".into(), privileges),
        (&[READER, WRITER, ADMIN], "SYSTEM SHUTDOWN".into(), privileges),
        (&[READER, WRITER, ADMIN], "SYSTEM STOP LISTEN HTTP".into(), privileges),
        (
            &[READER, WRITER, ADMIN],
            format!("SELECT * FROM file('{secret}', 'LineAsString', 'l String')"),
            privileges,
        ),
        (
            &[READER, WRITER, ADMIN],
            "SELECT * FROM url('http://127.0.0.1:9/', 'LineAsString', 'l String')".into(),
            privileges,
        ),
        (&[READER, WRITER], "SELECT * FROM executable('id', 'LineAsString', 'l String')".into(), privileges),
        (
            &[ADMIN],
            "SELECT * FROM executable('id', 'LineAsString', 'l String')".into(),
            "does not exist inside user scripts",
        ),
        // The function asks for no privilege. What stops it is the sandbox.
        (&[READER, WRITER, ADMIN], format!("SELECT file('{secret}')"), "Permission denied"),
        (&[READER, WRITER, ADMIN], "SELECT file('/etc/passwd')".into(), "Permission denied"),
        (
            &[READER, WRITER, ADMIN],
            format!("SELECT file('/proc/{}/environ')", std::process::id()),
            "Permission denied",
        ),
        (&[READER, WRITER, ADMIN], format!("SELECT file('{own_files}')"), "No such file"),
    ];
    for (users, query, reason) in &refused {
        for user in *users {
            let answer = as_user(&engine, user, query).await.expect_err(&format!("{user} must not: {query}"));
            assert!(answer.contains(reason), "{user}: {query}: {answer}");
        }
    }
    assert_eq!(admin(&engine, "SELECT groupArray(id) FROM footfall.events").await, "[7]");

    engine.shutdown(GRACE).await;
}

fn engine_file(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

/// `default` has no password and is the session of the process itself: it is refused because it is there already.
#[tokio::test]
async fn nobody_gets_in_without_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(config(dir.path())).await.unwrap();
    let url = engine.url();

    let refused: &[(String, &[(&str, &str)])] = &[
        (format!("{url}/"), &[]),
        (format!("{url}/?max_sessions_for_user=0"), &[]),
        (format!("{url}/?max_sessions_for_user=9&session_id=x"), &[]),
        (format!("{url}/?user=default"), &[]),
        (format!("{url}/?user=default&password="), &[]),
        (format!("{url}/"), &[("X-ClickHouse-User", "default")]),
        // "default:"
        (format!("{url}/"), &[("Authorization", "Basic ZGVmYXVsdDo=")]),
        (format!("{url}/"), &[("X-ClickHouse-User", READER)]),
        (format!("{url}/"), &[("X-ClickHouse-User", READER), ("X-ClickHouse-Key", password(WRITER))]),
        (format!("{url}/"), &[("X-ClickHouse-User", "nobody")]),
    ];
    // Again and again: a refusal must not use up what holds the door.
    for _ in 0..3 {
        for (url, headers) in refused {
            let answer =
                request(url, headers, "SELECT 1").await.expect_err(&format!("{url} {headers:?} was let in"));
            assert!(
                answer.contains("USER_SESSION_LIMIT_EXCEEDED")
                    || answer.contains("AUTHENTICATION_FAILED")
                    || answer.contains("REQUIRED_PASSWORD"),
                "{url} {headers:?}: {answer}"
            );
        }
    }
    assert_eq!(as_user(&engine, READER, "SELECT 1").await.unwrap(), "1");
    engine.shutdown(GRACE).await;
}

#[tokio::test]
async fn tables_and_rows_are_there_after_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(config(dir.path())).await.unwrap();
    with_tables(&engine).await;
    as_user(&engine, WRITER, "INSERT INTO footfall.events SELECT number FROM numbers(1000)").await.unwrap();
    let pid = engine.pid();
    engine.shutdown(GRACE).await;
    assert!(!is_running(pid));

    let engine = Engine::start(config(dir.path())).await.unwrap();
    assert_eq!(
        as_user(&engine, READER, "SELECT count(), uniqExact(id) FROM footfall.events").await.unwrap(),
        "1000\t1000"
    );
    // The view's definer is known again.
    as_user(&engine, WRITER, "INSERT INTO footfall.events VALUES (5000)").await.unwrap();
    assert_eq!(as_user(&engine, READER, "SELECT sum(n) FROM footfall.totals").await.unwrap(), "1001");
    engine.shutdown(GRACE).await;
}

#[tokio::test]
async fn a_crash_is_noticed_and_its_rows_are_there_after_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = Engine::start(config(dir.path())).await.unwrap();
    with_tables(&engine).await;
    as_user(&engine, WRITER, "INSERT INTO footfall.events SELECT number FROM numbers(1000)").await.unwrap();

    let still_running = tokio::time::timeout(Duration::from_millis(50), engine.exited()).await;
    assert!(still_running.is_err(), "the engine ended by itself: {still_running:?}");
    kill_hard(engine.pid());
    let status = tokio::time::timeout(GRACE, engine.exited()).await.unwrap().unwrap();
    assert!(!status.success());

    let engine = Engine::start(config(dir.path())).await.unwrap();
    assert_eq!(
        as_user(&engine, READER, "SELECT count(), uniqExact(id) FROM footfall.events").await.unwrap(),
        "1000\t1000"
    );
    engine.shutdown(GRACE).await;
}

/// An engine that ends by itself gives its port back before its files.
#[tokio::test]
async fn a_start_waits_for_the_end_of_the_engine_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = Engine::start(config(dir.path())).await.unwrap();
    with_tables(&first).await;
    as_user(&first, WRITER, "INSERT INTO footfall.events VALUES (7)").await.unwrap();
    let pid = first.pid();
    signal(pid, "-STOP");
    drop(first);

    let second = tokio::spawn(Engine::start(config(dir.path())));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!second.is_finished(), "{:?}", second.await);
    signal(pid, "-CONT");
    let second = second.await.unwrap().unwrap();
    assert!(!is_running(pid));
    assert_eq!(as_user(&second, READER, "SELECT id FROM footfall.events").await.unwrap(), "7");
    second.shutdown(GRACE).await;
}

#[tokio::test]
async fn dropping_the_handle_stops_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(config(dir.path())).await.unwrap();
    let pid = engine.pid();
    assert!(is_running(pid));
    drop(engine);
    until_gone(pid).await;
}

#[tokio::test]
async fn a_killed_parent_takes_the_engine_with_it_and_loses_no_row() {
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("ready");
    let mut parent = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_parent_to_be_killed", "--ignored", "--nocapture"])
        .env("ENGINE_TEST_DIR", dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();

    let deadline = Instant::now() + Duration::from_secs(60);
    let pid: u32 = loop {
        if let Ok(text) = fs::read_to_string(&ready) {
            break text.parse().unwrap();
        }
        assert!(
            Instant::now() < deadline && parent.try_wait().unwrap().is_none(),
            "the parent did not start an engine"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(is_running(pid));
    parent.kill().unwrap();
    parent.wait().unwrap();
    until_gone(pid).await;

    let engine = Engine::start(config(&dir.path().join("engine"))).await.unwrap();
    assert_eq!(as_user(&engine, READER, "SELECT count() FROM footfall.events").await.unwrap(), "1000");
    engine.shutdown(GRACE).await;
}

/// Not a test: the process that the test above kills.
#[tokio::test]
#[ignore = "started by another test"]
async fn a_parent_to_be_killed() {
    let Some(dir) = env::var_os("ENGINE_TEST_DIR") else { return };
    let dir = Path::new(&dir);
    let engine = Engine::start(config(&dir.join("engine"))).await.unwrap();
    with_tables(&engine).await;
    as_user(&engine, WRITER, "INSERT INTO footfall.events SELECT number FROM numbers(1000)").await.unwrap();
    fs::write(dir.join("ready.tmp"), engine.pid().to_string()).unwrap();
    fs::rename(dir.join("ready.tmp"), dir.join("ready")).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_stale_port_file_sends_nobody_astray() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("run")).unwrap();
    // Somebody else listens where the last engine did.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    fs::write(dir.path().join("run/port"), format!("{port}\n")).unwrap();

    let engine = Engine::start(config(dir.path())).await.unwrap();
    assert!(!engine.url().ends_with(&format!(":{port}")), "{}", engine.url());
    assert_eq!(as_user(&engine, READER, "SELECT 1").await.unwrap(), "1");
    engine.shutdown(GRACE).await;
}

#[rstest]
#[case::every_address("0.0.0.0:0", "http://127.0.0.1:")]
#[case::loopback("127.0.0.1:0", "http://127.0.0.1:")]
#[tokio::test]
async fn the_url_is_reachable_from_here_when_it_listens_on(#[case] listen: &str, #[case] url: &str) {
    let dir = tempfile::tempdir().unwrap();
    let config = EngineConfig {
        listen: listen.parse().unwrap(),
        reader_networks: vec!["10.0.0.0/8".to_owned(), "fd00::1".to_owned()],
        ..config(dir.path())
    };
    let engine = Engine::start(config).await.unwrap();
    assert!(engine.url().starts_with(url), "{}", engine.url());
    assert_eq!(as_user(&engine, READER, "SELECT 1").await.unwrap(), "1");
    engine.shutdown(GRACE).await;
}

#[tokio::test]
async fn engines_share_neither_a_port_nor_a_directory() {
    let first_dir = tempfile::tempdir().unwrap();
    let first = Engine::start(config(first_dir.path())).await.unwrap();

    let second_dir = tempfile::tempdir().unwrap();
    let listen = first.url().strip_prefix("http://").unwrap().parse().unwrap();
    let error = Engine::start(EngineConfig { listen, ..config(second_dir.path()) }).await.unwrap_err();
    assert!(matches!(error, EngineError::AddressInUse { address, .. } if address == listen), "{error}");
    assert!(error.to_string().contains(&listen.to_string()), "{error}");

    let impatient = EngineConfig { start_timeout: Duration::from_millis(100), ..config(first_dir.path()) };
    let error = Engine::start(impatient).await.unwrap_err();
    assert!(matches!(error, EngineError::DirectoryInUse { .. }), "{error}");
    assert!(error.to_string().contains(first_dir.path().to_str().unwrap()), "{error}");

    assert_eq!(as_user(&first, READER, "SELECT 1").await.unwrap(), "1");
    first.shutdown(GRACE).await;
}

#[rstest]
#[case::no_library("missing", |config: &mut EngineConfig| config.library = "/nowhere/libchdb.so".into(), &["/nowhere/libchdb.so", "make setup"])]
#[case::not_a_library("text", |config: &mut EngineConfig| config.library = "tests/engine.rs".into(), &["cannot load the engine", "stderr.log"])]
#[case::address_of_another_machine("address", |config: &mut EngineConfig| config.listen = "203.0.113.1:8123".parse().unwrap(), &["203.0.113.1:8123"])]
#[case::no_password("empty", |config: &mut EngineConfig| config.reader_password.clear(), &["footfall_reader", "empty"])]
#[case::no_program("program", |config: &mut EngineConfig| config.executable = "/nowhere/footfall".into(), &["/nowhere/footfall"])]
#[case::other_program("other", |config: &mut EngineConfig| config.executable = "/bin/false".into(), &["exit status: 1"])]
#[case::no_time("slow", |config: &mut EngineConfig| config.start_timeout = Duration::ZERO, &["not ready", "port"])]
#[tokio::test]
async fn a_failed_start_says_what_is_wrong(
    #[case] _name: &str,
    #[case] spoil: fn(&mut EngineConfig),
    #[case] words: &[&str],
) {
    let dir = tempfile::tempdir().unwrap();
    let before = engines_of(dir.path());
    let mut config = config(dir.path());
    spoil(&mut config);
    let error = Engine::start(config).await.unwrap_err().to_string();
    for word in words {
        assert!(error.contains(word), "no {word:?} in: {error}");
    }
    assert_eq!(engines_of(dir.path()), before, "a failed start left a process behind");
}

/// Processes with this directory on their command line.
fn engines_of(dir: &Path) -> BTreeSet<u32> {
    let dir = dir.to_str().unwrap();
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_running(*pid))
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(dir))
        })
        .collect()
}

fn kill_hard(pid: u32) {
    signal(pid, "-KILL");
}

fn signal(pid: u32, signal: &str) {
    let status = Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
    assert!(status.success());
}
