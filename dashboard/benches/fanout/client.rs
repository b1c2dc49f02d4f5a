//! All subscribers, on one thread. Says how it goes, a line each; a line on stdin lets it count.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, LocalSet, spawn_blocking, spawn_local},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use crate::{
    bench::wire::runtime,
    frames::{Stamp, wall},
    subscriber::{Door, Subscriber},
    tally::{Counted, Tally},
};

/// Subscribers that are being opened at a time.
const OPENING: usize = 64;
/// A slow reader that pauses reads so long in between.
pub const READING: Duration = Duration::from_secs(1);
pub const CYCLES: u32 = 3;
/// What lies at a reader that never read is there by then.
const DRAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    door: Door,
    #[arg(long)]
    subscribers: u32,
    #[arg(long)]
    count_ms: u64,
    #[arg(long)]
    watched_ms: u64,
    /// Slow readers that come for the last count; every other one reads nothing
    #[arg(long)]
    slow: u32,
    /// The others read for a second after so long, three times
    #[arg(long)]
    pause_ms: u64,
    /// Changes of one subscriber in the first count, a line each
    #[arg(long)]
    record: Option<PathBuf>,
}

/// What it says: `Subscribed`; then for each of three lines on stdin `Began`, `Ended` and what was counted between. In the
/// last count slow readers are there. The end of stdin ends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    Subscribed { seconds: f64 },
    Began,
    Ended,
    Counted(Counted),
    CountedWithSlow(Counted, Slow),
}

/// What became of the slow readers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Slow {
    pub pausing: u32,
    /// Changes that those who pause got, and those that were left out for them.
    pub got: u64,
    pub skipped: u64,
    /// The oldest that the newest change was at the end of a reading, in ms; absent when none was read to its end.
    pub behind_ms: Option<f64>,
    pub pausing_closed: u32,
    pub never_reading: u32,
    pub never_reading_closed: u32,
}

pub fn run(args: Args) {
    runtime().block_on(LocalSet::new().run_until(async move {
        let crowd = Rc::new(Tally::default());
        *crowd.record.borrow_mut() = args.record.is_some().then(Vec::new);
        let began = Instant::now();
        open(&args, &crowd).await;
        say(&Said::Subscribed { seconds: began.elapsed().as_secs_f64() });

        if asked().await {
            let counted = count(&crowd, Instant::now() + Duration::from_millis(args.count_ms)).await;
            if let (Some(file), Some(record)) = (&args.record, crowd.record.take()) {
                fs::write(file, record).unwrap();
            }
            say(&Said::Counted(counted));
        }
        if asked().await {
            let until = Instant::now() + Duration::from_millis(args.watched_ms);
            say(&Said::Counted(count(&crowd, until).await));
        }
        if asked().await {
            let mut slow = Vec::new();
            for number in 0..args.slow {
                let reader = Subscriber::open(&args.door, true).await.unwrap();
                slow.push((reader, number));
            }
            let pause = Duration::from_millis(args.pause_ms);
            let until = Instant::now() + CYCLES * (pause + READING);
            let readers =
                slow.into_iter().map(|(reader, number)| spawn_local(lag(reader, number, pause, until)));
            let readers: Vec<_> = readers.collect();
            let counted = count(&crowd, until).await;
            say(&Said::CountedWithSlow(counted, became(readers).await));
        }
        // The parent looks at the server yet.
        asked().await;
    }));
}

async fn asked() -> bool {
    spawn_blocking(|| matches!(io::stdin().lines().next(), Some(Ok(_)))).await.unwrap()
}

fn say(said: &Said) {
    println!("{}", serde_json::to_string(said).unwrap());
    io::stdout().flush().unwrap();
}

async fn open(args: &Args, crowd: &Rc<Tally>) {
    let opening = Arc::new(Semaphore::new(OPENING));
    for number in 0..args.subscribers {
        let (crowd, opening, door) = (crowd.clone(), opening.clone(), args.door.clone());
        spawn_local(async move {
            let permit = opening.acquire_owned().await;
            let subscriber = Subscriber::open(&door, false).await;
            let subscriber = subscriber.unwrap_or_else(|error| panic!("{}: {error}", door.server));
            drop(permit);
            crowd.subscribed.set(crowd.subscribed.get() + 1);
            // It ends with the connection only.
            let _ = follow(subscriber, &crowd, number == 0).await;
            crowd.ended.set(crowd.ended.get() + 1);
        });
    }
    while crowd.subscribed.get() < args.subscribers {
        sleep(Duration::from_millis(20)).await;
    }
}

async fn follow(mut subscriber: Subscriber, crowd: &Tally, recorded: bool) -> io::Result<()> {
    let told = |before: Option<Stamp>, change: Stamp, message: &[u8]| {
        crowd.take(before, change, message.len());
        if recorded
            && message.starts_with(br#"{"t":"delta""#)
            && let Some(record) = &mut *crowd.record.borrow_mut()
        {
            record.extend_from_slice(message);
            record.push(b'\n');
        }
    };
    loop {
        subscriber.next(told).await?;
    }
}

async fn count(crowd: &Tally, until: Instant) -> Counted {
    let began = Instant::now();
    crowd.begin();
    say(&Said::Began);
    sleep_until(until).await;
    let seconds = began.elapsed().as_secs_f64();
    let counted = crowd.end(seconds);
    say(&Said::Ended);
    counted
}

/// One slow reader until its time is over.
#[derive(Debug, Default)]
struct Lagged {
    pauses: bool,
    got: u64,
    skipped: u64,
    behind_ms: Option<f64>,
    closed: bool,
}

async fn lag(mut reader: Subscriber, number: u32, pause: Duration, until: Instant) -> Lagged {
    let mut lagged = Lagged { pauses: number.is_multiple_of(2), ..Lagged::default() };
    if !lagged.pauses {
        sleep_until(until).await;
        lagged.closed = matches!(timeout(DRAIN, drain(&mut reader)).await, Ok(Err(_)));
        return lagged;
    }
    for _ in 0..CYCLES {
        sleep(pause).await;
        let read_until = Instant::now() + READING;
        let mut newest = 0;
        loop {
            let told = |before: Option<Stamp>, change: Stamp, _: &[u8]| {
                lagged.got += 1;
                lagged.skipped += before.map_or(0, |before| change.seq.saturating_sub(before.seq + 1));
                newest = change.now;
            };
            match timeout_at(read_until, reader.next(told)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => {
                    lagged.closed = true;
                    return lagged;
                }
                Err(_) => {
                    let behind = wall() - newest as f64;
                    lagged.behind_ms = Some(lagged.behind_ms.map_or(behind, |most| most.max(behind)));
                    break;
                }
            }
        }
    }
    // Connected until the others have been counted.
    sleep_until(until).await;
    lagged
}

async fn drain(reader: &mut Subscriber) -> io::Result<()> {
    loop {
        reader.next(|_, _, _| {}).await?;
    }
}

async fn became(readers: Vec<JoinHandle<Lagged>>) -> Slow {
    let mut slow = Slow::default();
    for reader in readers {
        let Lagged { pauses, got, skipped, behind_ms, closed } = reader.await.unwrap();
        let (all, ended) = match pauses {
            true => (&mut slow.pausing, &mut slow.pausing_closed),
            false => (&mut slow.never_reading, &mut slow.never_reading_closed),
        };
        *all += 1;
        *ended += u32::from(closed);
        slow.got += got;
        slow.skipped += skipped;
        slow.behind_ms = [slow.behind_ms, behind_ms].into_iter().flatten().reduce(f64::max);
    }
    slow
}
