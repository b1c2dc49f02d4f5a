//! One tracker's WebSocket, from the welcome to the close: when to read, to write, to ping and to end.
//!
//! Polled by hand: an idle connection is this struct, its task's header and nothing else.

use std::{
    ops::ControlFlow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use footfall_schemas::{
    refusal::close,
    tracker::{MAX_BATCH_BYTES, ServerFrame},
};
use rand::Rng as _;
use tracing::debug;

use crate::{
    conversation::{Conversation, End, say, switched_off},
    frame::{self, Heard},
    intake::Sender,
    node::Node,
    place::SocketPlace,
    socket::{self, Scratch, Socket},
    wheel::{Key, Tick},
};

/// After our close frame: how long and how much to read on, so that the frame is not lost to a TCP reset.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not polled yet.
    New,
    Talking,
    /// Nothing more is read; what is in flight is answered.
    Draining,
    /// Our last frame is on its way.
    Closing,
    /// It is with the peer, who may end now.
    Lingering,
}

pub(crate) struct Connection {
    conversation: Conversation,
    socket: Socket,
    /// The places it takes.
    _place: SocketPlace,
    stage: Stage,
    /// The socket may hold more than was heard.
    paused: bool,
    key: Option<Key>,
    /// What the wheel is set to.
    set_to: Tick,
    opened_at: Tick,
    heard_at: Tick,
    pinged_at: Tick,
    /// Since when the peer takes nothing.
    stalled_at: Option<Tick>,
    /// When draining or closing is given up.
    until: Tick,
    discarded: usize,
}

impl Connection {
    pub(crate) fn new(node: Arc<Node>, sender: Sender, socket: Socket, place: SocketPlace) -> Self {
        node.metrics.sockets.add(1, &[]);
        let now = node.wheel.now();
        Self {
            conversation: Conversation::new(node, sender),
            socket,
            _place: place,
            stage: Stage::New,
            // The first frames may have come with the handshake.
            paused: true,
            key: None,
            set_to: now,
            opened_at: now,
            heard_at: now,
            pinged_at: now,
            stalled_at: None,
            until: now,
            discarded: 0,
        }
    }

    fn node(&self) -> &Node {
        &self.conversation.node
    }

