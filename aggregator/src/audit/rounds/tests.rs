//! Rounds against tables that say what a test tells them to.

use rstest::rstest;

use super::*;
use crate::audit::{Booked, Counted, MinuteSums, Sums};

const MINUTE: i64 = 1_800_000_000_000;
/// The minute is over.
const CLOCK: i64 = MINUTE + 2 * MINUTE_MS;
const ACCOUNT: Account = Account { lines: 12, rows: 10, duplicates: 1, dead: 1 };
const START: Checkpoint =
    Checkpoint { offset: 0, account: Account { lines: 0, rows: 0, duplicates: 0, dead: 0 } };
const END: Checkpoint = Checkpoint { offset: 12, account: ACCOUNT };

/// The tables of a partition of ten rows, one resend and one dead letter.
#[derive(Clone, Copy)]
struct Told {
    fails: bool,
    booked: Booked,
    dead: u64,
    raw: MinuteSums,
    counted: Counted,
}

fn sums(events: u64) -> MinuteSums {
    let sums = Sums { events, views: events, visitors: 1 };
    MinuteSums { total: sums, page: sums }
}

fn right() -> Told {
    Told {
        fails: false,
        booked: Booked { rows: 10, distinct: 10 },
        dead: 1,
        raw: sums(10),
        counted: Counted { sums: sums(10), version: 12 },
    }
}

impl Told {
    fn answer<T>(&self, answer: T) -> Result<T, StoreError> {
        if self.fails { Err(StoreError("told to".into())) } else { Ok(answer) }
    }
}

impl Sample for Told {
    async fn booked(&self, _partition: i32, _span: Span) -> Result<Booked, StoreError> {
        self.answer(self.booked)
    }

    async fn dead(&self, _partition: i32, _span: Span) -> Result<u64, StoreError> {
        self.answer(self.dead)
    }

    async fn raw(
        &self,
        _partition: i32,
        minutes: &[SiteMinute],
        _before: i64,
    ) -> Result<BTreeMap<SiteMinute, MinuteSums>, StoreError> {
        self.answer(minutes.iter().map(|at| (at.clone(), self.raw)).collect())
    }

    async fn counted(
        &self,
        _partition: i32,
        minutes: &[SiteMinute],
    ) -> Result<BTreeMap<SiteMinute, Counted>, StoreError> {
        self.answer(minutes.iter().map(|at| (at.clone(), self.counted)).collect())
    }
}

/// Everything written, the one minute with it.
fn rounds() -> Rounds {
    let minutes = BTreeSet::from([(MINUTE, "demo".to_owned())]);
    Rounds { written: Some(END), minutes, ..Rounds::default() }
}

fn due(rounds: &mut Rounds, known: Known) -> Round {
    rounds.plan(0, CLOCK, CLOCK, Some(START), |_, _| known).expect("something is written")
}

/// One round: kinds of the differences, and whether the minute is to be counted again.
fn play(rounds: &mut Rounds, known: Known, tables: &Told) -> (Vec<&'static str>, bool) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let round = due(rounds, known);
    match runtime.block_on(round.check(tables)) {
        Ok(findings) => {
            let (differences, heal) = rounds.learn(findings);
            (differences.iter().map(Difference::kind).collect(), !heal.is_empty())
        }
        Err((round, _)) => {
            rounds.failed(round);
            (vec!["failed"], false)
        }
    }
}

const COUNTED: Known = Known::Counted((10, 10));

