//! A batch and its events as they stand in the text that was received: nothing is copied that can be borrowed.
//!
//! The same documents as [`footfall_schemas::tracker::Batch`] and [`footfall_schemas::TrackerEvent`], which own their
//! fields; a test holds the two together.

use std::{fmt, marker::PhantomData};

use footfall_schemas::{
    EventKind, StreamId,
    payload::{Payload, Prop},
    tracker::{ClientFrame, PageContext},
};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Unexpected, Visitor},
};
use serde_json::{Number, value::RawValue};
use smallvec::SmallVec;

use crate::cut;

/// Properties that an event carries without a block of its own on the heap.
const INLINE_PROPS: usize = 4;

/// A batch whose events are still text, but for those that were read with it.
#[derive(Debug, Deserialize)]
pub struct RawBatch<'a> {
    #[serde(rename = "t")]
    pub tag: ClientFrame,
    pub stream: StreamId,
    pub first: u32,
    pub sent: i64,
    #[serde(default)]
    pub token: Option<String>,
    #[serde(default)]
    pub ctx: PageContext,
    #[serde(default)]
    pub evicted: u32,
    /// The JSON of each event.
    #[serde(borrow, deserialize_with = "texts")]
    pub events: Vec<&'a str>,
    /// The events that have been read already, in their places; nothing behind the last of them.
    #[serde(skip)]
    pub read: Vec<Option<RawEvent<'a>>>,
}

/// Text of an event. What stood in its JSON without an escape can be written into another JSON as it is.
#[derive(Debug, Clone)]
pub enum Text<'a> {
    /// Needs no escape in JSON.
    Plain(&'a str),
    /// May need one.
    Decoded(String),
}

/// One event inside a batch.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RawEvent<'a> {
    pub k: EventKind,
    pub at: i64,
    #[serde(borrow)]
    pub u: Text<'a>,
    #[serde(borrow, default)]
    pub r: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub t: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub n: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub p: RawProps<'a>,
    #[serde(default)]
    pub d: Option<u32>,
    #[serde(default)]
    pub s: Option<u8>,
    #[serde(default)]
    pub pv: Option<u32>,
}

/// Sorted by key; of a key that comes twice the last value holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RawProps<'a>(SmallVec<[(Text<'a>, RawProp<'a>); INLINE_PROPS]>);

#[derive(Debug, Clone, PartialEq)]
pub enum RawProp<'a> {
    Bool(bool),
    Number(Number),
    Text(Text<'a>),
}

impl<'a> RawBatch<'a> {
    pub fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        cut::batch(text).map_or_else(|| serde_json::from_str(text), Ok)
    }
}

fn texts<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<&'a str>, D::Error> {
    let events = Vec::<&RawValue>::deserialize(deserializer)?;
    Ok(events.into_iter().map(RawValue::get).collect())
}

impl RawEvent<'_> {
    /// See [`footfall_schemas::TrackerEvent::payload_hash`]; `scratch` is overwritten.
    pub fn payload_hash(&self, scratch: &mut Vec<u8>) -> u64 {
        Payload {
            kind: self.k,
            url: self.u.as_str(),
            referrer: self.r.as_ref().map(Text::as_str),
            title: self.t.as_ref().map(Text::as_str),
            name: self.n.as_ref().map(Text::as_str),
            engaged_ms: self.d,
            scroll_depth: self.s,
            page_view: self.pv,
        }
        .hash(self.p.iter().map(|(key, value)| (key.as_str(), value.borrowed())), scratch)
    }
}

impl<'a> RawProps<'a> {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, (Text<'a>, RawProp<'a>)> {
        self.0.iter()
    }
}

impl<'a> RawProps<'a> {
    /// To be sorted afterwards.
    pub(crate) fn push(&mut self, key: Text<'a>, value: RawProp<'a>) {
        self.0.push((key, value));
    }

    pub(crate) fn sort(&mut self) {
        if self.0.is_sorted_by(|(a, _), (b, _)| a.as_str() < b.as_str()) {
            return;
        }
        self.0.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        self.0.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
    }
}

impl RawProp<'_> {
    fn borrowed(&self) -> Prop<'_> {
        match self {
            Self::Bool(value) => Prop::Bool(*value),
            Self::Number(value) => Prop::Number(value),
            Self::Text(value) => Prop::Text(value.as_str()),
        }
    }
}

impl Text<'_> {
    pub const EMPTY: Self = Self::Plain("");

    pub fn as_str(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Decoded(text) => text,
        }
    }

    pub fn len(&self) -> usize {
        self.as_str().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// JSON can bring a NUL in only by an escape.
    pub fn holds_nul(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Decoded(text) => text.contains('\0'),
        }
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Default for Text<'_> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self::Decoded(text)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    /// serde_json lends only what held no escape.
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text::Plain(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text::Decoded(text.to_owned()))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawProp<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;

        impl<'de> Visitor<'de> for Value {
            type Value = RawProp<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, a number, true or false")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
                Ok(RawProp::Bool(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
                Ok(RawProp::Number(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
                Ok(RawProp::Number(value.into()))
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
                let number = Number::from_f64(value);
                number.map(RawProp::Number).ok_or_else(|| E::invalid_value(Unexpected::Float(value), &self))
            }

            fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                TextVisitor.visit_borrowed_str(text).map(RawProp::Text)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                TextVisitor.visit_str(text).map(RawProp::Text)
            }
        }

        deserializer.deserialize_any(Value)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawProps<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Props<'a>(PhantomData<&'a str>);

        impl<'de: 'a, 'a> Visitor<'de> for Props<'a> {
            type Value = RawProps<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut props = RawProps::default();
                while let Some((key, value)) = map.next_entry::<Text<'a>, RawProp<'a>>()? {
                    props.push(key, value);
                }
                props.sort();
                Ok(props)
            }
        }

        deserializer.deserialize_map(Props(PhantomData))
    }
}
