//! `/ws-echo`: every message comes back. Only for conformance tests, which run it on the accept path and the frame loop
//! of trackers; served when `[ingest] echo` is set.

use std::{
    ops::ControlFlow,
    pin::Pin,
    task::{Context, Poll, ready},
};

use footfall_schemas::refusal::close;

use crate::{
    frame::{self, Fault, Heard},
    socket::{self, Scratch, Socket},
};

/// The largest message of the Autobahn cases.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

pub(crate) struct Echo {
    socket: Socket,
    /// What came with the handshake is not heard yet.
    early: bool,
    closing: bool,
}

impl Echo {
    pub(crate) fn new(socket: Socket) -> Self {
        Self { socket, early: true, closing: false }
    }

    fn turn(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<std::io::Result<()>> {
        while !self.closing {
            ready!(self.socket.poll_send(cx, &mut scratch.out))?;
            let closing = &mut self.closing;
            let mut hear = |heard: Heard<'_>, out: &mut Vec<u8>| {
                match heard {
                    Heard::Text(text) => frame::write_text(out, |out| out.extend_from_slice(text.as_bytes())),
                    Heard::Binary(bytes) => frame::write_binary(out, bytes),
                    Heard::Ping | Heard::Pong => {}
                    Heard::Close => *closing = true,
                    Heard::Fault(fault) => {
                        let code = match fault {
                            Fault::BadUtf8(_) => close::BAD_UTF8,
                            Fault::TooBig(_) => close::TOO_BIG,
                            Fault::Protocol => close::PROTOCOL,
                        };
                        frame::write_close(out, code, "");
                        *closing = true;
                    }
                }
                ControlFlow::Continue(())
            };
            if std::mem::take(&mut self.early) {
                self.socket.hear_rest(MAX_MESSAGE_BYTES, &mut scratch.out, &mut hear);
            } else if !ready!(self.socket.poll_hear(cx, scratch, MAX_MESSAGE_BYTES, &mut hear))? {
                return Poll::Ready(Ok(()));
            }
        }
        self.socket.poll_close(cx, scratch, &mut 0)
    }
}

impl Future for Echo {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        // A broken socket ends the echo as a closed one does.
        socket::turn(|scratch| this.turn(cx, scratch)).map(|_| ())
    }
}
