//! What an event says, without when it says it: hashed, so that a resend of the same id with another payload can be
//! told.
//!
//! The hash is xxh3-64 (seed 0) over the event's fields that are there (`null` is not), in the order `k u r t n d s pv
//! p`. Each is a tag byte and its value: a text as its length in bytes (u32) and its UTF-8, a number as u64. A property
//! is `p`, its key as a text and its value: `b` and 0 or 1; `s` and a text; `u` and a u64, `i` and an i64 below 0, or
//! `f` and the bits of an f64. Properties are in order of their keys. Numbers are little-endian.

use serde_json::Number;
use xxhash_rust::xxh3::xxh3_64;

use crate::EventKind;

/// The fields of an event but for its time and properties.
#[derive(Debug, Clone, Copy)]
pub struct Payload<'a> {
    pub kind: EventKind,
    pub url: &'a str,
    pub referrer: Option<&'a str>,
    pub title: Option<&'a str>,
    pub name: Option<&'a str>,
    pub engaged_ms: Option<u32>,
    pub scroll_depth: Option<u8>,
    pub page_view: Option<u32>,
}

/// A property's value.
#[derive(Debug, Clone, Copy)]
pub enum Prop<'a> {
    Bool(bool),
    Number(&'a Number),
    Text(&'a str),
}

impl Payload<'_> {
    /// `props` are in order of their keys, each of them once; `scratch` is overwritten.
    pub fn hash<'p>(&self, props: impl Iterator<Item = (&'p str, Prop<'p>)>, scratch: &mut Vec<u8>) -> u64 {
        scratch.clear();
        text(scratch, b'k', self.kind.as_str());
        text(scratch, b'u', self.url);
        for (tag, value) in [(b'r', self.referrer), (b't', self.title), (b'n', self.name)] {
            if let Some(value) = value {
                text(scratch, tag, value);
            }
        }
        for (tag, value) in
            [(b'd', self.engaged_ms), (b's', self.scroll_depth.map(u32::from)), (b'v', self.page_view)]
        {
            if let Some(value) = value {
                number(scratch, tag, u64::from(value).to_le_bytes());
            }
        }
        for (key, value) in props {
            text(scratch, b'p', key);
            match value {
                Prop::Bool(value) => scratch.extend_from_slice(&[b'b', value.into()]),
                Prop::Text(value) => text(scratch, b's', value),
                Prop::Number(value) => match (value.as_u64(), value.as_i64(), value.as_f64()) {
                    (Some(value), _, _) => number(scratch, b'u', value.to_le_bytes()),
                    (_, Some(value), _) => number(scratch, b'i', value.to_le_bytes()),
                    (_, _, value) => number(scratch, b'f', value.unwrap_or_default().to_le_bytes()),
                },
            }
        }
        xxh3_64(scratch)
    }
}

fn text(scratch: &mut Vec<u8>, tag: u8, value: &str) {
    scratch.push(tag);
    // A text of an event is shorter than a frame.
    scratch.extend_from_slice(&(value.len() as u32).to_le_bytes());
    scratch.extend_from_slice(value.as_bytes());
}

fn number(scratch: &mut Vec<u8>, tag: u8, value: [u8; 8]) {
    scratch.push(tag);
    scratch.extend_from_slice(&value);
}
