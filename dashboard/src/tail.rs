//! The newest events of one site and filter, as a moving list. Like a [`crate::feed`], it has no queue per viewer: each
//! pulls the frames after its own place, and is told how many events it was too slow for.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use footfall_schemas::{
    EventId, SiteId,
    goal::Goal,
    live::MINUTES_SHOWN,
    record::EventRef,
    time::MINUTE_MS,
    viewer::{FeedEvent, Filter, ViewerFrame},
};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::{feed::encode, goals, selection};

/// Most events in a frame.
pub(crate) const MOST_EVENTS: usize = 20;
/// Frames kept for those who are a little late.
const KEPT_FRAMES: usize = 8;
/// Events remembered, so that a resend is not shown again.
const REMEMBERED: usize = 1_000;
/// Visitors remembered who have reached a filter's goal.
pub(crate) const MOST_VISITORS: usize = 100_000;

pub(crate) struct Tail {
    pub(crate) site: SiteId,
    pub(crate) filter: Filter,
    /// The one that the filter names; none when the site has no such goal.
    goal: Option<Goal>,
    /// A std mutex: no await happens while it is held.
    list: Mutex<List>,
    moved: watch::Sender<u64>,
}

#[derive(Default)]
struct List {
    /// Nothing is shown before: what ClickHouse has comes first.
    filled: bool,
    /// The newest since the last frame, and how many were left out for them.
    gathered: VecDeque<FeedEvent>,
    skipped: u64,
    /// The newest of all, for who comes later.
    newest: VecDeque<FeedEvent>,
    shown: HashSet<EventId>,
    shown_in_order: VecDeque<EventId>,
    frames: VecDeque<Frame>,
    told: Place,
    /// By visitor: the newest event of his that reached the goal (ms since 1970).
    reached: HashMap<u64, i64>,
}

struct Frame {
    text: Utf8Bytes,
    /// Before it.
    place: Place,
}

/// How far a viewer has read: frames, and events in them or left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    frames: u64,
    events: u64,
}

/// What was there before the tail began.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Oldest first.
    pub(crate) events: Vec<FeedEvent>,
    /// Visitors who have reached the filter's goal in the half hour, with when (ms since 1970).
    pub(crate) reached: HashMap<u64, i64>,
}

impl Tail {
    pub(crate) fn new(site: SiteId, filter: Filter, goal: Option<Goal>) -> Self {
        Self { site, filter, goal, list: Mutex::default(), moved: watch::Sender::new(0) }
    }

    pub(crate) fn goal(&self) -> Option<&Goal> {
        self.goal.as_ref()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.moved.receiver_count() > 0
    }

    /// Takes an event of the site, if it matches and was not there before.
    pub(crate) fn offer(&self, event: &EventRef<'_>) {
        let mut list = self.lock();
        if self.filter.goal.is_some() && !self.is_of_who_reached(&mut list, event) {
            return;
        }
        let is_known = |list: &List| {
            list.shown.contains(&event.event_id)
                || list.gathered.iter().any(|other| other.id == event.event_id)
        };
        if !selection::matches(&self.filter, event) || is_known(&list) {
            return;
        }
        if list.gathered.len() == MOST_EVENTS {
            list.gathered.pop_front();
            list.skipped += 1;
        }
        list.gathered.push_back(told_of(event));
    }

    fn is_of_who_reached(&self, list: &mut List, event: &EventRef<'_>) -> bool {
        let Some(goal) = &self.goal else { return false };
        let fresh = |at: i64| event.event_time - at < MINUTES_SHOWN * MINUTE_MS;
        if goals::is_reached_by(goal, event) {
            if list.reached.len() >= MOST_VISITORS {
                list.reached.retain(|_, at| fresh(*at));
            }
            if list.reached.len() < MOST_VISITORS {
                list.reached.insert(event.visitor.0, event.event_time);
            }
            return true;
        }
        list.reached.get(&event.visitor.0).is_some_and(|at| fresh(*at))
    }

    /// What was there before; events that came since are shown after it.
    pub(crate) fn fill(&self, backlog: Backlog) {
        let mut list = self.lock();
        list.filled = true;
        for (visitor, at) in backlog.reached {
            list.reached.entry(visitor).or_insert(at);
        }
        let gathered = std::mem::take(&mut list.gathered);
        let is_new = |event: &FeedEvent| !backlog.events.iter().any(|other| other.id == event.id);
        let gathered: Vec<_> = gathered.into_iter().filter(is_new).collect();
        list.gathered = backlog.events.into_iter().chain(gathered).collect();
        while list.gathered.len() > MOST_EVENTS {
            list.gathered.pop_front();
        }
        drop(list);
        self.moved.send_modify(|_| ());
        self.flush();
    }

