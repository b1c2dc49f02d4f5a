//! What synthetic visitors do: a function of the seed, so that a run can be repeated.

use footfall_schemas::{EventKind, StreamId, TrackerEvent, event::PropValue, tracker::PageContext};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

const PAGES: &[(&str, &str)] = &[
    ("/", "Home"),
    ("/", "Home"),
    ("/pricing", "Pricing"),
    ("/shop", "Shop"),
    ("/shop/lamp", "Lamp"),
    ("/shop/chair", "Chair"),
    ("/blog", "Blog"),
    ("/blog/measuring-what-matters", "Measuring what matters"),
    ("/docs/install", "Install"),
    ("/about", "About"),
];
const REFERRERS: &[Option<&str>] = &[
    None,
    None,
    Some("https://www.google.com/"),
    Some("https://duckduckgo.com/"),
    Some("https://news.ycombinator.com/item"),
    Some("https://www.reddit.com/r/webdev"),
    Some("https://github.com/"),
];
const CAMPAIGNS: &[&str] = &["", "", "", "", "?utm_source=newsletter&utm_medium=email&utm_campaign=autumn"];
const ZONES: &[(&str, &str)] = &[
    ("Europe/Berlin", "de-DE"),
    ("Europe/Berlin", "de-DE"),
    ("America/New_York", "en-US"),
    ("America/Los_Angeles", "en-US"),
    ("Europe/London", "en-GB"),
    ("Europe/Paris", "fr-FR"),
    ("Asia/Tokyo", "ja-JP"),
    ("Asia/Kolkata", "en-IN"),
    ("America/Sao_Paulo", "pt-BR"),
    ("Australia/Sydney", "en-AU"),
];
/// User agents with the CSS widths that go with them.
const AGENTS: &[(&str, u32)] = &[
    (
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
        1920,
    ),
    (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
        1536,
    ),
    ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:142.0) Gecko/20100101 Firefox/142.0", 1920),
    (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
        1440,
    ),
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
        390,
    ),
    (
        "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36",
        412,
    ),
];
const COLOURS: &[&str] = &["blue", "green", "red"];

/// One visitor's page load: who it is, and what it does next.
#[derive(Debug)]
pub(super) struct Plan {
    random: StdRng,
    pub(super) stream: StreamId,
    pub(super) context: PageContext,
    pub(super) user_agent: String,
    origin: String,
    page: (&'static str, &'static str),
    view: u32,
}

impl Plan {
    /// `visit` numbers the page loads of a run; each is another visitor. The stream is the seed's, its page-load time
    /// `now_ms` is not: two runs with one seed send different ids.
    pub(super) fn new(seed: u64, visit: u64, now_ms: u64, origin: &str) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ visit.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let (zone, language) = *ZONES.choose(&mut random).expect("the table is not empty");
        let (agent, width) = *AGENTS.choose(&mut random).expect("the table is not empty");
        Self {
            stream: StreamId::from_parts(now_ms, random.random()),
            context: PageContext { w: Some(width), l: Some(language.into()), z: Some(zone.into()) },
            // Visitors are told apart by IP and user agent; all of a run share the IP.
            user_agent: format!("{agent} Footfall-Load/{seed}.{visit}"),
            origin: origin.to_owned(),
            page: PAGES[0],
            view: 0,
            random,
        }
    }

    /// Path of the page that the visitor looks at.
    pub(super) fn path(&self) -> &'static str {
        self.page.0
    }

    pub(super) fn next_event(&mut self, sequence: u32, at_ms: i64) -> TrackerEvent {
        let mut event = TrackerEvent {
            k: EventKind::PageView,
            at: at_ms,
            u: String::new(),
            r: None,
            t: None,
            n: None,
            p: Default::default(),
            d: None,
            s: None,
            pv: None,
        };
        // The first event of a page load is a view.
        match if self.view == 0 { 0 } else { self.random.random_range(0..10) } {
            0..=5 => {
                self.page = *PAGES.choose(&mut self.random).expect("the table is not empty");
                let campaign =
                    if self.view == 0 { CAMPAIGNS.choose(&mut self.random).copied() } else { None };
                event.u = format!("{}{}{}", self.origin, self.page.0, campaign.unwrap_or(""));
                event.r = if self.view == 0 {
                    REFERRERS.choose(&mut self.random).copied().flatten().map(Into::into)
                } else {
                    None
                };
                event.t = Some(self.page.1.into());
                self.view = sequence;
            }
            6..=7 => {
                event.k = EventKind::Engagement;
                event.d = Some(self.random.random_range(500..60_000));
                event.s = Some(self.random.random_range(0..=100));
            }
            _ => {
                event.k = EventKind::Custom;
                event.n = Some(if self.random.random_bool(0.7) { "add_to_cart" } else { "signup" }.into());
                let colour = *COLOURS.choose(&mut self.random).expect("the table is not empty");
                event.p.insert("colour".into(), PropValue::Text(colour.into()));
                event
                    .p
                    .insert("quantity".into(), PropValue::Number(self.random.random_range(1..5u32).into()));
            }
        }
        if event.k != EventKind::PageView {
            event.u = format!("{}{}", self.origin, self.page.0);
            event.pv = Some(self.view);
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(seed: u64, visit: u64) -> Vec<TrackerEvent> {
        let mut plan = Plan::new(seed, visit, 1, "https://example.com");
        (1..50).map(|seq| plan.next_event(seq, 0)).collect()
    }

    #[test]
    fn a_seed_repeats_its_visits_and_visits_differ() {
        assert_eq!(events(7, 1), events(7, 1));
        assert_ne!(events(7, 1), events(7, 2));
        assert_ne!(events(7, 1), events(8, 1));
    }

    #[test]
    fn a_visit_starts_with_a_view() {
        assert!((0..100).all(|visit| events(1, visit)[0].k == EventKind::PageView));
    }
}
