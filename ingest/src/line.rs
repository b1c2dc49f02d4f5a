//! One event's line of NDJSON, written straight into the batch's buffer.
//!
//! The line holds what [`footfall_schemas::EventRecord`] holds and leaves out what it leaves out, in another order: what
//! is the same for a whole batch comes first and is written once.

use crate::raw::Text;

/// The fields of one JSON object, one after another.
#[derive(Debug)]
pub(crate) struct Fields<'b> {
    out: &'b mut Vec<u8>,
}

impl<'b> Fields<'b> {
    pub(crate) fn new(out: &'b mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Bytes that are JSON as they stand.
    #[inline]
    pub(crate) fn raw(&mut self, json: &str) {
        self.out.extend_from_slice(json.as_bytes());
    }

    /// The lowest `digits` hexadecimal digits, in lower case.
    #[inline]
    pub(crate) fn hex(&mut self, number: u64, digits: u32) {
        let digit = |at: u32| b"0123456789abcdef"[(number >> (4 * at)) as usize & 15];
        self.out.extend((0..digits).rev().map(digit));
    }

    /// `key` is written as it stands, with what belongs around it: `,"title":"`.
    #[inline]
    pub(crate) fn text(&mut self, key: &str, text: &Text<'_>) {
        match text {
            Text::Plain("") => {}
            Text::Plain(text) => self.plain(key, text),
            Text::Decoded(text) => self.escaped(key, text),
        }
    }

    /// Of characters that need no escape.
    #[inline]
    pub(crate) fn plain(&mut self, key: &str, text: &str) {
        self.raw(key);
        self.raw(text);
        self.out.push(b'"');
    }

    /// Of any characters; nothing when empty.
    #[inline]
    pub(crate) fn escaped(&mut self, key: &str, text: &str) {
        if text.is_empty() {
            return;
        }
        self.raw(key);
        self.escape(text);
        self.out.push(b'"');
    }

    /// The inside of a JSON string.
    #[inline]
    pub(crate) fn inner(&mut self, text: &Text<'_>) {
        match text {
            Text::Plain(text) => self.raw(text),
            Text::Decoded(text) => self.escape(text),
        }
    }

    /// The inside of a JSON string.
    pub(crate) fn escape(&mut self, text: &str) {
        if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
            return self.raw(text);
        }
        let at = self.out.len();
        serde_json::to_writer(&mut *self.out, text).expect("a text serialises, and a Vec takes it");
        self.out.pop();
        self.out.remove(at);
    }

    #[inline]
    pub(crate) fn number(&mut self, key: &str, number: impl itoa::Integer) {
        self.raw(key);
        self.raw(itoa::Buffer::new().format(number));
    }

    /// As serde_json writes it.
    pub(crate) fn json_number(&mut self, number: &serde_json::Number) {
        match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => self.raw(itoa::Buffer::new().format(number)),
            (_, Some(number)) => self.raw(itoa::Buffer::new().format(number)),
            _ => serde_json::to_writer(&mut *self.out, number)
                .expect("a number serialises, and a Vec takes it"),
        }
    }

    /// Nothing for 0.
    #[inline]
    pub(crate) fn count(&mut self, key: &str, count: u32) {
        if count != 0 {
            self.number(key, count);
        }
    }
}
