//! One viewer's socket: takes a subscription, pulls from its feed, beats when nothing changes.

use std::{future::pending, num::NonZeroU32, pin::pin, sync::Arc, time::Duration};

use footfall_schemas::{
    refusal::close,
    viewer::{ViewerError, ViewerFrame, ViewerRequest},
};
use futures_util::{SinkExt, StreamExt};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use opentelemetry::KeyValue;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Bytes, Error as WsError, Message, Utf8Bytes, error::CapacityError, protocol::CloseFrame},
};

use crate::{
    auth::Session,
    clock::wall_ms,
    config::ms,
    feed::{Pending, encode},
    metrics::Metrics,
    subscription::{Moved, Refusal, Shared, Subscription},
};

/// Requests a viewer may send a second; a page needs two, and one more after a gap.
const REQUESTS_PER_SECOND: NonZeroU32 = NonZeroU32::new(5).expect("not zero");
/// For the close handshake.
const CLOSING: Duration = Duration::from_secs(1);

/// Why this side ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The peer is gone or has closed.
    Peer,
    Code(u16, &'static str),
}

pub(crate) struct Subscriber {
    socket: WebSocketStream<TcpStream>,
    session: Session,
    shared: Arc<Shared>,
    requests: DefaultDirectRateLimiter,
    subscription: Option<Subscription>,
    /// Whether events themselves are asked for, of whatever is subscribed to.
    events_on: bool,
    sent_at: Instant,
}

impl Subscriber {
    pub(crate) fn new(socket: WebSocketStream<TcpStream>, session: Session, shared: Arc<Shared>) -> Self {
        let requests = RateLimiter::direct(Quota::per_second(REQUESTS_PER_SECOND));
        Self {
            socket,
            session,
            shared,
            requests,
            subscription: None,
            events_on: false,
            sent_at: Instant::now(),
        }
    }

    /// Serves the socket until either side ends it.
    pub(crate) async fn run(mut self) {
        let metrics = self.shared.metrics.clone();
        metrics.viewers.add(1, &[]);
        if let Err(End::Code(code, reason)) = self.serve().await {
            metrics.closed.add(1, &[KeyValue::new("footfall.close.code", i64::from(code))]);
            self.close(code, reason).await;
        }
        metrics.viewers.add(-1, &[]);
    }

    async fn serve(&mut self) -> Result<(), End> {
        let shared = self.shared.clone();
        let config = &shared.config;
        let (idle, heartbeat) = (ms(config.idle_ms), ms(config.heartbeat_ms));
        let started = Instant::now();
        let mut heard_at = started;
        let mut pinged_at = started;
        let mut expelled = pin!(shared.expelled(self.session));
        loop {
            let deadline = match self.subscription {
                // Silence is broken by a ping halfway, so that a live peer answers in time.
                Some(_) => (heard_at + idle).min(heard_at.max(pinged_at) + idle / 2),
                None => started + ms(config.first_message_ms),
            };
            tokio::select! {
                frame = self.socket.next() => {
                    heard_at = Instant::now();
                    self.take(frame).await?;
                }
                moved = moved(&mut self.subscription) => match moved {
                    Moved::View => self.deliver().await?,
                    Moved::Events => self.deliver_events().await?,
                },
                () = sleep_until(self.sent_at + heartbeat), if self.subscription.is_some() => self.beat().await?,
                () = sleep_until(deadline) => {
                    if self.subscription.is_none() {
                        return Err(End::Code(close::AWAY, "no subscription in time"));
                    }
                    if heard_at.elapsed() >= idle {
                        return Err(End::Code(close::AWAY, "idle for too long"));
                    }
                    pinged_at = Instant::now();
                    self.send(Message::Ping(Bytes::new()), "ping").await?;
                }
                reason = &mut expelled => return Err(End::Code(close::POLICY, reason)),
                () = shared.shutdown.cancelled() => return Err(End::Code(close::RESTART, "the node stops")),
            }
        }
    }

