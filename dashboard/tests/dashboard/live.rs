//! Snapshot, deltas, resume, and what the log may do to records on their way.

use std::collections::BTreeMap;

use footfall_dashboard::Config;
use footfall_schemas::{
    Dimension,
    live::{LiveRecord, LiveState, MinuteCounts, Totals},
    viewer::{Position, ViewerFrame},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::stage::{Stage, delta, full, now_ms, presence, quick, within_deadline};

#[tokio::test]
async fn a_viewer_gets_a_snapshot_and_then_what_changes() {
    within_deadline(async {
        let stage = Stage::new(quick()).await;
        let mut viewer = stage.viewer(&stage.log_in().await).await;
        viewer.subscribe("demo", None).await;
        let ViewerFrame::Snapshot(first) = viewer.next().await else { panic!("first a snapshot") };
        assert_eq!(first.live.totals, Some(Totals::default()));

        stage.tell(&full(0, 1, &[("/", 3), ("/shop", 1)])).await;
        stage.tell(&full(1, 1, &[("/", 2)])).await;
        stage.report(&presence("a", now_ms(), 4)).await;
        viewer.watch("both partitions", |page| page.views_of("/") == 5 && page.online.visitors == 4).await;
        stage.tell(&delta(0, 2, &[("/", 4), ("/shop", 0)])).await;
        viewer.watch("the change", |page| page.views_of("/") == 6 && page.views_of("/shop") == 0).await;
        assert_eq!((viewer.page.snapshots, viewer.page.live.totals.unwrap().active), (1, 2));

        // Who comes now sees the same at once.
        let mut late = stage.viewer(&stage.log_in().await).await;
        late.subscribe("demo", None).await;
        late.next().await;
        late.watch("the same", |page| page.views_of("/") == 6).await;
        assert_eq!((&late.page.live, &late.page.online), (&viewer.page.live, &viewer.page.online));
        // Another site shows nothing of it.
        late.subscribe("shop", None).await;
        late.watch("the other site", |page| page.views_of("/") == 0 && page.online.visitors == 0).await;
    })
    .await;
}

#[tokio::test]
async fn who_comes_back_gets_only_what_was_missed() {
    within_deadline(async {
        let stage = Stage::new(Config { heartbeat_ms: 60_000, ..quick() }).await;
        let cookie = stage.log_in().await;
        let mut staying = stage.viewer(&cookie).await;
        let mut leaving = stage.viewer(&cookie).await;
        staying.subscribe("demo", None).await;
        leaving.subscribe("demo", None).await;
        stage.tell(&full(0, 1, &[("/", 1)])).await;
        leaving.watch("the first", |page| page.views_of("/") == 1).await;
        staying.watch("the first", |page| page.views_of("/") == 1).await;
        let (left_at, page) = (leaving.page.position.unwrap(), leaving.page.clone());
        drop(leaving);
        for seq in 2..=4 {
            stage.tell(&delta(0, seq, &[("/", seq)])).await;
            staying.watch("the next", |page| page.views_of("/") == seq).await;
        }
        let missed = (staying.page.position.unwrap().seq - left_at.seq) as u32;
        let deltas_before = page.deltas;

        let mut back = stage.viewer(&cookie).await;
        back.page = page;
        back.subscribe("demo", Some(left_at)).await;
        back.watch("what was missed", |page| page.position == staying.page.position).await;
        assert_eq!(back.page.live, staying.page.live);
        assert_eq!(back.page.deltas - deltas_before, missed, "one frame for each change missed");
        assert_eq!(back.page.snapshots, 1, "the one before it left");

        // Nothing missed: a heartbeat says that the subscription stands.
        back.subscribe("demo", back.page.position).await;
        assert!(matches!(back.next().await, ViewerFrame::Heartbeat { .. }));

        // Another node's position, one that was never reached: a snapshot.
        let Position { epoch, seq } = back.page.position.unwrap();
        for unknown in [Position { epoch: epoch + 1, seq }, Position { epoch, seq: seq + 1 }] {
            back.subscribe("demo", Some(unknown)).await;
            assert!(matches!(back.next().await, ViewerFrame::Snapshot(_)), "{unknown:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn who_was_away_for_longer_than_changes_are_kept_gets_a_snapshot() {
    within_deadline(async {
        let stage = Stage::new(Config { kept_changes: 3, ..quick() }).await;
        let mut viewer = stage.viewer(&stage.log_in().await).await;
        viewer.subscribe("demo", None).await;
        viewer.next().await;
        let left_at = viewer.page.position;
        for seq in 1..=5 {
            stage.tell(&full(0, seq, &[("/", seq)])).await;
            viewer.watch("the next", |page| page.views_of("/") == seq).await;
        }
        viewer.subscribe("demo", left_at).await;
        assert!(matches!(viewer.next().await, ViewerFrame::Snapshot(_)));
        assert_eq!(viewer.page.views_of("/"), 5);
    })
    .await;
}

#[tokio::test]
async fn a_partition_that_falls_silent_is_said_to_be_until_it_tells_again() {
    within_deadline(async {
        let stage = Stage::new(Config { partition_silence_ms: 700, ..quick() }).await;
        let mut viewer = stage.viewer(&stage.log_in().await).await;
        viewer.subscribe("demo", None).await;
        stage.tell(&full(0, 1, &[("/", 1)])).await;
        viewer.watch("a partition", |page| page.views_of("/") == 1).await;
        assert_eq!(viewer.page.freshness.silent_partitions, 0);
        viewer.watch("its silence", |page| page.freshness.silent_partitions == 1).await;
        assert_eq!(viewer.page.views_of("/"), 1, "what was known stays");
        stage.tell(&delta(0, 2, &[("/", 2)])).await;
        viewer.watch("its return", |page| page.freshness.silent_partitions == 0).await;
        assert_eq!(viewer.page.views_of("/"), 2);
        // A record is missing: silent until everything is told again.
        stage.tell(&delta(0, 4, &[("/", 4)])).await;
        viewer.watch("the gap", |page| page.freshness.silent_partitions == 1).await;
        assert_eq!(viewer.page.views_of("/"), 2);
        stage.tell(&full(0, 5, &[("/", 5)])).await;
        viewer.watch("the healing", |page| page.views_of("/") == 5).await;
        assert_eq!(viewer.page.freshness.silent_partitions, 0);
    })
    .await;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_harms_nothing() {
    within_deadline(async {
        let stage = Stage::new(quick()).await;
        let mut viewer = stage.viewer(&stage.log_in().await).await;
        viewer.subscribe("demo", None).await;
        let mut strange = full(0, 1, &[("/", 1)]);
        strange.site = footfall_schemas::SiteId::try_from("not-configured").unwrap();
        stage.tell(&strange).await;
        stage.tell_raw(b"\xff not json").await;
        stage.tell(&full(0, 1, &[("/", 1)])).await;
        viewer.watch("the record behind", |page| page.views_of("/") == 1).await;
    })
    .await;
}

/// An aggregator's side of one partition.
struct Teller {
    partition: i32,
    seq: u64,
    state: LiveState,
}

impl Teller {
    fn step(&mut self, random: &mut StdRng) -> LiveRecord {
        let mut newer = self.state.clone();
        let pages = newer.tops.entry(Dimension::Page).or_default();
        let path = format!("/{}", random.random_range(0..6));
        match random.random_range(0..4) {
            0 => drop(pages.remove(&path)),
            _ => *pages.entry(path).or_default() += 1,
        }
        if pages.is_empty() {
            newer.tops.clear();
        }
        let minute = (now_ms() / 60_000 - random.random_range(0..5)) * 60;
        let counts = MinuteCounts { views: random.random_range(1..9), ..MinuteCounts::default() };
        newer.minutes.insert(minute, counts);
        newer.totals = Some(Totals { active: random.random_range(0..9), visitors: 9, ..Totals::default() });
        let change = self.state.change_to(&newer).unwrap_or_default();
        self.state = newer;
        self.tell(random.random_bool(0.1), change)
    }

    fn tell(&mut self, whole: bool, change: LiveState) -> LiveRecord {
        self.seq += 1;
        let mut record = full(self.partition, self.seq, &[]);
        record.full = whole;
        record.state = if whole { self.state.clone() } else { change };
        record
    }
}

/// P7: however records are dropped, doubled and swapped, and however viewers come and go, a page never applies a
/// delta to the wrong state (`Page::apply` panics), and when the storm is over it shows what the aggregators hold.
#[tokio::test]
async fn no_viewer_ever_sees_a_torn_state() {
    within_deadline(async {
        let seed = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let stage =
            Stage::new(Config { max_behind: 3, kept_changes: 20, heartbeat_ms: 100, ..quick() }).await;
        let cookie = stage.log_in().await;
        let mut steady = stage.viewer(&cookie).await;
        steady.subscribe("demo", None).await;
        let mut restless = stage.viewer(&cookie).await;
        restless.subscribe("demo", None).await;

        let mut tellers =
            [0, 1, 2].map(|partition| Teller { partition, seq: 0, state: LiveState::default() });
        for _ in 0..40 {
            let mut storm = Vec::new();
            for _ in 0..6 {
                let teller = &mut tellers[random.random_range(0..3)];
                let record = teller.step(&mut random);
                match random.random_range(0..10) {
                    0 => {}
                    1 => storm.extend([record.clone(), record]),
                    _ => storm.push(record),
                }
            }
            if random.random_bool(0.5) {
                storm.shuffle(&mut random);
            }
            for record in &storm {
                stage.tell(record).await;
            }
            steady.next().await;
            if random.random_bool(0.3) {
                let page = restless.page.clone();
                restless = stage.viewer(&cookie).await;
                restless.subscribe("demo", page.position).await;
                restless.page = page;
            }
            restless.next().await;
        }
        let mut expected = LiveState::default();
        for teller in &mut tellers {
            let healing = teller.tell(true, LiveState::default());
            stage.tell(&healing).await;
            expected.add(&teller.state);
        }
        let tops: BTreeMap<_, _> = expected.tops.clone();
        let holds = |live: &LiveState| {
            (live.totals, &live.minutes, &live.tops) == (expected.totals, &expected.minutes, &tops)
        };
        steady.watch("what the aggregators hold", |page| holds(&page.live)).await;
        restless.watch("what the aggregators hold", |page| holds(&page.live)).await;
        assert!(steady.page.deltas > 0);
    })
    .await;
}
