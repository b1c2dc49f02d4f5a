//! What must be in the table `sessions`: after each event, whatever is remembered of its visitor is sorted by time and cut
//! at the gaps anew.

use std::collections::{BTreeMap, BTreeSet};

use footfall_schemas::{
    EventRecord, SessionId, SiteId,
    live::LiveState,
    rows::SessionRow,
    time::{MINUTE_MS, minute_of},
};

use super::PARTITION;
use crate::panes::first_minute_shown;

/// Everything of one visitor of a site.
#[derive(Default)]
pub(super) struct Visitor {
    /// Each event with the session it is in, sorted by time and id.
    events: Vec<(EventRecord, u64)>,
    sessions: BTreeMap<u64, About>,
    pub(super) joined: BTreeMap<u64, u64>,
}

struct About {
    opened: i64,
    touched: i64,
    version: u64,
    is_remembered: bool,
}

impl Visitor {
    /// The event's session, and whether it starts it.
    pub(super) fn count(
        &mut self,
        event: &EventRecord,
        offset: i64,
        log_time: i64,
        gap_ms: i64,
    ) -> (SessionId, bool) {
        for about in self.sessions.values_mut() {
            about.is_remembered &= log_time <= about.touched + gap_ms + 5 * MINUTE_MS;
        }
        let new = SessionId::starting_with(&event.site, event.visitor, event.event_id).0;
        self.events.push((event.clone(), new));
        self.events.sort_by_key(|(event, _)| (event.event_time, event.event_id));
        let is_open = |session: u64| session == new || self.sessions[&session].is_remembered;
        let mut open: Vec<_> = self.events.iter_mut().filter(|(_, session)| is_open(*session)).collect();
        let runs = open.chunk_by_mut(|(one, _), (next, _)| next.event_time - one.event_time < gap_ms);
        let run = runs.into_iter().find(|run| run.iter().any(|(_, session)| *session == new)).unwrap();
        let before: BTreeSet<u64> = run.iter().map(|(_, session)| *session).filter(|id| *id != new).collect();
        // The one that began first keeps its id.
        let session = run.iter().map(|(_, session)| *session).find(|id| *id != new).unwrap_or(new);
        run.iter_mut().for_each(|(_, of)| *of = session);
        for absorbed in before.iter().filter(|id| **id != session) {
            self.joined.insert(*absorbed, session);
            self.sessions.remove(absorbed);
        }
        if before.is_empty() {
            let remembered = self.sessions.iter_mut().filter(|(_, about)| about.is_remembered);
            let mut remembered: Vec<_> = remembered.map(|(_, about)| about).collect();
            if remembered.len() == 8 {
                remembered.sort_by_key(|about| about.touched);
                remembered[0].is_remembered = false;
            }
        }
        let about = self.sessions.entry(session).or_insert(About {
            opened: event.event_time,
            touched: 0,
            version: 0,
            is_remembered: true,
        });
        (about.touched, about.version) = (log_time, offset as u64 + 1);
        (SessionId(session), before.is_empty())
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = SessionRow> {
        self.sessions.iter().map(|(session, about)| {
            let events: Vec<_> =
                self.events.iter().filter(|(_, of)| of == session).map(|(event, _)| event).collect();
            let views: Vec<_> = events.iter().filter(|event| event.kind.as_str() == "view").collect();
            let customs = events.iter().filter(|event| event.kind.as_str() == "custom").count() as u32;
            let (first, last) = (events[0], events[events.len() - 1]);
            let entry = views.first().map_or(first, |event| event);
            let exit = views.last().map_or(last, |event| event);
            SessionRow {
                site: first.site.as_str().into(),
                session: *session,
                visitor: first.visitor.0,
                opened: about.opened,
                start: first.event_time,
                end: last.event_time,
                duration_ms: (last.event_time - first.event_time) as u64,
                entry_path: entry.path.clone(),
                exit_path: exit.path.clone(),
                views: views.len() as u32,
                events: events.len() as u32,
                customs,
                engaged_ms: events.iter().map(|event| u64::from(event.engaged_ms)).sum(),
                is_bounce: u8::from(views.len() == 1 && customs == 0),
                referrer_host: entry.referrer_host.clone(),
                channel: entry.channel.clone(),
                utm_campaign: entry.utm_campaign.clone(),
                country: entry.country.clone(),
                browser: entry.browser.clone(),
                system: entry.system.clone(),
                device: entry.device.clone(),
                joined: 0,
                _partition: PARTITION,
                version: about.version,
                is_deleted: 0,
            }
        })
    }
}

/// What the live view must say of these sessions at `clock`: a site's state with nothing else in it. Lists are whole.
pub(super) fn live<'a>(
    rows: impl IntoIterator<Item = &'a SessionRow>,
    site: &SiteId,
    clock: i64,
) -> LiveState {
    use footfall_schemas::Dimension::{Entry, Exit};
    let mut state = LiveState { totals: Some(Default::default()), ..LiveState::default() };
    let is_shown = |row: &&SessionRow| row.site == site.as_str() && row.start >= first_minute_shown(clock);
    for row in rows.into_iter().filter(is_shown) {
        let totals = state.totals.as_mut().unwrap();
        totals.sessions += 1;
        totals.bounces += u64::from(row.is_bounce);
        totals.duration_ms += row.duration_ms;
        state.minutes.entry(minute_of(row.start) / 1_000).or_default().sessions += 1;
        for (dimension, path) in [(Entry, &row.entry_path), (Exit, &row.exit_path)] {
            *state.tops.entry(dimension).or_default().entry(path.clone()).or_default() += 1;
        }
    }
    state
}
