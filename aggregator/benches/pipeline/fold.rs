//! What an event costs inside, without Kafka and ClickHouse: CPU time of one thread by stage. The traffic is made by
//! another thread, so `perf record` and then `perf report --comm fold` show the stages alone.

use std::{sync::mpsc::sync_channel, thread};

use footfall_aggregator::bench::Folding;
use rustix::time::{ClockId, clock_gettime};

use crate::{
    bench::report,
    traffic::{Packed, Packer, Size, Traffic},
};

/// Where the log begins in time.
const BEGAN: i64 = 1_800_000_000_000;
const SEED: u64 = 7;

#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 500_000)]
    events: usize,
    /// Events a second of log time
    #[arg(long, default_value_t = 5_000)]
    rate: usize,
    /// Rows of a block
    #[arg(long, default_value_t = 20_000)]
    block: usize,
    #[command(flatten)]
    size: Size,
}

impl Args {
    pub fn of(size: Size) -> Self {
        Self { events: 500_000, rate: 5_000, block: 20_000, size }
    }
}

pub fn run(args: &Args) -> String {
    let (sender, records) = sync_channel::<Packed>(1_024);
    let Args { events, rate, block, size } = args.clone();
    let make = move || {
        let (mut traffic, mut packer) = (Traffic::new(SEED, size), Packer::new(SEED, 1));
        for number in 0..events {
            let at = BEGAN + (number * 1_000 / rate) as i64;
            if let Some(record) = packer.add(&traffic.event(at)) {
                sender.send(record).unwrap();
            }
        }
        packer.rest().into_iter().for_each(|record| sender.send(record).unwrap());
    };
    let fold = move || {
        let mut folding = Folding::new();
        let mut stages = Stages::default();
        let (mut open, mut bytes) = (0, 0);
        let mut close = |folding: &mut Folding, stages: &mut Stages| {
            let rows = stages.spend("close: counts, sweep, boundary", || folding.close());
            bytes += stages.spend("encode", || rows.encode()).len();
        };
        for record in records {
            let parsed = stages.spend("parse", || folding.parse(&record.value, record.at));
            stages.spend("fold", || folding.fold(parsed));
            open += record.events;
            if open >= block {
                open = 0;
                close(&mut folding, &mut stages);
            }
        }
        close(&mut folding, &mut stages);
        let state = stages.spend("snapshot", || folding.snapshot());
        let stages = report::table(["Stage", "ns an event", "Share"], &stages.rows(events));
        format!(
            "One partition, {events} events in memory, {rate} a second of log time, blocks of {block}. CPU time of one \
             thread. A block is {} bytes a row; the state is {} bytes.\n\n{stages}",
            bytes / events,
            state.len()
        )
    };
    let traffic = thread::Builder::new().name("traffic".to_owned()).spawn(make).unwrap();
    let told = thread::Builder::new().name("fold".to_owned()).spawn(fold).unwrap().join().unwrap();
    traffic.join().unwrap();
    told
}

/// CPU time of this thread, by what it was spent on.
#[derive(Default)]
struct Stages(Vec<(&'static str, u64)>);

impl Stages {
    fn spend<T>(&mut self, stage: &'static str, work: impl FnOnce() -> T) -> T {
        let began = cpu_ns();
        let done = work();
        let spent = cpu_ns() - began;
        match self.0.iter_mut().find(|(name, _)| *name == stage) {
            Some((_, sum)) => *sum += spent,
            None => self.0.push((stage, spent)),
        }
        done
    }

    fn rows(&self, events: usize) -> Vec<[String; 3]> {
        let sum: u64 = self.0.iter().map(|(_, spent)| spent).sum();
        let row = |stage: &str, spent: u64| {
            let share = format!("{:.1} %", spent as f64 * 100.0 / sum as f64);
            [stage.to_owned(), format!("{:.0}", spent as f64 / events as f64), share]
        };
        let stages = self.0.iter().map(|(stage, spent)| row(stage, *spent));
        stages.chain([row("all", sum)]).collect()
    }
}

fn cpu_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
