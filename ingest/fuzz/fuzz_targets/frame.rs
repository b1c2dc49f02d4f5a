//! The frame loop's codec: the same bytes say the same in one piece and in many, and the same as tungstenite hears.
//!
//! The first byte of the input chooses: 0, the rest are bytes off the wire; else, the rest are frames to be masked, for
//! random bytes are hardly ever one. The second and third say where the bytes are cut.
#![no_main]

use std::{
    io::{self, Read, Write},
    ops::ControlFlow,
};

use footfall_ingest::frame::{Decoder, Fault, Heard};
use libfuzzer_sys::fuzz_target;
use tokio_tungstenite::tungstenite::{
    Error, Message, WebSocket,
    protocol::{Role, WebSocketConfig},
};

/// Small, so that inputs of any size around it are short, too.
const MOST: usize = 200;

#[derive(Debug, PartialEq, Eq)]
enum Said {
    Text(String),
    Binary(Vec<u8>),
    Ping,
    Pong,
    Close,
    BadUtf8,
    TooBig,
    Protocol,
}

fuzz_target!(|input: &[u8]| {
    let [kind, first_cut, step, rest @ ..] = input else { return };
    let bytes = if *kind == 0 { rest.to_vec() } else { frames(rest) };
    let whole = decode([bytes.as_slice()]);
    let (head, tail) = bytes.split_at(usize::from(*first_cut).min(bytes.len()));
    let cut = decode([head].into_iter().chain(tail.chunks(usize::from(*step).max(1))));
    assert_eq!(whole, cut, "cut at {first_cut}, then every {step}");
    assert_eq!(whole.0, by_tungstenite(&bytes), "as tungstenite alone");
});

/// Each frame is its first byte, its length, and its payload; masked here.
fn frames(mut recipe: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let [first, length, rest @ ..] = recipe {
        let length = usize::from(*length).min(rest.len());
        let (payload, rest) = rest.split_at(length);
        recipe = rest;
        let mask = [0x37, 0xfa, 0x21, *first];
        bytes.push(*first);
        match length {
            0..126 => bytes.push(0x80 | length as u8),
            _ => {
                bytes.push(0x80 | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
        }
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
    bytes
}

/// What is heard until the end, and what is answered.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Said>, Vec<u8>) {
    let (mut said, mut out, mut decoder) = (Vec::new(), Vec::new(), Decoder::default());
    for piece in pieces {
        if matches!(said.last(), Some(Said::Close | Said::BadUtf8 | Said::TooBig | Said::Protocol)) {
            break;
        }
        decoder.decode(&mut piece.to_vec(), MOST, &mut out, &mut |heard: Heard<'_>, _: &mut Vec<u8>| {
            said.push(match heard {
                Heard::Text(text) => Said::Text(text.to_owned()),
                Heard::Binary(bytes) => Said::Binary(bytes.to_vec()),
                Heard::Ping => Said::Ping,
                Heard::Pong => Said::Pong,
                Heard::Close => Said::Close,
                Heard::Fault(Fault::BadUtf8(_)) => Said::BadUtf8,
                Heard::Fault(Fault::TooBig(_)) => Said::TooBig,
                Heard::Fault(Fault::Protocol) => Said::Protocol,
            });
            ControlFlow::Continue(())
        });
    }
    (said, out)
}

fn by_tungstenite(bytes: &[u8]) -> Vec<Said> {
    let config = WebSocketConfig::default().max_message_size(Some(MOST)).max_frame_size(Some(MOST));
    let mut socket = WebSocket::from_raw_socket(Wire(bytes), Role::Server, Some(config));
    let mut said = Vec::new();
    loop {
        said.push(match socket.read() {
            Ok(Message::Text(text)) => Said::Text(text.as_str().to_owned()),
            Ok(Message::Binary(bytes)) => Said::Binary(bytes.to_vec()),
            Ok(Message::Ping(_)) => Said::Ping,
            Ok(Message::Pong(_)) => Said::Pong,
            Ok(Message::Close(_) | Message::Frame(_)) => Said::Close,
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return said,
            Err(Error::Utf8(_)) => Said::BadUtf8,
            Err(Error::Capacity(_)) => Said::TooBig,
            Err(_) => Said::Protocol,
        });
        if matches!(said.last(), Some(Said::Close | Said::BadUtf8 | Said::TooBig | Said::Protocol)) {
            return said;
        }
    }
}

/// Bytes that came; what is written is not looked at.
struct Wire<'a>(&'a [u8]);

impl Read for Wire<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.read(buf) }
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
