//! Sends batches over many connections, as fast as they are acked or at a rate, and times every ack.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{self, Write as _},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use footfall_schemas::StreamId;
use serde::{Deserialize, Serialize};
use tokio::{
    task::LocalSet,
    time::{Instant, sleep, sleep_until},
};

use super::open;
use crate::{
    bench::wire::{CLOSE, TEXT, Wire, runtime},
    frames::{self, Batch, FIRST_SEQUENCE},
};

/// Connections that are being opened at a time.
const OPENING: u32 = 64;

#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[arg(long)]
    pub server: SocketAddr,
    #[arg(long)]
    pub connections: u32,
    #[arg(long)]
    pub events_per_frame: u32,
    /// Batches of a connection without an ack; when there are so many, it waits
    #[arg(long)]
    pub window: usize,
    /// Frames a second over all connections; absent: as the window allows
    #[arg(long)]
    pub rate: Option<f64>,
    #[arg(long)]
    pub warm_up_ms: u64,
    #[arg(long)]
    pub measure_ms: u64,
}

/// What the client prints, a line each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    Measuring,
    Measured(Measured),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub seconds: f64,
    /// Acked within the time.
    pub frames: u64,
    pub events: u64,
    /// Told to come again, refused, or on a connection that ended. Not zero: what was measured is no load, but a refusal.
    pub failed: u64,
    pub ack_p50_ms: f64,
    pub ack_p99_ms: f64,
    pub ack_max_ms: f64,
    /// How late the client itself sent (p99): its own share of any delay, not counted in the acks' time.
    pub late_p99_ms: f64,
}

/// Of all connections; they live on one thread.
#[derive(Debug, Default)]
struct Tally {
    measuring: Cell<bool>,
    frames: Cell<u64>,
    failed: Cell<u64>,
    ack_micros: RefCell<Vec<u32>>,
    late_micros: RefCell<Vec<u32>>,
}

impl Tally {
    fn acked(&self, sent: Instant) {
        if self.measuring.get() {
            self.frames.set(self.frames.get() + 1);
            self.ack_micros.borrow_mut().push(micros(sent.elapsed()));
        }
    }

    fn late(&self, due: Instant) {
        if self.measuring.get() {
            self.late_micros.borrow_mut().push(micros(due.elapsed()));
        }
    }

