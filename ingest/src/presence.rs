//! Who is on a site now, by open connections.
//!
//! Counted when something changes, so that the report once a second costs what the site has pages, not what it has
//! visitors. An open connection costs some 60 bytes here.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use footfall_schemas::{VisitorId, presence::LINGER_MS};
use slab::Slab;
use tokio::time::Instant;

/// Most pages in a report.
const TOP_PAGES: usize = 20;
/// Longest path kept.
const MAX_PATH_BYTES: usize = 512;

/// No tab, no page.
const NONE: u32 = u32::MAX;

/// The visitors of one site on this node.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    visitors: HashMap<VisitorId, Visitor>,
    tabs: Slab<Tab>,
    pages: Pages,
    /// Who left, in the order of leaving. Who came back is here in vain.
    lingering: VecDeque<Lingering>,
    leaves: u32,
    visible: u32,
}

/// An open connection of a visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TabId(u32);

#[derive(Debug)]
struct Visitor {
    /// The tab that told last: it is the page that the visitor looks at. The others follow by [`Tab::next`].
    newest: u32,
    /// Of the last tab that closed, kept while lingering: going from page to page does not flicker.
    last: Shown,
    /// Which leave this is, while lingering.
    left: Option<u32>,
}

#[derive(Debug)]
struct Tab {
    next: u32,
    shown: Shown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shown {
    page: u32,
    visible: bool,
}

const NOTHING: Shown = Shown { page: NONE, visible: false };

#[derive(Debug)]
struct Lingering {
    until: Instant,
    leave: u32,
    visitor: VisitorId,
}

/// What a report says of a site.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Census {
    pub(crate) online: u32,
    pub(crate) visible: u32,
    pub(crate) pages: BTreeMap<String, u32>,
}

impl Presence {
    /// One more connection of `visitor`. It must [`Presence::leave`].
    pub(crate) fn enter(&mut self, visitor: VisitorId) -> TabId {
        let tab = self.tabs.insert(Tab { next: NONE, shown: NOTHING }) as u32;
        self.change(visitor, |tabs, _, entry| {
            entry.left = None;
            tabs[tab as usize].next = entry.newest;
            entry.newest = tab;
        });
        TabId(tab)
    }

    /// The path is shown on the dashboard: without query and fragment, and bounded.
    pub(crate) fn show(&mut self, visitor: VisitorId, tab: TabId, path: &str, visible: bool) {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let path = &path[..path.floor_char_boundary(MAX_PATH_BYTES)];
        let page = if path.starts_with('/') { self.pages.hold(path) } else { NONE };
        self.change(visitor, |tabs, pages, entry| {
            entry.unlink(tabs, tab.0);
            let shown = std::mem::replace(&mut tabs[tab.0 as usize].shown, Shown { page, visible });
            pages.release(shown.page);
            tabs[tab.0 as usize].next = entry.newest;
            entry.newest = tab.0;
        });
    }

    pub(crate) fn leave(&mut self, visitor: VisitorId, tab: TabId, now: Instant) {
        self.leaves = self.leaves.wrapping_add(1);
        let leave = self.leaves;
        let mut gone = false;
        self.change(visitor, |tabs, pages, entry| {
            entry.unlink(tabs, tab.0);
            let shown = tabs.remove(tab.0 as usize).shown;
            let before = std::mem::replace(&mut entry.last, shown);
            pages.release(before.page);
            gone = entry.newest == NONE;
            entry.left = gone.then_some(leave);
        });
        if gone {
            let until = now + Duration::from_millis(LINGER_MS.unsigned_abs());
            self.lingering.push_back(Lingering { until, leave, visitor });
        }
    }

    /// Forgets who left longer ago than the linger time, and counts the rest.
    pub(crate) fn census(&mut self, now: Instant) -> Census {
        while let Some(front) = self.lingering.front().filter(|front| front.until <= now) {
            let (visitor, leave) = (front.visitor, front.leave);
            self.lingering.pop_front();
            if self.visitors.get(&visitor).is_some_and(|entry| entry.left == Some(leave)) {
                let shown = self.visitors.remove(&visitor).map_or(NOTHING, |entry| entry.last);
                self.count(shown, false);
                self.pages.release(shown.page);
            }
        }
        if self.lingering.is_empty() {
            self.lingering = VecDeque::new();
        }
        Census { online: self.visitors.len() as u32, visible: self.visible, pages: self.pages.top() }
    }

    /// Changes what is known of a visitor, and what is counted of him.
    fn change(&mut self, visitor: VisitorId, change: impl FnOnce(&mut Slab<Tab>, &mut Pages, &mut Visitor)) {
        let entry =
            self.visitors.entry(visitor).or_insert(Visitor { newest: NONE, last: NOTHING, left: None });
        let before = entry.current(&self.tabs);
        // The page is counted on until the change is done: it may be let go meanwhile.
        self.pages.retain(before.page);
        change(&mut self.tabs, &mut self.pages, entry);
        let after = entry.current(&self.tabs);
        self.count(before, false);
        self.count(after, true);
        self.pages.release(before.page);
    }

