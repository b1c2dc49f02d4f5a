//! One tracker's WebSocket, from the welcome to the close.

use std::{collections::VecDeque, future::poll_fn, sync::Arc, time::Duration};

use footfall_schemas::{
    RejectReason,
    refusal::{RetryReason, close},
    tracker::{
        Ack, ClientFrame, Here, Limits as TrackerLimits, MAX_BATCH_BYTES, MAX_BATCH_EVENTS, ServerFrame,
        Welcome,
    },
};
use futures_util::{SinkExt as _, StreamExt as _};
use rand::Rng as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, Sleep, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as WsError, Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use tracing::debug;

use crate::{
    clock::now_ms,
    intake::{self, Sender, Taken},
    node::{Fault, Node},
    presence::Attendance,
    receipt::{Outcome, Retry},
    transport::Transport,
};

/// After our close frame: how long and how much to read on, so that the frame is not lost to a TCP reset.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

/// How long trackers over their rate should gather events before sending.
const SLOW_LINGER_MS: u32 = 2_000;

/// Why a connection ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The peer left; nothing can be told any more.
    Gone,
    /// We close, with a code and a reason for humans.
    Close(u16, &'static str),
}

pub(crate) struct Connection {
    node: Arc<Node>,
    sender: Sender,
    socket: WebSocketStream<Transport>,
    /// In the order of arrival, and so of the answers. Full: the socket is not read, so TCP slows the tracker.
    in_flight: VecDeque<Taken>,
    attendance: Attendance,
    heard_at: Instant,
    pinged_at: Instant,
    opened_at: Instant,
    /// A tracker that connects and says nothing is no tracker.
    first_message: bool,
    malformed_in_a_row: u32,
    /// Until when the peer was told to wait, and how often it did not.
    wait_until: Option<Instant>,
    flood_strikes: u32,
    /// Whether the peer is near a limit and has been told so.
    slowed: bool,
}

impl Connection {
    pub(crate) fn new(node: Arc<Node>, sender: Sender, socket: WebSocketStream<Transport>) -> Self {
        let now = Instant::now();
        let attendance = Attendance::enter(&sender.site.presence, sender.visitor);
        Self {
            node,
            sender,
            socket,
            in_flight: VecDeque::new(),
            attendance,
            heard_at: now,
            pinged_at: now,
            opened_at: now,
            first_message: false,
            malformed_in_a_row: 0,
            wait_until: None,
            flood_strikes: 0,
            slowed: false,
        }
    }

    pub(crate) async fn run(mut self) {
        let end = match self.welcome().await {
            Ok(()) => self.converse().await,
            Err(end) => end,
        };
        let Self { node, socket, attendance, sender, .. } = self;
        // Whoever is told to leave is gone from the site, even while his socket lingers.
        drop(attendance);
        if let End::Close(code, reason) = end {
            debug!(site = %sender.site.key(), code, reason, "closing a socket");
            node.metrics.closed(code);
            close_socket(socket, code, reason, node.config.timeouts.write()).await;
        }
    }

    async fn welcome(&mut self) -> Result<(), End> {
        let now = now_ms();
        let limits = TrackerLimits {
            batch_events: MAX_BATCH_EVENTS as u32,
            batch_bytes: MAX_BATCH_BYTES as u32,
            idle_ms: self.node.config.timeouts.idle_ms,
        };
        let token = self.node.visitors.sign(self.sender.site.key(), self.sender.visitor, now);
        self.send(&ServerFrame::Welcome(Welcome { token, node: self.node.name.clone(), now, limits })).await
    }

    async fn converse(&mut self) -> End {
        let timer = sleep_until(self.deadline());
        tokio::pin!(timer);
        loop {
            let result = tokio::select! {
                biased;
                () = self.node.shutdown.cancelled() => return self.drain().await,
                outcome = front(&mut self.in_flight) => self.answer(outcome).await,
                frame = self.socket.next(), if self.in_flight.len() < self.most_in_flight() => self.hear(frame).await,
                () = timer.as_mut() => self.keep_alive(timer.as_mut()).await,
            };
            if let Err(end) = result {
                return end;
            }
        }
    }

    fn most_in_flight(&self) -> usize {
        self.node.limits.settings().batches_in_flight
    }

