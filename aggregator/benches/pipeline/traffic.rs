//! Made-up traffic as it lies on Kafka: sites of unequal size, visitors who look at some pages a visit, popular and
//! rare paths. The same seed makes the same events.

use footfall_schemas::{
    EventId, EventKind, EventRecord, Sequence, SiteId, StreamId, VisitorId, record::partition_for,
    time::Clock,
};

/// Ids of visitors are spread by this, as those of ingest are by its hash.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Size {
    #[arg(long, default_value_t = 50)]
    pub sites: usize,
    #[arg(long, default_value_t = 20_000)]
    pub visitors: usize,
    /// Paths of each site
    #[arg(long, default_value_t = 500)]
    pub paths: usize,
}

pub struct Traffic {
    random: Random,
    visitors: Vec<Visitor>,
    paths: Vec<String>,
    path: Zipf,
}

struct Visitor {
    site: SiteId,
    id: VisitorId,
    profile: usize,
    stream: StreamId,
    sequence: u32,
    page_view: u32,
    path: usize,
}

/// Browser, system, device, screen width, country, language, time zone.
type Profile = (&'static str, &'static str, &'static str, u16, &'static str, &'static str, &'static str);

const PROFILES: [Profile; 12] = [
    ("Chrome", "Windows", "desktop", 1920, "US", "en-US", "America/New_York"),
    ("Chrome", "Android", "mobile", 412, "IN", "en-IN", "Asia/Kolkata"),
    ("Safari", "iOS", "mobile", 390, "US", "en-US", "America/Los_Angeles"),
    ("Safari", "macOS", "desktop", 1512, "GB", "en-GB", "Europe/London"),
    ("Firefox", "Linux", "desktop", 2560, "DE", "de-DE", "Europe/Berlin"),
    ("Edge", "Windows", "desktop", 1536, "FR", "fr-FR", "Europe/Paris"),
    ("Chrome", "Windows", "desktop", 1366, "BR", "pt-BR", "America/Sao_Paulo"),
    ("Chrome", "macOS", "desktop", 1440, "DE", "de-DE", "Europe/Berlin"),
    ("Samsung Internet", "Android", "mobile", 360, "KR", "ko-KR", "Asia/Seoul"),
    ("Safari", "iOS", "tablet", 820, "JP", "ja-JP", "Asia/Tokyo"),
    ("Opera", "Windows", "desktop", 1680, "PL", "pl-PL", "Europe/Warsaw"),
    ("Firefox", "Android", "mobile", 393, "ES", "es-ES", "Europe/Madrid"),
];
const REFERRERS: [(&str, &str, &str); 6] = [
    ("", "", "direct"),
    ("https://www.google.com/", "google.com", "search"),
    ("https://duckduckgo.com/", "duckduckgo.com", "search"),
    ("https://news.ycombinator.com/item", "news.ycombinator.com", "referral"),
    ("https://old.reddit.com/r/rust/comments/1a2b3c", "old.reddit.com", "social"),
    ("https://t.co/abcdef", "t.co", "social"),
];
const CAMPAIGNS: [&str; 3] = ["spring sale", "newsletter-07", "launch"];
const CUSTOM: [&str; 5] = ["signup", "add to cart", "purchase", "download", "outbound click"];
const SECTIONS: [&str; 4] = ["blog", "docs", "shop/items", "help"];

impl Traffic {
    pub fn new(seed: u64, size: Size) -> Self {
        let mut random = Random(seed);
        let site = Zipf::new(size.sites);
        let sites: Vec<SiteId> = (0..size.sites)
            .map(|number| SiteId::try_from(format!("site-{number}").as_str()).unwrap())
            .collect();
        let visitors = (0..size.visitors as u64).map(|number| Visitor {
            site: sites[site.draw(&mut random)].clone(),
            id: VisitorId((number + 1).wrapping_mul(SPREAD)),
            profile: random.below(PROFILES.len()),
            stream: StreamId::from_parts(0, 0),
            sequence: 0,
            page_view: 0,
            path: 0,
        });
        let visitors = visitors.collect();
        let paths =
            (0..size.paths).map(|number| format!("/{}/a-page-about-topic-{number}", SECTIONS[number % 4]));
        Self { random, visitors, paths: paths.collect(), path: Zipf::new(size.paths) }
    }

