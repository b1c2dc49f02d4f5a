//! WebSocket frames as a server reads and writes them (RFC 6455 §5). Pure: bytes in, what was heard and bytes out.
//!
//! Nearly everything that trackers send is a whole, masked text frame; those are read where they lie in the caller's
//! buffer. At the first frame that is anything else than a whole text frame, a ping or a pong, tungstenite takes over
//! for the rest of the connection ([`crate::engine`]), so that fragments, close handshakes and faults have one
//! well-tried implementation.

use std::{io::Cursor, ops::ControlFlow};

use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

use crate::engine::Engine;

/// What a peer said.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    /// Its pong is among the bytes to send.
    Ping,
    Pong,
    /// The peer closes; the answer to it is among the bytes to send. Nothing follows.
    Close,
    /// Nothing follows.
    Fault(Fault<'a>),
}

/// What no peer may send. The payload is as much of it as is at hand, for the dead letter.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault<'a> {
    /// 1007
    BadUtf8(&'a [u8]),
    /// 1009
    TooBig(&'a [u8]),
    /// 1002
    Protocol,
}

/// Called with each thing heard and the bytes to send so far; `Break` leaves the rest for the next call.
pub trait Hear: FnMut(Heard<'_>, &mut Vec<u8>) -> ControlFlow<()> {}
impl<F: FnMut(Heard<'_>, &mut Vec<u8>) -> ControlFlow<()>> Hear for F {}

/// The reading half of one connection. Holds nothing between whole frames.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The start of a frame whose end has not come, or frames behind a `Break`.
    rest: Vec<u8>,
    engine: Option<Box<Engine>>,
}

/// How far plain reading went.
enum Plain {
    /// All but an unfinished frame.
    Read(usize),
    /// The caller broke off, or nothing follows.
    Stopped(usize),
    /// Tungstenite's, from here.
    Unusual(usize),
}

impl Decoder {
    /// With bytes that came before.
    pub fn holding(rest: Vec<u8>) -> Self {
        Self { rest, engine: None }
    }

    /// Reads `fresh`, which is unmasked in place; messages may have `most` bytes. What is left over is kept.
    pub fn decode(&mut self, fresh: &mut [u8], most: usize, out: &mut Vec<u8>, hear: &mut impl Hear) {
        if let Some(engine) = &mut self.engine {
            return engine.read(fresh, out, hear);
        }
        if self.rest.is_empty() {
            let read = plain(fresh, most, out, hear);
            self.keep(read, fresh, most, out, hear);
        } else {
            let mut rest = std::mem::take(&mut self.rest);
            rest.extend_from_slice(fresh);
            let read = plain(&mut rest, most, out, hear);
            self.keep(read, &mut rest, most, out, hear);
        }
    }

    fn keep(&mut self, read: Plain, bytes: &mut [u8], most: usize, out: &mut Vec<u8>, hear: &mut impl Hear) {
        match read {
            Plain::Read(upto) | Plain::Stopped(upto) => self.rest = bytes[upto..].to_vec(),
            Plain::Unusual(upto) => {
                let engine = self.engine.insert(Box::new(Engine::new(most)));
                engine.read(&bytes[upto..], out, hear);
            }
        }
    }

    /// Whether it holds nothing: no unfinished frame, no engine.
    pub fn is_idle(&self) -> bool {
        self.rest.is_empty() && self.engine.is_none()
    }
}

fn plain(bytes: &mut [u8], most: usize, out: &mut Vec<u8>, hear: &mut impl Hear) -> Plain {
    let mut upto = 0;
    loop {
        let mut cursor = Cursor::new(&bytes[upto..]);
        let (header, length) = match FrameHeader::parse(&mut cursor) {
            Ok(Some(found)) => found,
            Ok(None) => return Plain::Read(upto),
            Err(_) => return Plain::Unusual(upto),
        };
        let FrameHeader { is_final: true, rsv1: false, rsv2: false, rsv3: false, opcode, mask: Some(mask) } =
            header
        else {
            return Plain::Unusual(upto);
        };
        let start = upto + cursor.position() as usize;
        match opcode {
            OpCode::Data(Data::Text) if length > most as u64 => {
                unmask(&mut bytes[start..], mask);
                let _ = hear(Heard::Fault(Fault::TooBig(&bytes[start..])), out);
                return Plain::Stopped(bytes.len());
            }
            OpCode::Data(Data::Text) => {}
            OpCode::Control(Control::Ping | Control::Pong) if length <= MAX_CONTROL as u64 => {}
            _ => return Plain::Unusual(upto),
        }
        let end = start + length as usize;
        if end > bytes.len() {
            return Plain::Read(upto);
        }
        let payload = &mut bytes[start..end];
        unmask(payload, mask);
        upto = end;
        let heard = match opcode {
            OpCode::Data(_) => match std::str::from_utf8(payload) {
                Ok(text) => Heard::Text(text),
                Err(_) => Heard::Fault(Fault::BadUtf8(payload)),
            },
            OpCode::Control(Control::Ping) => {
                write_frame(out, PONG, |out| out.extend_from_slice(payload));
                Heard::Ping
            }
            OpCode::Control(_) => Heard::Pong,
        };
        if matches!(heard, Heard::Fault(_)) {
            let _ = hear(heard, out);
            return Plain::Stopped(bytes.len());
        }
        if hear(heard, out).is_break() {
            return Plain::Stopped(upto);
        }
    }
}

/// RFC 6455 §5.3, eight bytes at a time.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= mask;
    }
}

