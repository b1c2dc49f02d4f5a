use footfall_schemas::{
    Dimension, EventId, EventKind, EventRecord, Sequence, StreamId, VisitorId,
    live::{LiveState, MinuteCounts},
    site::Site,
    time::minute_of,
};
use std::collections::BTreeSet;

use proptest::prelude::*;
use rstest::rstest;

use super::*;

/// All events of a test are received within the horizon after this.
const NOW: i64 = 1_800_000_000_000 / DEFAULT_GAP_MS * DEFAULT_GAP_MS;
/// The time that a test's events count from.
const BEGAN: i64 = NOW - 240 * MINUTE_MS;

fn site() -> SiteId {
    SiteId::try_from("demo").unwrap()
}

fn event(sequence: u32, kind: EventKind, at: i64, path: &str) -> EventRecord {
    let golden = include_str!("../../../schemas/golden/event_record.json");
    EventRecord {
        event_id: EventId::new(StreamId::from_parts(1, 1), Sequence::new(sequence).unwrap()),
        visitor: VisitorId(7),
        kind,
        event_time: at,
        path: path.into(),
        engaged_ms: if kind == EventKind::Engagement { 100 } else { 0 },
        channel: if kind == EventKind::PageView { format!("by {path}") } else { String::new() },
        ..serde_json::from_str(golden).unwrap()
    }
}

/// `view 12 /a`: a page view 12 minutes after the beginning.
fn events(texts: &[&str]) -> Vec<EventRecord> {
    let one = |(sequence, text): (u32, &&str)| {
        let mut words = text.split(' ');
        let kind = match words.next().unwrap() {
            "view" => EventKind::PageView,
            "custom" => EventKind::Custom,
            _ => EventKind::Engagement,
        };
        let minute: f64 = words.next().unwrap().parse().unwrap();
        event(sequence, kind, BEGAN + (minute * MINUTE_MS as f64) as i64, words.next().unwrap())
    };
    (1..).zip(texts).map(one).collect()
}

/// The table: the newest row of each session that is not joined to another.
#[derive(Default)]
struct Table(BTreeMap<u64, SessionRow>);

impl Table {
    fn take(&mut self, sessions: &mut Sessions, clock: Option<i64>) -> usize {
        let mut rows = Vec::new();
        sessions.take_changed(&site(), 0, clock, usize::MAX, &mut rows);
        let count = rows.len();
        for row in rows {
            let known = self.0.entry(row.session).or_insert_with(|| row.clone());
            assert_eq!(known.opened, row.opened, "the key of a session has changed");
            if row.version >= known.version {
                *known = row;
            }
        }
        count
    }

    fn rows(&self) -> impl Iterator<Item = &SessionRow> {
        self.0.values().filter(|row| row.is_deleted == 0)
    }

    /// By start: `0-12 /a-/b 2v 3e 1c 100ms by /a`, in minutes, and `bounce`.
    fn told(&self) -> Vec<String> {
        let mut rows: Vec<_> = self.rows().collect();
        rows.sort_by_key(|row| row.start);
        let minute = |at: i64| (at - BEGAN) as f64 / MINUTE_MS as f64;
        let tell = |row: &SessionRow| {
            assert_eq!(row.duration_ms as i64, row.end - row.start);
            assert!((row.start..=row.end).contains(&row.opened));
            format!(
                "{}-{} {}-{} {}v {}e {}c {}ms {}{}",
                minute(row.start),
                minute(row.end),
                row.entry_path,
                row.exit_path,
                row.views,
                row.events,
                row.customs,
                row.engaged_ms,
                row.channel,
                if row.is_bounce == 1 { " bounce" } else { "" },
            )
        };
        rows.into_iter().map(tell).collect()
    }
}