    /// Tells what was gathered.
    pub(crate) fn flush(&self) {
        let mut list = self.lock();
        if !list.filled || list.gathered.is_empty() {
            return;
        }
        let events: Vec<_> = std::mem::take(&mut list.gathered).into();
        let skipped = std::mem::take(&mut list.skipped);
        for event in &events {
            list.remember(event);
        }
        let place = list.told;
        list.told = Place { frames: place.frames + 1, events: place.events + events.len() as u64 + skipped };
        list.frames.push_back(Frame { text: self.encoded(events, skipped), place });
        if list.frames.len() > KEPT_FRAMES {
            list.frames.pop_front();
        }
        let frames = list.told.frames;
        drop(list);
        self.moved.send_replace(frames);
    }

    /// The frames after `have`, and the place after them; for who has none the newest events as one.
    pub(crate) fn after(&self, have: Option<Place>) -> (Vec<Utf8Bytes>, Option<Place>) {
        let list = self.lock();
        if !list.filled {
            return (Vec::new(), have);
        }
        let Some(have) = have else {
            let newest: Vec<_> = list.newest.iter().cloned().collect();
            return (vec![self.encoded(newest, 0)], Some(list.told));
        };
        let missing = list.frames.iter().filter(|frame| frame.place.frames >= have.frames);
        let mut frames: Vec<_> = missing.map(|frame| frame.text.clone()).collect();
        // Too late for the frames between: what was in them was left out for this viewer.
        let first = list.frames.iter().map(|frame| frame.place).find(|place| place.frames >= have.frames);
        let lost = first.unwrap_or(have).events - have.events;
        if lost > 0 {
            frames.insert(0, self.encoded(Vec::new(), lost));
        }
        (frames, Some(list.told))
    }

