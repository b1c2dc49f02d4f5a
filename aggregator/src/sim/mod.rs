//! The whole of a partition's work over a log and a store in memory, on a paused clock: kills, fences, zombies, lost
//! answers, lost parts, late inserts, torn snapshots, each from a seed. Whatever happens, the tables must be those of
//! a few lines of plain code ([`reference`]).

mod audit;
mod generator;
pub(crate) mod reference;
mod sessions;
mod world;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use footfall_schemas::{Dimension, SiteId, directory::Directory, live::LiveState, topics};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use self::{
    generator::Rng,
    world::{Faults, Told, World},
};
use crate::{
    config::Config,
    driver::Driver,
    error::Error,
    keep::Keeper,
    metrics::Metrics,
    ports::Ports,
    session::DEFAULT_GAP_MS,
    status::{Phase, Status},
};

const PARTITION: i32 = 3;
/// Long enough for every retry of the small backoffs below.
const PATIENCE: Duration = Duration::from_secs(600);

/// Small bounds, so that every one of them is met.
fn config() -> Config {
    Config {
        block_rows: 7,
        block_ms: 200,
        live_ms: 100,
        live_full_ms: 1_000,
        live_values: 3,
        minute_values: 4,
        exact_visitors: 12,
        partition_bytes: 40_000,
        recount_ms: 300,
        snapshot_ms: 700,
        audit_ms: 300,
        stream_horizon_ms: 10 * 60 * 1_000,
        streams: 6,
        backoff_ms: 5,
        backoff_max_ms: 50,
        revoke_ms: 20,
        ..Config::default()
    }
}

struct Member {
    task: JoinHandle<Result<(), Error>>,
    drain: CancellationToken,
    revoked: CancellationToken,
    status: Arc<Status>,
    /// Changes the settings under it.
    directory: watch::Sender<Arc<Directory>>,
}

fn assign(world: &Arc<World>) -> Member {
    let (log, inbox, epoch) = World::assign(world);
    let (drain, revoked) = (CancellationToken::new(), CancellationToken::new());
    let status = Arc::new(Status::default());
    let (directory, settings) = watch::channel(world.directory());
    status.assigned(PARTITION);
    let driver = Driver {
        keeper: Keeper {
            partition: PARTITION,
            ports: Ports { log: Arc::new(log), store: world.clone(), outlet: world.clone() },
            config: Arc::new(config()),
            status: status.clone(),
            metrics: Metrics::new(&status),
        },
        directory: settings,
        inbox,
        wall: world.wall(),
        epoch,
        audits: Arc::new(Semaphore::new(1)),
        drain: drain.clone(),
        revoked: revoked.clone(),
    };
    Member { task: tokio::spawn(driver.run()), drain, revoked, status, directory }
}

/// How a member ends.
#[derive(Clone, Copy)]
enum Ending {
    /// `kill -9`: nothing of it runs on.
    Killed,
    /// Frozen and then fenced: it runs on beside the next owner until it notices.
    Zombie,
    /// The group takes the partition away.
    Revoked,
    /// An orderly stop.
    Drained,
}

/// Plays one seed to its end and compares everything.
async fn play(seed: u64, faults: Faults) {
    let mut rng = Rng::new(seed);
    let records = generator::records(&mut rng);
    let world = World::new(seed, faults, records);
    let publisher = tokio::spawn(World::publish(world.clone()));
    let mut member = assign(&world);
    let mut zombies = Vec::new();
    let mut is_whole = true;
    for _ in 0..rng.below(6) {
        sleep(Duration::from_millis(rng.below(900))).await;
        if faults.settings && rng.below(2) == 0 {
            // The owner that runs takes them over, or is gone before it has.
            member.directory.send_replace(world.directory());
            sleep(Duration::from_millis(rng.below(300))).await;
        }
        let ending =
            [Ending::Killed, Ending::Zombie, Ending::Revoked, Ending::Drained][rng.below(4) as usize];
        let mut was_running = false;
        audit::note(seed, &member.status.partitions()[&PARTITION].audit);
        match ending {
            Ending::Killed => {
                member.task.abort();
                let _ = member.task.await;
            }
            Ending::Zombie => zombies.push(member.task),
            Ending::Revoked => {
                world.fence();
                member.revoked.cancel();
                member.task.await.unwrap().unwrap();
            }
            Ending::Drained => {
                was_running = member.status.partitions()[&PARTITION].phase == Phase::Running;
                member.drain.cancel();
                member.task.await.unwrap().unwrap();
            }
        }
        if !faults.settings && rng.below(if faults.truncation { 2 } else { 10 }) == 0 {
            world.lose_snapshots();
        }
        // Retention takes days; whoever stopped in order has written its counts.
        if faults.truncation && was_running && world.is_put_down() && rng.below(2) == 0 {
            is_whole &= !world.truncate();
        }
        sleep(Duration::from_millis(rng.below(100))).await;
        member = assign(&world);
    }
    publisher.await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !world.is_settled() {
        if member.task.is_finished() {
            panic!("seed {seed}: the owner ended: {:?}", member.task.await);
        }
        assert!(Instant::now() < deadline, "seed {seed}: not settled: {:?}", member.status);
        sleep(Duration::from_millis(100)).await;
    }
    // The last late inserts of zombies arrive; they must change nothing.
    sleep(Duration::from_secs(10)).await;
    let status = member.status.partitions()[&PARTITION].clone();
    assert_eq!(status.phase, Phase::Running, "seed {seed}");
    // Nothing is wrong at any moment, so the audit finds nothing, however much is late, lost or written twice.
    audit::note(seed, &status.audit);
    let told = world.told();
    member.drain.cancel();
    member.task.await.unwrap().unwrap();
    for zombie in zombies {
        zombie.abort();
    }
    compare(seed, &world, &told, is_whole && !faults.settings);
}

