//! One connection slot: visitor after visitor, each a page load with its own stream.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context, bail};
use footfall_schemas::tracker::{Ack, ClientFrame, Here, Nack, ServerFrame};
use futures_util::{SinkExt, StreamExt};
use rand::Rng;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::{
    Run, Transport,
    outbox::Outbox,
    plan::Plan,
    transport::{Endpoint, HttpClient, http_client},
    unix_ms,
};
use crate::ledger::Entry;

/// Frames in flight on one connection.
const WINDOW_FRAMES: usize = 8;
/// Unsettled events at which a visit stops issuing.
const OUTBOX_EVENTS: usize = 10_000;
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Without an ack for this long the connection is given up.
const ACK_WITHIN: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// Samples of ack latency kept a run.
const MOST_SAMPLES: usize = 1_000_000;

/// Visits until the run has nothing left to issue.
pub(super) async fn keep_visiting(run: Arc<Run>, slot: u32) -> anyhow::Result<()> {
    let http = http_client();
    let mut number = u64::from(slot);
    while !run.exhausted() {
        Visit::new(run.clone(), http.clone(), slot, number)?.run().await?;
        number += u64::from(run.args.connections);
    }
    Ok(())
}

struct Visit {
    run: Arc<Run>,
    http: HttpClient,
    endpoints: Vec<Endpoint>,
    plan: Plan,
    outbox: Outbox,
    token: Option<String>,
    transport: Transport,
    started: Instant,
    /// When the next frame's events happen.
    next_frame: Instant,
    /// When the visitor leaves.
    leaves: Option<Instant>,
    /// Next sequence that was never sent.
    unsent: u32,
    attempts: u32,
}

/// Why a connection ended.
enum Ended {
    /// Everything is settled, or the run is over.
    Done,
    /// To be made again, after the hint.
    Broken { retry: Option<Duration> },
}

impl Visit {
    fn new(run: Arc<Run>, http: HttpClient, slot: u32, number: u64) -> anyhow::Result<Self> {
        let endpoints: Vec<_> =
            run.args.ingest.iter().map(|url| Endpoint::parse(url)).collect::<Result<_, _>>()?;
        let plan = Plan::new(run.seed, number, unix_ms().unsigned_abs(), &run.args.origin);
        let transport = match run.args.transport {
            Transport::Mixed if slot.is_multiple_of(2) => Transport::Ws,
            Transport::Mixed => Transport::Http,
            fixed => fixed,
        };
        let started = Instant::now();
        let mut random = rand::rng();
        let pace = run.frame_interval().unwrap_or_default();
        let leaves = run.args.visit.map(|mean| started + mean.mul_f64(random.random_range(0.3..1.7)));
        run.counters.visits.fetch_add(1, Relaxed);
        Ok(Self {
            // Connections spread over the interval, or all would send at once.
            next_frame: started + pace.mul_f64(random.random()),
            outbox: Outbox::new(),
            token: None,
            unsent: 1,
            attempts: slot,
            run,
            http,
            endpoints,
            plan,
            transport,
            started,
            leaves,
        })
    }