    fn encoded(&self, events: Vec<FeedEvent>, skipped: u64) -> Utf8Bytes {
        encode(&ViewerFrame::Events { site: self.site.clone(), events, skipped })
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    fn remember(&mut self, event: &FeedEvent) {
        self.newest.push_back(event.clone());
        if self.newest.len() > MOST_EVENTS {
            self.newest.pop_front();
        }
        self.shown.insert(event.id);
        self.shown_in_order.push_back(event.id);
        if self.shown_in_order.len() > REMEMBERED {
            let oldest = self.shown_in_order.pop_front();
            oldest.map(|id| self.shown.remove(&id));
        }
    }
}

fn told_of(event: &EventRef<'_>) -> FeedEvent {
    FeedEvent {
        id: event.event_id,
        received_at: event.received_at,
        kind: event.kind,
        name: event.name.to_string(),
        page: event.path.to_string(),
        referrer: event.referrer_host.to_string(),
        channel: event.channel.to_string(),
        country: event.country.to_string(),
        browser: event.browser.to_string(),
        device: event.device.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use footfall_schemas::{EventKind, EventRecord, VisitorId, ids::StreamId};
    use serde_json::json;

    use super::*;

    const NOON: i64 = 1_800_000_000_000;

    fn event(number: u32) -> EventRecord {
        let golden = include_str!("../../schemas/golden/event_record.json");
        let golden: EventRecord = serde_json::from_str(golden).unwrap();
        let stream: StreamId = "01a315e46800a1b2c3d4e5f6".parse().unwrap();
        EventRecord {
            event_id: EventId::new(stream, number.try_into().unwrap()),
            visitor: VisitorId(number.into()),
            event_time: NOON,
            ..golden
        }
    }

    fn tail(filter: serde_json::Value, goal: Option<Goal>) -> Tail {
        Tail::new("demo".parse().unwrap(), serde_json::from_value(filter).unwrap(), goal)
    }

    /// The numbers of the events in these frames, and how many were left out.
    fn read(frames: &[Utf8Bytes]) -> (Vec<u32>, u64) {
        let mut numbers = Vec::new();
        let mut left_out = 0;
        for frame in frames {
            let ViewerFrame::Events { events, skipped, .. } = serde_json::from_str(frame).unwrap() else {
                panic!("{frame}")
            };
            numbers.extend(events.iter().map(|event| event.id.sequence.get()));
            left_out += skipped;
        }
        (numbers, left_out)
    }

    fn offer(tail: &Tail, numbers: impl IntoIterator<Item = u32>) {
        numbers.into_iter().for_each(|number| tail.offer(&event(number).borrowed()));
    }

    #[test]
    fn a_tick_shows_the_newest_twenty_and_says_how_many_were_left_out() {
        let tail = tail(json!({}), None);
        tail.fill(Backlog::default());
        let (first, place) = tail.after(None);
        assert_eq!(read(&first), (vec![], 0));
        offer(&tail, 1..=25);
        assert!(tail.after(place).0.is_empty(), "nothing before the tick");
        tail.flush();
        assert_eq!(read(&tail.after(place).0), ((6..=25).collect(), 5));
        // Who comes now gets the newest.
        offer(&tail, 26..=27);
        tail.flush();
        assert_eq!(read(&tail.after(None).0), ((8..=27).collect(), 0));
    }

    #[test]
    fn a_resend_is_not_shown_again() {
        let tail = tail(json!({}), None);
        tail.fill(Backlog { events: vec![told_of(&event(1).borrowed())], ..Backlog::default() });
        let (frames, place) = tail.after(None);
        assert_eq!(read(&frames).0, [1]);
        offer(&tail, [1, 2, 2, 3]);
        tail.flush();
        offer(&tail, [3, 1]);
        tail.flush();
        assert_eq!(read(&tail.after(place).0), (vec![2, 3], 0));
        // The memory is bounded.
        (4..4 + REMEMBERED as u32).for_each(|number| {
            offer(&tail, [number]);
            tail.flush();
        });
        let list = tail.lock();
        assert_eq!((list.shown.len(), list.shown_in_order.len()), (REMEMBERED, REMEMBERED));
    }

    #[test]
    fn what_comes_before_the_backlog_is_shown_after_it_and_once() {
        let tail = tail(json!({}), None);
        offer(&tail, [2, 3]);
        tail.flush();
        assert!(tail.after(None).0.is_empty());
        let backlog = [1, 2].map(|number| told_of(&event(number).borrowed()));
        tail.fill(Backlog { events: backlog.into(), ..Backlog::default() });
        assert_eq!(read(&tail.after(None).0).0, [1, 2, 3]);
    }

    #[test]
    fn who_is_too_slow_for_the_frames_is_told_what_it_missed() {
        let tail = tail(json!({}), None);
        tail.fill(Backlog::default());
        let (_, place) = tail.after(None);
        (1..=KEPT_FRAMES as u32 + 3).for_each(|number| {
            offer(&tail, [number]);
            tail.flush();
        });
        let (frames, now) = tail.after(place);
        assert_eq!(read(&frames), ((4..=KEPT_FRAMES as u32 + 3).collect(), 3));
        assert!(tail.after(now).0.is_empty());
    }

    #[test]
    fn a_frame_is_encoded_once_for_all() {
        let tail = tail(json!({}), None);
        tail.fill(Backlog::default());
        let (_, place) = tail.after(None);
        offer(&tail, [1]);
        tail.flush();
        let pointer = || tail.after(place).0[0].as_bytes().as_ptr();
        assert_eq!(pointer(), pointer());
    }

    #[test]
    fn with_a_goal_only_those_who_have_reached_it_are_shown() {
        let goal: Goal = serde_json::from_value(json!({"name": "Bought", "event": "buy"})).unwrap();
        let tail = tail(json!({"goal": "Bought"}), Some(goal));
        let reached = HashMap::from([(1, NOON - 29 * MINUTE_MS), (2, NOON - 30 * MINUTE_MS)]);
        tail.fill(Backlog { reached, ..Backlog::default() });
        let (_, place) = tail.after(None);
        // 1 has reached it in the half hour, 2 before, 3 does now, 4 never.
        offer(&tail, [1, 2]);
        let buys = EventRecord { kind: EventKind::Custom, name: "buy".into(), ..event(3) };
        tail.offer(&buys.borrowed());
        let later = EventRecord { visitor: VisitorId(3), ..event(5) };
        tail.offer(&later.borrowed());
        offer(&tail, [4]);
        tail.flush();
        assert_eq!(read(&tail.after(place).0).0, [1, 3, 5]);
    }
}
