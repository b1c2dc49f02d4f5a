//! Reads the common shape of a batch by hand: JSON as `JSON.stringify` writes it, the fields that are known, texts
//! without escapes. Anything else is left to serde_json, for the event or for the whole batch, so this decides nothing
//! but speed; a property test holds the two together.

use footfall_schemas::{
    EventKind, StreamId,
    tracker::{ClientFrame, MAX_BATCH_EVENTS, PageContext},
};
use serde_json::{Number, value::RawValue};

use crate::raw::{RawBatch, RawEvent, RawProp, RawProps, Text};

/// What every batch of the tracker begins with.
pub(crate) const BEGIN: &str = r#"{"t":"batch","#;

/// What an event takes, as a first guess.
const EVENT_BYTES: usize = 192;

/// None for anything unusual, errors included.
pub(crate) fn batch(text: &str) -> Option<RawBatch<'_>> {
    let mut cut = Cut { text, at: BEGIN.len() };
    text.starts_with(BEGIN).then_some(())?;
    let (mut stream, mut first, mut sent, mut token, mut ctx, mut evicted) = Default::default();
    loop {
        match cut.key()? {
            "stream" => once(&mut stream, cut.string()?.parse::<StreamId>().ok()?)?,
            "first" => once(&mut first, u32::try_from(cut.whole()?).ok()?)?,
            "sent" => once(&mut sent, cut.whole()?)?,
            "token" => once(&mut token, cut.string()?.to_owned())?,
            "ctx" => once(&mut ctx, cut.context()?)?,
            "evicted" => once(&mut evicted, u32::try_from(cut.whole()?).ok()?)?,
            "events" => break,
            _ => return None,
        }
        cut.byte(b',')?;
    }
    let guess = (1 + cut.rest().len() / EVENT_BYTES).min(MAX_BATCH_EVENTS);
    let mut batch = RawBatch {
        tag: ClientFrame::Batch,
        stream: stream?,
        first: first?,
        sent: sent?,
        token,
        ctx: ctx.unwrap_or_default(),
        evicted: evicted.unwrap_or_default(),
        events: Vec::with_capacity(guess),
        read: Vec::with_capacity(guess),
    };
    cut.events(&mut batch)?;
    (cut.rest() == "}").then_some(batch)
}

/// A position in a text.
struct Cut<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cut<'a> {
    fn events(&mut self, batch: &mut RawBatch<'a>) -> Option<()> {
        self.byte(b'[')?;
        if self.byte(b']').is_some() {
            return Some(());
        }
        loop {
            // More are refused: they are not worth their memory.
            (batch.events.len() < MAX_BATCH_EVENTS).then_some(())?;
            let begin = self.at;
            let read = self.event();
            if read.is_none() {
                self.at = begin;
                self.skip_value()?;
            }
            batch.events.push(&self.text[begin..self.at]);
            batch.read.push(read);
            if self.byte(b',').is_none() {
                return self.byte(b']');
            }
        }
    }

    fn event(&mut self) -> Option<RawEvent<'a>> {
        let (mut k, mut at, mut u, mut p, mut d, mut s, mut pv) = Default::default();
        let (mut r, mut t, mut n) = Default::default();
        self.byte(b'{')?;
        loop {
            match self.key()? {
                "k" => once(&mut k, kind(self.string()?)?)?,
                "at" => once(&mut at, self.whole()?)?,
                "u" => once(&mut u, Text::Plain(self.string()?))?,
                "r" => once(&mut r, Text::Plain(self.string()?))?,
                "t" => once(&mut t, Text::Plain(self.string()?))?,
                "n" => once(&mut n, Text::Plain(self.string()?))?,
                "p" => once(&mut p, self.props()?)?,
                "d" => once(&mut d, u32::try_from(self.whole()?).ok()?)?,
                "s" => once(&mut s, u8::try_from(self.whole()?).ok()?)?,
                "pv" => once(&mut pv, u32::try_from(self.whole()?).ok()?)?,
                _ => return None,
            }
            if self.byte(b',').is_none() {
                break;
            }
        }
        self.byte(b'}')?;
        Some(RawEvent { k: k?, at: at?, u: u?, r, t, n, p: p.unwrap_or_default(), d, s, pv })
    }

    fn props(&mut self) -> Option<RawProps<'a>> {
        self.byte(b'{')?;
        let mut props = RawProps::default();
        if self.byte(b'}').is_some() {
            return Some(props);
        }
        loop {
            let key = Text::Plain(self.key()?);
            let value = match self.peek()? {
                b'"' => RawProp::Text(Text::Plain(self.string()?)),
                b't' => self.literal("true").map(|()| RawProp::Bool(true))?,
                b'f' => self.literal("false").map(|()| RawProp::Bool(false))?,
                _ => RawProp::Number(self.number()?),
            };
            props.push(key, value);
            if self.byte(b',').is_none() {
                break;
            }
        }
        self.byte(b'}')?;
        props.sort();
        Some(props)
    }

    fn context(&mut self) -> Option<PageContext> {
        self.byte(b'{')?;
        let mut context = PageContext::default();
        if self.byte(b'}').is_some() {
            return Some(context);
        }
        loop {
            match self.key()? {
                "w" => once(&mut context.w, u32::try_from(self.whole()?).ok()?)?,
                "l" => once(&mut context.l, self.string()?.to_owned())?,
                "z" => once(&mut context.z, self.string()?.to_owned())?,
                _ => return None,
            }
            if self.byte(b',').is_none() {
                break;
            }
        }
        self.byte(b'}')?;
        Some(context)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn byte(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn literal(&mut self, literal: &str) -> Option<()> {
        self.rest().starts_with(literal).then(|| self.at += literal.len())
    }

    fn key(&mut self) -> Option<&'a str> {
        let key = self.string()?;
        self.byte(b':')?;
        Some(key)
    }

    /// A text without escapes.
    fn string(&mut self) -> Option<&'a str> {
        self.byte(b'"')?;
        let begin = self.at;
        self.at += plain_span(&self.text.as_bytes()[begin..]);
        let end = self.at;
        self.byte(b'"')?;
        Some(&self.text[begin..end])
    }

    /// A whole number of up to 18 digits, written plainly.
    fn whole(&mut self) -> Option<i64> {
        let sign = if self.byte(b'-').is_some() { -1 } else { 1 };
        let digits = &self.text.as_bytes()[self.at..];
        let count = digits.iter().position(|byte| !byte.is_ascii_digit())?;
        // -0 is no whole number in JSON, and 01 is none at all.
        let plain = match digits[0] {
            b'0' => count == 1 && sign == 1,
            _ => (1..=18).contains(&count),
        };
        if !plain || matches!(digits[count], b'.' | b'e' | b'E') {
            return None;
        }
        self.at += count;
        Some(sign * digits[..count].iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
    }

    fn number(&mut self) -> Option<Number> {
        let begin = self.at;
        if let Some(whole) = self.whole() {
            return Some(whole.into());
        }
        self.at = begin;
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let count = self.rest().bytes().position(|byte| !is_part(&byte))?;
        self.at += count;
        // By the same parser as everything else: another one may round differently.
        serde_json::from_str(&self.text[begin..self.at]).ok()
    }

    fn skip_value(&mut self) -> Option<()> {
        let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter::<&RawValue>();
        values.next()?.ok()?;
        self.at += values.byte_offset();
        Some(())
    }
}