/// `is_whole`: the log has its beginning, and all owners have the same settings. Without its beginning and without a
/// snapshot, sessions begin anew and the live view fills up again, but no row and no count may differ.
fn compare(seed: u64, world: &World, told: &BTreeMap<SiteId, Told>, is_whole: bool) {
    let rows = world.rows();
    let expected = reference::rows(&world.records(), config().lateness_ms, DEFAULT_GAP_MS);
    let coordinates: Vec<_> = rows.iter().map(|row| (row._offset, row._index)).collect();
    let distinct: BTreeSet<_> = coordinates.iter().copied().collect();
    assert_eq!(distinct.len(), coordinates.len(), "seed {seed}: rows are stored twice");
    let ids: BTreeSet<_> = rows.iter().map(|row| (row.site.clone(), row.event_id)).collect();
    assert_eq!(ids.len(), rows.len(), "seed {seed}: an event counts twice");
    let found: BTreeMap<_, _> = rows.iter().map(|row| ((row._offset, row._index), row)).collect();
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.rows.keys().collect::<Vec<_>>(),
        "seed {seed}: other rows than those of the reference"
    );
    for (at, row) in &expected.rows {
        let mut row = row.clone();
        if !is_whole {
            if row.session != found[at].session {
                world::felt("session: split otherwise");
            }
            (row.session, row.session_start) = (found[at].session, found[at].session_start);
        }
        assert_eq!(found[at], &row, "seed {seed}: row at {at:?}");
    }
    assert!(rows.iter().all(|row| row._topic == topics::EVENTS && row._partition == PARTITION));

    let (counts, expected_counts) = (world.counts(), reference::counts(&rows));
    let wrong: Vec<_> = counts
        .keys()
        .chain(expected_counts.keys())
        .filter(|cell| counts.get(cell) != expected_counts.get(cell))
        .map(|cell| (cell, counts.get(cell), expected_counts.get(cell)))
        .collect();
    assert!(wrong.is_empty(), "seed {seed}: rolling counts: {wrong:?}");
    assert_eq!(world.letters(), expected.poison, "seed {seed}: dead letters");

    let (joined, sessions): (BTreeMap<_, _>, BTreeMap<_, _>) =
        world.sessions().into_iter().partition(|(_, row)| row.is_deleted == 1);
    let joined: BTreeMap<_, _> = joined.into_iter().map(|(session, row)| (session, row.joined)).collect();
    let mut events = BTreeMap::<u64, u32>::new();
    for row in &rows {
        let within = std::iter::successors(Some(row.session), |session| joined.get(session).copied());
        *events.entry(within.last().unwrap()).or_default() += 1;
    }
    let counted: BTreeMap<_, _> = sessions.iter().map(|(session, row)| (*session, row.events)).collect();
    assert_eq!(counted, events, "seed {seed}: the sessions' events are those of the rows");
    if is_whole {
        assert_eq!(joined, expected.joined, "seed {seed}: sessions joined");
        for (session, row) in &expected.sessions {
            assert_eq!(sessions.get(session), Some(row), "seed {seed}: session {session}");
        }
        assert_eq!(sessions.len(), expected.sessions.len(), "seed {seed}: sessions that are none");
    }

    for (site, totals) in expected.totals.iter().filter(|_| is_whole) {
        let told = told.get(site).unwrap_or_else(|| panic!("seed {seed}: nothing told of {site}"));
        let told_totals = told.state.totals.unwrap();
        assert_eq!(
            (told_totals.stored, told_totals.duplicate, told_totals.late),
            (totals.stored, totals.duplicate, totals.late),
            "seed {seed}: totals told of {site}"
        );
        let shown: u64 = told.state.minutes.values().map(|minute| minute.events).sum();
        assert_eq!(
            shown,
            reference::shown_events(&rows, site, told.clock),
            "seed {seed}: minutes told of {site}"
        );
        compare_sessions(seed, &expected, site, told);
    }
}