    /// Answers the front batch and every settled one behind it; acks of a stream in a row become one.
    async fn answer(&mut self, outcome: Settled) -> Result<(), End> {
        if self.in_flight.len() == self.most_in_flight() {
            // The peer was not listened to: its silence is not its own.
            self.heard_at = Instant::now();
        }
        let mut next = Some(outcome);
        let mut open: Option<Ack> = None;
        while let Some(outcome) = next.take() {
            let Some(taken) = self.in_flight.pop_front() else { break };
            let slow = matches!(&outcome, Ok(Err(Retry { reason: RetryReason::RateLimited, .. })));
            match (open.take(), taken.answer(outcome)) {
                (Some(mut before), ServerFrame::Ack(ack)) if continues(&before, &ack) => {
                    before.upto = ack.upto;
                    before.refused.extend(ack.refused);
                    open = Some(before);
                }
                (before, answer) => {
                    if let Some(before) = before {
                        self.send(&ServerFrame::Ack(before)).await?;
                    }
                    if slow {
                        self.send(&ServerFrame::Slow { linger_ms: SLOW_LINGER_MS }).await?;
                    }
                    match answer {
                        ServerFrame::Ack(ack) => open = Some(ack),
                        other => self.send(&other).await?,
                    }
                }
            }
            next = self.in_flight.front_mut().and_then(|taken| match taken.outcome.try_recv() {
                Ok(outcome) => Some(Ok(outcome)),
                Err(tokio::sync::oneshot::error::TryRecvError::Empty) => None,
                // The next turn of the loop finds it lost and says so.
                Err(tokio::sync::oneshot::error::TryRecvError::Closed) => None,
            });
        }
        match open {
            Some(ack) => self.send(&ServerFrame::Ack(ack)).await,
            None => Ok(()),
        }
    }

    async fn hear(&mut self, frame: Option<Result<Message, WsError>>) -> Result<(), End> {
        self.heard_at = Instant::now();
        match frame {
            Some(Ok(Message::Text(text))) => {
                self.first_message = true;
                self.hear_text(text.as_str()).await
            }
            Some(Ok(Message::Binary(_))) => Err(End::Close(close::UNSUPPORTED, "text frames only")),
            Some(Ok(Message::Ping(payload))) => self.charge_frame(payload.len()),
            Some(Ok(Message::Pong(_) | Message::Close(_) | Message::Frame(_))) => Ok(()),
            Some(Err(error)) => Err(self.hear_error(&error)),
            None => Err(End::Gone),
        }
    }

    fn hear_error(&self, error: &WsError) -> End {
        let (reason, detail, end) = match error {
            WsError::Utf8(_) => {
                let end = End::Close(close::BAD_UTF8, "text is not UTF-8");
                (RejectReason::BadUtf8, "frame: text is not UTF-8".to_owned(), end)
            }
            WsError::Capacity(_) => {
                let detail = format!("frame: over {MAX_BATCH_BYTES} bytes; send smaller batches");
                (RejectReason::TooLarge, detail, End::Close(close::TOO_BIG, "frame too large"))
            }
            WsError::Protocol(
                tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            ) => return End::Gone,
            WsError::Protocol(_) => return End::Close(close::PROTOCOL, "protocol error"),
            _ => return End::Gone,
        };
        // The frame itself is not there any more: what was read of it stays in the codec.
        self.node.refuse_whole(&self.sender.site, &Fault::new(reason, detail), 1, b"");
        end
    }

    async fn hear_text(&mut self, text: &str) -> Result<(), End> {
        match intake::tag(text) {
            Ok(ClientFrame::Batch) => match intake::batch(text) {
                Ok(batch) => {
                    self.malformed_in_a_row = 0;
                    self.take(batch).await
                }
                Err((fault, events)) if fault.reason == RejectReason::TooLarge => {
                    self.node.refuse_whole(&self.sender.site, &fault, events, text.as_bytes());
                    Err(End::Close(close::TOO_BIG, "batch too large"))
                }
                Err((fault, events)) => self.malformed(&fault, events, text).await,
            },
            Ok(ClientFrame::Here) => match serde_json::from_str::<Here>(text) {
                Ok(here) => {
                    self.malformed_in_a_row = 0;
                    self.charge_frame(text.len())?;
                    self.attendance.show(&here.path, here.visible);
                    Ok(())
                }
                Err(error) => {
                    let fault = Fault::new(RejectReason::Malformed, format!("here: {error}"));
                    self.malformed(&fault, 1, text).await
                }
            },
            Ok(ClientFrame::Unknown) => self.charge_frame(text.len()),
            Err(fault) => self.malformed(&fault, 1, text).await,
        }
    }

    async fn take(&mut self, batch: footfall_schemas::tracker::Batch) -> Result<(), End> {
        let early = self.wait_until.is_some_and(|until| Instant::now() < until);
        let taken = self.node.take(&self.sender, batch);
        match taken.limited {
            Some(wait) => {
                self.wait_until = Some(Instant::now() + wait);
                if early {
                    self.strike()?;
                }
            }
            None if early => {}
            None => {
                self.wait_until = None;
                self.flood_strikes = 0;
            }
        }
        // Once when a limit comes near, not with each batch that is near it.
        let hint = taken.slow && !self.slowed;
        self.slowed = taken.slow;
        self.in_flight.push_back(taken);
        if hint { self.send(&ServerFrame::Slow { linger_ms: SLOW_LINGER_MS }).await } else { Ok(()) }
    }

