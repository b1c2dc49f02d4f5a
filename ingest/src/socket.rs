//! A WebSocket over a transport: reads into a buffer that all connections of a thread share, writes what was gathered
//! in one go. Idle, it is its transport and two empty pointers.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use crate::{
    frame::{Decoder, Hear},
    transport::Transport,
};

/// What one read takes at most.
const READ_BYTES: usize = 64 * 1024;
/// What a thread keeps for writing between turns.
const OUT_BYTES: usize = 64 * 1024;

/// Lent to a connection for one turn.
pub(crate) struct Scratch {
    read: Vec<u8>,
    /// Frames to send at the end of the turn.
    pub(crate) out: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        RefCell::new(Scratch { read: vec![0; READ_BYTES], out: Vec::with_capacity(OUT_BYTES) });
}

/// One turn of a connection. What it leaves in `out` is gone: it must have been given to [`Socket::poll_send`].
pub(crate) fn turn<T>(take: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        // At the start: after a panic, another connection's frames would be left here.
        scratch.out.clear();
        scratch.out.shrink_to(OUT_BYTES);
        take(scratch)
    })
}

#[derive(Debug)]
pub(crate) struct Socket {
    transport: Transport,
    /// While a message is unfinished or was left for later.
    decoder: Option<Box<Decoder>>,
    /// While the peer does not take what it was sent. Empty: only the transport's own buffer is not yet sent.
    #[expect(clippy::box_collection, reason = "an idle connection pays 8 bytes, not 24")]
    unsent: Option<Box<Vec<u8>>>,
}

impl Socket {
    /// `early` came with the handshake; it is heard by the first [`Socket::hear_rest`].
    pub(crate) fn new(transport: Transport, early: Bytes) -> Self {
        let decoder = (!early.is_empty()).then(|| Box::new(Decoder::holding(early.into())));
        Self { transport, decoder, unsent: None }
    }

    /// Reads once, and hears what came. `Ok(false)`: the peer is gone.
    pub(crate) fn poll_hear(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        most: usize,
        hear: &mut impl Hear,
    ) -> Poll<io::Result<bool>> {
        let mut buffer = ReadBuf::new(&mut scratch.read);
        ready!(Pin::new(&mut self.transport).poll_read(cx, &mut buffer))?;
        let fresh = buffer.filled_mut();
        if fresh.is_empty() {
            return Poll::Ready(Ok(false));
        }
        self.decode(fresh, most, &mut scratch.out, hear);
        Poll::Ready(Ok(true))
    }

    /// Hears what was left when `hear` broke off.
    pub(crate) fn hear_rest(&mut self, most: usize, out: &mut Vec<u8>, hear: &mut impl Hear) {
        if self.decoder.is_some() {
            self.decode(&mut [], most, out, hear);
        }
    }

    fn decode(&mut self, fresh: &mut [u8], most: usize, out: &mut Vec<u8>, hear: &mut impl Hear) {
        match &mut self.decoder {
            Some(decoder) => {
                decoder.decode(fresh, most, out, hear);
                if decoder.is_idle() {
                    self.decoder = None;
                }
            }
            None => {
                let mut decoder = Decoder::default();
                decoder.decode(fresh, most, out, hear);
                if !decoder.is_idle() {
                    self.decoder = Some(Box::new(decoder));
                }
            }
        }
    }

    /// Sends `out` behind what is unsent. Pending: the rest is kept, and the task is woken when the peer takes more.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<io::Result<()>> {
        if self.unsent.is_none() && out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut waiting = match self.unsent.take() {
            Some(mut unsent) => {
                unsent.append(out);
                Some(unsent)
            }
            None => None,
        };
        let bytes = waiting.as_deref().unwrap_or(out);
        let mut sent = 0;
        let blocked = loop {
            let step = if sent < bytes.len() {
                Pin::new(&mut self.transport).poll_write(cx, &bytes[sent..])
            } else {
                Pin::new(&mut self.transport).poll_flush(cx).map_ok(|()| 0)
            };
            match step {
                Poll::Pending => break true,
                Poll::Ready(Ok(0)) if sent == bytes.len() => break false,
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => sent += count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        };
        if blocked {
            self.unsent = Some(match waiting.take() {
                Some(mut unsent) => {
                    unsent.drain(..sent);
                    unsent
                }
                None => Box::new(out[sent..].to_vec()),
            });
        }
        out.clear();
        if blocked { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    pub(crate) fn is_sent(&self) -> bool {
        self.unsent.is_none()
    }

    /// Ends our side, and reads what still comes: closing a socket with unread bytes resets it, and the peer would lose
    /// our last frame. Ready when the peer has ended, too. Gives the bytes read in this call by `read`.
    pub(crate) fn poll_close(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        read: &mut usize,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx, &mut scratch.out))?;
        ready!(Pin::new(&mut self.transport).poll_shutdown(cx))?;
        loop {
            let mut buffer = ReadBuf::new(&mut scratch.read);
            ready!(Pin::new(&mut self.transport).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            *read += buffer.filled().len();
        }
    }
}
