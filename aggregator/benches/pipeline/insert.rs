//! From the log into the tables: the aggregator as it is, beside the least that ClickHouse can spend on the rows, and
//! beside ClickHouse's own Kafka engine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use clickhouse::{Client, Compression};
use footfall_schemas::{connect::ClickHouseSettings, topics};
use tokio::runtime::{Builder, Runtime};

use crate::{
    bench::{
        machine,
        process::{Process, wait_until},
        report::table,
    },
    produce::{self, now_ms},
    stack::Stack,
    start::start,
    traffic::Size,
};

/// Log time of the traffic: as if so many events came in a second.
const RATE: u64 = 20_000;
const BLOCK: u64 = 50_000;
/// Long enough for a CPU time counted in hundredths of a second.
const LOOK: Duration = Duration::from_millis(100);
/// Looked at to tell what the engine spends on itself.
const IDLE: Duration = Duration::from_secs(5);
const AT_MOST: Duration = Duration::from_secs(600);

/// What a way of writing cost, in CPU-seconds per million rows.
struct Cost {
    rows: u64,
    seconds: f64,
    /// Of our process, if there is one.
    ours: Option<f64>,
    engine: f64,
    /// Until the parts written are merged.
    engine_merged: f64,
}

/// Looks at the clock and at the processes' CPU time.
struct Look {
    at: Instant,
    ours: Option<f64>,
    engine: f64,
}

/// CPU-seconds a second of an engine that nobody asks anything: its logs, its watchers.
#[derive(Clone, Copy)]
struct Idle(f64);

impl Idle {
    fn measure(engine: u32) -> Self {
        let began = Look::now(None, engine);
        sleep(IDLE);
        let ended = Look::now(None, engine);
        Self((ended.engine - began.engine) / (ended.at - began.at).as_secs_f64())
    }
}

impl Look {
    fn now(ours: Option<u32>, engine: u32) -> Self {
        Self {
            at: Instant::now(),
            ours: ours.map(|pid| machine::Cpu::of(pid).total()),
            engine: machine::Cpu::of(engine).total(),
        }
    }

    fn cost(&self, end: &Self, merged: &Self, rows: u64, idle: Idle) -> Cost {
        let per_million = 1e6 / rows as f64;
        let engine = |until: &Self| until.engine - self.engine - idle.0 * (until.at - self.at).as_secs_f64();
        Cost {
            rows,
            seconds: (end.at - self.at).as_secs_f64(),
            ours: self.ours.zip(end.ours).map(|(before, after)| (after - before) * per_million),
            engine: engine(end) * per_million,
            engine_merged: engine(merged) * per_million,
        }
    }
}

