//! `footfall load`: synthetic visitors that keep the tracker's rules (ids, outbox, acks, resends) and write a ledger.

mod outbox;
mod plan;
mod transport;
mod visit;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use footfall_schemas::SiteId;
use serde::Serialize;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    duration::parse_duration,
    ledger::{Entry, LedgerWriter},
};

/// `footfall load`
#[derive(Debug, Clone, clap::Args)]
pub struct LoadArgs {
    /// An ingest node, for example http://127.0.0.1:8080; several share the connections
    #[arg(long, value_name = "URL", required = true, num_args = 1.., value_delimiter = ',')]
    pub ingest: Vec<String>,
    /// Site key
    #[arg(long, value_name = "KEY")]
    pub site: SiteId,
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: u32,
    /// Stop after this many events
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    pub events: Option<u64>,
    /// Stop after this time (for example 30s)
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Events a second over all connections, such as 500 or 500/s; as fast as they are acked when absent
    #[arg(long, value_name = "N/s", value_parser = parse_rate)]
    pub rate: Option<f64>,
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub events_per_frame: u32,
    #[arg(long, value_enum, default_value_t = Transport::Ws)]
    pub transport: Transport,
    /// A new visitor takes a connection's place after about this long
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    pub visit: Option<Duration>,
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    #[arg(long, value_name = "FILE")]
    pub ledger: PathBuf,
    /// How long to go on resending what is not acked when the load itself is over
    #[arg(long, value_name = "T", default_value = "60s", value_parser = parse_duration)]
    pub settle: Duration,
    /// Origin of the pages, sent as the Origin header
    #[arg(long, value_name = "ORIGIN", default_value = "http://localhost")]
    pub origin: String,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Transport {
    Ws,
    Http,
    /// Half of the connections each; one that fails comes back by the other
    Mixed,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.trim_end_matches("/s").parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("write events a second, such as 500 or 500/s".into()),
    }
}

/// What a load did. Times in ms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub seed: u64,
    pub issued: u64,
    pub acked: u64,
    pub refused: u64,
    pub unacked: u64,
    pub visits: u64,
    /// Connections that failed and were made again.
    pub reconnects: u64,
    /// Events sent more than once.
    pub resent: u64,
    /// Batches told to come again.
    pub nacked: u64,
    pub seconds: f64,
    pub ack_p50_ms: f64,
    pub ack_p99_ms: f64,
}

/// Counters that all visits share.
#[derive(Debug, Default)]
struct Counters {
    issued: AtomicU64,
    acked: AtomicU64,
    refused: AtomicU64,
    unacked: AtomicU64,
    visits: AtomicU64,
    reconnects: AtomicU64,
    resent: AtomicU64,
    nacked: AtomicU64,
    /// From batch sent to its ack, in µs; a std mutex: no await happens while it is held.
    ack_micros: Mutex<Vec<u32>>,
}

/// What a visit needs to know of the run.
struct Run {
    args: LoadArgs,
    seed: u64,
    ledger: LedgerWriter,
    counters: Counters,
    /// Events that may still be issued; unlimited when the run ends by time.
    budget: AtomicI64,
    /// The visit issues nothing more.
    issue_until: CancellationToken,
    /// The visit gives up on what is not acked.
    settle_until: CancellationToken,
}

impl Run {
    /// Takes up to `wanted` events from the budget.
    fn take(&self, wanted: u32) -> u32 {
        if self.issue_until.is_cancelled() {
            return 0;
        }
        let before = self.budget.fetch_sub(wanted.into(), Relaxed);
        before.clamp(0, wanted.into()) as u32
    }

    fn exhausted(&self) -> bool {
        self.issue_until.is_cancelled() || self.budget.load(Relaxed) <= 0
    }
}

