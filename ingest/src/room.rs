//! How many bytes may be accepted and not yet in the log, shared so that a hot site cannot starve the others.
//!
//! A site may hold at most as many bytes as are still free once it has them. So one flooding site leaves half of the
//! room to the others, two leave a third, and what nobody else uses is not kept back (the dynamic threshold of
//! Choudhury and Hahne 1998, with α = 1).

use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(crate) struct Room {
    capacity: usize,
    held: AtomicUsize,
}

impl Room {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, held: AtomicUsize::new(0) }
    }

    /// Whether a site that holds `of_site` may have `bytes` more. If so they are counted, until [`Room::give_back`].
    /// Two that ask at once may both be refused where one had fitted; never are both let in where one had not.
    pub(crate) fn take(&self, of_site: &AtomicUsize, bytes: usize) -> bool {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let own = of_site.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let fits = self.capacity.checked_sub(held).is_some_and(|free| own <= free);
        if !fits {
            self.give_back(of_site, bytes);
        }
        fits
    }

    pub(crate) fn give_back(&self, of_site: &AtomicUsize, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        of_site.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// As much as a site gets when it asks for one byte after the other.
    fn fill(room: &Room, site: &AtomicUsize) -> usize {
        while room.take(site, 1) {}
        site.load(Ordering::Relaxed)
    }

    #[rstest]
    #[case(1, 500)]
    #[case(2, 333)]
    #[case(3, 250)]
    #[case(9, 100)]
    fn so_many_hot_sites_leave_as_much_as_each_of_them_has(#[case] hot: usize, #[case] share: usize) {
        let room = Room::new(1_000);
        let sites: Vec<_> = (0..hot).map(|_| AtomicUsize::new(0)).collect();
        // In turns, as they would come.
        while sites.iter().filter(|site| room.take(site, 1)).count() > 0 {}
        for site in &sites {
            assert!(site.load(Ordering::Relaxed).abs_diff(share) <= 1, "{sites:?}");
        }
        let newcomer = fill(&room, &AtomicUsize::new(0));
        assert!(newcomer >= share / 2, "a site that comes later finds {newcomer} bytes of room");
    }

    #[test]
    fn what_is_given_back_can_be_had_again_and_a_refusal_holds_nothing() {
        let (room, site) = (Room::new(100), AtomicUsize::new(0));
        assert!(!room.take(&site, 51));
        assert!(room.take(&site, 50));
        assert!(!room.take(&AtomicUsize::new(0), 26));
        room.give_back(&site, 50);
        assert_eq!(fill(&room, &AtomicUsize::new(0)), 50);
    }
}