#[rstest]
#[case::one_view(&["view 0 /a"], &["0-0 /a-/a 1v 1e 0c 0ms by /a bounce"])]
#[case::two_views(&["view 0 /a", "view 3 /b"], &["0-3 /a-/b 2v 2e 0c 0ms by /a"])]
#[case::engaged_with_one_page(&["view 0 /a", "read 3 /a"], &["0-3 /a-/a 1v 2e 0c 100ms by /a bounce"])]
#[case::an_action_is_no_bounce(&["view 0 /a", "custom 3 /a"], &["0-3 /a-/a 1v 2e 1c 0ms by /a"])]
#[case::no_view(&["custom 1 /a", "read 2 /b"], &["1-2 /a-/b 0v 2e 1c 100ms "])]
#[case::entry_and_exit_are_views(
    &["custom 0 /x", "view 1 /a", "view 2 /b", "read 3 /y"],
    &["0-3 /a-/b 2v 4e 1c 100ms by /a"]
)]
#[case::just_before_the_gap(&["view 0 /a", "view 29.99 /b"], &["0-29.99 /a-/b 2v 2e 0c 0ms by /a"])]
#[case::at_the_gap(
    &["view 0 /a", "view 30 /b"],
    &["0-0 /a-/a 1v 1e 0c 0ms by /a bounce", "30-30 /b-/b 1v 1e 0c 0ms by /b bounce"]
)]
#[case::a_late_entry(&["view 10 /b", "view 0 /a"], &["0-10 /a-/b 2v 2e 0c 0ms by /a"])]
#[case::a_late_event_in_between(
    &["view 0 /a", "view 20 /c", "view 10 /b"],
    &["0-20 /a-/c 3v 3e 0c 0ms by /a"]
)]
#[case::a_late_event_joins_two(
    &["view 40 /b", "view 0 /a", "read 50 /b", "custom 20 /a"],
    &["0-50 /a-/b 2v 4e 1c 100ms by /a"]
)]
#[case::a_joined_session_may_bring_the_entry(
    &["read 0 /x", "view 40 /a", "read 20 /y"],
    &["0-40 /a-/a 1v 3e 0c 200ms by /a bounce"]
)]
#[case::two_joins(
    &["view 0 /a", "view 40 /b", "view 80 /c", "view 60 /d", "view 20 /e"],
    &["0-80 /a-/c 5v 5e 0c 0ms by /a"]
)]
#[case::ties_go_by_the_id(&["view 5 /a", "view 5 /b", "view 5 /c"], &["5-5 /a-/c 3v 3e 0c 0ms by /a"])]
fn the_sessions_are_those_of_the_events_whatever_their_order(#[case] of: &[&str], #[case] expected: &[&str]) {
    let events = events(of);
    let (mut order, mut states) = ((0..events.len()).collect::<Vec<_>>(), vec![0; events.len()]);
    let mut at = 0;
    loop {
        let (mut sessions, mut table) = (Sessions::new(DEFAULT_GAP_MS), Table::default());
        for (version, index) in (1..).zip(&order) {
            sessions.count(&events[*index].borrowed(), NOW, version);
        }
        table.take(&mut sessions, None);
        assert_eq!(table.told(), expected, "in the order {order:?}");
        // The next order (Heap 1963).
        while at < order.len() && states[at] >= at {
            states[at] = 0;
            at += 1;
        }
        if at == order.len() {
            return;
        }
        order.swap(if at % 2 == 0 { 0 } else { states[at] }, at);
        states[at] += 1;
        at = 0;
    }
}

#[test]
fn of_two_that_are_joined_the_one_that_began_first_keeps_its_id_and_both_are_written_at_once() {
    let (mut sessions, mut table) = (Sessions::new(DEFAULT_GAP_MS), Table::default());
    let [late, early, bridge] = &events(&["view 40 /b", "view 0 /a", "view 20 /c"])[..] else { panic!() };
    let (other, starts) = sessions.count(&late.borrowed(), NOW, 1);
    let (first, also_starts) = sessions.count(&early.borrowed(), NOW, 2);
    assert!(starts && also_starts && first != other);
    table.take(&mut sessions, None);
    assert_eq!(sessions.count(&bridge.borrowed(), NOW, 3), (first, false));
    assert_eq!(table.take(&mut sessions, Some(NOW)), 2);
    assert_eq!(table.told(), ["0-40 /a-/b 3v 3e 0c 0ms by /a"]);
    let joined = &table.0[&other.0];
    assert_eq!((joined.is_deleted, joined.joined, joined.version), (1, first.0, 3));
    assert_eq!((table.0[&first.0].joined, table.0[&first.0].version), (0, 3));
}

