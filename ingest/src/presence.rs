//! Who is on a site now, by open connections.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use footfall_schemas::{VisitorId, presence::LINGER_MS};
use tokio::time::Instant;

/// Most pages in a report.
const TOP_PAGES: usize = 20;
/// Longest path kept.
const MAX_PATH_BYTES: usize = 512;

/// The visitors of one site on this node.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    visitors: HashMap<VisitorId, Visitor>,
    next_tab: u64,
}

#[derive(Debug, Default)]
struct Visitor {
    tabs: Vec<Tab>,
    /// Of the last tab that closed, kept while lingering: going from page to page does not flicker.
    last: Shown,
    left_at: Option<Instant>,
}

#[derive(Debug)]
struct Tab {
    id: u64,
    shown: Shown,
}

#[derive(Debug, Clone, Default)]
struct Shown {
    path: Option<Arc<str>>,
    visible: bool,
}

/// What a report says of a site.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Census {
    pub(crate) online: u32,
    pub(crate) visible: u32,
    pub(crate) pages: BTreeMap<String, u32>,
}

impl Presence {
    fn enter(&mut self, visitor: VisitorId) -> u64 {
        self.next_tab += 1;
        let entry = self.visitors.entry(visitor).or_default();
        entry.left_at = None;
        entry.tabs.push(Tab { id: self.next_tab, shown: Shown::default() });
        self.next_tab
    }

    fn show(&mut self, visitor: VisitorId, tab: u64, shown: Shown) {
        let Some(entry) = self.visitors.get_mut(&visitor) else { return };
        // Told last, stands last: it is the page that the visitor looks at.
        if let Some(at) = entry.tabs.iter().position(|other| other.id == tab) {
            entry.tabs.remove(at);
            entry.tabs.push(Tab { id: tab, shown });
        }
    }

    fn leave(&mut self, visitor: VisitorId, tab: u64, now: Instant) {
        let Some(entry) = self.visitors.get_mut(&visitor) else { return };
        if let Some(at) = entry.tabs.iter().position(|other| other.id == tab) {
            entry.last = entry.tabs.remove(at).shown;
        }
        if entry.tabs.is_empty() {
            entry.left_at = Some(now);
        }
    }

    /// Forgets who left longer ago than the linger time, and counts the rest.
    pub(crate) fn census(&mut self, now: Instant) -> Census {
        let linger = Duration::from_millis(LINGER_MS.unsigned_abs());
        self.visitors.retain(|_, entry| entry.left_at.is_none_or(|left| now < left + linger));
        let mut census = Census::default();
        let mut pages: HashMap<&str, u32> = HashMap::new();
        for entry in self.visitors.values() {
            census.online += 1;
            let shown = entry.current();
            census.visible += u32::from(shown.visible);
            if let Some(path) = &shown.path {
                *pages.entry(path).or_default() += 1;
            }
        }
        let mut pages: Vec<_> = pages.into_iter().collect();
        pages.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        census.pages = pages.into_iter().take(TOP_PAGES).map(|(path, n)| (path.to_owned(), n)).collect();
        census
    }
}

impl Visitor {
    /// The visible tab told last, else any told last, else what was shown before leaving.
    fn current(&self) -> &Shown {
        let newest_first = || self.tabs.iter().rev().map(|tab| &tab.shown);
        newest_first()
            .find(|shown| shown.visible)
            .or_else(|| newest_first().find(|shown| shown.path.is_some()))
            // A tab that just opened has told nothing yet: the visitor is still where he was.
            .unwrap_or(&self.last)
    }
}

/// One open connection of a visitor; dropped, the visitor leaves.
#[derive(Debug)]
pub(crate) struct Attendance {
    presence: Arc<Mutex<Presence>>,
    visitor: VisitorId,
    tab: u64,
}