/// Longest payload of a control frame.
const MAX_CONTROL: usize = 125;

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// Appends a text frame whose payload `write` appends.
pub fn write_text(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    write_frame(out, TEXT, write);
}

pub fn write_binary(out: &mut Vec<u8>, payload: &[u8]) {
    write_frame(out, BINARY, |out| out.extend_from_slice(payload));
}

pub fn write_ping(out: &mut Vec<u8>) {
    write_frame(out, PING, |_| {});
}

/// `reason` is cut to what fits.
pub fn write_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let reason = &reason[..reason.floor_char_boundary(MAX_CONTROL - 2)];
    write_frame(out, CLOSE, |out| {
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(reason.as_bytes());
    });
}

/// Room is left for the header of a medium frame, the usual one; others move.
fn write_frame(out: &mut Vec<u8>, first: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[first, 126, 0, 0]);
    write(out);
    let length = out.len() - start - 4;
    if length <= MAX_CONTROL {
        out[start + 1] = length as u8;
        out.copy_within(start + 4.., start + 2);
        out.truncate(out.len() - 2);
    } else if let Ok(length) = u16::try_from(length) {
        out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
    } else {
        out[start + 1] = 127;
        out.splice(start + 2..start + 4, (length as u64).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    /// What was heard, owned.
    #[derive(Debug, Clone, PartialEq, Eq)]
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

    fn own(heard: &Heard<'_>) -> Said {
        match heard {
            Heard::Text(text) => Said::Text((*text).to_owned()),
            Heard::Binary(bytes) => Said::Binary(bytes.to_vec()),
            Heard::Ping => Said::Ping,
            Heard::Pong => Said::Pong,
            Heard::Close => Said::Close,
            Heard::Fault(Fault::BadUtf8(_)) => Said::BadUtf8,
            Heard::Fault(Fault::TooBig(_)) => Said::TooBig,
            Heard::Fault(Fault::Protocol) => Said::Protocol,
        }
    }

    const MOST: usize = 1_000;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut bytes = vec![first];
        match payload.len() {
            length @ 0..=125 => bytes.push(0x80 | length as u8),
            length @ 126..=0xffff => {
                bytes.push(0x80 | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(0x80 | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    fn decode(pieces: &[&[u8]]) -> (Vec<Said>, Vec<u8>, Decoder) {
        let (mut said, mut out, mut decoder) = (Vec::new(), Vec::new(), Decoder::default());
        let mut over = false;
        for piece in pieces {
            if over {
                break;
            }
            decoder.decode(&mut piece.to_vec(), MOST, &mut out, &mut |heard: Heard<'_>, _: &mut Vec<u8>| {
                over |= matches!(heard, Heard::Close | Heard::Fault(_));
                said.push(own(&heard));
                ControlFlow::Continue(())
            });
        }
        (said, out, decoder)
    }

    fn text(text: &str) -> Said {
        Said::Text(text.to_owned())
    }

    #[rstest]
    #[case::text(frame(TEXT, b"Hello"), vec![text("Hello")])]
    #[case::empty(frame(TEXT, b""), vec![text("")])]
    #[case::at_the_cap(frame(TEXT, &[b'x'; MOST]), vec![text(&"x".repeat(MOST))])]
    #[case::over_the_cap(frame(TEXT, &[b'x'; MOST + 1]), vec![Said::TooBig])]
    #[case::binary(frame(BINARY, &[1, 2]), vec![Said::Binary(vec![1, 2])])]
    #[case::two([frame(TEXT, b"a"), frame(TEXT, b"b")].concat(), vec![text("a"), text("b")])]
    #[case::fragments(
        [frame(0x01, b"Hel"), frame(PING, b"?"), frame(0x00, b"l"), frame(0x80, b"o"), frame(TEXT, b"!")].concat(),
        vec![Said::Ping, text("Hello"), text("!")]
    )]
    #[case::utf8_across_fragments([frame(0x01, b"\xe2\x82"), frame(0x80, b"\xac")].concat(), vec![text("€")])]
    #[case::fragments_over_the_cap([frame(0x01, &[b'x'; 600]), frame(0x80, &[b'x'; 600])].concat(), vec![Said::TooBig])]
    #[case::bad_utf8(frame(TEXT, b"\xc3\x28"), vec![Said::BadUtf8])]
    #[case::bad_utf8_in_fragments([frame(0x01, b"a"), frame(0x80, b"\xff")].concat(), vec![Said::BadUtf8])]
    #[case::reserved_bit(frame(0xc1, b"a"), vec![Said::Protocol])]
    #[case::reserved_opcode(frame(0x83, b"a"), vec![Said::Protocol])]
    #[case::not_masked(vec![0x81, 0x01, b'a'], vec![Said::Protocol])]
    #[case::long_ping(frame(PING, &[0; 126]), vec![Said::Protocol])]
    #[case::fragmented_ping(frame(0x09, b""), vec![Said::Protocol])]
    #[case::continuation_of_nothing(frame(0x80, b"a"), vec![Said::Protocol])]
    #[case::pong(frame(PONG, b"unasked"), vec![Said::Pong])]
    #[case::close(frame(CLOSE, &[0x03, 0xe8]), vec![Said::Close])]
    #[case::nothing_after_close([frame(CLOSE, b""), frame(TEXT, b"a")].concat(), vec![Said::Close])]
    #[case::half_a_close_code(frame(CLOSE, &[3]), vec![Said::Protocol])]
    #[case::close_with_bad_utf8(frame(CLOSE, &[0x03, 0xe8, 0xff]), vec![Said::BadUtf8])]
    fn frames_are_heard_however_they_are_cut(#[case] bytes: Vec<u8>, #[case] expected: Vec<Said>) {
        assert_eq!(decode(&[&bytes]).0, expected, "in one piece");
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(decode(&single).0, expected, "byte by byte");
        for at in 0..bytes.len().min(40) {
            assert_eq!(decode(&[&bytes[..at], &bytes[at..]]).0, expected, "cut at {at}");
        }
    }

    #[test]
    fn nothing_is_held_between_whole_frames() {
        let (_, _, decoder) = decode(&[&frame(TEXT, b"a"), &frame(PONG, b"")]);
        assert!(decoder.is_idle() && decoder.rest.capacity() == 0);
    }

    #[rstest]
    #[case::ping(frame(PING, b"abc"), vec![0x8a, 3, b'a', b'b', b'c'])]
    #[case::ping_between_fragments([frame(0x01, b"a"), frame(PING, b"abc")].concat(), vec![0x8a, 3, b'a', b'b', b'c'])]
    #[case::close(frame(CLOSE, &[0x03, 0xe9]), vec![0x88, 2, 0x03, 0xe9])]
    #[case::close_without_code(frame(CLOSE, b""), vec![0x88, 0])]
    fn pings_and_closes_are_answered(#[case] bytes: Vec<u8>, #[case] answer: Vec<u8>) {
        assert_eq!(decode(&[&bytes]).1, answer);
    }

    #[test]
    fn a_fault_shows_what_was_sent() {
        for (bytes, expected) in [
            (frame(TEXT, b"ab\xff"), &b"ab\xff"[..]),
            (frame(TEXT, &[b'x'; MOST + 1])[..40].to_vec(), &[b'x'; 32]),
        ] {
            let mut shown = Vec::new();
            Decoder::default().decode(
                &mut bytes.clone(),
                MOST,
                &mut Vec::new(),
                &mut |heard: Heard<'_>, _: &mut Vec<u8>| {
                    if let Heard::Fault(Fault::BadUtf8(payload) | Fault::TooBig(payload)) = heard {
                        shown = payload.to_vec();
                    }
                    ControlFlow::Continue(())
                },
            );
            assert_eq!(shown, expected);
        }
    }

    #[rstest]
    #[case::plain(vec![frame(TEXT, b"a"), frame(TEXT, b"b"), frame(TEXT, b"c")])]
    #[case::in_the_engine(vec![frame(0x01, b""), frame(0x80, b"a"), frame(TEXT, b"b"), frame(TEXT, b"c")])]
    fn whoever_breaks_off_gets_the_rest_later(#[case] frames: Vec<Vec<u8>>) {
        let (mut decoder, mut said) = (Decoder::default(), Vec::new());
        let mut bytes = frames.concat();
        for round in 1..=3 {
            decoder.decode(&mut bytes, MOST, &mut Vec::new(), &mut |heard: Heard<'_>, _: &mut Vec<u8>| {
                said.push(own(&heard));
                ControlFlow::Break(())
            });
            bytes.clear();
            assert_eq!(said.len(), round);
        }
        assert_eq!(said, [text("a"), text("b"), text("c")]);
    }

    #[rstest]
    #[case(0, 2)]
    #[case(125, 2)]
    #[case(126, 4)]
    #[case(65_535, 4)]
    #[case(65_536, 10)]
    fn a_written_frame_has_the_header_of_its_length(#[case] length: usize, #[case] header: usize) {
        let mut out = b"before".to_vec();
        write_text(&mut out, |out| out.resize(out.len() + length, b'x'));
        let mut cursor = Cursor::new(&out[6..]);
        let (parsed, told) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
        assert!(parsed.is_final && parsed.mask.is_none());
        assert_eq!((told as usize, cursor.position() as usize), (length, header));
        assert_eq!(out.len(), 6 + header + length);
        assert!(out[6 + header..].iter().all(|byte| *byte == b'x'));
    }

    #[test]
    fn a_long_close_reason_is_cut_at_a_character() {
        let mut out = Vec::new();
        write_close(&mut out, 1008, &"€".repeat(100));
        assert_eq!((out[1] as usize, out.len()), (2 + 123, 2 + 2 + 123));
        assert!(std::str::from_utf8(&out[4..]).is_ok());
    }

    proptest! {
        /// Whatever comes, it is heard the same in one piece and in many, and as tungstenite alone hears it.
        #[test]
        fn any_bytes_are_heard_as_tungstenite_hears_them(
            frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)), 0..6),
            noise in prop::collection::vec(any::<u8>(), 0..20),
            cuts in prop::collection::vec(0usize..1_500, 0..6),
        ) {
            let mut bytes: Vec<u8> = frames.iter().flat_map(|(first, payload)| frame(*first, payload)).collect();
            bytes.extend(noise);
            let (whole, out, _) = decode(&[&bytes]);
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < bytes.len()).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([bytes.len()]) {
                pieces.push(&bytes[from..cut]);
                from = cut;
            }
            let (cut, cut_out, _) = decode(&pieces);
            prop_assert_eq!(&whole, &cut);
            prop_assert_eq!(&out, &cut_out);

            let (mut heard, mut engine_out, mut over) = (Vec::new(), Vec::new(), false);
            let mut engine = Engine::new(MOST);
            engine.read(&bytes, &mut engine_out, &mut |heard_now: Heard<'_>, _: &mut Vec<u8>| {
                over |= matches!(heard_now, Heard::Close | Heard::Fault(_));
                heard.push(own(&heard_now));
                ControlFlow::Continue(())
            });
            prop_assert_eq!(whole, heard);
        }
    }
}
