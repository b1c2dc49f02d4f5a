//! The owner's audit in the played world: silent while nothing is wrong, and not when somebody changes the tables.

use std::time::Duration;

use rstest::rstest;
use tokio::time::sleep;

use super::{
    PARTITION, assign,
    generator::{self, Rng},
    world::{self, Faults, World},
};
use crate::status::Audit;

/// Nothing was found; whether something was asked is told.
pub(super) fn note(seed: u64, audit: &Audit) {
    assert_eq!(audit.differences, 0, "seed {seed}: the audit found what is not there");
    if audit.clean_at.is_some() {
        world::FELT.with_borrow_mut(|felt| felt.note("audit: clean"));
    }
}

/// Differences found while somebody does this to the store, again and again.
fn found_while(change: impl Fn(&World)) -> u64 {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let records = generator::records(&mut Rng::new(7));
        let world = World::new(7, Faults::default(), records);
        let publisher = tokio::spawn(World::publish(world.clone()));
        let member = assign(&world);
        while !publisher.is_finished() {
            sleep(Duration::from_millis(100)).await;
            change(&world);
        }
        // Time for the round that sees the last change.
        sleep(Duration::from_secs(10)).await;
        member.status.partitions()[&PARTITION].audit.differences
    })
}

#[rstest]
#[case::does_nothing(|_: &World| (), false)]
#[case::deletes_rows(World::lose_row, true)]
#[case::inserts_rows_again(World::double_row, true)]
fn the_owner_notices_when_somebody(#[case] change: fn(&World), #[case] noticed: bool) {
    assert_eq!(found_while(change) > 0, noticed);
}