#[rstest]
#[case::remembered(35, 1)]
#[case::forgotten(36, 2)]
fn a_session_is_remembered_for_the_gap_and_five_minutes(#[case] minutes: i64, #[case] expected: usize) {
    let (mut sessions, mut table) = (Sessions::new(DEFAULT_GAP_MS), Table::default());
    let [first, late] = &events(&["view 0 /a", "view 1 /b"])[..] else { panic!() };
    sessions.count(&first.borrowed(), NOW, 1);
    sessions.count(&late.borrowed(), NOW + minutes * MINUTE_MS, 2);
    table.take(&mut sessions, None);
    assert_eq!(table.rows().count(), expected);
}

#[test]
fn what_was_kept_offline_becomes_a_session_of_its_own() {
    let mut sessions = Sessions::new(DEFAULT_GAP_MS);
    let [now, old, more, next] = &events(&["view 200 /", "view 0 /", "view 1 /", "view 201 /"])[..] else {
        panic!()
    };
    let (current, _) = sessions.count(&now.borrowed(), NOW, 1);
    let (kept, starts) = sessions.count(&old.borrowed(), NOW, 2);
    assert!(starts && kept != current);
    assert_eq!(sessions.count(&more.borrowed(), NOW, 3), (kept, false));
    assert_eq!(sessions.count(&next.borrowed(), NOW, 4), (current, false));
}

#[test]
fn a_session_is_written_every_five_minutes_and_when_it_has_ended() {
    let (mut sessions, mut table) = (Sessions::new(DEFAULT_GAP_MS), Table::default());
    table.take(&mut sessions, Some(NOW));
    let mut written = Vec::new();
    for minute in 0..60 {
        let now = NOW + minute * MINUTE_MS;
        if minute < 13 {
            sessions.count(
                &event(minute as u32 + 1, EventKind::PageView, now, "/").borrowed(),
                now,
                minute as u64 + 1,
            );
        }
        if table.take(&mut sessions, Some(now)) > 0 {
            written.push(minute);
        }
    }
    assert_eq!(written, [5, 11, 17]);
    assert_eq!(table.rows().next().unwrap().events, 13);
}

#[test]
fn a_short_gap_is_waited_for_and_not_five_minutes() {
    let (mut sessions, mut table) = (Sessions::new(MINUTE_MS), Table::default());
    table.take(&mut sessions, Some(NOW));
    sessions.count(&event(1, EventKind::PageView, NOW, "/").borrowed(), NOW, 1);
    assert_eq!(table.take(&mut sessions, Some(NOW + MINUTE_MS - 1)), 0);
    assert_eq!(table.take(&mut sessions, Some(NOW + MINUTE_MS)), 1);
}

#[test]
fn many_rows_are_taken_in_parts() {
    let mut sessions = Sessions::new(DEFAULT_GAP_MS);
    for visitor in 0..10 {
        let event = EventRecord { visitor: VisitorId(visitor), ..event(1, EventKind::PageView, NOW, "/") };
        sessions.count(&event.borrowed(), NOW, visitor + 1);
    }
    let mut take = || {
        let mut rows = Vec::new();
        sessions.take_changed(&site(), 0, None, 4, &mut rows);
        rows.len()
    };
    assert_eq!([take(), take(), take(), take()], [4, 4, 2, 0]);
}