    fn count(&mut self, shown: Shown, one_more: bool) {
        let step = if one_more { 1 } else { -1 };
        self.visible = self.visible.saturating_add_signed(i32::from(shown.visible) * step);
        self.pages.count(shown.page, step);
    }
}

impl Visitor {
    /// The visible tab told last, else any told last, else what was shown before leaving.
    fn current(&self, tabs: &Slab<Tab>) -> Shown {
        let mut told = None;
        let mut at = self.newest;
        while let Some(tab) = tabs.get(at as usize) {
            if tab.shown.visible {
                return tab.shown;
            }
            told = told.or((tab.shown.page != NONE).then_some(tab.shown));
            at = tab.next;
        }
        // A tab that just opened has told nothing yet: the visitor is still where he was.
        told.unwrap_or(self.last)
    }

    fn unlink(&mut self, tabs: &mut Slab<Tab>, tab: u32) {
        let next = tabs[tab as usize].next;
        if self.newest == tab {
            self.newest = next;
            return;
        }
        let mut at = self.newest;
        while let Some(other) = tabs.get_mut(at as usize) {
            if other.next == tab {
                other.next = next;
                return;
            }
            at = other.next;
        }
    }
}

/// The paths that are shown, each held once.
#[derive(Debug, Default)]
struct Pages {
    ids: HashMap<Arc<str>, u32>,
    pages: Slab<Page>,
}

#[derive(Debug)]
struct Page {
    path: Arc<str>,
    /// How many say that they show or showed it.
    held: u32,
    /// How many visitors are counted on it.
    visitors: u32,
}

impl Pages {
    fn hold(&mut self, path: &str) -> u32 {
        let id = match self.ids.get(path) {
            Some(id) => *id,
            None => {
                let path: Arc<str> = path.into();
                let id = self.pages.insert(Page { path: Arc::clone(&path), held: 0, visitors: 0 }) as u32;
                self.ids.insert(path, id);
                id
            }
        };
        self.retain(id);
        id
    }

    fn retain(&mut self, page: u32) {
        if let Some(page) = self.pages.get_mut(page as usize) {
            page.held += 1;
        }
    }

    fn release(&mut self, page: u32) {
        let Some(entry) = self.pages.get_mut(page as usize) else { return };
        entry.held -= 1;
        if entry.held == 0 {
            let path = self.pages.remove(page as usize).path;
            self.ids.remove(&path);
        }
    }

    fn count(&mut self, page: u32, step: i32) {
        if let Some(page) = self.pages.get_mut(page as usize) {
            page.visitors = page.visitors.saturating_add_signed(step);
        }
    }

