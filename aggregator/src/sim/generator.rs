//! A log from a seed: several sites, visitors and streams; resends, late and out-of-order events, wrong clocks, long
//! silences, lines and records that cannot be read.

use footfall_schemas::{
    EventId, EventKind, EventRecord, Sequence, SiteId, StreamId, VisitorId, time::MINUTE_MS,
};

use crate::ports::RawRecord;

/// Where the log begins in time.
pub(super) const BEGAN: i64 = 1_800_000_000_000;

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `n` − 1.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

struct Stream {
    site: SiteId,
    visitor: VisitorId,
    id: StreamId,
    next: u32,
}

pub(super) fn records(rng: &mut Rng) -> Vec<RawRecord> {
    let sites = ["a", "b"].map(|key| SiteId::try_from(key).unwrap());
    let mut now = BEGAN;
    let mut streams: Vec<Stream> = Vec::new();
    let mut sent: Vec<EventRecord> = Vec::new();
    let count = 30 + rng.below(90) as i64;
    (0..count)
        .map(|offset| {
            now += match rng.below(30) {
                0 => 40 * MINUTE_MS as u64,
                1..=4 => rng.below(3 * MINUTE_MS as u64),
                _ => rng.below(9_000),
            } as i64;
            let lines: Vec<String> =
                (0..1 + rng.below(4)).map(|_| line(rng, now, &sites, &mut streams, &mut sent)).collect();
            let value = if rng.percent(1) { String::new() } else { lines.join("\n") };
            RawRecord { offset, timestamp: now, value: value.into_bytes(), trace: None }
        })
        .collect()
}

fn line(
    rng: &mut Rng,
    now: i64,
    sites: &[SiteId; 2],
    streams: &mut Vec<Stream>,
    sent: &mut Vec<EventRecord>,
) -> String {
    if rng.percent(2) {
        return ["not json", "{\"site\":\"a\"}", "\u{0}", "{\"site\":\"nobody\",\"event_id\":7}"]
            [rng.below(4) as usize]
            .into();
    }
    // A node whose clock is behind, or ahead.
    let received_at = match rng.below(50) {
        0..=4 => now - rng.below(4_000) as i64,
        5 => now + [1_000, 9_000, 26 * 60 * MINUTE_MS][rng.below(3) as usize],
        _ => now,
    };
    if !sent.is_empty() && rng.percent(25) {
        // A resend says the same, received later; sometimes of something very old.
        let among = if rng.percent(50) { sent.len() } else { sent.len().min(8) };
        let old = sent[sent.len() - 1 - rng.below(among as u64) as usize].clone();
        let age = old.received_at - old.event_time + received_at - old.received_at + rng.below(50) as i64;
        let event = EventRecord { received_at, event_time: received_at - age.max(0), ..old };
        return serde_json::to_string(&event).unwrap();
    }
    if streams.is_empty() || rng.percent(12) {
        let loaded =
            now + [0, 0, 0, -2 * 60 * MINUTE_MS, 300 * MINUTE_MS, 5 * MINUTE_MS][rng.below(6) as usize];
        streams.push(Stream {
            site: sites[rng.below(2) as usize].clone(),
            visitor: VisitorId(rng.below(8)),
            id: StreamId::from_parts(loaded as u64, rng.next()),
            next: 1,
        });
    }
    let among = if rng.percent(20) { streams.len() } else { streams.len().min(4) };
    let index = streams.len() - 1 - rng.below(among as u64) as usize;
    let stream = &mut streams[index];
    if rng.percent(5) {
        // Evicted from the tracker's outbox: never sent.
        stream.next += rng.below(3) as u32;
    }
    let id = EventId::new(stream.id, Sequence::new(stream.next).unwrap());
    stream.next += 1;
    let age = match rng.below(20) {
        0 => rng.below(3 * 60 * MINUTE_MS as u64),
        1..=3 => rng.below(2 * MINUTE_MS as u64),
        _ => rng.below(3_000),
    } as i64;
    let kind = [EventKind::PageView, EventKind::PageView, EventKind::Engagement, EventKind::Custom]
        [rng.below(4) as usize];
    let golden = include_str!("../../../schemas/golden/event_record.json");
    let event = EventRecord {
        event_id: id,
        site: stream.site.clone(),
        visitor: stream.visitor,
        kind,
        event_time: received_at - age,
        received_at,
        path: format!("/{}", rng.below(7)),
        name: if kind == EventKind::Custom { format!("goal-{}", rng.below(2)) } else { String::new() },
        country: ["", "NL", "PT"][rng.below(3) as usize].into(),
        referrer_host: ["", "news.example"][rng.below(2) as usize].into(),
        engaged_ms: if kind == EventKind::Engagement { rng.below(9_000) as u32 } else { 0 },
        ..serde_json::from_str(golden).unwrap()
    };
    sent.push(event.clone());
    serde_json::to_string(&event).unwrap()
}