    fn turn(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<()> {
        let began = if self.stage == Stage::New { self.begin(cx, &mut scratch.out) } else { Ok(()) };
        if matches!(self.stage, Stage::Talking | Stage::Draining) {
            match began.and_then(|()| self.converse(cx, scratch)) {
                Ok(()) => {}
                Err(End::Gone) => return Poll::Ready(()),
                Err(End::Closed) => self.begin_to_close(),
                Err(End::Close(code, reason)) => {
                    debug!(site = %self.conversation.sender.site.key(), code, reason, "closing a socket");
                    self.node().metrics.closed(code);
                    frame::write_close(&mut scratch.out, code, reason);
                    self.begin_to_close();
                }
            }
        }
        if matches!(self.stage, Stage::Closing | Stage::Lingering) {
            let ended = self.socket.poll_close(cx, scratch, &mut self.discarded);
            let now = self.node().wheel.now();
            if ended.is_ready() || self.discarded > LINGER_BYTES || now >= self.until {
                return Poll::Ready(());
            }
            if self.stage == Stage::Closing && self.socket.is_sent() {
                self.stage = Stage::Lingering;
                self.until = now.after(LINGER);
            }
        }
        self.set_wheel();
        Poll::Pending
    }

    fn begin(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<(), End> {
        self.stage = Stage::Talking;
        let now = self.node().wheel.now();
        // Many connect at once after a restart: they must not all be pinged at once for ever.
        let ping_ms = self.node().config.timeouts.ping().as_millis() as u64;
        self.pinged_at = now.before(Duration::from_millis(rand::rng().random_range(0..=ping_ms / 2)));
        (self.opened_at, self.heard_at) = (now, now);
        self.set_to = self.deadline();
        self.key = Some(self.node().wheel.enter(cx.waker().clone(), self.set_to));
        self.conversation.welcome(out)
    }

    fn begin_to_close(&mut self) {
        self.conversation.leave();
        self.stage = Stage::Closing;
        self.until = self.node().wheel.now().after(self.node().config.timeouts.write());
    }

    /// Until nothing is left to do now.
    fn converse(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<(), End> {
        let is_over = || self.node().shutdown.is_cancelled() || !self.conversation.sender.site.is_served();
        if self.stage == Stage::Talking && is_over() {
            self.stage = Stage::Draining;
            let grace = Duration::from_millis(self.node().config.grace_period_ms);
            self.until = self.node().wheel.now().after(grace);
        }
        loop {
            match self.socket.poll_send(cx, &mut scratch.out) {
                Poll::Ready(Ok(())) => self.stalled_at = None,
                Poll::Ready(Err(_)) => return Err(End::Gone),
                // Who does not read what he is sent is not listened to.
                Poll::Pending => return self.wait_for_the_peer(),
            }
            let answered = self.conversation.answer(cx, &mut scratch.out);
            if self.stage == Stage::Draining {
                self.say_bye(&mut scratch.out)?;
            }
            let heard = self.stage == Stage::Talking && self.listen(cx, scratch)?;
            if !answered && !heard {
                self.keep_alive(&mut scratch.out)?;
                if scratch.out.is_empty() {
                    return Ok(());
                }
            }
        }
    }

    /// Whether anything was heard. Not while too much is in flight.
    fn listen(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<bool, End> {
        if !self.conversation.has_room() {
            return Ok(false);
        }
        let resumed = std::mem::take(&mut self.paused);
        let (conversation, paused) = (&mut self.conversation, &mut self.paused);
        let mut end = None;
        let mut hear = |heard: Heard<'_>, out: &mut Vec<u8>| {
            if let Err(why) = conversation.hear(heard, out) {
                end = Some(why);
                return ControlFlow::Break(());
            }
            if conversation.has_room() {
                return ControlFlow::Continue(());
            }
            *paused = true;
            ControlFlow::Break(())
        };
        let heard = if resumed {
            self.socket.hear_rest(MAX_BATCH_BYTES, &mut scratch.out, &mut hear);
            true
        } else {
            match self.socket.poll_hear(cx, scratch, MAX_BATCH_BYTES, &mut hear) {
                Poll::Ready(Ok(true)) => {
                    self.heard_at = self.conversation.node.wheel.now();
                    true
                }
                Poll::Ready(_) => return Err(End::Gone),
                Poll::Pending => false,
            }
        };
        match end {
            Some(end) => Err(end),
            None => Ok(heard),
        }
    }

    fn wait_for_the_peer(&mut self) -> Result<(), End> {
        let now = self.node().wheel.now();
        let since = *self.stalled_at.get_or_insert(now);
        if now >= since.after(self.node().config.timeouts.write()) {
            // Its answers are in the ledger, and it will send again.
            return Err(End::Gone);
        }
        // Not listening: pongs wait unread.
        self.heard_at = now;
        Ok(())
    }

    fn keep_alive(&mut self, out: &mut Vec<u8>) -> Result<(), End> {
        let now = self.node().wheel.now();
        let timeouts = &self.conversation.node.config.timeouts;
        if !self.conversation.has_room() {
            // The peer is not listened to: its silence is not its own.
            self.heard_at = now;
        }
        if now >= self.heard_at.after(timeouts.idle()) {
            return Err(End::Close(close::AWAY, "idle"));
        }
        if !self.conversation.first_message && now >= self.opened_at.after(timeouts.first_message()) {
            return Err(End::Close(close::AWAY, "no message in time"));
        }
        if now >= self.pinged_at.after(timeouts.ping()) {
            self.pinged_at = now;
            self.conversation.rest();
            frame::write_ping(out);
        }
        Ok(())
    }

    /// When all is answered, or the grace period is over: the tracker is told when to come back, or to stop.
    fn say_bye(&self, out: &mut Vec<u8>) -> Result<(), End> {
        if !self.conversation.is_settled() && self.node().wheel.now() < self.until {
            return Ok(());
        }
        if !self.conversation.sender.site.is_served() {
            return Err(switched_off(out));
        }
        let spread = self.node().config.reconnect_spread_ms;
        let retry_ms = rand::rng().random_range(spread / 10..=spread);
        say(out, &ServerFrame::Bye { retry_ms });
        Err(End::Close(close::RESTART, "restarting"))
    }

    /// When something is due next: a ping, or an end.
    fn deadline(&self) -> Tick {
        let timeouts = &self.node().config.timeouts;
        match (self.stage, self.stalled_at) {
            (Stage::Closing | Stage::Lingering, _) => return self.until,
            // A ping would only wait behind the rest.
            (_, Some(since)) => return since.after(timeouts.write()),
            _ => {}
        }
        let mut due = self.pinged_at.after(timeouts.ping()).min(self.heard_at.after(timeouts.idle()));
        if !self.conversation.first_message {
            due = due.min(self.opened_at.after(timeouts.first_message()));
        }
        if self.stage == Stage::Draining {
            due = due.min(self.until);
        }
        due
    }

    /// Only for a deadline before the one it is set to, or when that has come.
    fn set_wheel(&mut self) {
        let due = self.deadline();
        let wheel = &self.conversation.node.wheel;
        if let Some(key) = self.key.filter(|_| due < self.set_to || self.set_to <= wheel.now()) {
            wheel.set(key, due);
            self.set_to = due;
        }
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        socket::turn(|scratch| this.turn(cx, scratch))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.node().wheel.leave(key);
        }
        self.node().metrics.sockets.add(-1, &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_small() {
        // With the task's header and tokio's registration of the socket, an idle connection stays below a kilobyte.
        assert!(size_of::<Connection>() <= 336, "{}", size_of::<Connection>());
    }
}