    async fn take(&mut self, frame: Option<Result<Message, WsError>>) -> Result<(), End> {
        match frame {
            Some(Ok(Message::Text(text))) => self.request(&text).await,
            Some(Ok(Message::Binary(_))) => Err(End::Code(close::UNSUPPORTED, "text is spoken here")),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                // Pings are answered by the library; what counts against floods is every frame.
                self.allow()
            }
            Some(Ok(Message::Close(_))) | None => Err(End::Peer),
            Some(Err(WsError::Utf8(_))) => Err(End::Code(close::BAD_UTF8, "text is UTF-8")),
            Some(Err(WsError::Capacity(CapacityError::MessageTooLong { .. }))) => {
                Err(End::Code(close::TOO_BIG, "too long for a request"))
            }
            Some(Err(WsError::Protocol(_))) => Err(End::Code(close::PROTOCOL, "not RFC 6455")),
            Some(Err(_)) => Err(End::Peer),
        }
    }

    fn allow(&self) -> Result<(), End> {
        self.requests.check().map_err(|_| End::Code(close::POLICY, "too many requests"))
    }

    async fn request(&mut self, text: &str) -> Result<(), End> {
        self.allow()?;
        let (site, filter, resume) = match serde_json::from_str(text) {
            Ok(ViewerRequest::Subscribe { site, filter, resume }) => (site, filter, resume),
            Ok(ViewerRequest::Feed { on }) => {
                self.events_on = on;
                if let Some(subscription) = &mut self.subscription {
                    subscription.show_events(&self.shared, on);
                }
                return self.deliver_events().await;
            }
            Err(error) => {
                let detail = format!("the request cannot be read: {error}");
                return self.refuse(ViewerError::Malformed, detail).await;
            }
        };
        let mut subscription = match self.shared.subscribe(self.session, site, filter, resume) {
            Ok(subscription) => subscription,
            Err(Refusal { reason, detail }) => return self.refuse(reason, detail).await,
        };
        if let Some(before) = self.subscription.take() {
            subscription.take_events(before);
        }
        subscription.show_events(&self.shared, self.events_on);
        self.subscription = Some(subscription);
        self.deliver().await?;
        self.deliver_events().await
    }

    async fn refuse(&mut self, reason: ViewerError, detail: String) -> Result<(), End> {
        self.send_text(encode(&ViewerFrame::Error { reason, detail }), "error").await
    }

    /// Sends what lies after the position; a heartbeat when that is nothing, so that a viewer that comes back hears
    /// that its subscription stands.
    async fn deliver(&mut self) -> Result<(), End> {
        let Some(subscription) = &mut self.subscription else { return Ok(()) };
        let had = subscription.position();
        match subscription.next(self.shared.config.max_behind) {
            Pending::Nothing => self.beat().await,
            Pending::Unknown => Ok(()),
            Pending::Changes(frames, _) => {
                for frame in frames {
                    self.send_text(frame, "delta").await?;
                }
                Ok(())
            }
            Pending::Snapshot(frame, position) => {
                if had.is_some_and(|had| had.epoch == position.epoch) {
                    self.shared.metrics.conflations.add(1, &[]);
                }
                self.send_text(frame, "snapshot").await
            }
            Pending::Ended => Err(End::Code(close::POLICY, "the site is no more")),
        }
    }

    async fn deliver_events(&mut self) -> Result<(), End> {
        let frames = self.subscription.as_mut().map(Subscription::next_events).unwrap_or_default();
        for frame in frames {
            self.send_text(frame, "events").await?;
        }
        Ok(())
    }

    async fn beat(&mut self) -> Result<(), End> {
        self.send_text(encode(&ViewerFrame::Heartbeat { now: wall_ms() }), "heartbeat").await
    }

    async fn send_text(&mut self, text: Utf8Bytes, kind: &'static str) -> Result<(), End> {
        self.shared.metrics.bytes.add(text.len() as u64, &[]);
        self.send(Message::Text(text), kind).await?;
        self.sent_at = Instant::now();
        Ok(())
    }

    /// While the peer does not take the frame, changes pile up in the feed only; it gets the newest whole then.
    async fn send(&mut self, message: Message, kind: &'static str) -> Result<(), End> {
        let shared = self.shared.clone();
        let sent = tokio::select! {
            sent = timeout(ms(shared.config.write_timeout_ms), self.socket.send(message)) => sent,
            () = shared.shutdown.cancelled() => return Err(End::Code(close::RESTART, "the node stops")),
        };
        match sent {
            Ok(Ok(())) => {
                Metrics::count(&shared.metrics.frames, "footfall.frame.kind", kind);
                Ok(())
            }
            Ok(Err(_)) => Err(End::Peer),
            Err(_) => Err(End::Code(close::TRY_LATER, "too slow: connect again")),
        }
    }

    /// Closes by handshake, so that the code arrives before the socket goes.
    async fn close(mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        let handshake = async {
            if self.socket.close(Some(frame)).await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        // Who does not answer is gone.
        let _ = timeout(CLOSING, handshake).await;
    }
}

/// Wakes when what is subscribed to has moved.
async fn moved(subscription: &mut Option<Subscription>) -> Moved {
    match subscription {
        Some(subscription) => subscription.moved().await,
        None => pending().await,
    }
}
