//! What a view's subscribers are sent: every change is encoded once, numbered, and kept for a while.
//!
//! There is no queue per subscriber. Each pulls what lies after its own position; one that has fallen behind further
//! than it may gets the newest whole instead (conflation), so a slow reader costs no memory and holds up nobody.
//!
//! A feed that nobody watches sleeps: nothing is merged for it. It wakes with the first who comes.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use footfall_schemas::{
    SiteId,
    viewer::{Position, ViewerFrame},
};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::view::View;

/// How much is kept for subscribers that come back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
}

/// Gives every feed an epoch of its own, so that no position is taken for one of another view, node or time.
#[derive(Debug, Default)]
pub(crate) struct Epochs(AtomicU64);

impl Epochs {
    /// `now`: ms since 1970. Time orders nodes and restarts, the random bits tell apart what starts together;
    /// JavaScript holds 53 bits.
    pub(crate) fn next(&self, now: i64) -> u64 {
        let from = now as u64 * 1_024 + u64::from(rand::random::<u16>() % 1_024);
        let next = |last: u64| from.max(last + 1);
        next(self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last))).unwrap_or(0))
    }
}

/// A view's numbered changes.
#[derive(Debug)]
pub(crate) struct Feed {
    site: SiteId,
    epoch: u64,
    kept: Kept,
    /// A std mutex: no await happens while it is held.
    shown: Mutex<Shown>,
    moved: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Shown {
    /// 0: nothing was published yet.
    seq: u64,
    view: Arc<View>,
    /// When `view` was made (ms since 1970).
    now: i64,
    /// The frames that lead to `seq`, oldest first, one per sequence.
    frames: VecDeque<Utf8Bytes>,
    bytes: usize,
    /// The whole at `seq`, once somebody asked for it.
    snapshot: Option<Utf8Bytes>,
    /// `view` is what was true when somebody last watched.
    asleep: bool,
    /// What it shows is there no more.
    ended: bool,
}

/// What a subscriber is to be sent next, and where it stands then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pending {
    /// It has everything.
    Nothing,
    /// What is shown is not known yet: it comes with the next publish.
    Unknown,
    Changes(Vec<Utf8Bytes>, Position),
    Snapshot(Utf8Bytes, Position),
    /// Nothing comes any more.
    Ended,
}

impl Feed {
    pub(crate) fn new(site: SiteId, epoch: u64, kept: Kept) -> Self {
        Self { site, epoch, kept, shown: Mutex::default(), moved: watch::Sender::new(0) }
    }

    /// Publishes `newer` when it differs from what is shown; the first is published anyway. Whether it was.
    pub(crate) fn publish(&self, newer: View, now: i64) -> bool {
        let mut shown = self.lock();
        let woken = std::mem::take(&mut shown.asleep);
        let position = Position { epoch: self.epoch, seq: shown.seq + 1 };
        let change = match shown.seq {
            0 => None,
            _ => match shown.view.change_to(&newer, &self.site, position, now) {
                Some(update) => Some(update),
                None => {
                    if woken {
                        self.moved.send_replace(shown.seq);
                    }
                    return false;
                }
            },
        };
        let frame = match change.filter(|_| shown.view.can_become(&newer)) {
            Some(update) => ViewerFrame::Delta(update),
            None => ViewerFrame::Snapshot(newer.whole(&self.site, position, now)),
        };
        let text = encode(&frame);
        shown.seq = position.seq;
        shown.now = now;
        shown.view = Arc::new(newer);
        shown.snapshot = matches!(frame, ViewerFrame::Snapshot(_)).then(|| text.clone());
        shown.bytes += text.len();
        shown.frames.push_back(text);
        while shown.frames.len() > self.kept.frames || shown.bytes > self.kept.bytes {
            let Some(oldest) = shown.frames.pop_front() else { break };
            shown.bytes -= oldest.len();
        }
        drop(shown);
        self.moved.send_replace(position.seq);
        true
    }

    /// What lies after `have`, if that is at most `most` frames and still kept; else the whole.
    pub(crate) fn after(&self, have: Option<Position>, most: usize) -> Pending {
        let mut shown = self.lock();
        if shown.ended {
            return Pending::Ended;
        }
        if shown.seq == 0 || shown.asleep {
            return Pending::Unknown;
        }
        let position = Position { epoch: self.epoch, seq: shown.seq };
        let missing = have
            .filter(|have| have.epoch == self.epoch)
            .and_then(|have| shown.seq.checked_sub(have.seq))
            .and_then(|missing| usize::try_from(missing).ok())
            .filter(|missing| *missing <= most.min(shown.frames.len()));
        match missing {
            Some(0) => Pending::Nothing,
            Some(missing) => {
                let first = shown.frames.len() - missing;
                Pending::Changes(shown.frames.range(first..).cloned().collect(), position)
            }
            None => {
                let Shown { view, now, snapshot, .. } = &mut *shown;
                let text = snapshot.get_or_insert_with(|| {
                    encode(&ViewerFrame::Snapshot(view.whole(&self.site, position, *now)))
                });
                Pending::Snapshot(text.clone(), position)
            }
        }
    }