/// The live figures of sessions.
fn compare_sessions(seed: u64, expected: &reference::Expected, site: &SiteId, told: &Told) {
    let live = sessions::live(expected.sessions.values(), site, told.clock);
    let figures = |state: &LiveState| {
        let totals = state.totals.unwrap();
        let minutes = state.minutes.iter().map(|(start, counts)| (*start, counts.sessions));
        let minutes: BTreeMap<_, _> = minutes.filter(|(_, sessions)| *sessions > 0).collect();
        (totals.sessions, totals.bounces, totals.duration_ms, minutes)
    };
    assert_eq!(figures(&told.state), figures(&live), "seed {seed}: sessions told of {site}");
    for dimension in [Dimension::Entry, Dimension::Exit] {
        let mut top: Vec<_> = live.tops.get(&dimension).into_iter().flatten().collect();
        assert_eq!(
            told.state.errors.contains_key(&dimension),
            top.len() > config().live_values,
            "seed {seed}: cut"
        );
        top.sort_by_key(|(path, count)| (Reverse(**count), *path));
        top.truncate(config().live_values);
        let top: BTreeMap<_, _> = top.into_iter().collect();
        let told: BTreeMap<_, _> = told.state.tops.get(&dimension).into_iter().flatten().collect();
        assert_eq!(told, top, "seed {seed}: {dimension:?} pages told of {site}");
    }
}

fn run(seeds: std::ops::Range<u64>, faults: Faults) -> Felt {
    let mut felt = Felt::default();
    for seed in seeds {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        felt.add(&world::FELT.with(|felt| {
            felt.take();
            runtime.block_on(play(seed, faults));
            felt.take()
        }));
    }
    felt
}

/// Faults and paths that were really met.
#[derive(Debug, Clone, Default)]
pub(crate) struct Felt(BTreeMap<&'static str, u64>);

impl Felt {
    pub(crate) fn note(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }
}

fn seeds(few: u64) -> std::ops::Range<u64> {
    let text = std::env::var("FOOTFALL_SEEDS").unwrap_or_default();
    match text.split_once("..") {
        Some((first, end)) => first.parse().unwrap()..end.parse().unwrap(),
        None => 0..few,
    }
}

#[test]
fn restarts_alone_change_no_table() {
    run(seeds(60), Faults { percent: 0, ..Faults::default() });
}

#[test]
fn without_the_log_s_beginning_and_without_a_snapshot_nothing_counts_twice() {
    let felt = run(seeds(100), Faults { percent: 5, truncation: true, ..Faults::default() });
    assert!(felt.0.contains_key("log: beginning lost"), "{felt:?}");
}

#[test]
fn a_block_is_rebuilt_with_the_settings_it_was_made_with() {
    let felt = run(seeds(100), Faults { percent: 15, settings: true, ..Faults::default() });
    assert!(felt.0.contains_key("session: split otherwise"), "{felt:?}");
}

#[test]
fn whatever_fails_the_tables_are_those_of_the_log() {
    let felt = run(seeds(250), Faults { percent: 15, ..Faults::default() });
    for what in [
        "insert: nothing done",
        "insert: reply lost",
        "insert: part lost, token kept",
        "insert: half landed",
        "insert: arrives later",
        "insert: dropped by its token",
        "commit: reply lost",
        "commit: refused",
        "look-up: found",
        "look-up: not found",
        "counts: minute recounted",
        "session: joined",
        "session: start moved",
        "snapshot: read",
        "snapshot: lost",
        "letter: sent twice",
        "audit: clean",
    ] {
        assert!(felt.0.get(what).is_some_and(|count| *count > 0), "{what} did not happen: {felt:?}");
    }
}
