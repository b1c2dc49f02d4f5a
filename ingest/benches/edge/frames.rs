//! Batches as trackers send them, made once; a send patches stream and sequence into a copy and masks it.

use footfall_schemas::{EventKind, StreamId, TrackerEvent, event::PropValue};
use serde_json::json;

/// Ten digits from the first sequence to the last, so that a patch never changes the length.
pub const FIRST_SEQUENCE: u32 = 1_000_000_000;
const STREAM_PLACE: &str = "000000000000000000000000";
/// Distinct batches. More than the node could keep in its first-level cache.
const BATCHES: usize = 256;

pub const SITES: [&str; 4] = ["shop", "blog", "docs", "app"];
pub const ORIGIN: &str = "https://shop.example";

const PAGES: [(&str, &str); 8] = [
    ("/", "Home | Example shop"),
    ("/pricing", "Pricing | Example shop"),
    ("/shop/lamps/desk-lamp-brass", "Desk lamp, brass | Example shop"),
    ("/shop/chairs/rocking-chair", "Rocking chair | Example shop"),
    ("/blog/2026/measuring-what-matters", "Measuring what matters"),
    ("/docs/install", "Install | Docs"),
    ("/account/orders", "Your orders | Example shop"),
    ("/search", "Search | Example shop"),
];
const REFERRERS: [&str; 5] = [
    "https://www.google.com/",
    "https://duckduckgo.com/",
    "https://news.ycombinator.com/item",
    "https://www.reddit.com/r/webdev",
    "https://github.com/",
];
const CAMPAIGNS: [&str; 3] = [
    "",
    "?utm_source=newsletter&utm_medium=email&utm_campaign=autumn",
    "?utm_source=google&utm_medium=cpc&utm_campaign=lamps",
];
const ZONES: [(&str, &str); 5] = [
    ("Europe/Berlin", "de-DE"),
    ("America/New_York", "en-US"),
    ("Europe/London", "en-GB"),
    ("Asia/Tokyo", "ja-JP"),
    ("America/Sao_Paulo", "pt-BR"),
];
pub const AGENTS: [&str; 6] = [
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:142.0) Gecko/20100101 Firefox/142.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36",
];

/// A batch as text, and where stream and first sequence stand in it.
#[derive(Debug)]
pub struct Batch {
    text: Vec<u8>,
    stream_at: usize,
    first_at: usize,
}

/// `events` of about 233 bytes in each.
pub fn batches(events: u32) -> Vec<Batch> {
    (0..BATCHES).map(|number| Batch::new(number, events)).collect()
}

/// Mean bytes of an event.
pub fn event_bytes() -> usize {
    let total: usize = (0..BATCHES).map(|number| serde_json::to_string(&event(number)).unwrap().len()).sum();
    total / BATCHES
}

impl Batch {
    fn new(number: usize, events: u32) -> Self {
        let (zone, language) = ZONES[number % ZONES.len()];
        let events: Vec<_> = (0..events as usize).map(|index| event(number * 31 + index)).collect();
        let events = serde_json::to_string(&events).unwrap();
        let context = json!({"w": 1920, "l": language, "z": zone});
        let text = format!(
            r#"{{"t":"batch","stream":"{STREAM_PLACE}","first":{FIRST_SEQUENCE},"sent":65000,"ctx":{context},"events":{events}}}"#
        );
        let place = |what: &str| text.find(what).unwrap();
        Self {
            stream_at: place(STREAM_PLACE),
            first_at: place(&FIRST_SEQUENCE.to_string()),
            text: text.into(),
        }
    }

    /// Appends a masked text frame (RFC 6455 §5.2).
    pub fn append(&self, stream: &StreamId, first: u32, mask: [u8; 4], frame: &mut Vec<u8>) {
        frame.push(0x81);
        match self.text.len() {
            length @ 0..126 => frame.push(0x80 | length as u8),
            length => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            }
        }
        frame.extend_from_slice(&mask);
        let payload = frame.len();
        frame.extend_from_slice(&self.text);
        let payload = &mut frame[payload..];
        hex(stream.as_bytes(), &mut payload[self.stream_at..]);
        decimal(first, &mut payload[self.first_at..self.first_at + 10]);
        apply(mask, payload);
    }
}

fn event(number: usize) -> TrackerEvent {
    let (path, title) = PAGES[number % PAGES.len()];
    let campaign = CAMPAIGNS[number % CAMPAIGNS.len()];
    let mut event = TrackerEvent {
        k: EventKind::PageView,
        at: 60_000 + (number % 5_000) as i64,
        u: format!("{ORIGIN}{path}{campaign}"),
        r: Some(REFERRERS[number % REFERRERS.len()].into()),
        t: Some(title.into()),
        n: None,
        p: Default::default(),
        d: None,
        s: None,
        pv: None,
    };
    event.p.insert("plan".into(), PropValue::Text(["free", "team"][number % 2].into()));
    event.p.insert("cart".into(), PropValue::Number((number % 9).into()));
    event.p.insert("stock".into(), PropValue::Bool(number.is_multiple_of(3)));
    event.p.insert("experiment".into(), PropValue::Text("pricing-b".into()));
    event
}

fn hex(bytes: &[u8], place: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, place) in bytes.iter().zip(place.chunks_exact_mut(2)) {
        place[0] = DIGITS[usize::from(byte >> 4)];
        place[1] = DIGITS[usize::from(byte & 15)];
    }
}

fn decimal(mut number: u32, place: &mut [u8]) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn apply(mask: [u8; 4], payload: &mut [u8]) {
    let wide = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let word = u64::from_ne_bytes(chunk.try_into().unwrap()) ^ wide;
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    chunks.into_remainder().iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}