pub fn run(binary: &Path, scratch: &Path, size: Size, events: u64) -> String {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let stack = start(binary, scratch.join("insert"));
    let client = stack.client();
    let ask = |query: &str| runtime.block_on(client.query(query).fetch_one::<u64>()).unwrap();
    let tell = |query: &str| runtime.block_on(client.query(query).execute()).unwrap();
    let engine = stack.engine_pid();

    let end = now_ms();
    produce::log(&stack.kafka, size, events, (end - (events * 1_000 / RATE) as i64, end));

    let idle = Idle::measure(engine);
    let aggregator = stack.role("aggregator");
    let ours = Some(aggregator.pid());
    // Not from the first row on: its block was read and counted before.
    let began = Look::now(ours, engine);
    until("the last row is there", || ask("SELECT count() FROM events") == events);
    let rows_there = Look::now(ours, engine);
    // FINAL costs ClickHouse as much as some of the writing: it is asked once the cheap question says that it may be so.
    let counted = |last: &str| {
        ask(&format!("SELECT sum(events) FROM rolling_counts {last} WHERE dimension = 'total'")) >= events
    };
    until("the counts are there", || counted("") && counted("FINAL"));
    let counts_there = Look::now(ours, engine);
    let merging = || ask("SELECT count() FROM system.merges") > 0;
    let merged = |what: &str| {
        until(what, || !merging());
        Look::now(None, engine)
    };
    let counts = ask("SELECT count() FROM rolling_counts");
    let written = began.cost(&counts_there, &merged("our parts are merged"), events, idle);
    let rows_only = began.cost(&rows_there, &counts_there, events, idle);
    let memory = machine::resident_peak(aggregator.pid());
    // Parts are numbered as they are written.
    let parts =
        ask("SELECT toUInt64(max(max_block_number)) FROM system.parts WHERE active AND table = 'events'");
    drop(aggregator);

    let mut floors = Vec::new();
    for format in ["Native", "RowBinary"] {
        let table = format!("floor_{format}").to_lowercase();
        tell(&format!("CREATE TABLE {table} AS events"));
        let files = export(&runtime, &client, &stack.directory, format, events);
        merged("nothing is merged");
        let began = Look::now(None, engine);
        for file in &files {
            let block = fs::read(file).unwrap();
            let mut insert = client.insert_formatted_with(format!("INSERT INTO {table} FORMAT {format}"));
            runtime.block_on(async {
                insert.send(block.into()).await.unwrap();
                insert.end().await.unwrap();
            });
        }
        let ended = Look::now(None, engine);
        assert_eq!(ask(&format!("SELECT count() FROM {table}")), events);
        floors.push((format, began.cost(&ended, &merged("the floor's parts are merged"), events, idle)));
    }
    let theirs = kafka_engine(&runtime, &stack, events);

    let mut text = format!(
        "{events} events of {} sites, {} visitors and {} paths a site lie on {} partitions, 16 to 64 a record, as \
         {RATE} a second would; the aggregator reads them as fast as it can. Broker, engine, aggregator and bench \
         share the cores.\n\n",
        size.sites,
        size.visitors,
        size.paths,
        crate::stack::PARTITIONS
    );
    let ours = written.ours.unwrap();
    text += &table(
        ["The aggregator", ""],
        &[
            ["Events per CPU-second".to_owned(), format!("{:.0}", 1e6 / ours)],
            [
                "Events per CPU-second until the last row, its minute not yet counted".to_owned(),
                format!("{:.0}", 1e6 / rows_only.ours.unwrap()),
            ],
            ["Events per second".to_owned(), format!("{:.0}", written.rows as f64 / rows_only.seconds)],
            ["Most resident memory, MiB".to_owned(), (memory >> 20).to_string()],
            ["Parts written".to_owned(), parts.to_string()],
            ["Rows of rolling_counts".to_owned(), counts.to_string()],
        ],
    );
    text += &format!(
        "\nCPU-seconds per million events. Of ClickHouse's, the {:.3} a second that it spends on itself when nothing \
         happens are taken off:\n\n",
        idle.0
    );
    let row = |name: &str, cost: &Cost| {
        let ratio = |value: f64, floor: f64| format!("{value:.2} ({:.2} ×)", value / floor);
        let floor = &floors[0].1;
        [
            name.to_owned(),
            cost.ours.map_or("–".to_owned(), |ours| format!("{ours:.2}")),
            ratio(cost.engine, floor.engine),
            ratio(cost.engine_merged, floor.engine_merged),
            format!("{:.1}", cost.seconds),
        ]
    };
    let mut rows = vec![
        row("Footfall: rows, each once", &rows_only),
        row("Footfall: rows and rolling counts", &written),
    ];
    // Merges go on while the counts are written: of the rows alone they are not told apart.
    rows[0][3] = "–".to_owned();
    for (format, cost) in &floors {
        rows.push(row(&format!("The same rows again, blocks of {BLOCK}, {format} by POST"), cost));
    }
    if let Ok(cost) = &theirs {
        rows.push(row("ClickHouse's Kafka engine and a view, JSONEachRow", cost));
    }
    text += &table(["", "Aggregator", "ClickHouse", "with the merges after", "Seconds"], &rows);
    text += &match theirs {
        Ok(_) => "\nThe Kafka engine reads and parses in ClickHouse. It has no sessions, no rolling counts and no live \
                  windows, recognises no resends, and after a crash writes again what it had not committed.\n"
            .to_owned(),
        Err(reason) => format!("\nClickHouse's Kafka engine was not measured: {reason}\n"),
    };
    text
}

/// Files of blocks of the rows as they are stored, as a client would send them.
fn export(runtime: &Runtime, client: &Client, directory: &Path, format: &str, events: u64) -> Vec<PathBuf> {
    // With their numbers in the log's order, blocks are cut without sorting everything each time.
    let numbered = "CREATE TABLE IF NOT EXISTS numbered ENGINE = MergeTree ORDER BY n AS \
         SELECT rowNumberInAllBlocks() AS n, * FROM (SELECT * FROM events ORDER BY _offset, _partition, _index) \
         SETTINGS max_threads = 1";
    runtime.block_on(client.query(numbered).execute()).unwrap();
    let export = |number: u64| {
        let (first, end) = (number * BLOCK, (number + 1) * BLOCK);
        let query = format!(
            "SELECT * EXCEPT n FROM numbered WHERE n >= {first} AND n < {end} ORDER BY n SETTINGS max_block_size = {BLOCK}"
        );
        let file = directory.join(format!("{number}.{format}"));
        let block = async { client.query(&query).fetch_bytes(format).unwrap().collect().await.unwrap() };
        fs::write(&file, runtime.block_on(block)).unwrap();
        file
    };
    (0..events.div_ceil(BLOCK)).map(export).collect()
}