    fn top(&self) -> BTreeMap<String, u32> {
        let mut pages: Vec<&Page> =
            self.pages.iter().map(|(_, page)| page).filter(|page| page.visitors > 0).collect();
        let order = |a: &&Page, b: &&Page| b.visitors.cmp(&a.visitors).then_with(|| a.path.cmp(&b.path));
        if pages.len() > TOP_PAGES {
            pages.select_nth_unstable_by(TOP_PAGES, order);
            pages.truncate(TOP_PAGES);
        }
        pages.into_iter().map(|page| (page.path.to_string(), page.visitors)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANN: VisitorId = VisitorId(1);
    const BEN: VisitorId = VisitorId(2);

    #[test]
    fn two_tabs_of_a_visitor_count_once_on_the_visible_page() {
        let mut presence = Presence::default();
        let (first, second) = (presence.enter(ANN), presence.enter(ANN));
        presence.show(ANN, first, "/a", true);
        presence.show(ANN, second, "/b", false);
        let census = presence.census(Instant::now());
        assert_eq!((census.online, census.visible), (1, 1));
        assert_eq!(census.pages, BTreeMap::from([("/a".to_owned(), 1)]));
    }

    #[test]
    fn a_visitor_lingers_for_three_seconds_and_no_longer() {
        let mut presence = Presence::default();
        let now = Instant::now();
        let tab = presence.enter(ANN);
        presence.show(ANN, tab, "/a", true);
        presence.leave(ANN, tab, now);
        let lingering = presence.census(now + Duration::from_millis(2_999));
        assert_eq!((lingering.online, lingering.visible, lingering.pages["/a"]), (1, 1, 1));
        assert_eq!(presence.census(now + Duration::from_millis(3_000)), Census::default());
        assert!(
            presence.visitors.is_empty() && presence.pages.pages.is_empty() && presence.pages.ids.is_empty()
        );
    }

    #[test]
    fn going_to_the_next_page_does_not_flicker() {
        let mut presence = Presence::default();
        let now = Instant::now();
        let tab = presence.enter(ANN);
        presence.show(ANN, tab, "/a", true);
        presence.leave(ANN, tab, now);
        let next = presence.enter(ANN);
        assert_eq!(presence.census(now).pages["/a"], 1, "until the new page tells where it is");
        presence.show(ANN, next, "/b", true);
        let later = presence.census(now + Duration::from_secs(60));
        assert_eq!((later.online, later.visible), (1, 1));
        assert_eq!(later.pages, BTreeMap::from([("/b".to_owned(), 1)]));
    }

    #[test]
    fn a_report_names_the_twenty_pages_with_most_visitors() {
        let mut presence = Presence::default();
        for visitor in 0..40 {
            let tab = presence.enter(VisitorId(visitor));
            presence.show(VisitorId(visitor), tab, &format!("/{:02}", visitor % 30), true);
        }
        let census = presence.census(Instant::now());
        assert_eq!((census.online, census.pages.len()), (40, 20));
        assert!((0..10).all(|page| census.pages[&format!("/{page:02}")] == 2));
    }

    #[test]
    fn a_path_is_told_without_its_query() {
        let mut presence = Presence::default();
        let tab = presence.enter(BEN);
        presence.show(BEN, tab, "/a?token=secret#x", true);
        assert_eq!(presence.census(Instant::now()).pages, BTreeMap::from([("/a".to_owned(), 1)]));
        presence.show(BEN, tab, "javascript:alert(1)", true);
        assert!(presence.census(Instant::now()).pages.is_empty());
    }

    #[test]
    fn a_connection_costs_little() {
        assert_eq!((size_of::<Visitor>(), size_of::<Tab>()), (20, 12));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Enter(u64),
        Show(usize, u8, bool),
        Leave(usize),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        prop::collection::vec(
            prop_oneof![
                (0..3u64).prop_map(Step::Enter),
                (any::<usize>(), 0..4u8, any::<bool>())
                    .prop_map(|(tab, page, seen)| Step::Show(tab, page, seen)),
                any::<usize>().prop_map(Step::Leave),
                (0..2_000u64).prop_map(Step::Wait),
            ],
            0..80,
        )
    }

    /// The same told plainly: all tabs and what they show, newest last; what was shown before leaving.
    #[derive(Default)]
    struct Plain {
        tabs: Vec<(VisitorId, TabId, Option<String>, bool)>,
        last: HashMap<VisitorId, (Option<String>, bool, Instant)>,
    }

    impl Plain {
        fn census(&self, now: Instant) -> Census {
            let mut census = Census::default();
            for visitor in (0..3).map(VisitorId) {
                let mut tabs = self.tabs.iter().rev().filter(|tab| tab.0 == visitor).peekable();
                let open = tabs.peek().is_some();
                let last =
                    self.last.get(&visitor).filter(|last| open || now < last.2 + Duration::from_secs(3));
                if !open && last.is_none() {
                    continue;
                }
                let told: Vec<_> = tabs.map(|tab| (tab.2.clone(), tab.3)).collect();
                let shown = told
                    .iter()
                    .find(|shown| shown.1)
                    .or_else(|| told.iter().find(|shown| shown.0.is_some()))
                    .cloned()
                    .or_else(|| last.map(|last| (last.0.clone(), last.1)))
                    .unwrap_or_default();
                census.online += 1;
                census.visible += u32::from(shown.1);
                if let Some(path) = shown.0 {
                    *census.pages.entry(path).or_default() += 1;
                }
            }
            census
        }
    }

    proptest! {
        #[test]
        fn what_is_counted_on_the_way_is_what_is_there(steps in steps()) {
            let (mut presence, mut plain) = (Presence::default(), Plain::default());
            let mut now = Instant::now();
            for step in steps {
                match step {
                    Step::Enter(visitor) => {
                        let visitor = VisitorId(visitor);
                        let open = plain.tabs.iter().any(|tab| tab.0 == visitor);
                        if plain.last.get(&visitor).is_some_and(|last| !open && now >= last.2 + Duration::from_secs(3)) {
                            plain.last.remove(&visitor);
                        }
                        plain.tabs.push((visitor, presence.enter(visitor), None, false));
                    }
                    Step::Show(tab, page, visible) if !plain.tabs.is_empty() => {
                        let tab = tab % plain.tabs.len();
                        let path = (page > 0).then(|| format!("/{page}"));
                        let (visitor, id, _, _) = plain.tabs.remove(tab);
                        presence.show(visitor, id, path.as_deref().unwrap_or_default(), visible);
                        plain.tabs.push((visitor, id, path, visible));
                    }
                    Step::Leave(tab) if !plain.tabs.is_empty() => {
                        let (visitor, id, path, visible) = plain.tabs.remove(tab % plain.tabs.len());
                        presence.leave(visitor, id, now);
                        plain.last.insert(visitor, (path, visible, now));
                    }
                    Step::Wait(ms) => now += Duration::from_millis(ms),
                    Step::Show(..) | Step::Leave(_) => {}
                }
                prop_assert_eq!(presence.census(now), plain.census(now));
            }
            for (visitor, id, _, _) in plain.tabs {
                presence.leave(visitor, id, now);
            }
            prop_assert_eq!(presence.census(now + Duration::from_secs(3)), Census::default());
            prop_assert!(presence.tabs.is_empty() && presence.pages.pages.is_empty() && presence.lingering.is_empty());
        }
    }
}
