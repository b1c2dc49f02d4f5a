//! Frames of the live feed: what the client reads of each, and a recording that is published again elsewhere.

use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

/// Where the numbers stand, at the latest.
const HEAD: usize = 512;
const SEQ: &[u8] = br#""seq":"#;
const NOW: &[u8] = br#""now":"#;

/// The number of a change, and when it was made (ms since 1970).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub seq: u64,
    pub now: i64,
}

impl Stamp {
    /// `None`: no change.
    pub fn of(message: &[u8]) -> Option<Self> {
        let head = &message[..message.len().min(HEAD)];
        let number = |key| {
            let digits = head[end_of(head, key)?..].iter().take_while(|byte| byte.is_ascii_digit());
            Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
        };
        Some(Self { seq: number(SEQ)?, now: number(NOW)?.try_into().ok()? })
    }
}

fn end_of(text: &[u8], key: &[u8]) -> Option<usize> {
    Some(text.windows(key.len()).position(|window| window == key)? + key.len())
}

/// Changes that were recorded, to be published with other numbers and times.
#[derive(Debug)]
pub struct Recording(Vec<Parts>);

/// What stands before, between and behind the two numbers.
#[derive(Debug)]
struct Parts([String; 3]);

impl Recording {
    /// A change a line.
    pub fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap();
        let parts: Vec<_> = text.lines().map(Parts::of).collect();
        assert!(!parts.is_empty(), "{}: nothing was recorded", file.display());
        Self(parts)
    }

    /// The change that is numbered `stamp.seq`; after the last comes the first again.
    pub fn change(&self, stamp: Stamp) -> String {
        let Parts([before, between, behind]) = &self.0[stamp.seq as usize % self.0.len()];
        format!("{before}{}{between}{}{behind}", stamp.seq, stamp.now)
    }
}

impl Parts {
    fn of(change: &str) -> Self {
        let at = |key| end_of(change.as_bytes(), key).unwrap();
        let digits = |from: usize| change[from..].bytes().take_while(u8::is_ascii_digit).count();
        let (seq, now) = (at(SEQ), at(NOW));
        let (seq_end, now_end) = (seq + digits(seq), now + digits(now));
        Self([&change[..seq], &change[seq_end..now], &change[now_end..]].map(str::to_owned))
    }
}

pub fn wall() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1_000.0
}