    fn fail(&self) {
        self.failed.set(self.failed.get() + 1);
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

pub fn run(args: Args) {
    runtime().block_on(LocalSet::new().run_until(async move {
        let tally = Rc::new(Tally::default());
        let batches: Rc<[Batch]> = frames::batches(args.events_per_frame).into();
        let interval = args.rate.map(|rate| Duration::from_secs_f64(f64::from(args.connections) / rate));
        let mut opened = 0;
        while opened < args.connections {
            let some = (opened..args.connections.min(opened + OPENING)).map(|visitor| {
                tokio::task::spawn_local(async move { (visitor, open(args.server, visitor).await) })
            });
            for opening in some.collect::<Vec<_>>() {
                let (visitor, wire) = opening.await.unwrap();
                let sender = Sender {
                    wire: wire.unwrap_or_else(|error| panic!("{}: {error}", args.server)),
                    stream: StreamId::from_parts(1_800_000_000_000, visitor.into()),
                    next: FIRST_SEQUENCE,
                    events: args.events_per_frame,
                    window: args.window,
                    batches: Rc::clone(&batches),
                    turn: visitor as usize,
                    sent: VecDeque::new(),
                    tally: Rc::clone(&tally),
                };
                // Spread over the interval, or all would send at once.
                let phase = interval
                    .map(|interval| interval.mul_f64(f64::from(visitor) / f64::from(args.connections)));
                tokio::task::spawn_local(sender.run(interval.zip(phase)));
                opened += 1;
            }
        }
        sleep(Duration::from_millis(args.warm_up_ms)).await;
        tally.measuring.set(true);
        let from = Instant::now();
        say(&Said::Measuring);
        sleep(Duration::from_millis(args.measure_ms)).await;
        tally.measuring.set(false);
        say(&Said::Measured(measured(&tally, from.elapsed(), args.events_per_frame)));
    }));
}

fn measured(tally: &Tally, took: Duration, events_per_frame: u32) -> Measured {
    let quantile = |micros: &RefCell<Vec<u32>>, q: f64| {
        let mut micros = micros.borrow_mut();
        micros.sort_unstable();
        let last = micros.len().saturating_sub(1) as f64;
        micros.get((last * q).round() as usize).map_or(0.0, |micros| f64::from(*micros) / 1_000.0)
    };
    Measured {
        seconds: took.as_secs_f64(),
        frames: tally.frames.get(),
        events: tally.frames.get() * u64::from(events_per_frame),
        failed: tally.failed.get(),
        ack_p50_ms: quantile(&tally.ack_micros, 0.5),
        ack_p99_ms: quantile(&tally.ack_micros, 0.99),
        ack_max_ms: quantile(&tally.ack_micros, 1.0),
        late_p99_ms: quantile(&tally.late_micros, 0.99),
    }
}

fn say(said: &Said) {
    println!("{}", serde_json::to_string(said).unwrap());
    io::stdout().flush().unwrap();
}

/// One connection that sends.
struct Sender {
    wire: Wire,
    stream: StreamId,
    next: u32,
    events: u32,
    window: usize,
    batches: Rc<[Batch]>,
    turn: usize,
    /// Last sequence of each batch that is not acked, and when it was sent.
    sent: VecDeque<(u32, Instant)>,
    tally: Rc<Tally>,
}

impl Sender {
    async fn run(mut self, pace: Option<(Duration, Duration)>) {
        let ended = match pace {
            Some((interval, phase)) => self.at_pace(interval, phase).await,
            None => self.as_acked().await,
        };
        if ended.is_err() {
            self.tally.fail();
        }
    }

    async fn as_acked(&mut self) -> io::Result<()> {
        loop {
            while self.sent.len() < self.window {
                self.send().await?;
            }
            self.hear().await?;
        }
    }

    async fn at_pace(&mut self, interval: Duration, phase: Duration) -> io::Result<()> {
        let mut due = Instant::now() + phase;
        loop {
            tokio::select! {
                heard = self.hear() => heard?,
                () = sleep_until(due), if self.sent.len() < self.window => {
                    self.tally.late(due);
                    self.send().await?;
                    due += interval;
                }
            }
        }
    }

    async fn send(&mut self) -> io::Result<()> {
        let mut frame = Vec::with_capacity(8 * 1024);
        let mask = (self.next.wrapping_mul(0x9E37_79B9) | 0x0101_0101).to_be_bytes();
        self.batches[self.turn % self.batches.len()].append(&self.stream, self.next, mask, &mut frame);
        self.turn += 7;
        self.next += self.events;
        self.sent.push_back((self.next - 1, Instant::now()));
        self.wire.send(&frame).await
    }

    async fn hear(&mut self) -> io::Result<()> {
        let frame = self.wire.next().await?;
        let payload = self.wire.payload(&frame);
        match frame.opcode {
            TEXT if payload.starts_with(br#"{"t":"ack""#) => {
                if payload.windows(9).any(|window| window == br#""refused""#) {
                    self.tally.fail();
                }
                let upto = number(payload, br#""upto":"#).ok_or(io::ErrorKind::InvalidData)?;
                while self.sent.front().is_some_and(|(last, _)| *last <= upto) {
                    let (_, sent) = self.sent.pop_front().unwrap();
                    self.tally.acked(sent);
                }
                Ok(())
            }
            // A nack, a hint to slow down, an error: a node under this bench has no reason for any.
            TEXT => {
                self.tally.fail();
                self.sent.clear();
                Ok(())
            }
            CLOSE => Err(io::ErrorKind::ConnectionAborted.into()),
            _ => Ok(()),
        }
    }
}

/// The digits behind `key`.
fn number(text: &[u8], key: &[u8]) -> Option<u32> {
    let at = text.windows(key.len()).position(|window| window == key)? + key.len();
    let digits = text[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
}