#[test]
fn one_visitor_cannot_fill_the_memory_and_no_session_of_it_is_lost() {
    let (mut sessions, mut table) = (Sessions::new(MINUTE_MS), Table::default());
    for number in 1..=1_000 {
        let at = NOW - i64::from(number) * 2 * MINUTE_MS;
        sessions.count(
            &event(number, EventKind::PageView, at, &format!("/{number}")).borrowed(),
            NOW,
            number.into(),
        );
    }
    assert_eq!(sessions.visits.len(), MAX_VISITS);
    assert_eq!(table.take(&mut sessions, None), 1_000);
    sessions.sweep(NOW);
    // Those remembered, and those whose minute is shown.
    assert!(sessions.texts.len() < 80, "{}", sessions.texts.len());
    assert_eq!(table.rows().count(), 1_000);
}

#[test]
fn of_too_many_sessions_the_one_touched_longest_ago_is_forgotten() {
    let mut sessions = Sessions::new(MINUTE_MS);
    let mut count = |sequence: u32, place: i64| {
        let event = event(sequence, EventKind::PageView, NOW - 2 * place * MINUTE_MS, "/");
        sessions.count(&event.borrowed(), NOW + i64::from(sequence), sequence.into()).1
    };
    for (sequence, place) in (1..).zip([3, 0, 1, 2, 4, 5, 6, 7]) {
        assert!(count(sequence, place));
    }
    assert!(!count(9, 0));
    assert!(count(10, 8), "the ninth takes the place of the session at 3");
    assert_eq!([7, 6, 5, 4, 2, 1, 0].map(|place| count(11, place)), [false; 7]);
    assert!(count(12, 3));
}

#[test]
fn another_gap_holds_for_the_events_to_come() {
    let (mut sessions, mut table) = (Sessions::new(DEFAULT_GAP_MS), Table::default());
    let events = events(&["view 0 /a", "view 31 /b", "view 75 /c", "view 150 /d"]);
    for (version, event) in (1..).zip(&events[..2]) {
        sessions.count(&event.borrowed(), NOW, version);
    }
    sessions.set_gap(60 * MINUTE_MS);
    for (version, event) in (3..).zip(&events[2..]) {
        sessions.count(&event.borrowed(), NOW, version);
    }
    table.take(&mut sessions, None);
    assert_eq!(
        table.told(),
        [
            "0-0 /a-/a 1v 1e 0c 0ms by /a bounce",
            "31-75 /b-/c 2v 2e 0c 0ms by /b",
            "150-150 /d-/d 1v 1e 0c 0ms by /d bounce"
        ]
    );
}

#[test]
fn a_long_list_of_pages_keeps_its_head_and_says_that_it_is_cut() {
    let mut sessions = Sessions::new(DEFAULT_GAP_MS);
    for (visitor, path) in (1..).zip(["/a", "/b", "/b", "/c", "/c", "/c"]) {
        let event = EventRecord { visitor: VisitorId(visitor), ..event(1, EventKind::PageView, NOW, path) };
        sessions.count(&event.borrowed(), NOW, visitor);
    }
    let mut windows = Windows::default();
    sessions.tell(NOW, 2, &mut windows);
    let state = windows.state();
    let head = BTreeMap::from([("/b".to_owned(), 2), ("/c".to_owned(), 3)]);
    assert_eq!(state.tops, BTreeMap::from([(Dimension::Entry, head.clone()), (Dimension::Exit, head)]));
    assert_eq!(state.errors.into_keys().collect::<Vec<_>>(), [Dimension::Entry, Dimension::Exit]);
    let mut windows = Windows::default();
    sessions.tell(NOW, 3, &mut windows);
    let state = windows.state();
    assert!(state.errors.is_empty() && state.tops[&Dimension::Exit].len() == 3);
}

#[test]
fn a_site_that_says_nothing_has_the_default_gap() {
    let quick = Site { session_gap_minutes: 5, ..Site::new("quick".parse().unwrap(), Vec::new()) };
    let sites = [Site::new(site(), Vec::new()), quick].map(|site| (site, serde_json::Value::Null));
    assert_eq!(
        gaps_of(&Directory::declaring(sites)),
        Gaps::from([("quick".parse().unwrap(), 5 * MINUTE_MS)])
    );
}

/// What may happen between two events; none of it may be seen.
#[derive(Debug, Clone, Copy)]
enum Meanwhile {
    Nothing,
    Swept,
    Written,
    Told,
    /// A snapshot is read back.
    Restored,
}

