//! One server after the other, measured by the same client.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread::{scope, sleep},
    time::Duration,
};

use crate::{
    bench::{
        machine::{self, Cpu},
        process::{Client, Process},
        profile::{self, Profile},
        report::{Results, table},
    },
    centrifugo::Centrifugo,
    client::{Said, Slow},
    floor::Floor,
    footfall::Footfall,
    layers::LAYERS,
    subscriber::{Door, Speaks},
    syscalls, tables,
    tally::Counted,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The release binary
    #[arg(long, value_name = "FILE")]
    pub binary: PathBuf,
    /// Centrifugo's; left out when there is none
    #[arg(long, value_name = "FILE")]
    pub centrifugo: Option<PathBuf>,
    /// A directory on a disk; emptied first
    #[arg(long, value_name = "DIR")]
    pub scratch: PathBuf,
    /// Where the tables go
    #[arg(long, value_name = "FILE")]
    pub results: PathBuf,
    #[arg(long, env, default_value_t = 10_000)]
    pub subscribers: u32,
    /// Changes a second
    #[arg(long, env, default_value_t = 4.0)]
    pub rate: f64,
    /// Of the first count
    #[arg(long, env, default_value_t = 30)]
    pub seconds: u64,
    /// Slow readers in the last count
    #[arg(long, env, default_value_t = 100)]
    pub slow: u32,
    /// Half of them read nothing for so many seconds, then everything, three times; the others never read. Kernels
    /// buffer some ten seconds of changes
    #[arg(long, env, default_value_t = 16)]
    pub pause: u64,
}

/// What is measured.
pub trait Server {
    fn name(&self) -> &'static str;
    fn process(&self) -> &Process;
    fn door(&self) -> Door;
    /// CPU time of what feeds it.
    fn others(&self) -> Option<Cpu> {
        None
    }
}

/// What one server did and cost.
#[derive(Debug)]
pub struct Run {
    pub name: &'static str,
    /// Until all were subscribed.
    pub opened_s: f64,
    pub crowd: Counted,
    pub server: Cpu,
    pub client: Cpu,
    pub others: Option<Cpu>,
    /// Before anybody came, when all were there, and after the first count.
    pub memory: [Memory; 3],
    /// By frame; the names are in [`syscalls::NAMES`].
    pub syscalls: Option<[f64; syscalls::NAMES.len()]>,
    pub profile: Option<Profile>,
    pub with_slow: Option<WithSlow>,
}

/// The last count.
#[derive(Debug)]
pub struct WithSlow {
    pub crowd: Counted,
    pub slow: Slow,
    /// Most bytes that the server held more than before the slow readers came.
    pub grown: u64,
}

/// Bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub resident: u64,
    pub proportional: u64,
}

impl Memory {
    fn of(process: &Process) -> Self {
        let pid = process.pid();
        Self { resident: machine::resident(pid), proportional: machine::proportional(pid) }
    }
}

/// Subscribers that come and go before: what a server makes once is made then.
const FIRST: u32 = 100;
/// After the last has subscribed, and after the first have gone.
const SETTLE: Duration = Duration::from_secs(5);
/// How long system calls are counted, and then stacks taken.
const WATCHED_S: u64 = 10;
const LOOK: Duration = Duration::from_millis(250);

pub fn run(args: &Args) {
    let Args { scratch, .. } = args;
    let head = "# What a viewer costs\n\nWritten by `make bench-dashboard`.\n";
    let results = Results::new(&args.results, head);
    // What lies there may be of a run that was stopped.
    let _ = fs::remove_dir_all(scratch);
    fs::create_dir_all(scratch).unwrap();
    let machine = machine::description();

    let recording = scratch.join("changes.ndjson");
    let mut runs = vec![measure(&Footfall::start(args, &scratch.join("footfall")), args, Some(&recording))];
    if let Some(program) = &args.centrifugo {
        runs.push(measure(&Centrifugo::start(args, program, &recording, scratch), args, None));
    }
    runs.push(measure(&Floor::start(args, &recording, scratch), args, None));

    results.write("Machine", &table(["", ""], &machine));
    results.write("What is measured", &tables::method(args, &runs));
    results.write("Fan-out", &tables::fan_out(args, &runs));
    results.write("Memory", &tables::memory(args, &runs));
    results.write("Slow readers", &tables::slow(args, &runs));
    if let Some(profile) = &runs[0].profile {
        let title = "Where the time of the dashboard goes";
        results.write(title, &profile.section("its threads while the subscribers are told"));
    }
    let _ = fs::remove_dir_all(scratch);
}

