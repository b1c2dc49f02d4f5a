//! The other end: a WebSocket client on plain TCP that costs little, so that it is not what is measured.

pub mod hold;
pub mod load;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    ops::Range,
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::frames::{self, AGENTS, ORIGIN, SITES};

pub const TEXT: u8 = 1;
pub const CLOSE: u8 = 8;
const PING: u8 = 9;
const CONNECT_WITHIN: Duration = Duration::from_secs(30);

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

/// Every visitor has an address of its own, so that neither ports nor the limits by address run out.
pub fn source(visitor: u32) -> Ipv4Addr {
    let (high, middle, low) = (visitor / 62_500, visitor / 250 % 250, visitor % 250);
    Ipv4Addr::new(127, 1 + high as u8, middle as u8, 1 + low as u8)
}

impl Wire {
    /// Connects as `visitor` and waits for the welcome.
    pub async fn open(server: SocketAddr, visitor: u32) -> io::Result<Self> {
        let opening = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddrV4::new(source(visitor), 0).into())?;
            let stream = socket.connect(server).await?;
            stream.set_nodelay(true)?;
            let mut wire = Self { stream, read: Vec::with_capacity(512), taken: 0 };
            wire.shake_hands(server, visitor).await?;
            let welcome = wire.next().await?;
            match wire.payload(&welcome).starts_with(br#"{"t":"welcome""#) {
                true => Ok(wire),
                false => Err(io::Error::other("no welcome")),
            }
        };
        timeout(CONNECT_WITHIN, opening).await?
    }

    async fn shake_hands(&mut self, server: SocketAddr, visitor: u32) -> io::Result<()> {
        let (site, agent) = (SITES[visitor as usize % SITES.len()], AGENTS[visitor as usize % AGENTS.len()]);
        let request = format!(
            "GET /ws?k={site} HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: footfall.v1\r\nOrigin: {ORIGIN}\r\nUser-Agent: {agent}\r\n\
             Accept-Language: en-GB,en;q=0.8\r\nCache-Control: no-cache\r\n\r\n"
        );
        self.stream.write_all(request.as_bytes()).await?;
        loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                if !self.read.starts_with(b"HTTP/1.1 101") {
                    return Err(io::Error::other(String::from_utf8_lossy(&self.read).into_owned()));
                }
                self.taken = end + 4;
                return Ok(());
            }
            self.fill().await?;
        }
    }

    /// The next frame that is no ping; pings are answered. Cancel safe.
    pub async fn next(&mut self) -> io::Result<Frame> {
        loop {
            match self.take() {
                Some(frame) if frame.opcode == PING => {
                    let pong = frames::small(10, self.payload(&frame));
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
            [_, length @ 0..126, ..] => (2, usize::from(*length)),
            [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
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
        loop {
            self.stream.readable().await?;
            match self.stream.try_read_buf(&mut self.read) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
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

/// One thread: the client must leave the cores to what is measured.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