    async fn run(&mut self) -> anyhow::Result<()> {
        let settle_until = self.run.settle_until.clone();
        let mut failures = 0;
        loop {
            let before = self.outbox.len();
            let connection = async {
                match self.transport {
                    Transport::Http => self.over_http().await,
                    Transport::Ws | Transport::Mixed => self.over_socket().await,
                }
            };
            let ended = tokio::select! {
                ended = connection => ended?,
                () = settle_until.cancelled() => Ended::Done,
            };
            let Ended::Broken { retry } = ended else { break };
            self.run.counters.reconnects.fetch_add(1, Relaxed);
            failures = if self.outbox.len() < before { 0 } else { failures + 1 };
            // Full jitter: a node that comes back is not met by everyone at once.
            let backoff = (Duration::from_millis(100) * (1 << failures.min(6))).min(LONGEST_BACKOFF);
            let pause = retry.unwrap_or(backoff).mul_f64(rand::rng().random());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = settle_until.cancelled() => break,
            }
            self.attempts += 1;
            self.outbox.rewind(1);
            if self.run.args.transport == Transport::Mixed {
                self.transport =
                    if self.transport == Transport::Http { Transport::Ws } else { Transport::Http };
            }
        }
        self.run.counters.unacked.fetch_add(self.outbox.len() as u64, Relaxed);
        Ok(())
    }

    fn endpoint(&self) -> &Endpoint {
        &self.endpoints[self.attempts as usize % self.endpoints.len()]
    }

    fn at(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn leaving(&self) -> bool {
        self.run.exhausted() || self.leaves.is_some_and(|leaves| Instant::now() >= leaves)
    }

    /// Makes the events that are due.
    fn issue_due(&mut self, in_flight_frames: usize) -> anyhow::Result<()> {
        let frame = self.run.args.events_per_frame;
        let pace = self.run.frame_interval();
        let due = match pace {
            Some(_) => Instant::now() >= self.next_frame,
            None => in_flight_frames < WINDOW_FRAMES && self.outbox.len() < WINDOW_FRAMES * frame as usize,
        };
        if !due || self.leaving() || self.outbox.len() >= OUTBOX_EVENTS {
            return Ok(());
        }
        self.next_frame += pace.unwrap_or_default();
        let count = self.run.take(frame);
        let mut entries = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let seq = self.outbox.next_sequence();
            let event = self.plan.next_event(seq, self.at());
            let hash = format!("{:x}", event.payload_hash());
            entries.push(Entry::Issued { stream: self.plan.stream, seq, hash });
            self.outbox.push(RawValue::from_string(serde_json::to_string(&event)?)?);
        }
        self.run.counters.issued.fetch_add(count.into(), Relaxed);
        self.run.ledger.append(&entries)
    }

    /// The next batch as text, with its first sequence and one past its last.
    fn next_batch(&mut self) -> anyhow::Result<Option<(String, u32, u32)>> {
        let limit = self.run.args.events_per_frame as usize;
        let sent = self.at();
        let Some(batch) = self.outbox.next_batch(limit, self.plan.stream, sent, &self.plan.context) else {
            return Ok(None);
        };
        let end = batch.first + batch.events.len() as u32;
        self.run.counters.resent.fetch_add(self.unsent.min(end).saturating_sub(batch.first).into(), Relaxed);
        self.unsent = self.unsent.max(end);
        Ok(Some((serde_json::to_string(&batch)?, batch.first, end)))
    }

    fn settle(&mut self, ack: &Ack) -> anyhow::Result<()> {
        let settled = self.outbox.settle(ack.first, ack.upto);
        let refused = if settled == 0 { 0 } else { ack.refused.len() as u64 };
        self.run.counters.refused.fetch_add(refused, Relaxed);
        self.run.counters.acked.fetch_add(settled.saturating_sub(refused), Relaxed);
        let stream = ack.stream;
        let refusals = ack.refused.iter().map(|refusal| Entry::Refused {
            stream,
            seq: refusal.seq,
            reason: refusal.reason,
        });
        let mut entries: Vec<_> = refusals.collect();
        entries.push(Entry::Acked { stream, first: ack.first, upto: ack.upto });
        self.run.ledger.append(&entries)
    }

    fn sample(&self, sent: Instant) {
        let mut samples =
            self.run.counters.ack_micros.lock().expect("no visit panics while it holds the samples");
        if samples.len() < MOST_SAMPLES {
            samples.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
    }

    async fn over_socket(&mut self) -> anyhow::Result<Ended> {
        let broken = |retry| Ok(Ended::Broken { retry });
        let args = &self.run.args;
        let connect =
            self.endpoint().connect(&args.site, self.token.as_deref(), &self.plan.user_agent, &args.origin);
        let mut socket = match timeout(CONNECT_WITHIN, connect).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => {
                refuse_if_final(&error)?;
                tracing::debug!(%error, "cannot connect");
                return broken(None);
            }
            Err(_) => return broken(None),
        };
        let mut flights: BTreeMap<u32, (u32, Instant)> = BTreeMap::new();
        let mut hold_until = None;
        let mut shown = None;
        let welcome_by = Instant::now() + CONNECT_WITHIN;
        let mut welcomed = false;
        loop {
            if welcomed && hold_until.is_none_or(|hold| Instant::now() >= hold) {
                self.issue_due(flights.len())?;
                while flights.len() < WINDOW_FRAMES {
                    let Some((text, first, end)) = self.next_batch()? else { break };
                    if !matches!(timeout(ACK_WITHIN, socket.send(Message::text(text))).await, Ok(Ok(()))) {
                        return broken(None);
                    }
                    flights.insert(first, (end, Instant::now()));
                }
                let path = self.plan.path();
                if shown != Some(path) {
                    shown = Some(path);
                    let here = Here { tag: ClientFrame::Here, path: path.into(), visible: true };
                    if socket.send(Message::text(serde_json::to_string(&here)?)).await.is_err() {
                        return broken(None);
                    }
                }
                if self.outbox.len() == 0 && self.leaving() {
                    // A peer that is gone already is as good as one that says goodbye.
                    let _ = timeout(CONNECT_WITHIN, socket.close(None)).await;
                    return Ok(Ended::Done);
                }
            }
            let oldest = flights.values().map(|(_, sent)| *sent + ACK_WITHIN).min();
            let pace = self
                .run
                .frame_interval()
                .map(|_| self.next_frame.max(Instant::now() + Duration::from_millis(1)));
            let idle = Instant::now() + Duration::from_millis(500);
            let deadline = if welcomed { oldest } else { Some(welcome_by) };
            let wake = [deadline, pace, hold_until].into_iter().flatten().fold(idle, Instant::min);
            let frame = tokio::select! {
                frame = socket.next() => frame,
                () = sleep_until(wake) => {
                    if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                        return broken(None);
                    }
                    hold_until = hold_until.filter(|hold| Instant::now() < *hold);
                    continue;
                }
            };
            let text = match frame {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return broken(None),
                Some(Ok(_)) => continue,
            };
            match serde_json::from_str(&text).with_context(|| format!("not a frame: {text}"))? {
                ServerFrame::Welcome(welcome) => {
                    self.token = Some(welcome.token);
                    welcomed = true;
                }
                ServerFrame::Ack(ack) => {
                    let acked: Vec<u32> =
                        flights.range(ack.first..=ack.upto).map(|(first, _)| *first).collect();
                    acked
                        .iter()
                        .filter_map(|first| flights.remove(first))
                        .for_each(|(_, sent)| self.sample(sent));
                    self.settle(&ack)?;
                }
                ServerFrame::Nack(nack) => {
                    flights.retain(|first, _| !(nack.first..=nack.upto).contains(first));
                    hold_until = Some(self.obey(&nack));
                }
                ServerFrame::Slow { linger_ms } => {
                    hold_until = Some(Instant::now() + Duration::from_millis(linger_ms.into()));
                }
                // What a visit sends is planned: nothing is left out.
                ServerFrame::Sample { .. } => {}
                ServerFrame::Stop { reason, .. } => bail!("told to stop: {}", reason.as_str()),
                ServerFrame::Error { reason, detail } => bail!("refused: {}: {detail}", reason.as_str()),
                ServerFrame::Bye { retry_ms } => return broken(Some(Duration::from_millis(retry_ms.into()))),
            }
        }
    }

    /// Goes back to the first event that was not taken; says when to send again.
    fn obey(&mut self, nack: &Nack) -> Instant {
        self.run.counters.nacked.fetch_add(1, Relaxed);
        self.outbox.rewind(nack.first);
        Instant::now() + Duration::from_millis(nack.retry_ms.into())
    }

    async fn over_http(&mut self) -> anyhow::Result<Ended> {
        loop {
            let asking = self.token.is_none();
            if !asking {
                self.issue_due(0)?;
            }
            let batch = if asking { Some((self.token_request()?, 0, 0)) } else { self.next_batch()? };
            let Some((text, ..)) = batch else {
                if self.leaving() && self.outbox.len() == 0 {
                    return Ok(Ended::Done);
                }
                let soon = Instant::now() + Duration::from_millis(1);
                sleep_until(self.next_frame.clamp(soon, soon + Duration::from_millis(500))).await;
                continue;
            };
            let (sent, args) = (Instant::now(), &self.run.args);
            let who = (self.plan.user_agent.as_str(), args.origin.as_str());
            let answer = self
                .endpoint()
                .post(&self.http, &args.site, self.token.as_deref(), who, text.into_bytes())
                .await;
            match answer {
                Ok(ServerFrame::Ack(ack)) => {
                    if let Some(token) = &ack.token {
                        self.token = Some(token.clone());
                    }
                    if !asking {
                        self.sample(sent);
                        self.settle(&ack)?;
                    }
                }
                Ok(ServerFrame::Nack(nack)) => {
                    let until = self.obey(&nack);
                    sleep_until(until).await;
                }
                Ok(ServerFrame::Error { reason, detail }) => bail!("refused: {}: {detail}", reason.as_str()),
                Ok(other) => bail!("not an answer to a batch: {other:?}"),
                Err(error) => {
                    tracing::debug!(%error, "the batch was not answered");
                    return Ok(Ended::Broken { retry: None });
                }
            }
        }
    }

    /// An empty batch asks for a visitor token.
    fn token_request(&self) -> anyhow::Result<String> {
        let stream = self.plan.stream;
        Ok(serde_json::to_string(
            &serde_json::json!({"t": "batch", "stream": stream, "first": 1, "sent": 0, "events": []}),
        )?)
    }
}

impl Run {
    /// Time between two frames of one connection; `None`: as fast as acks come.
    fn frame_interval(&self) -> Option<Duration> {
        let args = &self.args;
        let frames = f64::from(args.connections) * f64::from(args.events_per_frame);
        args.rate.map(|rate| Duration::from_secs_f64(frames / rate))
    }
}

/// A site or origin that is refused stays refused: the load ends and says why.
fn refuse_if_final(error: &anyhow::Error) -> anyhow::Result<()> {
    use tokio_tungstenite::tungstenite::Error;
    match error.downcast_ref::<Error>() {
        Some(Error::Http(response)) if matches!(response.status().as_u16(), 403 | 404) => {
            let body = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            bail!("the ingest node refuses the connection: {} {body}", response.status())
        }
        _ => Ok(()),
    }
}