fn measure(server: &dyn Server, args: &Args, record: Option<&Path>) -> Run {
    let (process, door) = (server.process(), server.door());
    println!("{}: {} subscribers", server.name(), args.subscribers);
    let mut first = client(args, &door, FIRST.min(args.subscribers), None);
    opened(&mut first);
    drop(first);
    sleep(SETTLE);

    let before = Memory::of(process);
    let mut client = client(args, &door, args.subscribers, record);
    let opened_s = opened(&mut client);
    sleep(SETTLE);
    let full = Memory::of(process);

    let look = |client: &Client| (process.cpu(), client.cpu(), server.others());
    begin(&mut client);
    let began = look(&client);
    end(&mut client);
    let ended = look(&client);
    let crowd = counted(&mut client);
    let after = Memory::of(process);

    // Counting costs the server; it is asked for nothing else meanwhile.
    begin(&mut client);
    let calls = syscalls::count(process.pid(), WATCHED_S);
    end(&mut client);
    let watched = counted(&mut client);
    let frames = watched.changes as f64 / watched.seconds * WATCHED_S as f64;
    let syscalls = calls.map(|calls| calls.map(|calls| calls / frames));
    let profile = record.and_then(|_| profile::take(process.pid(), WATCHED_S, &args.scratch, &LAYERS));
    // The bare loop drops who does not read at once.
    let with_slow = (door.speaks != Speaks::Bare).then(|| count_with_slow(process, &mut client));
    Run {
        name: server.name(),
        opened_s,
        crowd,
        server: ended.0.since(began.0),
        client: ended.1.since(began.1),
        others: ended.2.zip(began.2).map(|(ended, began)| ended.since(began)),
        memory: [before, full, after],
        syscalls,
        profile,
        with_slow,
    }
}

fn client(args: &Args, door: &Door, subscribers: u32, record: Option<&Path>) -> Client {
    let speaks = format!("{:?}", door.speaks).to_lowercase();
    let mut options = vec![
        ("server", door.server.to_string()),
        ("speaks", speaks),
        ("subscribers", subscribers.to_string()),
        ("count-ms", (args.seconds * 1_000).to_string()),
        ("watched-ms", (WATCHED_S * 1_000).to_string()),
        ("slow", args.slow.to_string()),
        ("pause-ms", (args.pause * 1_000).to_string()),
    ];
    options.extend(door.cookie.clone().map(|cookie| ("cookie", cookie)));
    options.extend(record.map(|file| ("record", file.display().to_string())));
    Client::start("client", &options)
}

fn opened(client: &mut Client) -> f64 {
    match client.hear() {
        Said::Subscribed { seconds } => seconds,
        other => panic!("not subscribed: {other:?}"),
    }
}

fn begin(client: &mut Client) {
    client.ask();
    assert_eq!(client.hear::<Said>(), Said::Began);
}

fn end(client: &mut Client) {
    assert_eq!(client.hear::<Said>(), Said::Ended);
}

fn counted(client: &mut Client) -> Counted {
    match client.hear() {
        Said::Counted(counted) => counted,
        other => panic!("ended without a count: {other:?}"),
    }
}

fn count_with_slow(process: &Process, client: &mut Client) -> WithSlow {
    let before = Memory::of(process).proportional;
    let counted = AtomicBool::new(false);
    scope(|scope| {
        let most = scope.spawn(|| {
            let mut most = before;
            while !counted.load(Ordering::Relaxed) {
                most = most.max(Memory::of(process).proportional);
                sleep(LOOK);
            }
            most
        });
        begin(client);
        end(client);
        counted.store(true, Ordering::Relaxed);
        let Said::CountedWithSlow(crowd, slow) = client.hear() else { panic!("ended without a count") };
        WithSlow { crowd, slow, grown: most.join().unwrap() - before }
    })
}
