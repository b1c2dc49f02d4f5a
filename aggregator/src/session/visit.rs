//! One session as it is remembered.

use footfall_schemas::{EventKind, EventRecord, SessionId, SiteId, rows::SessionRow, time::minute_of};
use serde::{Deserialize, Serialize};

use super::{
    started::Seen,
    texts::{TextId, Texts},
};

/// Everything that later events can change, in 168 bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Visit {
    pub(super) session: u64,
    pub(super) visitor: u64,
    /// Time of the event that it was made for.
    opened: i64,
    /// Times of its first and last event.
    pub(super) start: i64,
    pub(super) end: i64,
    /// Log time of the event that came last.
    pub(super) touched: i64,
    /// Offset after the last record that changed it.
    pub(super) version: u64,
    engaged_ms: u64,
    entry: Mark,
    exit: Mark,
    /// Of the entry event, in the order of [`of_entry`].
    entry_texts: [TextId; 8],
    exit_path: TextId,
    views: u32,
    events: u32,
    customs: u32,
    /// The visitor's session before this one.
    pub(super) older: Option<u32>,
    /// Changed since it was last written. A restored session counts as never written.
    #[serde(skip, default = "never_written")]
    pub(super) dirty: bool,
}

fn never_written() -> bool {
    true
}

/// An event's place among a visitor's: ties in time are broken by the id, which tells the order within a page load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Mark {
    at: i64,
    id: [u8; 16],
}

impl Mark {
    fn of(event: &EventRecord) -> Self {
        Self { at: event.event_time, id: *event.event_id.to_uuid().as_bytes() }
    }
}

/// What a session has of its entry event: path, then the columns from `referrer_host` to `device`.
fn of_entry(event: &EventRecord) -> [&str; 8] {
    [
        &event.path,
        &event.referrer_host,
        &event.channel,
        &event.utm_campaign,
        &event.country,
        &event.browser,
        &event.system,
        &event.device,
    ]
}

impl Visit {
    /// A session made for `event`, which is still to be added.
    pub(super) fn new(event: &EventRecord, texts: &mut Texts) -> Self {
        let at = event.event_time;
        Self {
            session: SessionId::starting_with(&event.site, event.visitor, event.event_id).0,
            visitor: event.visitor.0,
            opened: at,
            start: at,
            end: at,
            touched: 0,
            version: 0,
            engaged_ms: 0,
            entry: Mark::of(event),
            exit: Mark::of(event),
            entry_texts: of_entry(event).map(|text| texts.hold(text)),
            exit_path: texts.hold(&event.path),
            views: 0,
            events: 0,
            customs: 0,
            older: None,
            dirty: false,
        }
    }

    /// `true` when an event at that time belongs to it.
    pub(super) fn is_near(&self, at: i64, gap_ms: i64) -> bool {
        at < self.end + gap_ms && at > self.start - gap_ms
    }

    pub(super) fn add(&mut self, event: &EventRecord, texts: &mut Texts) {
        let mark = Mark::of(event);
        let is_view = event.kind == EventKind::PageView;
        // Entry and exit are page views as soon as there is one.
        let is_first_view = is_view && self.views == 0;
        let is_page = is_view || self.views == 0;
        if is_first_view || (is_page && mark < self.entry) {
            let held = of_entry(event).map(|text| texts.hold(text));
            std::mem::replace(&mut self.entry_texts, held).into_iter().for_each(|text| texts.release(text));
            self.entry = mark;
        }
        if is_first_view || (is_page && mark > self.exit) {
            if texts.get(self.exit_path) != event.path {
                let held = texts.hold(&event.path);
                texts.release(std::mem::replace(&mut self.exit_path, held));
            }
            self.exit = mark;
        }
        self.start = self.start.min(mark.at);
        self.end = self.end.max(mark.at);
        self.views = self.views.saturating_add(is_view.into());
        self.events = self.events.saturating_add(1);
        self.customs = self.customs.saturating_add((event.kind == EventKind::Custom).into());
        self.engaged_ms += u64::from(event.engaged_ms);
    }

    /// Takes over everything of another session of the same visitor, which keeps its texts.
    pub(super) fn absorb(&mut self, other: &Self, texts: &mut Texts) {
        // Entry and exit are page views as soon as there is one.
        let (has_views, others_count) = (self.views > 0, other.views > 0 || self.views == 0);
        if others_count && (!has_views && other.views > 0 || other.entry < self.entry) {
            let held = other.entry_texts.map(|text| texts.hold_again(text));
            std::mem::replace(&mut self.entry_texts, held).into_iter().for_each(|text| texts.release(text));
            self.entry = other.entry;
        }
        if others_count && (!has_views && other.views > 0 || other.exit > self.exit) {
            let held = texts.hold_again(other.exit_path);
            texts.release(std::mem::replace(&mut self.exit_path, held));
            self.exit = other.exit;
        }
        self.start = self.start.min(other.start);
        self.end = self.end.max(other.end);
        self.touched = self.touched.max(other.touched);
        self.views = self.views.saturating_add(other.views);
        self.events = self.events.saturating_add(other.events);
        self.customs = self.customs.saturating_add(other.customs);
        self.engaged_ms += other.engaged_ms;
    }

    /// One page view and nothing that the site counts as an action.
    fn is_bounce(&self) -> bool {
        self.views == 1 && self.customs == 0
    }

    /// What the live view counts of it.
    pub(super) fn seen(&self) -> Seen {
        Seen {
            minute: minute_of(self.start),
            duration_ms: self.end - self.start,
            is_bounce: self.is_bounce(),
            paths: [self.entry_texts[0], self.exit_path],
        }
    }

    /// Its row; `joined` names the session that it was found to be a part of, 0 for none.
    pub(super) fn row(&self, site: &SiteId, partition: i32, joined: u64, texts: &Texts) -> SessionRow {
        let [entry_path, referrer_host, channel, utm_campaign, country, browser, system, device] =
            self.entry_texts.map(|text| texts.get(text).to_owned());
        SessionRow {
            site: site.as_str().to_owned(),
            session: self.session,
            visitor: self.visitor,
            opened: self.opened,
            start: self.start,
            end: self.end,
            duration_ms: self.end.abs_diff(self.start),
            entry_path,
            exit_path: texts.get(self.exit_path).to_owned(),
            views: self.views,
            events: self.events,
            customs: self.customs,
            engaged_ms: self.engaged_ms,
            is_bounce: self.is_bounce().into(),
            referrer_host,
            channel,
            utm_campaign,
            country,
            browser,
            system,
            device,
            joined,
            _partition: partition,
            version: self.version,
            is_deleted: (joined != 0).into(),
        }
    }

    /// Gives its texts back.
    pub(super) fn release(self, texts: &mut Texts) {
        self.entry_texts.into_iter().chain([self.exit_path]).for_each(|text| texts.release(text));
    }
}
