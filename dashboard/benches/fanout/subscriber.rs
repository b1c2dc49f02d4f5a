//! One subscriber: how each server is asked, and what is read of its answers.

use std::{io, net::SocketAddr, time::Duration};

use footfall_schemas::viewer::SUBPROTOCOL;
use socket2::SockRef;
use tokio::{net::TcpSocket, time::timeout};

use crate::{
    bench::wire::{CLOSE, TEXT, Wire, small},
    frames::Stamp,
};

/// Site of ours, channel of Centrifugo's.
pub const SITE: &str = "demo";
const SUBSCRIBE_WITHIN: Duration = Duration::from_secs(60);
/// A change fits.
const BUFFER: usize = 4 * 1_024;
/// What a slow reader's kernel takes before it reads, and the smallest segment that Linux sends: the sender's kernel
/// buffers by segments, and with those of the loopback it would take in minutes of changes.
const SLOW_BUFFER: u32 = 4 * 1_024;
const SLOW_SEGMENT: u32 = 88;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Speaks {
    Footfall,
    Centrifugo,
    Bare,
}

/// Where and how to subscribe.
#[derive(Debug, Clone, clap::Args)]
pub struct Door {
    #[arg(long)]
    pub server: SocketAddr,
    #[arg(long)]
    pub speaks: Speaks,
    #[arg(long)]
    pub cookie: Option<String>,
}

impl Door {
    fn request(&self) -> String {
        let Self { server, speaks, cookie } = self;
        let (path, more) = match speaks {
            Speaks::Footfall => {
                let cookie = cookie.as_deref().unwrap_or_default();
                let more = format!(
                    "Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\nOrigin: http://{server}\r\nCookie: {cookie}\r\n"
                );
                ("/live", more)
            }
            Speaks::Centrifugo => ("/connection/websocket", String::new()),
            Speaks::Bare => ("/", String::new()),
        };
        format!(
            "GET {path} HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
        )
    }
}

#[derive(Debug)]
pub struct Subscriber {
    wire: Wire,
    speaks: Speaks,
    last: Option<Stamp>,
}

impl Subscriber {
    /// Returns once the server has said that it subscribed.
    pub async fn open(door: &Door, slow: bool) -> io::Result<Self> {
        let opening = async {
            let socket = TcpSocket::new_v4()?;
            if slow {
                socket.set_recv_buffer_size(SLOW_BUFFER)?;
                SockRef::from(&socket).set_tcp_mss(SLOW_SEGMENT)?;
            }
            let stream = socket.connect(door.server).await?;
            let wire = Wire::upgrade(stream, &door.request(), BUFFER).await?;
            let mut subscriber = Self { wire, speaks: door.speaks, last: None };
            subscriber.subscribe().await?;
            Ok(subscriber)
        };
        timeout(SUBSCRIBE_WITHIN, opening).await?
    }

    async fn subscribe(&mut self) -> io::Result<()> {
        let (requests, answer) = match self.speaks {
            Speaks::Footfall => {
                (vec![format!(r#"{{"t":"subscribe","site":"{SITE}"}}"#)], r#"{"t":"snapshot""#)
            }
            Speaks::Centrifugo => {
                let subscribe = format!(r#"{{"id":2,"subscribe":{{"channel":"{SITE}"}}}}"#);
                (vec![r#"{"id":1,"connect":{}}"#.to_owned(), subscribe], r#"{"id":2,"subscribe""#)
            }
            Speaks::Bare => return Ok(()),
        };
        for request in requests {
            self.wire.send(&small(TEXT, request.as_bytes())).await?;
        }
        loop {
            let frame = self.wire.next().await?;
            let payload = self.wire.payload(&frame);
            let mut messages = messages(payload);
            if frame.opcode != TEXT || messages.clone().any(|message| message.starts_with(br#"{"error""#)) {
                return Err(io::Error::other(String::from_utf8_lossy(payload).into_owned()));
            }
            if let Some(answer) = messages.find(|message| message.starts_with(answer.as_bytes())) {
                self.last = Stamp::of(answer);
                return Ok(());
            }
        }
    }

    /// Reads a frame and tells each change in it, with the one before. Cancel safe but for the answer to a ping.
    pub async fn next(&mut self, mut told: impl FnMut(Option<Stamp>, Stamp, &[u8])) -> io::Result<()> {
        let frame = self.wire.next().await?;
        match frame.opcode {
            TEXT => {}
            CLOSE => return Err(io::ErrorKind::ConnectionAborted.into()),
            _ => return Ok(()),
        }
        let mut pinged = false;
        for message in messages(self.wire.payload(&frame)) {
            pinged |= message == b"{}";
            if let Some(stamp) = Stamp::of(message) {
                told(self.last.replace(stamp), stamp, message);
            }
        }
        if pinged {
            // Centrifugo's own; who does not answer is disconnected.
            self.wire.send(&small(TEXT, b"{}")).await?;
        }
        Ok(())
    }
}

/// Centrifugo puts several into a frame, a line each, when they come together. No JSON here has line ends inside.
fn messages(payload: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    payload.split(|byte| *byte == b'\n').filter(|message| !message.is_empty())
}