    /// What is shown now; `None` while that is not known.
    pub(crate) fn view(&self) -> Option<Arc<View>> {
        let shown = self.lock();
        (shown.seq > 0 && !shown.asleep).then(|| shown.view.clone())
    }

    /// Wakes with every published change. Whoever holds it keeps the feed awake.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.moved.receiver_count() > 0
    }

    /// Something happened that is not merged, because nobody watches.
    pub(crate) fn sleep(&self) {
        self.lock().asleep = true;
    }

    pub(crate) fn is_asleep(&self) -> bool {
        self.lock().asleep
    }

    /// Tells whoever watches that nothing comes any more.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.moved.send_modify(|_| ());
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// Frames kept for a resume.
    pub(crate) fn kept_frames(&self) -> usize {
        self.kept.frames
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        // Poisoned by a panic halfway through `publish`: what is there still parses and the next publish replaces it.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn encode(frame: &ViewerFrame) -> Utf8Bytes {
    serde_json::to_string(frame).expect("plain fields with text keys always serialise").into()
}

#[cfg(test)]
mod tests {
    use footfall_schemas::viewer::{Online, ViewUpdate};
    use rstest::rstest;

    use super::*;

    const EPOCH: u64 = 42;

    fn feed(frames: usize) -> Feed {
        Feed::new(SiteId::try_from("demo").unwrap(), EPOCH, Kept { frames, bytes: 1_000_000 })
    }

    fn online(visitors: u64) -> View {
        View { online: Some(Online { visitors, ..Online::default() }), ..View::default() }
    }

    fn update_of(frame: &ViewerFrame) -> Option<&ViewUpdate> {
        match frame {
            ViewerFrame::Snapshot(update) | ViewerFrame::Delta(update) => Some(update),
            _ => None,
        }
    }

    fn parse(text: &Utf8Bytes) -> ViewerFrame {
        serde_json::from_str(text).unwrap()
    }

    /// How many changes, or whether a snapshot.
    #[derive(Debug, PartialEq)]
    enum Got {
        Nothing,
        Changes(usize),
        Snapshot,
    }

