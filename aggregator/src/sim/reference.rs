//! What must be in the tables, in a few lines of plain code over the whole log at once.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use footfall_schemas::{
    Dimension, SiteId, VisitorId,
    live::Totals,
    record::parse_lines,
    rollup::Measures,
    rows::{Coordinates, EventRow, SessionRow},
    time::{Clock, MINUTE_MS, minute_of},
    topics,
};

use super::{PARTITION, sessions::Visitor};
use crate::{panes::first_minute_shown, ports::RawRecord};

pub(super) struct Expected {
    pub(super) rows: BTreeMap<(i64, u16), EventRow>,
    pub(super) poison: BTreeSet<(i64, u16)>,
    pub(super) totals: BTreeMap<SiteId, Totals>,
    pub(super) sessions: BTreeMap<u64, SessionRow>,
    /// Sessions that were found to be a part of another.
    pub(super) joined: BTreeMap<u64, u64>,
    log_time: i64,
}

pub(super) fn rows(records: &[RawRecord], lateness_ms: i64, gap_ms: i64) -> Expected {
    let mut expected = Expected {
        rows: BTreeMap::new(),
        poison: BTreeSet::new(),
        totals: BTreeMap::new(),
        sessions: BTreeMap::new(),
        joined: BTreeMap::new(),
        log_time: 0,
    };
    let mut seen = HashSet::new();
    let mut visitors = BTreeMap::<(SiteId, VisitorId), Visitor>::new();
    for record in records {
        expected.log_time = expected.log_time.max(record.timestamp);
        if record.value.is_empty() {
            expected.poison.insert((record.offset, 0));
        }
        for (index, line) in parse_lines(&record.value) {
            let Ok(mut event) = line else {
                expected.poison.insert((record.offset, index));
                continue;
            };
            if event.event_time > record.timestamp + 10_000 {
                (event.event_time, event.clock) = (record.timestamp, Clock::ClampedFuture);
            }
            let totals = expected.totals.entry(event.site.clone()).or_default();
            if !seen.insert((event.site.clone(), event.event_id)) {
                totals.duplicate += 1;
                continue;
            }
            let late = minute_of(event.event_time) + MINUTE_MS + lateness_ms <= expected.log_time;
            totals.stored += 1;
            totals.late += u64::from(late);
            let visitor = visitors.entry((event.site.clone(), event.visitor)).or_default();
            let (session, start) = visitor.count(&event, record.offset, expected.log_time, gap_ms);
            let at = Coordinates { partition: PARTITION, offset: record.offset, index };
            let row = EventRow::new(event, session, start, late, topics::EVENTS, at);
            expected.rows.insert((record.offset, index), row);
        }
    }
    for visitor in visitors.into_values() {
        expected.joined.extend(&visitor.joined);
        expected.sessions.extend(visitor.rows().map(|row| (row.session, row)));
    }
    expected
}

pub(super) type Cell = (String, i64, String, String);

/// The cells a row is counted in.
pub(super) fn cells(row: &EventRow) -> impl Iterator<Item = Cell> {
    let minute = minute_of(row.event_time);
    let (view, custom) = (row.kind == "view", row.kind == "custom");
    Dimension::ALL.iter().filter_map(move |dimension| {
        let (counted, value) = match dimension {
            Dimension::Total => (true, ""),
            Dimension::Page => (true, row.path.as_str()),
            Dimension::Event => (custom, row.name.as_str()),
            Dimension::Referrer => (view && !row.referrer_host.is_empty(), row.referrer_host.as_str()),
            Dimension::Channel => (view && !row.channel.is_empty(), row.channel.as_str()),
            Dimension::Campaign => (view && !row.utm_campaign.is_empty(), row.utm_campaign.as_str()),
            Dimension::Country => (view && !row.country.is_empty(), row.country.as_str()),
            Dimension::Browser => (view && !row.browser.is_empty(), row.browser.as_str()),
            Dimension::System => (view && !row.system.is_empty(), row.system.as_str()),
            Dimension::Device => (view && !row.device.is_empty(), row.device.as_str()),
            Dimension::Entry | Dimension::Exit => (false, ""),
        };
        counted.then(|| (row.site.clone(), minute, dimension.as_str().to_owned(), value.to_owned()))
    })
}

/// Rolling counts of these rows.
pub(super) fn counts<'a>(rows: impl IntoIterator<Item = &'a EventRow>) -> BTreeMap<Cell, Measures> {
    let mut counts = BTreeMap::<Cell, (Measures, HashSet<u64>)>::new();
    for row in rows {
        for cell in cells(row) {
            let (measures, visitors) = counts.entry(cell).or_default();
            visitors.insert(row.visitor);
            *measures += Measures {
                events: 1,
                views: u64::from(row.kind == "view"),
                visitors: 0,
                engaged_ms: u64::from(row.engaged_ms),
            };
        }
    }
    let absolute = |(measures, visitors): (Measures, HashSet<u64>)| Measures {
        visitors: visitors.len() as u64,
        ..measures
    };
    counts.into_iter().map(|(cell, counted)| (cell, absolute(counted))).collect()
}

/// Events in the minutes that the live view shows at `clock`.
pub(super) fn shown_events(rows: &[EventRow], site: &SiteId, clock: i64) -> u64 {
    let first = first_minute_shown(clock);
    let shown = |row: &&EventRow| (first..=clock).contains(&minute_of(row.event_time));
    rows.iter().filter(|row| row.site == site.as_str()).filter(shown).count() as u64
}