    /// The next event, received at `at` (ms since 1970).
    pub fn event(&mut self, at: i64) -> EventRecord {
        let random = &mut self.random;
        let index = random.below(self.visitors.len());
        let visitor = &mut self.visitors[index];
        // A page load is a stream; one in six events begins one.
        let loads = visitor.sequence == 0 || random.below(6) == 0;
        if loads {
            visitor.stream = StreamId::from_parts(at as u64, random.next());
            visitor.sequence = 0;
        }
        visitor.sequence += 1;
        let kind = match random.below(10) {
            _ if loads => EventKind::PageView,
            0..=4 => EventKind::PageView,
            5..=8 => EventKind::Engagement,
            _ => EventKind::Custom,
        };
        let views = kind == EventKind::PageView;
        if views {
            visitor.page_view = visitor.sequence;
            visitor.path = self.path.draw(random);
        }
        let path = visitor.path;
        let (referrer, referrer_host, channel) = match kind {
            EventKind::PageView if loads => REFERRERS[random.below(REFERRERS.len())],
            EventKind::PageView => ("", "", "internal"),
            _ => ("", "", ""),
        };
        let campaign = if loads && random.below(12) == 0 { CAMPAIGNS[random.below(3)] } else { "" };
        let (browser, system, device, screen_width, country, language, time_zone) = PROFILES[visitor.profile];
        let text = str::to_owned;
        EventRecord {
            event_id: EventId::new(visitor.stream, Sequence::new(visitor.sequence).unwrap()),
            site: visitor.site.clone(),
            visitor: visitor.id,
            kind,
            event_time: at - random.below(400) as i64,
            received_at: at,
            clock: Clock::Told,
            name: if kind == EventKind::Custom {
                text(CUSTOM[random.below(CUSTOM.len())])
            } else {
                String::new()
            },
            host: format!("www.{}.example", visitor.site.as_str()),
            path: self.paths[path].clone(),
            title: if views {
                format!("A page about topic {path} | {}", visitor.site.as_str())
            } else {
                String::new()
            },
            referrer: text(referrer),
            referrer_host: text(referrer_host),
            channel: text(channel),
            utm_source: if campaign.is_empty() { String::new() } else { text("mail") },
            utm_medium: if campaign.is_empty() { String::new() } else { text("email") },
            utm_campaign: text(campaign),
            utm_term: String::new(),
            utm_content: String::new(),
            country: text(country),
            region: String::new(),
            city: String::new(),
            language: text(language),
            time_zone: text(time_zone),
            browser: text(browser),
            system: text(system),
            device: text(device),
            screen_width,
            engaged_ms: if kind == EventKind::Engagement { random.below(30_000) as u32 } else { 0 },
            scroll_depth: if kind == EventKind::Engagement { random.below(101) as u8 } else { 0 },
            page_view: if views { 0 } else { visitor.page_view },
            props: match kind {
                EventKind::Custom => [
                    ("plan".to_owned(), ["free", "team", "business"][random.below(3)].to_owned()),
                    ("value".to_owned(), random.below(500).to_string()),
                ]
                .into(),
                _ => Default::default(),
            },
            payload_hash: random.next(),
        }
    }
}

/// Packs events into records, as a batcher does: some events of one partition a record.
pub struct Packer {
    random: Random,
    open: Vec<Open>,
}

#[derive(Clone)]
struct Open {
    at: i64,
    value: Vec<u8>,
    events: usize,
    most: usize,
}

/// A record's value, its partition and how many events lie in it.
pub struct Packed {
    pub partition: i32,
    /// When its last event was received, ms since 1970.
    pub at: i64,
    pub value: Vec<u8>,
    pub events: usize,
}

impl Packer {
    pub fn new(seed: u64, partitions: usize) -> Self {
        Self {
            random: Random(seed),
            open: vec![Open { at: 0, value: Vec::new(), events: 0, most: 32 }; partitions],
        }
    }

    /// The record that this event fills, if it does.
    pub fn add(&mut self, event: &EventRecord) -> Option<Packed> {
        let partition = partition_for(&event.site, event.visitor, self.open.len() as u32);
        let open = &mut self.open[partition as usize];
        serde_json::to_writer(&mut open.value, event).unwrap();
        open.value.push(b'\n');
        open.events += 1;
        open.at = event.received_at;
        (open.events >= open.most).then(|| self.take(partition))
    }

    /// What is begun and not full.
    pub fn rest(&mut self) -> Vec<Packed> {
        let begun = (0..self.open.len()).filter(|partition| self.open[*partition].events > 0);
        begun.collect::<Vec<_>>().into_iter().map(|partition| self.take(partition as i32)).collect()
    }

    fn take(&mut self, partition: i32) -> Packed {
        let most = 16 + self.random.below(49);
        let next = Open { at: 0, value: Vec::with_capacity(most * 600), events: 0, most };
        let full = std::mem::replace(&mut self.open[partition as usize], next);
        Packed { partition, at: full.at, value: full.value, events: full.events }
    }
}

/// Numbers below `n`, the k-th with a weight of 1/(k + 1).
struct Zipf {
    sums: Vec<f64>,
}

impl Zipf {
    fn new(n: usize) -> Self {
        let mut sum = 0.0;
        let sums = (1..=n).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        Self { sums: sums.collect() }
    }

    fn draw(&self, random: &mut Random) -> usize {
        let share = random.next() as f64 / u64::MAX as f64;
        let wanted = share * self.sums.last().unwrap();
        self.sums.partition_point(|sum| *sum < wanted).min(self.sums.len() - 1)
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(SPREAD);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}
