//! Tungstenite as a pure protocol engine: it reads from and writes to memory, so that one frame loop owns the socket.

use std::{
    io::{self, Read, Write},
    ops::ControlFlow,
};

use tokio_tungstenite::tungstenite::{
    Error, Message, WebSocket,
    protocol::{Role, WebSocketConfig},
};

use crate::frame::{Fault, Hear, Heard};

const READ_BUFFER_BYTES: usize = 4 * 1024;

#[derive(Debug)]
pub(crate) struct Engine {
    socket: WebSocket<Pipe>,
}

/// What came and is not read yet, and what is to be sent.
#[derive(Debug, Default)]
struct Pipe {
    came: Vec<u8>,
    read: usize,
    answers: Vec<u8>,
}

impl Engine {
    /// For messages and frames of at most `most` bytes.
    pub(crate) fn new(most: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(most))
            .max_frame_size(Some(most));
        Self { socket: WebSocket::from_raw_socket(Pipe::default(), Role::Server, Some(config)) }
    }

    pub(crate) fn read(&mut self, fresh: &[u8], out: &mut Vec<u8>, hear: &mut impl Hear) {
        self.socket.get_mut().came.extend_from_slice(fresh);
        loop {
            let message = self.socket.read();
            // A close is answered by the next step, which finds that there is nothing more to say.
            let message = match message {
                Ok(Message::Close(_)) => self.socket.flush().map(|()| Message::Close(None)),
                Ok(Message::Ping(payload)) => self.socket.flush().map(|()| Message::Ping(payload)),
                other => other,
            };
            out.append(&mut self.socket.get_mut().answers);
            let heard = match &message {
                Ok(Message::Text(text)) => Heard::Text(text.as_str()),
                Ok(Message::Binary(bytes)) => Heard::Binary(bytes),
                Ok(Message::Ping(_)) => Heard::Ping,
                Ok(Message::Pong(_)) => Heard::Pong,
                // Raw frames are never read as such.
                Ok(Message::Close(_) | Message::Frame(_)) => Heard::Close,
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => Heard::Close,
                Err(Error::Utf8(_)) => Heard::Fault(Fault::BadUtf8(b"")),
                Err(Error::Capacity(_)) => Heard::Fault(Fault::TooBig(b"")),
                Err(_) => Heard::Fault(Fault::Protocol),
            };
            let last = matches!(heard, Heard::Close | Heard::Fault(_));
            if hear(heard, out) == ControlFlow::Break(()) || last {
                return;
            }
        }
    }
}

impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let waiting = &self.came[self.read..];
        if waiting.is_empty() {
            // An end of the stream is the frame loop's to see.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = waiting.len().min(buf.len());
        buf[..count].copy_from_slice(&waiting[..count]);
        self.read += count;
        if self.read == self.came.len() {
            self.came = Vec::new();
            self.read = 0;
        }
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.answers.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