impl Meanwhile {
    fn happens(self, sessions: &mut Sessions, table: &mut Table, log_time: i64) {
        match self {
            Self::Nothing => {}
            Self::Swept => sessions.sweep(log_time),
            Self::Written => {
                table.take(sessions, Some(log_time));
            }
            Self::Told => {
                tell(sessions, log_time);
            }
            Self::Restored => {
                *sessions = postcard::from_bytes(&postcard::to_stdvec(sessions).unwrap()).unwrap();
            }
        }
    }
}

fn meanwhile() -> impl Strategy<Value = Meanwhile> {
    use Meanwhile::{Nothing, Restored, Swept, Told, Written};
    prop::sample::select(vec![Nothing, Nothing, Swept, Written, Told, Restored])
}

fn tell(sessions: &mut Sessions, clock: i64) -> LiveState {
    let mut windows = Windows::default();
    sessions.tell(clock, usize::MAX, &mut windows);
    windows.state()
}

/// The live figures of these rows, by plain code.
fn live_of<'a>(rows: impl Iterator<Item = &'a SessionRow>, clock: i64) -> LiveState {
    let mut state = LiveState { totals: Some(Default::default()), ..LiveState::default() };
    for row in rows.filter(|row| row.start >= first_minute_shown(clock)) {
        let totals = state.totals.as_mut().unwrap();
        totals.sessions += 1;
        totals.bounces += u64::from(row.is_bounce);
        totals.duration_ms += row.duration_ms;
        let minute: &mut MinuteCounts = state.minutes.entry(minute_of(row.start) / 1_000).or_default();
        minute.sessions += 1;
        for (dimension, path) in [(Dimension::Entry, &row.entry_path), (Dimension::Exit, &row.exit_path)] {
            *state.tops.entry(dimension).or_default().entry(path.clone()).or_default() += 1;
        }
    }
    state
}

/// Start, end, entry, exit, events, engaged time and bounce of the sessions, by plain code over the sorted events.
fn plain(mut events: Vec<EventRecord>) -> Vec<(i64, i64, String, String, usize, u64, bool)> {
    events.sort_by_key(|event| (event.event_time, event.event_id));
    let runs = events.chunk_by(|one, next| next.event_time - one.event_time < DEFAULT_GAP_MS);
    runs.map(|run| {
        let is_view = |event: &&EventRecord| event.kind == EventKind::PageView;
        let (first, last) = (&run[0], &run[run.len() - 1]);
        (
            first.event_time,
            last.event_time,
            run.iter().find(is_view).unwrap_or(first).path.clone(),
            run.iter().rfind(is_view).unwrap_or(last).path.clone(),
            run.len(),
            run.iter().map(|event| u64::from(event.engaged_ms)).sum(),
            run.iter().filter(is_view).count() == 1 && run.iter().all(|e| e.kind != EventKind::Custom),
        )
    })
    .collect()
}

fn kinds() -> impl Strategy<Value = EventKind> {
    prop::sample::select(vec![EventKind::PageView, EventKind::Engagement, EventKind::Custom])
}

