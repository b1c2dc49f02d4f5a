//! Who is connected to a site, over all ingest nodes.

use std::collections::{BTreeMap, HashMap};

use footfall_schemas::{
    presence::PresenceReport,
    viewer::{Online, SiteLedger},
};

use crate::clock::Moment;

/// A node's ledger is shown for this long after its last report: a node without visitors reports nothing.
const LEDGER_KEEP_MS: i64 = 60 * 60 * 1000;
/// Nodes followed per site. Beyond it the one unheard for longest is forgotten.
const MAX_NODES: usize = 1_000;

/// The newest report of every node that has told of this site.
#[derive(Debug, Default)]
pub(crate) struct PresenceBoard {
    nodes: HashMap<String, Heard>,
}

#[derive(Debug)]
struct Heard {
    report: PresenceReport,
    /// Monotonic ms.
    at: i64,
}

impl PresenceBoard {
    /// Keeps a report unless it is older than what this node told before. `heard_at`: monotonic ms, earlier than now
    /// for what lay on the log before this node started. True when something changed.
    pub(crate) fn take(&mut self, report: PresenceReport, heard_at: i64) -> bool {
        if let Some(held) = self.nodes.get(&report.node) {
            let newer = (report.started_at, report.at) > (held.report.started_at, held.report.at);
            if !newer {
                return false;
            }
        } else if self.nodes.len() >= MAX_NODES {
            let longest = self.nodes.iter().min_by_key(|(_, heard)| heard.at).map(|(node, _)| node.clone());
            longest.and_then(|node| self.nodes.remove(&node));
        }
        self.nodes.insert(report.node.clone(), Heard { report, at: heard_at });
        true
    }

    /// Adds up the nodes heard within `silence_ms`; one silent for longer counts zero.
    pub(crate) fn online(&self, now: Moment, silence_ms: i64) -> Online {
        let mut online = Online { visible: Some(0), ..Online::default() };
        for heard in self.nodes.values().filter(|heard| now.mono - heard.at <= silence_ms) {
            online.visitors += u64::from(heard.report.online);
            *online.visible.get_or_insert_default() += u64::from(heard.report.visible);
            for (page, visitors) in heard.report.pages.iter().filter(|(_, visitors)| **visitors > 0) {
                *online.pages.entry(page.clone()).or_default() += u64::from(*visitors);
            }
        }
        online
    }

    pub(crate) fn ledger(&self) -> SiteLedger {
        let mut sum = SiteLedger { refused: BTreeMap::new(), ..SiteLedger::default() };
        for ledger in self.nodes.values().map(|heard| &heard.report.ledger) {
            sum.received += ledger.received;
            sum.accepted += ledger.accepted;
            sum.retried += ledger.retried;
            sum.evicted += ledger.evicted;
            for (reason, count) in &ledger.refused {
                *sum.refused.entry(*reason).or_default() += count;
            }
        }
        sum
    }

    pub(crate) fn forget_old(&mut self, now: Moment) {
        self.nodes.retain(|_, heard| now.mono - heard.at <= LEDGER_KEEP_MS);
    }
}

#[cfg(test)]
mod tests {
    use footfall_schemas::{RejectReason, SiteId, presence::IngestLedger};
    use rstest::rstest;

    use super::*;

    fn at(mono: i64) -> Moment {
        Moment { wall: mono, mono }
    }

    fn report(node: &str, started_at: i64, told_at: i64, online: u32) -> PresenceReport {
        PresenceReport {
            node: node.into(),
            started_at,
            site: SiteId::try_from("demo").unwrap(),
            at: told_at,
            online,
            visible: online / 2,
            pages: BTreeMap::from([("/".to_owned(), online)]),
            ledger: IngestLedger {
                received: u64::from(online),
                refused: BTreeMap::from([(RejectReason::BadUrl, 1)]),
                ..IngestLedger::default()
            },
        }
    }

    #[test]
    fn nodes_add_up_and_a_silent_one_counts_zero() {
        let mut board = PresenceBoard::default();
        board.take(report("a", 1, 10, 4), 0);
        board.take(report("b", 1, 10, 2), 3_000);
        let both = board.online(at(5_000), 5_000);
        assert_eq!((both.visitors, both.visible, both.pages["/"]), (6, Some(3), 6));
        let one = board.online(at(5_001), 5_000);
        assert_eq!((one.visitors, one.visible, one.pages["/"]), (2, Some(1), 2));
        assert_eq!(board.online(at(8_001), 5_000), Online { visible: Some(0), ..Online::default() });
        // Its ledger is still true.
        assert_eq!(board.ledger().received, 6);
        assert_eq!(board.ledger().refused, BTreeMap::from([(RejectReason::BadUrl, 2)]));
    }

    #[rstest]
    #[case::newer(1, 11, 9)]
    #[case::the_same_again(1, 10, 4)]
    #[case::older(1, 9, 4)]
    #[case::after_a_restart_with_its_clock_set_back(2, 5, 9)]
    #[case::of_before_the_restart(0, 99, 4)]
    fn the_newest_report_of_a_node_holds(
        #[case] started_at: i64,
        #[case] told_at: i64,
        #[case] visitors: u64,
    ) {
        let mut board = PresenceBoard::default();
        board.take(report("a", 1, 10, 4), 0);
        board.take(report("a", started_at, told_at, 9), 100);
        assert_eq!(board.online(at(100), 5_000).visitors, visitors);
    }

    #[test]
    fn the_number_of_nodes_is_bounded() {
        let mut board = PresenceBoard::default();
        for node in 0..MAX_NODES as i64 + 5 {
            board.take(report(&node.to_string(), 1, 1, 1), node);
        }
        assert_eq!(board.nodes.len(), MAX_NODES);
        assert!(!board.nodes.contains_key("0"));
    }
}
