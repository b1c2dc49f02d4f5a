//! What a site's subscribers are sent: every change is encoded once, numbered, and kept for a while.
//!
//! There is no queue per subscriber. Each pulls what lies after its own position; one that has fallen behind further
//! than it may gets the newest whole instead (conflation), so a slow reader costs no memory and holds up nobody.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
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

/// A site's numbered changes.
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
    view: View,
    /// When `view` was made (ms since 1970).
    now: i64,
    /// The frames that lead to `seq`, oldest first, one per sequence.
    frames: VecDeque<Utf8Bytes>,
    bytes: usize,
    /// The whole at `seq`, once somebody asked for it.
    snapshot: Option<Utf8Bytes>,
}

/// What a subscriber is to be sent next, and where it stands then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pending {
    Nothing,
    Changes(Vec<Utf8Bytes>, Position),
    Snapshot(Utf8Bytes, Position),
}

impl Feed {
    pub(crate) fn new(site: SiteId, epoch: u64, kept: Kept) -> Self {
        Self { site, epoch, kept, shown: Mutex::default(), moved: watch::Sender::new(0) }
    }

    /// Publishes `newer` when it differs from what is shown; the first is published anyway.
    pub(crate) fn publish(&self, newer: View, now: i64) {
        let mut shown = self.lock();
        let position = Position { epoch: self.epoch, seq: shown.seq + 1 };
        let first = shown.seq == 0;
        let frame = match shown.view.change_to(&newer, &self.site, position, now) {
            None if !first => return,
            Some(update) if !first => ViewerFrame::Delta(update),
            _ => ViewerFrame::Snapshot(newer.whole(&self.site, position, now)),
        };
        let text = encode(&frame);
        shown.seq = position.seq;
        shown.now = now;
        shown.view = newer;
        shown.snapshot = matches!(frame, ViewerFrame::Snapshot(_)).then(|| text.clone());
        shown.bytes += text.len();
        shown.frames.push_back(text);
        while shown.frames.len() > self.kept.frames || shown.bytes > self.kept.bytes {
            let Some(oldest) = shown.frames.pop_front() else { break };
            shown.bytes -= oldest.len();
        }
        drop(shown);
        self.moved.send_replace(position.seq);
    }

    /// What lies after `have`, if that is at most `most` frames and still kept; else the whole.
    pub(crate) fn after(&self, have: Option<Position>, most: usize) -> Pending {
        let mut shown = self.lock();
        if shown.seq == 0 {
            return Pending::Nothing;
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

    /// Wakes with every published change.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
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
        View { online: Online { visitors, ..Online::default() }, ..View::default() }
    }

    fn update_of(frame: &ViewerFrame) -> Option<&ViewUpdate> {
        match frame {
            ViewerFrame::Snapshot(update) | ViewerFrame::Delta(update) => Some(update),
            ViewerFrame::Events { .. } | ViewerFrame::Heartbeat { .. } | ViewerFrame::Error { .. } => None,
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
        (1..=10).for_each(|visitors| feed.publish(online(visitors), 0));
        let have = have.map(|(epoch, seq)| Position { epoch, seq });
        let got = match feed.after(have, 100) {
            Pending::Nothing => Got::Nothing,
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
        (1..=10).for_each(|visitors| feed.publish(online(visitors), 0));
        let have = Some(Position { epoch: EPOCH, seq: 1 });
        assert!(matches!(feed.after(have, 9), Pending::Changes(frames, _) if frames.len() == 9));
        assert!(matches!(feed.after(have, 8), Pending::Snapshot(..)));
    }

    #[test]
    fn before_the_first_view_nobody_is_told_anything() {
        let feed = feed(4);
        assert_eq!(feed.after(None, 9), Pending::Nothing);
        feed.publish(View::default(), 0);
        assert!(matches!(feed.after(None, 9), Pending::Snapshot(..)));
    }

    #[test]
    fn what_did_not_change_takes_no_number() {
        let feed = feed(4);
        feed.publish(online(1), 0);
        feed.publish(online(1), 250);
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
        (1..=100).for_each(|visitors| feed.publish(online(visitors), 0));
        let shown = feed.lock();
        assert!(shown.bytes <= 1_000 && !shown.frames.is_empty(), "{} bytes", shown.bytes);
        assert_eq!(shown.bytes, shown.frames.iter().map(|frame| frame.len()).sum::<usize>());
    }
}