proptest! {
    #[test]
    fn in_any_order_within_the_horizon_the_sessions_are_those_of_the_sorted_events(
        played in prop::collection::vec((0..200i64, kinds(), 0..4u32, 0..60_000i64, meanwhile()), 1..30),
    ) {
        let (mut sessions, mut table) = (Sessions::new(DEFAULT_GAP_MS), Table::default());
        let (mut log_time, mut events) = (NOW, Vec::new());
        for (sequence, (minute, kind, path, passed, meanwhile)) in (1..).zip(played) {
            log_time += passed;
            let event = event(sequence, kind, NOW - minute * MINUTE_MS, &format!("/{path}"));
            sessions.count(&event.borrowed(), log_time, sequence.into());
            events.push(event);
            meanwhile.happens(&mut sessions, &mut table, log_time);
        }
        let told = tell(&mut sessions, log_time);
        table.take(&mut sessions, None);
        prop_assert_eq!(told, live_of(table.rows(), log_time));
        let mut found: Vec<_> = table
            .rows()
            .map(|row| {
                let (entry, exit) = (row.entry_path.clone(), row.exit_path.clone());
                let (events, is_bounce) = (row.events as usize, row.is_bounce == 1);
                (row.start, row.end, entry, exit, events, row.engaged_ms, is_bounce)
            })
            .collect();
        found.sort_by_key(|session| session.0);
        prop_assert_eq!(found, plain(events));
    }

    #[test]
    fn beyond_the_horizon_it_is_seen_in_nothing_what_happens_meanwhile(
        played in prop::collection::vec(
            (0..20 * MINUTE_MS, 0..90 * MINUTE_MS, kinds(), 0..3u64, 0..4u32, meanwhile()),
            1..60,
        ),
    ) {
        let (mut disturbed, mut table) = (Sessions::new(DEFAULT_GAP_MS), Table::default());
        let (mut left_alone, mut other_table) = (Sessions::new(DEFAULT_GAP_MS), Table::default());
        let mut log_time = NOW;
        for (sequence, (passed, age, kind, visitor, path, meanwhile)) in (1..).zip(played) {
            log_time += passed;
            let event = EventRecord {
                visitor: VisitorId(visitor),
                ..event(sequence, kind, log_time - age, &format!("/{path}"))
            };
            prop_assert_eq!(
                disturbed.count(&event.borrowed(), log_time, sequence.into()),
                left_alone.count(&event.borrowed(), log_time, sequence.into())
            );
            meanwhile.happens(&mut disturbed, &mut table, log_time);
        }
        prop_assert_eq!(tell(&mut disturbed, log_time), tell(&mut left_alone, log_time));
        table.take(&mut disturbed, None);
        other_table.take(&mut left_alone, None);
        prop_assert_eq!(&table.0, &other_table.0);
        prop_assert_eq!(tell(&mut disturbed, log_time), live_of(table.rows(), log_time));

        disturbed.sweep(log_time + 24 * 60 * MINUTE_MS);
        prop_assert!(disturbed.newest.is_empty() && disturbed.visits.iter().all(Option::is_none));
        prop_assert_eq!(disturbed.texts.len(), 0, "texts are held by nobody");
    }
}

#[test]
fn made_up_visitors_push_out_the_sessions_made_first_and_those_are_written() {
    let run = |sweep: bool| {
        let mut sessions = Sessions::new(DEFAULT_GAP_MS);
        sessions.most = 100;
        let mut rows = Vec::new();
        let mut starts = Vec::new();
        for number in 0..1_000u32 {
            // Each visitor comes twice: the second time 50, then 150 visitors later.
            let apart = if number < 500 { 50 } else { 150 };
            for visitor in [number.into(), u64::from(number).wrapping_sub(apart)] {
                let at = NOW + i64::from(number) * 100;
                let event = event(number + 1, EventKind::PageView, at, "/");
                let event = EventRecord { visitor: VisitorId(visitor), ..event };
                if visitor < 1_000 {
                    starts.push(sessions.count(&event.borrowed(), at, u64::from(number) + 1).1);
                }
            }
            if sweep {
                sessions.sweep(NOW + i64::from(number) * 100);
                sessions.take_left(&site(), 0, &mut rows);
            }
        }
        assert!(sessions.visits.len() <= 102, "{} are remembered", sessions.visits.len());
        sessions.take_changed(&site(), 0, None, usize::MAX, &mut rows);
        (starts, rows.iter().map(|row| row.session).collect::<BTreeSet<_>>())
    };
    let (starts, rows) = run(false);
    let second_of = |number: usize| starts[50 + (number - 50) * 2 + 1];
    assert!(!second_of(400), "within the bound a visitor's session goes on");
    assert!(second_of(900), "beyond it the visitor begins anew");
    assert_eq!(rows.len(), starts.iter().filter(|starts| **starts).count(), "every session is written");
    assert_eq!(run(true), (starts, rows), "when memory is freed does not matter");
}