    #[rstest]
    #[case::nothing_yet(None, Got::Snapshot)]
    #[case::up_to_date(Some((EPOCH, 10)), Got::Nothing)]
    #[case::one_behind(Some((EPOCH, 9)), Got::Changes(1))]
    #[case::as_far_as_is_kept(Some((EPOCH, 6)), Got::Changes(4))]
    #[case::further_than_is_kept(Some((EPOCH, 5)), Got::Snapshot)]
    #[case::from_the_future(Some((EPOCH, 11)), Got::Snapshot)]
    #[case::of_another_node(Some((EPOCH + 1, 10)), Got::Snapshot)]
    fn with_four_frames_kept_at_seq_10_a_subscriber_gets(
        #[case] have: Option<(u64, u64)>,
        #[case] expected: Got,
    ) {
        let feed = feed(4);
        (1..=10).for_each(|visitors| assert!(feed.publish(online(visitors), 0)));
        let have = have.map(|(epoch, seq)| Position { epoch, seq });
        let got = match feed.after(have, 100) {
            Pending::Nothing => Got::Nothing,
            Pending::Unknown | Pending::Ended => panic!("it was published"),
            Pending::Changes(frames, position) => {
                assert_eq!(position, Position { epoch: EPOCH, seq: 10 });
                for (index, frame) in frames.iter().rev().enumerate() {
                    let frame = parse(frame);
                    let update = update_of(&frame).unwrap();
                    assert_eq!(update.position.seq, 10 - index as u64);
                }
                Got::Changes(frames.len())
            }
            Pending::Snapshot(frame, position) => {
                assert_eq!(position, Position { epoch: EPOCH, seq: 10 });
                let frame = parse(&frame);
                assert_eq!(update_of(&frame).unwrap().online.as_ref().unwrap().visitors, 10);
                Got::Snapshot
            }
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn who_is_further_behind_than_allowed_gets_the_newest_whole_instead() {
        let feed = feed(100);
        (1..=10).for_each(|visitors| assert!(feed.publish(online(visitors), 0)));
        let have = Some(Position { epoch: EPOCH, seq: 1 });
        assert!(matches!(feed.after(have, 9), Pending::Changes(frames, _) if frames.len() == 9));
        assert!(matches!(feed.after(have, 8), Pending::Snapshot(..)));
    }

    #[test]
    fn before_the_first_view_nobody_is_told_anything() {
        let feed = feed(4);
        assert_eq!(feed.after(None, 9), Pending::Unknown);
        feed.publish(View::default(), 0);
        assert!(matches!(feed.after(None, 9), Pending::Snapshot(..)));
    }

    #[test]
    fn who_comes_to_a_feed_that_sleeps_is_told_once_it_is_awake_and_can_go_on_from_before() {
        let feed = feed(4);
        feed.publish(online(1), 0);
        let have = Some(Position { epoch: EPOCH, seq: 1 });
        feed.sleep();
        let mut moved = feed.watch();
        assert_eq!(
            (feed.after(None, 9), feed.after(have, 9), feed.view()),
            (Pending::Unknown, Pending::Unknown, None)
        );
        // Nothing has changed meanwhile: still it is told.
        feed.publish(online(1), 500);
        assert!(moved.has_changed().unwrap());
        moved.mark_unchanged();
        assert_eq!(feed.after(have, 9), Pending::Nothing);
        assert!(matches!(feed.after(None, 9), Pending::Snapshot(..)));
        feed.sleep();
        feed.publish(online(2), 1_000);
        assert!(moved.has_changed().unwrap());
        assert!(matches!(feed.after(have, 9), Pending::Changes(frames, _) if frames.len() == 1));
    }

    #[test]
    fn a_feed_that_has_ended_says_so_to_whoever_waits() {
        let feed = feed(4);
        feed.publish(online(1), 0);
        let moved = feed.watch();
        feed.end();
        assert!(moved.has_changed().unwrap() && feed.has_ended());
        assert_eq!(feed.after(None, 9), Pending::Ended);
    }

    #[test]
    fn what_no_change_can_tell_is_told_whole() {
        let feed = feed(4);
        let goals = |names: &[&str]| View {
            goals: names.iter().map(|name| ((*name).to_owned(), 0)).collect(),
            ..View::default()
        };
        feed.publish(goals(&["a"]), 0);
        for (seq, (names, whole)) in [(&["a", "b"][..], false), (&["b"][..], true)].into_iter().enumerate() {
            feed.publish(goals(names), 0);
            let have = Some(Position { epoch: EPOCH, seq: seq as u64 + 1 });
            let Pending::Changes(frames, _) = feed.after(have, 9) else { panic!("one frame") };
            assert_eq!(matches!(parse(&frames[0]), ViewerFrame::Snapshot(_)), whole, "{names:?}");
        }
    }

    #[test]
    fn no_two_epochs_are_the_same_and_later_ones_are_larger() {
        let epochs = Epochs::default();
        let given: Vec<u64> = (0..5_000).map(|n| epochs.next(1_800_000_000_000 + n / 4)).collect();
        assert!(given.is_sorted_by(|a, b| a < b));
        assert!(given[4_999] < 1 << 53);
        assert!(Epochs::default().next(1_800_000_100_000) > given[4_999], "a node that starts later");
    }

    #[test]
    fn what_did_not_change_takes_no_number() {
        let feed = feed(4);
        assert!(feed.publish(online(1), 0));
        assert!(!feed.publish(online(1), 250));
        assert_eq!(*feed.watch().borrow(), 1);
    }

    #[test]
    fn a_snapshot_is_encoded_once_for_all() {
        let feed = feed(4);
        feed.publish(online(1), 0);
        feed.publish(online(2), 0);
        let pointer = || match feed.after(None, 9) {
            Pending::Snapshot(text, _) => text.as_bytes().as_ptr(),
            other => panic!("{other:?}"),
        };
        assert_eq!(pointer(), pointer());
    }

    #[test]
    fn kept_bytes_are_bounded() {
        let feed = Feed::new(SiteId::try_from("demo").unwrap(), EPOCH, Kept { frames: 1_000, bytes: 1_000 });
        (1..=100).for_each(|visitors| assert!(feed.publish(online(visitors), 0)));
        let shown = feed.lock();
        assert!(shown.bytes <= 1_000 && !shown.frames.is_empty(), "{} bytes", shown.bytes);
        assert_eq!(shown.bytes, shown.frames.iter().map(|frame| frame.len()).sum::<usize>());
    }
}