impl Attendance {
    pub(crate) fn enter(presence: &Arc<Mutex<Presence>>, visitor: VisitorId) -> Self {
        let tab = lock(presence).enter(visitor);
        Self { presence: Arc::clone(presence), visitor, tab }
    }

    /// The path is shown on the dashboard: without query and fragment, and bounded.
    pub(crate) fn show(&self, path: &str, visible: bool) {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let cut = path.floor_char_boundary(MAX_PATH_BYTES);
        let path = path.starts_with('/').then(|| Arc::from(&path[..cut]));
        lock(&self.presence).show(self.visitor, self.tab, Shown { path, visible });
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        lock(&self.presence).leave(self.visitor, self.tab, Instant::now());
    }
}

/// A std Mutex: no await happens while it is held. Every change under it is whole, so a poisoned one is sound.
fn lock(presence: &Mutex<Presence>) -> std::sync::MutexGuard<'_, Presence> {
    presence.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &str, visible: bool) -> Shown {
        Shown { path: Some(path.into()), visible }
    }

    const ANN: VisitorId = VisitorId(1);
    const BEN: VisitorId = VisitorId(2);

    #[test]
    fn two_tabs_of_a_visitor_count_once_on_the_visible_page() {
        let mut presence = Presence::default();
        let (first, second) = (presence.enter(ANN), presence.enter(ANN));
        presence.show(ANN, first, shown("/a", true));
        presence.show(ANN, second, shown("/b", false));
        let census = presence.census(Instant::now());
        assert_eq!((census.online, census.visible), (1, 1));
        assert_eq!(census.pages, BTreeMap::from([("/a".to_owned(), 1)]));
    }

    #[test]
    fn a_visitor_lingers_for_three_seconds_and_no_longer() {
        let mut presence = Presence::default();
        let now = Instant::now();
        let tab = presence.enter(ANN);
        presence.show(ANN, tab, shown("/a", true));
        presence.leave(ANN, tab, now);
        let lingering = presence.census(now + Duration::from_millis(2_999));
        assert_eq!((lingering.online, lingering.visible, lingering.pages["/a"]), (1, 1, 1));
        assert_eq!(presence.census(now + Duration::from_millis(3_000)), Census::default());
        assert!(presence.visitors.is_empty());
    }

    #[test]
    fn going_to_the_next_page_does_not_flicker() {
        let mut presence = Presence::default();
        let now = Instant::now();
        let tab = presence.enter(ANN);
        presence.show(ANN, tab, shown("/a", true));
        presence.leave(ANN, tab, now);
        let next = presence.enter(ANN);
        assert_eq!(presence.census(now).pages["/a"], 1, "until the new page tells where it is");
        presence.show(ANN, next, shown("/b", true));
        let later = presence.census(now + Duration::from_secs(60));
        assert_eq!((later.online, later.visible), (1, 1));
        assert_eq!(later.pages, BTreeMap::from([("/b".to_owned(), 1)]));
    }

    #[test]
    fn a_report_names_the_twenty_pages_with_most_visitors() {
        let mut presence = Presence::default();
        for visitor in 0..40 {
            let tab = presence.enter(VisitorId(visitor));
            presence.show(VisitorId(visitor), tab, shown(&format!("/{:02}", visitor % 30), true));
        }
        let census = presence.census(Instant::now());
        assert_eq!((census.online, census.pages.len()), (40, 20));
        assert!((0..10).all(|page| census.pages[&format!("/{page:02}")] == 2));
    }

    #[test]
    fn a_path_is_told_without_its_query() {
        let presence = Arc::new(Mutex::new(Presence::default()));
        let attendance = Attendance::enter(&presence, BEN);
        attendance.show("/a?token=secret#x", true);
        assert_eq!(lock(&presence).census(Instant::now()).pages, BTreeMap::from([("/a".to_owned(), 1)]));
        attendance.show("javascript:alert(1)", true);
        assert!(lock(&presence).census(Instant::now()).pages.is_empty());
    }
}
