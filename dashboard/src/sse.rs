//! One viewer's stream of server-sent events: the frames of a socket, for whoever has none (`GET /live/events`).
//!
//! `data:` is one [`ViewerFrame`], `id:` its place as `EPOCH-SEQ`; `Last-Event-ID` goes on from there.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use footfall_schemas::viewer::{Position, ViewerFrame};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::Session,
    clock::wall_ms,
    config::ms,
    feed::{Pending, encode},
    metrics::Metrics,
    subscription::{Moved, Shared, Subscription},
};

/// A stream ends before its connection would be cut off; the reader comes back with its place.
const LIFETIME: Duration = Duration::from_secs(240);
/// What a reader is told to wait before it comes back.
const RETRY_MS: u32 = 1_000;

/// The stream is over.
struct End;

pub(crate) struct Stream {
    shared: Arc<Shared>,
    session: Session,
    subscription: Subscription,
    /// Of one chunk: one that is not taken is what a reader is behind.
    chunks: mpsc::Sender<Bytes>,
    /// Ends the connection: one that takes nothing does not even take an end.
    cut: CancellationToken,
    sent_at: Instant,
}

/// What a reader has, from its `Last-Event-ID`.
pub(crate) fn position_of(id: &str) -> Option<Position> {
    let (epoch, seq) = id.split_once('-')?;
    Some(Position { epoch: epoch.parse().ok()?, seq: seq.parse().ok()? })
}

impl Stream {
    pub(crate) fn new(
        shared: Arc<Shared>,
        session: Session,
        subscription: Subscription,
        chunks: mpsc::Sender<Bytes>,
        cut: CancellationToken,
    ) -> Self {
        Self { shared, session, subscription, chunks, cut, sent_at: Instant::now() }
    }

    /// Serves until either side ends it; the reader sees that the answer is over.
    pub(crate) async fn run(mut self) {
        let metrics = self.shared.metrics.clone();
        metrics.viewers.add(1, &[]);
        let Err(End) = self.serve().await;
        metrics.viewers.add(-1, &[]);
    }

    async fn serve(&mut self) -> Result<Infallible, End> {
        let shared = self.shared.clone();
        let heartbeat = ms(shared.config.heartbeat_ms);
        let ends_at = Instant::now() + LIFETIME;
        let mut expelled = pin!(shared.expelled(self.session));
        self.send(format!("retry: {RETRY_MS}\n\n"), "retry").await?;
        self.deliver().await?;
        self.deliver_events().await?;
        loop {
            let beat_at = self.sent_at + heartbeat;
            tokio::select! {
                moved = self.subscription.moved() => match moved {
                    Moved::View => self.deliver().await?,
                    Moved::Events => self.deliver_events().await?,
                },
                () = sleep_until(beat_at) => self.beat().await?,
                _ = &mut expelled => return Err(End),
                () = sleep_until(ends_at) => return Err(End),
                () = self.chunks.closed() => return Err(End),
                () = shared.shutdown.cancelled() => return Err(End),
            }
        }
    }

    /// Sends what lies after the position; a heartbeat when that is nothing.
    async fn deliver(&mut self) -> Result<(), End> {
        let had = self.subscription.position();
        match self.subscription.next(self.shared.config.max_behind) {
            Pending::Nothing => self.beat().await?,
            Pending::Unknown => {}
            Pending::Changes(frames, last) => {
                for (frame, before_last) in frames.iter().zip((0..frames.len() as u64).rev()) {
                    let position = Position { seq: last.seq - before_last, ..last };
                    self.send(event(frame, position), "delta").await?;
                }
            }
            Pending::Snapshot(frame, position) => {
                if had.is_some_and(|had| had.epoch == position.epoch) {
                    self.shared.metrics.conflations.add(1, &[]);
                }
                self.send(event(&frame, position), "snapshot").await?;
            }
            Pending::Ended => return Err(End),
        }
        Ok(())
    }

    async fn beat(&mut self) -> Result<(), End> {
        let beat = encode(&ViewerFrame::Heartbeat { now: wall_ms() });
        self.send(format!("data: {beat}\n\n"), "heartbeat").await
    }

    async fn deliver_events(&mut self) -> Result<(), End> {
        for frame in self.subscription.next_events() {
            self.send(format!("data: {frame}\n\n"), "events").await?;
        }
        Ok(())
    }

    /// While the reader does not take the chunk, changes pile up in the feed only; it gets the newest whole then. One
    /// that takes nothing for too long is cut off.
    async fn send(&mut self, chunk: String, kind: &'static str) -> Result<(), End> {
        let shared = &self.shared;
        shared.metrics.bytes.add(chunk.len() as u64, &[]);
        let sent = tokio::select! {
            sent = timeout(ms(shared.config.write_timeout_ms), self.chunks.send(chunk.into())) => sent,
            () = shared.shutdown.cancelled() => return Err(End),
        };
        match sent {
            Ok(Ok(())) => {
                Metrics::count(&shared.metrics.frames, "footfall.frame.kind", kind);
                self.sent_at = Instant::now();
                Ok(())
            }
            Ok(Err(_)) => Err(End),
            Err(_) => {
                self.cut.cancel();
                Err(End)
            }
        }
    }
}

/// A frame has no line breaks: JSON escapes them.
fn event(frame: &str, Position { epoch, seq }: Position) -> String {
    format!("id: {epoch}-{seq}\ndata: {frame}\n\n")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("1799990000001-12", Some((1_799_990_000_001, 12)))]
    #[case("1799990000001", None)]
    #[case("12-", None)]
    #[case("-1-2", None)]
    #[case("", None)]
    fn a_place_is_read_from_the_last_event_id(#[case] id: &str, #[case] place: Option<(u64, u64)>) {
        assert_eq!(position_of(id), place.map(|(epoch, seq)| Position { epoch, seq }));
    }
}