    /// A frame that is no batch counts like one event; over the limit it is a strike.
    fn charge_frame(&mut self, bytes: usize) -> Result<(), End> {
        match self.node.limits.charge(&self.sender.limits, &self.sender.site.limits, 1, bytes) {
            Ok(_) => Ok(()),
            Err(_) => self.strike(),
        }
    }

    fn strike(&mut self) -> Result<(), End> {
        self.flood_strikes += 1;
        if self.flood_strikes > self.node.limits.settings().flood_strikes {
            return Err(End::Close(close::POLICY, "flood: sent on although told to wait"));
        }
        Ok(())
    }

    async fn malformed(&mut self, fault: &Fault, events: u64, text: &str) -> Result<(), End> {
        self.node.refuse_whole(&self.sender.site, fault, events, text.as_bytes());
        self.charge_frame(text.len())?;
        self.send(&fault.frame()).await?;
        self.malformed_in_a_row += 1;
        if self.malformed_in_a_row >= self.node.limits.settings().malformed_strikes {
            return Err(End::Close(close::POLICY, "malformed frames"));
        }
        Ok(())
    }

    /// When something is due next: a ping, or an end.
    fn deadline(&self) -> Instant {
        let timeouts = &self.node.config.timeouts;
        let due = (self.pinged_at + timeouts.ping()).min(self.heard_at + timeouts.idle());
        if self.first_message { due } else { due.min(self.opened_at + timeouts.first_message()) }
    }

    async fn keep_alive(&mut self, timer: std::pin::Pin<&mut Sleep>) -> Result<(), End> {
        let timeouts = &self.node.config.timeouts;
        let now = Instant::now();
        if self.in_flight.len() >= self.most_in_flight() {
            // Not listening: pongs wait unread.
            self.heard_at = now;
        }
        if now >= self.heard_at + timeouts.idle() {
            return Err(End::Close(close::AWAY, "idle"));
        }
        if !self.first_message && now >= self.opened_at + timeouts.first_message() {
            return Err(End::Close(close::AWAY, "no message in time"));
        }
        if now >= self.pinged_at + timeouts.ping() {
            self.pinged_at = now;
            self.write(Message::Ping(Vec::new().into())).await?;
        }
        timer.reset(self.deadline());
        Ok(())
    }

    /// Nothing more is read; what is in flight is answered, then the tracker is told when to come back.
    async fn drain(&mut self) -> End {
        let grace = Duration::from_millis(self.node.config.grace_period_ms);
        let answered = timeout(grace, async {
            while !self.in_flight.is_empty() {
                let outcome = front(&mut self.in_flight).await;
                self.answer(outcome).await?;
            }
            Ok(())
        })
        .await;
        if let Ok(Err(end)) = answered {
            return end;
        }
        let spread = self.node.config.reconnect_spread_ms;
        let retry_ms = rand::rng().random_range(spread / 10..=spread);
        match self.send(&ServerFrame::Bye { retry_ms }).await {
            Ok(()) => End::Close(close::RESTART, "restarting"),
            Err(end) => end,
        }
    }

    async fn send(&mut self, frame: &ServerFrame) -> Result<(), End> {
        let text = serde_json::to_string(frame).expect("plain fields with text keys always serialise");
        self.write(Message::text(text)).await
    }

    /// A peer that does not read is let go: its answers are in the ledger, and it will send again.
    async fn write(&mut self, message: Message) -> Result<(), End> {
        match timeout(self.node.config.timeouts.write(), self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }
}

type Settled = Result<Outcome, tokio::sync::oneshot::error::RecvError>;

/// The outcome of the batch in front. Pending for ever when there is none.
async fn front(in_flight: &mut VecDeque<Taken>) -> Settled {
    match in_flight.front_mut() {
        Some(taken) => (&mut taken.outcome).await,
        None => poll_fn(|_| std::task::Poll::Pending).await,
    }
}

/// Whether two acks can be one. Refusals are bounded by the batch, so that a frame is.
fn continues(before: &Ack, ack: &Ack) -> bool {
    before.stream == ack.stream
        && before.upto.checked_add(1) == Some(ack.first)
        && before.refused.len() + ack.refused.len() <= MAX_BATCH_EVENTS
}

/// Sends the close frame, then reads on for a moment: closing a socket with unread bytes resets it, and the peer would
/// lose the frame.
async fn close_socket(
    mut socket: WebSocketStream<Transport>,
    code: u16,
    reason: &'static str,
    write: Duration,
) {
    let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
    let closed = timeout(write, socket.send(Message::Close(Some(frame)))).await;
    if !matches!(closed, Ok(Ok(()))) {
        return;
    }
    let mut stream = socket.into_inner();
    let _ = timeout(LINGER, async {
        stream.shutdown().await?;
        let mut scratch = [0; 1024];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match stream.read(&mut scratch).await? {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        Ok::<_, std::io::Error>(())
    })
    .await;
}
