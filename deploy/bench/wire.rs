//! The other end: a WebSocket client on plain TCP that costs little, so that it is not what is measured.

use std::{io, ops::Range};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::{Builder, Runtime},
};

pub const TEXT: u8 = 1;
pub const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A connection after its handshake.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    /// What was read and not yet taken.
    read: Vec<u8>,
    taken: usize,
}

/// One frame of the server: unmasked, never fragmented.
#[derive(Debug)]
pub struct Frame {
    pub opcode: u8,
    payload: Range<usize>,
}

impl Wire {
    /// Asks for the upgrade with this request and waits for the answer. Reads into `buffer` bytes, or more when a frame
    /// is longer.
    pub async fn upgrade(stream: TcpStream, request: &str, buffer: usize) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let mut wire = Self { stream, read: Vec::with_capacity(buffer), taken: 0 };
        wire.stream.write_all(request.as_bytes()).await?;
        loop {
            if let Some(end) = wire.read.windows(4).position(|window| window == b"\r\n\r\n") {
                if !wire.read.starts_with(b"HTTP/1.1 101") {
                    return Err(io::Error::other(String::from_utf8_lossy(&wire.read).into_owned()));
                }
                wire.taken = end + 4;
                return Ok(wire);
            }
            wire.fill().await?;
        }
    }

    /// The next frame that is no ping; pings are answered. Cancel safe.
    pub async fn next(&mut self) -> io::Result<Frame> {
        loop {
            match self.take() {
                Some(frame) if frame.opcode == PING => {
                    let pong = small(PONG, self.payload(&frame));
                    self.send(&pong).await?;
                }
                Some(frame) => return Ok(frame),
                None => self.fill().await?,
            }
        }
    }

    /// A frame that is there already.
    pub fn take(&mut self) -> Option<Frame> {
        let unread = &self.read[self.taken..];
        let (head, length) = match unread {
            [_, length @ 0..=125, ..] => (2, usize::from(*length)),
            [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
            [_, 127, length @ ..] => (10, u64::from_be_bytes(*length.first_chunk()?) as usize),
            _ => return None,
        };
        let payload = self.taken + head..self.taken + head + length;
        let opcode = unread[0] & 15;
        (payload.end <= self.read.len()).then(|| {
            self.taken = payload.end;
            Frame { opcode, payload }
        })
    }

    /// Valid until the next read.
    pub fn payload(&self, frame: &Frame) -> &[u8] {
        &self.read[frame.payload.clone()]
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.read.drain(..self.taken);
        self.taken = 0;
        // A read that does not fill the buffer tells tokio that nothing is left: one system call a frame, not two.
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    pub async fn send(&mut self, frames: &[u8]) -> io::Result<()> {
        match self.stream.try_write(frames) {
            Ok(written) if written == frames.len() => Ok(()),
            Ok(written) => self.stream.write_all(&frames[written..]).await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stream.write_all(frames).await,
            Err(error) => Err(error),
        }
    }
}

/// A masked frame (RFC 6455 §5.2) without the speed: control frames and the like.
pub fn small(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x5a, 0x13, 0xc7, 0x2e];
    let mut frame =
        vec![0x80 | opcode, 0x80 | u8::try_from(payload.len()).ok().filter(|len| *len < 126).unwrap()];
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// One thread: the client must leave the cores to what is measured.
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}