/// What the same library needs to do the job by itself. It runs apart, without the sandbox that keeps it from Kafka.
fn kafka_engine(runtime: &Runtime, stack: &Stack, events: u64) -> Result<Cost, String> {
    let directory = stack.directory.join("kafka-engine");
    let process = start_engine(stack, &directory)?;
    let port = directory.join("port");
    wait_until("the second engine answers", || {
        fs::read_to_string(&port).is_ok_and(|text| text.ends_with('\n'))
    });
    let settings = ClickHouseSettings {
        url: format!("http://127.0.0.1:{}", fs::read_to_string(&port).unwrap().trim()),
        database: "default".to_owned(),
        user: "bench".to_owned(),
        password: String::new(),
    };
    let client = settings.client().with_compression(Compression::None);
    let tell = |query: &str| {
        runtime.block_on(client.query(query).execute()).map_err(|error| format!("{error}: {query}"))
    };
    let ask = |query: &str| runtime.block_on(client.query(query).fetch_one::<u64>()).unwrap();
    for migration in footfall_schemas::migrations::ALL {
        tell(migration.sql)?;
    }
    let columns = QUEUE_COLUMNS;
    let written = "SELECT sum(sipHash64(event_id, site, visitor, path, event_time, props)) FROM events";
    tell(&format!(
        "CREATE TABLE queue ({columns}) ENGINE = Kafka SETTINGS kafka_broker_list = '{}', kafka_topic_list = '{}', \
         kafka_group_name = 'bench-engine', kafka_format = 'JSONEachRow', kafka_num_consumers = 2, \
         kafka_thread_per_consumer = 1, kafka_max_block_size = {BLOCK}, input_format_skip_unknown_fields = 1",
        stack.kafka,
        topics::EVENTS
    ))?;
    let idle = Idle::measure(process.pid());
    let began = Look::now(None, process.pid());
    tell(&format!("CREATE MATERIALIZED VIEW view TO events AS {VIEW}"))?;
    until("the Kafka engine has read everything", || ask("SELECT count() FROM events") >= events);
    let ended = Look::now(None, process.pid());
    let ours: u64 = runtime.block_on(stack.client().query(written).fetch_one()).unwrap();
    assert_eq!(ask(written), ours, "the same rows");
    until("its parts are merged", || ask("SELECT count() FROM system.merges") == 0);
    Ok(began.cost(&ended, &Look::now(None, process.pid()), events, idle))
}

/// As the product starts it, with the same limits, but without its sandbox and with a user who may do everything.
fn start_engine(stack: &Stack, directory: &Path) -> Result<Process, String> {
    let ours = stack.engine_config();
    let config = fs::read_to_string(ours.join("run/config.xml")).map_err(|error| error.to_string())?;
    for part in ["store", "run", "log"] {
        fs::create_dir_all(directory.join(part)).map_err(|error| error.to_string())?;
    }
    let canonical = |path: &Path| path.canonicalize().unwrap().display().to_string();
    let config = config.replace(&canonical(&ours), &canonical(directory));
    let port = canonical(directory) + "/port";
    for (name, text) in [
        ("run/config.xml", config.as_str()),
        ("run/users.xml", USERS),
        (
            "run/start.sql",
            &format!(
                "SYSTEM START LISTEN HTTP;\nSELECT getServerPort('http_port') INTO OUTFILE '{port}' FORMAT TSV;\n"
            ),
        ),
    ] {
        fs::write(directory.join(name), text).map_err(|error| error.to_string())?;
    }
    let mut command = Command::new("python3");
    command.current_dir(directory).args(["-c", LAUNCH]).arg(stack.engine_library()).args([
        "clickhouse",
        "--log-level=warning",
        "--config-file=run/config.xml",
        "--queries-file=run/start.sql",
        "--queries-file=/dev/stdin",
    ]);
    Ok(Process::start(&mut command, &directory.join("stderr.log")))
}

const LAUNCH: &str = "\
import ctypes, sys
args = [arg.encode() for arg in sys.argv[2:]]
ctypes.CDLL(sys.argv[1]).chdb_query_cmdline(len(args), (ctypes.c_char_p * (len(args) + 1))(*args, None))";

const USERS: &str = "<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users>\
    <default><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile>\
    <quota>default</quota><grants><query>GRANT ALL ON *.*</query></grants></default>\
    <bench><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile>\
    <quota>default</quota><grants><query>GRANT ALL ON *.*</query></grants></bench></users></clickhouse>";

/// A record's line. Ids are text there.
const QUEUE_COLUMNS: &str = "event_id UUID, site String, visitor String, kind String, event_time Int64, \
    received_at Int64, clock String, name String, host String, path String, title String, \
    referrer String, referrer_host String, channel String, utm_source String, utm_medium String, \
    utm_campaign String, utm_term String, utm_content String, country String, region String, city String, \
    language String, time_zone String, browser String, system String, device String, screen_width UInt16, \
    engaged_ms UInt32, scroll_depth UInt8, page_view UInt32, props Map(String, String), payload_hash UInt64";

const VIEW: &str = "SELECT * REPLACE (fromUnixTimestamp64Milli(event_time, 'UTC') AS event_time, \
    fromUnixTimestamp64Milli(received_at, 'UTC') AS received_at, \
    reinterpretAsUInt64(reverse(unhex(visitor))) AS visitor, if(clock = '', 'told', clock) AS clock), \
    _topic, toInt32(_partition) AS _partition, toInt64(_offset) AS _offset FROM queue";

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + AT_MOST;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {AT_MOST:?}: {what}");
        sleep(LOOK);
    }
}