#[rstest]
#[case::right(COUNTED, right(), &[], false)]
#[case::right_and_not_in_memory(Known::Unknown, right(), &[], false)]
#[case::a_row_lost(COUNTED, Told { booked: Booked { rows: 9, distinct: 9 }, ..right() }, &["rows"], false)]
#[case::a_row_twice(COUNTED, Told { booked: Booked { rows: 11, distinct: 10 }, ..right() }, &["doubled"], false)]
#[case::counts_altered(
    COUNTED,
    Told { counted: Counted { sums: sums(9), version: 12 }, ..right() },
    &["rolling_counts", "rolling_counts"],
    true
)]
#[case::counts_altered_and_not_in_memory(
    Known::Unknown,
    Told { counted: Counted { sums: sums(9), version: 12 }, ..right() },
    &["rolling_counts", "rolling_counts"],
    true
)]
#[case::a_minute_s_row_lost(
    COUNTED,
    Told { raw: sums(9), ..right() },
    &["rows", "rolling_counts", "rolling_counts"],
    false
)]
#[case::a_row_lost_somewhere_and_not_in_memory(
    Known::Unknown,
    Told { booked: Booked { rows: 9, distinct: 9 }, raw: sums(9), ..right() },
    &["rows", "rolling_counts", "rolling_counts"],
    false
)]
#[case::counts_that_know_of_later_rows(
    COUNTED,
    Told { counted: Counted { sums: sums(11), version: 13 }, ..right() },
    &[],
    false
)]
fn a_round_finds(#[case] known: Known, #[case] tables: Told, #[case] kinds: &[&str], #[case] heals: bool) {
    assert_eq!(play(&mut rounds(), known, &tables), (kinds.to_vec(), heals));
}

#[test]
fn what_was_audited_is_not_audited_again() {
    let mut rounds = rounds();
    play(&mut rounds, COUNTED, &right());
    let next = due(&mut rounds, COUNTED);
    assert_eq!((next.from, next.to), (END, END));
    assert!(next.minutes.is_empty());
}

#[rstest]
#[case::that_waits(Known::Waits, right())]
#[case::that_was_written_meanwhile(COUNTED, Told { counted: Counted { sums: sums(11), version: 13 }, ..right() })]
#[case::when_the_store_fails(COUNTED, Told { fails: true, ..right() })]
fn a_minute_is_due_again(#[case] known: Known, #[case] tables: Told) {
    let mut rounds = rounds();
    play(&mut rounds, known, &tables);
    assert_eq!(due(&mut rounds, COUNTED).minutes.len(), 1);
}

#[rstest]
#[case::open(MINUTE + MINUTE_MS - 1, 0, 1)]
#[case::over(MINUTE + MINUTE_MS, 1, 0)]
#[case::an_hour_old(MINUTE + REACH_MS, 1, 0)]
#[case::older(MINUTE + REACH_MS + 1, 0, 0)]
fn a_minute_is_audited_once_it_is_over_and_within_the_hour(
    #[case] clock: i64,
    #[case] planned: usize,
    #[case] left: usize,
) {
    let mut rounds = rounds();
    let round = rounds.plan(0, clock, clock, Some(START), |_, _| COUNTED).unwrap();
    assert_eq!((round.minutes.len(), rounds.minutes.len()), (planned, left));
}

#[test]
fn dead_letters_may_be_late_but_not_for_ever() {
    let (mut rounds, late) = (rounds(), Told { dead: 0, ..right() });
    for _ in 1..PATIENCE {
        assert_eq!(play(&mut rounds, COUNTED, &late).0, [] as [&str; 0]);
    }
    assert_eq!(play(&mut rounds, COUNTED, &late).0, ["dead_letters"]);
    assert_eq!(play(&mut rounds, COUNTED, &late).0, [] as [&str; 0], "it is told once");

    let mut rounds = super::tests::rounds();
    play(&mut rounds, COUNTED, &late);
    play(&mut rounds, COUNTED, &right());
    assert!(rounds.letters.is_none(), "what came late is there");
}

#[test]
fn the_letters_of_what_was_written_while_others_were_awaited_are_compared_next() {
    let mut rounds = rounds();
    play(&mut rounds, COUNTED, &Told { dead: 0, ..right() });
    let later = Checkpoint { offset: 20, account: Account { lines: 20, dead: 9, ..ACCOUNT } };
    rounds.written(later);
    let round = due(&mut rounds, COUNTED);
    assert_eq!((round.letters.from, round.letters.to), (START, END));
    play(&mut rounds, COUNTED, &right());
    let round = due(&mut rounds, COUNTED);
    assert_eq!((round.letters.from, round.letters.to), (END, later));
}

#[test]
fn a_minute_is_counted_again_once() {
    let mut rounds = rounds();
    let altered = Told { counted: Counted { sums: sums(9), version: 12 }, ..right() };
    assert!(play(&mut rounds, COUNTED, &altered).1);
    rounds.minutes.insert((MINUTE, "demo".into()));
    let (kinds, heals) = play(&mut rounds, COUNTED, &altered);
    assert_eq!((kinds.len(), heals), (2, false));
}