pub(crate) fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Runs until everything issued is settled, or `stop` is cancelled and the settle time is over.
pub async fn load(args: LoadArgs, stop: CancellationToken) -> anyhow::Result<Summary> {
    if args.events.is_none() && args.duration.is_none() {
        bail!("--events or --duration: one of them says when the load ends");
    }
    for url in &args.ingest {
        transport::Endpoint::parse(url).with_context(|| format!("--ingest {url}"))?;
    }
    let seed = args.seed.unwrap_or_else(rand::random);
    let ledger = LedgerWriter::create(&args.ledger)?;
    ledger.append(&[Entry::Start { seed, site: args.site.clone(), at: unix_ms() }])?;
    let budget =
        AtomicI64::new(args.events.map_or(i64::MAX / 2, |events| events.min(i64::MAX as u64 / 2) as i64));
    let (issue_until, settle_until) = (stop.child_token(), CancellationToken::new());
    let run = Arc::new(Run {
        seed,
        ledger,
        counters: Counters::default(),
        budget,
        issue_until,
        settle_until,
        args,
    });
    let started = Instant::now();

    let mut visits = JoinSet::new();
    for slot in 0..run.args.connections {
        visits.spawn(visit::keep_visiting(run.clone(), slot));
    }
    let deadlines = tokio::spawn(watch_deadlines(run.clone()));
    let mut failure = None;
    while let Some(visit) = visits.join_next().await {
        if let Err(error) = visit.context("a visit panicked").and_then(|outcome| outcome) {
            run.issue_until.cancel();
            run.settle_until.cancel();
            failure.get_or_insert(error);
        }
    }
    deadlines.abort();
    run.ledger.append(&[Entry::End { at: unix_ms() }])?;
    run.ledger.flush()?;
    failure.map_or_else(|| Ok(summary(&run, started.elapsed())), Err)
}

/// Ends issuing by time, then settling; flushes the ledger so that a killed load leaves what it knew.
async fn watch_deadlines(run: Arc<Run>) {
    let end = run.args.duration.map(|duration| Instant::now() + duration);
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    while !run.exhausted() {
        tick.tick().await;
        // A failing write ends the load at the next append, with its reason.
        let _ = run.ledger.flush();
        if end.is_some_and(|end| Instant::now() >= end) {
            run.issue_until.cancel();
        }
    }
    tokio::time::sleep(run.args.settle).await;
    run.settle_until.cancel();
}

fn summary(run: &Run, took: Duration) -> Summary {
    let counters = &run.counters;
    let mut micros = counters.ack_micros.lock().expect("no visit panics while it holds the samples");
    micros.sort_unstable();
    let quantile = |q: f64| {
        let last = micros.len().saturating_sub(1);
        micros.get((last as f64 * q).round() as usize).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
    };
    Summary {
        seed: run.seed,
        issued: counters.issued.load(Relaxed),
        acked: counters.acked.load(Relaxed),
        refused: counters.refused.load(Relaxed),
        unacked: counters.unacked.load(Relaxed),
        visits: counters.visits.load(Relaxed),
        reconnects: counters.reconnects.load(Relaxed),
        resent: counters.resent.load(Relaxed),
        nacked: counters.nacked.load(Relaxed),
        seconds: took.as_secs_f64(),
        ack_p50_ms: quantile(0.5),
        ack_p99_ms: quantile(0.99),
    }
}

/// Runs the command; `Ok(false)` when something was left unacked.
pub async fn command(args: LoadArgs, stop: CancellationToken) -> anyhow::Result<bool> {
    let json = args.json;
    let summary = load(args, stop).await?;
    if json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        print!("{summary}");
    }
    Ok(summary.unacked == 0)
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { issued, acked, refused, unacked, .. } = self;
        writeln!(f, "seed {}", self.seed)?;
        writeln!(f, "issued {issued}, acked {acked}, refused {refused}, unacked {unacked}")?;
        writeln!(
            f,
            "{} visits, {} reconnects, {} events resent, {} batches told to wait",
            self.visits, self.reconnects, self.resent, self.nacked
        )?;
        let rate = self.acked as f64 / self.seconds.max(0.001);
        writeln!(
            f,
            "{:.1} s, {rate:.0} acked/s, ack p50 {:.1} ms, p99 {:.1} ms",
            self.seconds, self.ack_p50_ms, self.ack_p99_ms
        )
    }
}
