//! Tables of comparisons.

use footfall_schemas::{EventRecord, SessionId, rows::Coordinates, topics};
use rstest::rstest;

use super::*;

const SPAN: Span = Span { from: 10, to: 20 };

fn account(rows: u64, duplicates: u64, dead: u64) -> Account {
    Account { lines: rows + duplicates + dead, rows, duplicates, dead }
}

#[rstest]
#[case::all_there(account(5, 2, 1), (5, 5), &[])]
#[case::nothing_at_all(account(0, 0, 0), (0, 0), &[])]
#[case::only_resends(account(0, 3, 0), (0, 0), &[])]
#[case::a_row_is_missing(account(5, 0, 0), (4, 4), &["rows"])]
#[case::a_row_too_many(account(5, 0, 0), (6, 6), &["rows"])]
#[case::a_row_twice(account(5, 0, 0), (6, 5), &["doubled"])]
#[case::one_missing_and_one_twice(account(5, 0, 0), (5, 4), &["rows", "doubled"])]
#[case::a_line_that_became_nothing(Account { lines: 6, ..account(5, 0, 0) }, (5, 5), &["lines"])]
fn a_span_is(#[case] account: Account, #[case] (rows, distinct): (u64, u64), #[case] kinds: &[&str]) {
    let found = compare_span(SPAN, account, Booked { rows, distinct });
    assert_eq!(found.iter().map(Difference::kind).collect::<Vec<_>>(), kinds);
}

#[test]
fn every_kind_begins_at_zero() {
    let (at, sums) = (("demo".to_owned(), 0), Sums::default());
    let (from, to, expected, found) = (0, 1, 1, 0);
    for difference in [
        Difference::Lines { from, to, account: Account::default() },
        Difference::Rows { from, to, expected, found },
        Difference::Doubled { from, to, distinct: 1, found: 2 },
        Difference::DeadLetters { from, to, expected, found },
        Difference::MinuteRows { at: at.clone(), expected: (1, 1), found: (0, 0) },
        Difference::Counts { at, dimension: Dimension::Total, rows: sums, counted: sums },
    ] {
        assert!(Difference::KINDS.contains(&difference.kind()), "{difference:?}");
    }
}

fn sums(events: u64, views: u64, visitors: u64) -> MinuteSums {
    let sums = Sums { events, views, visitors };
    MinuteSums { total: sums, page: sums }
}

#[rstest]
#[case::equal(Some((5, 3)), sums(5, 3, 2), sums(5, 3, 2), &[])]
#[case::equal_and_not_in_memory(None, sums(5, 3, 2), sums(5, 3, 2), &[])]
#[case::counts_differ(Some((5, 3)), sums(5, 3, 2), sums(5, 2, 2), &["rolling_counts", "rolling_counts"])]
#[case::visitors_differ(None, sums(5, 3, 2), sums(5, 3, 1), &["rolling_counts", "rolling_counts"])]
#[case::only_a_page_differs(
    Some((5, 3)), sums(5, 3, 2), MinuteSums { page: Sums::default(), ..sums(5, 3, 2) }, &["rolling_counts"]
)]
#[case::rows_are_gone_and_counted(Some((5, 3)), sums(4, 3, 2), sums(4, 3, 2), &["rows"])]
fn a_minute_is(
    #[case] known: Option<(u64, u64)>,
    #[case] rows: MinuteSums,
    #[case] counted: MinuteSums,
    #[case] kinds: &[&str],
) {
    let found = compare_minute(&("demo".into(), 60_000), known, &rows, &counted);
    assert_eq!(found.iter().map(Difference::kind).collect::<Vec<_>>(), kinds);
}

fn event(sequence: u32) -> Uuid {
    Uuid::from_u128(u128::from(sequence))
}

fn expected(offset: i64, sequence: u32) -> EventRow {
    let record: EventRecord =
        serde_json::from_str(include_str!("../../../schemas/golden/event_record.json")).unwrap();
    let at = Coordinates { partition: 0, offset, index: 0 };
    EventRow {
        event_id: event(sequence),
        ..EventRow::new(record, SessionId(1), true, false, topics::EVENTS, at)
    }
}

fn stored(offset: i64, sequence: u32) -> StoredRow {
    StoredRow { place: (offset, 0), event_id: event(sequence), minute: ("demo".into(), 0) }
}

#[rstest]
#[case::each_once(&[(1, 1), (2, 2)], &[], &[], &[], 0)]
#[case::one_missing(&[(2, 2)], &[0], &[], &[], 0)]
#[case::one_twice(&[(1, 1), (2, 2), (2, 2)], &[], &[1], &[], 1)]
#[case::one_thrice(&[(1, 1), (1, 1), (1, 1), (2, 2)], &[], &[0], &[], 2)]
#[case::one_elsewhere(&[(1, 1), (2, 2), (7, 2)], &[], &[], &[7], 0)]
#[case::another_event_at_its_place(&[(1, 9), (2, 2)], &[], &[0], &[], 0)]
#[case::another_event_beside_it(&[(1, 1), (1, 9), (2, 2)], &[], &[0], &[], 1)]
#[case::nothing_stored(&[], &[0, 1], &[], &[], 0)]
fn rows_one_and_two_are_expected_and(
    #[case] found: &[(i64, u32)],
    #[case] missing: &[usize],
    #[case] spoiled: &[usize],
    #[case] foreign: &[i64],
    #[case] surplus: u64,
) {
    let found: Vec<StoredRow> = found.iter().map(|(offset, sequence)| stored(*offset, *sequence)).collect();
    let differences = compare_rows(&[expected(1, 1), expected(2, 2)], &found);
    assert_eq!(differences.missing, missing);
    assert_eq!(differences.spoiled, spoiled);
    assert_eq!(differences.foreign, foreign.iter().map(|offset| (*offset, 0)).collect());
    assert_eq!(differences.surplus, surplus);
    let is_clean = missing.is_empty() && spoiled.is_empty() && foreign.is_empty();
    assert_eq!(differences.is_empty(), is_clean);
}

/// A look-up during a replay: event 1 is stored at `stored`, some of these places are known to be wrong, and the row
/// that the log makes may be known to be missing.
#[rstest]
#[case::as_stored(&[5], &[], None, Some(5))]
#[case::the_first_of_two(&[9, 5], &[], None, Some(5))]
#[case::not_the_wrong_one(&[2, 5], &[2], None, Some(5))]
#[case::only_a_wrong_one(&[2], &[2], None, None)]
#[case::the_missing_one(&[], &[], Some(4), Some(4))]
#[case::the_missing_one_before_its_resend(&[9], &[], Some(4), Some(4))]
fn a_look_up_believes(
    #[case] stored: &[i64],
    #[case] foreign: &[i64],
    #[case] missing: Option<i64>,
    #[case] first: Option<i64>,
) {
    let place = |offset: i64| (offset, 0);
    let found = first_places(
        stored.iter().map(|offset| (1, place(*offset))),
        &foreign.iter().map(|offset| place(*offset)).collect(),
        &missing.map(|offset| (1, place(offset))).into_iter().collect(),
        [1],
    );
    assert_eq!(found.get(&1).copied(), first.map(place));
}