fn once<T>(field: &mut Option<T>, value: T) -> Option<()> {
    field.replace(value).is_none().then_some(())
}

fn kind(text: &str) -> Option<EventKind> {
    [EventKind::PageView, EventKind::Engagement, EventKind::Custom]
        .into_iter()
        .find(|kind| kind.as_str() == text)
}

/// How many bytes come before the first quote, backslash or control character. Eight at a time (Hacker's Delight §6-1):
/// the lowest mark is always a true one.
fn plain_span(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const TOPS: u64 = ONES << 7;
    let zero_bytes = |word: u64| word.wrapping_sub(ONES) & !word & TOPS;
    let mut at = 0;
    while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*eight);
        let control = word.wrapping_sub(ONES * 0x20) & !word & TOPS;
        let marks = zero_bytes(word ^ (ONES * u64::from(b'"')))
            | zero_bytes(word ^ (ONES * u64::from(b'\\')))
            | control;
        if marks != 0 {
            return at + (marks.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let is_plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    at + bytes[at..].iter().position(|byte| !is_plain(byte)).unwrap_or(bytes.len() - at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    const HEAD: &str = r#"{"t":"batch","stream":"01a315e46800a1b2c3d4e5f6","first":3,"sent":61250,"#;

    /// What is cut by hand is what serde_json reads; how many events were.
    fn agrees(text: &str) -> Option<usize> {
        let cut = batch(text)?;
        let read: RawBatch<'_> = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let head = |batch: &RawBatch<'_>| {
            (batch.stream, batch.first, batch.sent, batch.token.clone(), batch.ctx.clone(), batch.evicted)
        };
        assert_eq!(head(&cut), head(&read));
        assert_eq!(cut.events, read.events);
        assert_eq!(cut.read.len(), cut.events.len());
        for (json, event) in cut.events.iter().zip(&cut.read) {
            if let Some(event) = event {
                assert_eq!(event, &serde_json::from_str::<RawEvent<'_>>(json).expect(json), "{json}");
            }
        }
        Some(cut.read.iter().flatten().count())
    }

    #[test]
    fn the_golden_batch_is_cut() {
        let golden = include_str!("../../schemas/golden/batch.json").trim_end();
        assert_eq!(agrees(golden), Some(3));
        let with_all = golden
            .replace(r#""ctx""#, r#""token":"abc","ctx""#)
            .replace(r#","events""#, r#","evicted":7,"events""#);
        assert_eq!(agrees(&with_all), Some(3));
    }

    #[rstest]
    #[case::escape(r#"{"k":"view","at":1,"u":"https:\/\/a"}"#)]
    #[case::null(r#"{"k":"view","at":1,"u":"u","r":null}"#)]
    #[case::space(r#"{"k":"view", "at":1,"u":"u"}"#)]
    #[case::newer(r#"{"k":"view","at":1,"u":"u","zz":[{"}":"]"}]}"#)]
    #[case::twice(r#"{"k":"view","at":1,"at":1,"u":"u"}"#)]
    #[case::fraction(r#"{"k":"view","at":1.5,"u":"u"}"#)]
    #[case::exponent(r#"{"k":"view","at":1e2,"u":"u"}"#)]
    #[case::minus_zero(r#"{"k":"view","at":-0,"u":"u"}"#)]
    #[case::long(r#"{"k":"view","at":1234567890123456789,"u":"u"}"#)]
    #[case::missing(r#"{"k":"view","at":1}"#)]
    #[case::kind(r#"{"k":"click","at":1,"u":"u"}"#)]
    #[case::range(r#"{"k":"view","at":1,"u":"u","s":256}"#)]
    #[case::prop_object(r#"{"k":"view","at":1,"u":"u","p":{"a":{}}}"#)]
    #[case::prop_infinite(r#"{"k":"view","at":1,"u":"u","p":{"a":1e400}}"#)]
    #[case::empty("{}")]
    #[case::text(r#""}],""#)]
    #[case::number("7")]
    fn an_unusual_event_is_left_and_its_siblings_are_cut(#[case] event: &str) {
        let good = r#"{"k":"view","at":1,"u":"u"}"#;
        assert_eq!(agrees(&format!(r#"{HEAD}"events":[{good},{event},{good}]}}"#)), Some(2));
    }

    #[rstest]
    #[case::space(format!(r#"{HEAD} "events":[]}}"#))]
    #[case::end(format!(r#"{HEAD}"events":[]}} "#))]
    #[case::behind(format!(r#"{HEAD}"events":[],"evicted":1}}"#))]
    #[case::newer(format!(r#"{HEAD}"zz":1,"events":[]}}"#))]
    #[case::twice(format!(r#"{HEAD}"first":3,"events":[]}}"#))]
    #[case::nested(format!(r#"{HEAD}"zz":{{"events":[]}}}}"#))]
    #[case::broken(format!(r#"{HEAD}"events":[{{"k":}}]}}"#))]
    #[case::open(format!(r#"{HEAD}"events":["#))]
    #[case::no_stream(r#"{"t":"batch","first":3,"sent":1,"events":[]}"#.to_owned())]
    #[case::many(format!(r#"{HEAD}"events":[{}]}}"#, vec!["1"; 257].join(",")))]
    fn an_unusual_batch_is_left(#[case] text: String) {
        assert!(batch(&text).is_none());
    }

    #[test]
    fn the_end_of_a_text_is_found_at_each_place() {
        for length in 0..40 {
            for end in [b'"', b'\\', 0x1f, b'\n', 0] {
                let mut bytes = vec![0xc3; length];
                bytes.push(end);
                bytes.extend_from_slice(b"\"\\behind it");
                assert_eq!(plain_span(&bytes), length);
            }
        }
        let plain: Vec<u8> = (0x20..=0xff).filter(|byte| *byte != b'"' && *byte != b'\\').collect();
        assert_eq!(plain_span(&plain), plain.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_048))]

        #[test]
        fn both_ways_agree_on_events(
            events in proptest::collection::vec(
                "\\{\"k\":\"(view|custom)\",\"at\":-?[0-9]{1,3}(\\.5)?,\"u\":\"[!a-z\\\\/nu0é]{0,4}\"(,\"[rtnpd]\":(\"[ -~]{0,3}\"|[0-9]{1,2}|null|\\{(\"[ab]\":(-?[0-9.e]{1,6}|true|\"x\"),){0,2}\"b\":false\\}))?\\}",
                0..4,
            )
        ) {
            agrees(&format!(r#"{HEAD}"events":[{}]}}"#, events.join(",")));
        }

        #[test]
        fn both_ways_agree_on_a_mangled_batch(at in 0usize..900, byte in any::<u8>()) {
            let mut bytes = include_str!("../../schemas/golden/batch.json").trim_end().as_bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(text) = std::str::from_utf8(&bytes) {
                agrees(text);
            }
        }

        #[test]
        fn a_number_is_the_same_by_both_ways(number in any::<f64>(), whole in any::<i64>()) {
            for number in [serde_json::json!(number), serde_json::json!(whole)] {
                let event = format!(r#"{{"k":"view","at":1,"u":"u","p":{{"a":{number}}}}}"#);
                prop_assert_eq!(agrees(&format!(r#"{HEAD}"events":[{event}]}}"#)), Some(usize::from(!number.is_null())));
            }
        }
    }
}
